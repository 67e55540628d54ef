//! What stands in a path: ids and names.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::ParseIdError;

use super::problem::ApiError;

/// The one id of a path.
pub struct Id<T>(pub T);

impl<S, T> FromRequestParts<S> for Id<T>
where
    S: Send + Sync,
    T: FromStr<Err = ParseIdError>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Name(text) = Name::from_request_parts(parts, state).await?;
        text.parse().map(Self).map_err(|e: ParseIdError| {
            ApiError(Error::invalid(Code::InvalidId, None, format!("the id in the path: {e}")))
        })
    }
}

/// The one name of a path, decoded and not checked.
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => Err(ApiError(Error::invalid(Code::Malformed, None, "the path cannot be read as UTF-8"))),
        }
    }
}
