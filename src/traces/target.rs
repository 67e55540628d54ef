//! Where spans go: the URL and the headers of the collector, checked before anything starts.

use helve_domain::error::Error;
use helve_domain::secret::Secret;
use hyper::Uri;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};

use crate::config::Traces;

/// What the exporter sets itself.
const OWN: [HeaderName; 5] = [HOST, CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION];

/// What is wrong with the settings of a collector. Whoever read them knows by which name they were set.
#[derive(Debug)]
pub enum Wrong {
    /// The endpoint.
    Endpoint(String),
    /// A header.
    Header(String),
}

impl Wrong {
    /// For the operator, by no name of a variable.
    pub fn into_error(self) -> Error {
        Error::Internal(match self {
            Self::Endpoint(why) => format!("traces: the endpoint {why}"),
            Self::Header(why) => format!("traces: {why}"),
        })
    }
}

/// A collector.
#[derive(Debug, Clone)]
pub struct Target {
    /// `http://host:port` or `https://host:port`.
    pub base: String,
    /// The path, with a query if there is one.
    pub path: String,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
}

impl Target {
    /// The collector of the settings; `None`: there is none, and nothing is recorded.
    ///
    /// # Errors
    /// What is wrong with the endpoint or a header, for the operator.
    pub fn of(settings: &Traces) -> Result<Option<Self>, Wrong> {
        let Some(endpoint) = &settings.endpoint else { return Ok(None) };
        let (base, path) = split(endpoint).map_err(Wrong::Endpoint)?;
        for (name, value) in &settings.headers {
            check(name, value).map_err(Wrong::Header)?;
        }
        Ok(Some(Self { base, path, headers: settings.headers.clone() }))
    }
}

fn split(endpoint: &str) -> Result<(String, String), String> {
    let wrong = |why: &str| format!("{why}; it must be a URL like http://collector:4318/v1/traces");
    let uri: Uri = endpoint.parse().map_err(|_| wrong("is no URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong("has no scheme or no host"));
    };
    if !matches!(scheme, "http" | "https") {
        return Err(wrong("is neither http nor https"));
    }
    if authority.as_str().contains('@') {
        return Err(wrong("has credentials, which belong into OTEL_EXPORTER_OTLP_HEADERS"));
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(wrong("has no host"));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((format!("{scheme}://{authority}"), path.to_owned()))
}

/// The value is nobody's business, also when it is wrong.
fn check(name: &str, value: &Secret) -> Result<(), String> {
    let parsed = HeaderName::try_from(name).map_err(|_| format!("`{name}` is no name of a header"))?;
    if OWN.contains(&parsed) {
        return Err(format!("the header `{name}` is set by the engine itself"));
    }
    HeaderValue::try_from(value.reveal()).map_err(|_| format!("the header `{name}` has a value that HTTP forbids"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(endpoint: &str, headers: &[(&str, &str)]) -> Result<Option<Target>, Error> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
        Target::of(&Traces { endpoint: Some(endpoint.to_owned()), headers, ..Traces::default() })
            .map_err(Wrong::into_error)
    }

    #[test]
    fn an_endpoint_is_taken_apart() {
        for (endpoint, base, path) in [
            ("http://collector:4318/v1/traces", "http://collector:4318", "/v1/traces"),
            ("https://otlp.example/x/v1/traces?k=v", "https://otlp.example", "/x/v1/traces?k=v"),
            ("http://[::1]:4318", "http://[::1]:4318", "/"),
        ] {
            let target = target(endpoint, &[("api-key", "s")]).unwrap().unwrap();
            assert_eq!((target.base.as_str(), target.path.as_str()), (base, path));
        }
        assert!(Target::of(&Traces::default()).unwrap().is_none());
    }

    #[test]
    fn what_cannot_work_is_refused_without_showing_a_value() {
        for endpoint in ["collector:4318", "grpc://collector", "http://u:p@h/v1/traces", "/v1/traces", "", "http://:1/"]
        {
            let text = target(endpoint, &[]).unwrap_err().to_string();
            assert!(text.contains("endpoint") && !text.contains("u:p"), "{endpoint}: {text}");
        }
        for (name, value) in [("a b", "secret"), ("k", "secret\nx"), ("Content-Type", "secret"), ("host", "secret")] {
            let text = target("http://h/", &[(name, value)]).unwrap_err().to_string();
            assert!(text.contains(name) && !text.contains("secret"), "{text}");
        }
    }
}
