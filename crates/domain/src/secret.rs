//! Values that must not be shown, nor be found out.

use subtle::ConstantTimeEq;

/// A value that never shows itself in logs.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("[redacted]")
    }
}

/// Whether two hashes of secrets are the same. It takes the same time wherever they differ, so that how much of a guess
/// is right does not show.
pub fn is_same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_bit_anywhere_makes_another_hash() {
        let own: [u8; 32] = std::array::from_fn(|n| u8::try_from(n * 7).unwrap());
        assert!(is_same(&own, &own.clone()));
        for bit in 0..256 {
            let mut other = own;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_same(&own, &other), "{bit}");
        }
    }
}
