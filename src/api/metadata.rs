//! Metadata in request bodies: a flat object of strings.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use helve_domain::error::{Error, Result};
use helve_domain::json::Payload;
use helve_domain::limits::Limits;
use helve_domain::name;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A flat object of strings without a key twice.
#[derive(Debug, Default)]
pub struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// Its checked JSON. `at` is the JSON pointer of the object.
    ///
    /// # Errors
    /// `InvalidField`.
    pub fn check(self, at: &str, limits: &Limits) -> Result<Payload> {
        name::check_metadata(at, &self.0, limits)?;
        if self.0.is_empty() {
            return Ok(Payload::empty_object());
        }
        let text = serde_json::to_vec(&self.0).map_err(|e| Error::Internal(format!("metadata: {e}")))?;
        Ok(Payload::trusted(Bytes::from(text)))
    }
}

impl Metadata {
    /// Its pairs, checked.
    ///
    /// # Errors
    /// As [`Metadata::check`].
    pub fn pairs(self, at: &str, limits: &Limits) -> Result<BTreeMap<String, String>> {
        name::check_metadata(at, &self.0, limits)?;
        Ok(self.0)
    }
}

impl From<BTreeMap<String, String>> for Metadata {
    fn from(flat: BTreeMap<String, String>) -> Self {
        Self(flat)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Flat;
        impl<'de> Visitor<'de> for Flat {
            type Value = Metadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut flat = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if flat.insert(key, value).is_some() {
                        return Err(A::Error::custom("a key stands there twice"));
                    }
                }
                Ok(Metadata(flat))
            }
        }
        d.deserialize_map(Flat)
    }
}
