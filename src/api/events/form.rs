//! In which form an event comes, by its headers.

use axum::http::{HeaderMap, header};
use helve_domain::error::{Code, Error, Result};

use crate::api::media;

/// The forms of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Our own body.
    Own,
    /// A CloudEvent as one JSON document.
    Structured,
    /// A CloudEvent whose attributes are headers, and whose data is the body.
    Binary,
    /// Many CloudEvents as one JSON list.
    Batch,
}

impl Form {
    /// The form of a push of one, or of a batch of CloudEvents, which have one address for both.
    ///
    /// # Errors
    /// `UnsupportedMediaType`.
    pub fn of(headers: &HeaderMap) -> Result<Self> {
        let media = media(headers)?;
        match media.as_str() {
            "application/cloudevents+json" => Ok(Self::Structured),
            "application/cloudevents-batch+json" => Ok(Self::Batch),
            // Other encodings of the structured form.
            other if other.starts_with("application/cloudevents") => Err(unsupported()),
            _ if headers.contains_key("ce-specversion") => Ok(Self::Binary),
            "application/json" => Ok(Self::Own),
            _ => Err(unsupported()),
        }
    }

    /// The form of a push of many.
    ///
    /// # Errors
    /// `UnsupportedMediaType`.
    pub fn of_many(headers: &HeaderMap) -> Result<Self> {
        match media(headers)?.as_str() {
            "application/cloudevents-batch+json" => Ok(Self::Batch),
            "application/json" => Ok(Self::Own),
            _ => Err(unsupported()),
        }
    }
}

fn media(headers: &HeaderMap) -> Result<String> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    media::check_charset(value)?;
    Ok(media::essence(value).to_ascii_lowercase())
}

fn unsupported() -> Error {
    let message = "expected the header `Content-Type: application/json`, `application/cloudevents+json` or \
        `application/cloudevents-batch+json`, or a CloudEvent in headers that begin with `ce-`";
    Error::invalid(Code::UnsupportedMediaType, None, message)
}
