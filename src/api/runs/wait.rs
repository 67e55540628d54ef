//! Waiting for the end of a run: `Prefer: wait=30` or `?wait=30s`.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use helve_domain::duration;
use helve_domain::error::{Code, Error, Result};
use helve_domain::limits::Limits;
use helve_domain::run::Run;
use tokio::sync::oneshot;

use crate::api::ApiState;
use crate::api::query::Query;

/// How long the caller wants to wait. The query wins over the header; zero is the same as none.
///
/// # Errors
/// `InvalidField` for more than the limit, or what is no duration.
pub fn wanted(query: &mut Query, headers: &HeaderMap, limits: &Limits) -> Result<Option<Duration>> {
    let wait = match query.duration("wait")? {
        Some(wait) => Some(wait),
        None => preferred(headers)?,
    };
    if wait.is_some_and(|wait| wait > limits.wait) {
        let max = duration::format(limits.wait);
        return Err(Error::invalid(Code::InvalidField, None, format!("`wait` is at most {max}")));
    }
    Ok(wait.filter(|wait| !wait.is_zero()))
}

/// The preference `wait` of RFC 7240, a number of seconds. Other preferences are not ours to judge.
fn preferred(headers: &HeaderMap) -> Result<Option<Duration>> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences = values.flat_map(|value| value.split([',', ';'])).map(str::trim);
    let wait = preferences.filter_map(|p| p.split_once('=')).find(|(key, _)| key.trim().eq_ignore_ascii_case("wait"));
    wait.map(|(_, value)| {
        let text = value.trim().trim_matches('"');
        duration::parse_field("", text).map_err(|e| {
            Error::invalid(Code::InvalidField, None, format!("the header Prefer: wait: {}", e.client_text()))
        })
    })
    .transpose()
}

/// The ended run; `None` when the time has passed, or the engine stops and the caller should ask another one.
pub async fn end(state: &ApiState, wait: Duration, finished: oneshot::Receiver<Arc<Run>>) -> Option<Arc<Run>> {
    tokio::select! {
        ended = tokio::time::timeout(wait, finished) => ended.ok()?.ok(),
        () = state.stopping.cancelled() => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_preference_is_found_among_others() {
        let headers = |value: &str| {
            HeaderMap::from_iter([(axum::http::HeaderName::from_static("prefer"), {
                HeaderValue::from_str(value).unwrap()
            })])
        };
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(preferred(&headers("wait=30")).unwrap(), seconds(30));
        assert_eq!(preferred(&headers("respond-async, Wait = 5")).unwrap(), seconds(5));
        assert_eq!(preferred(&headers("return=minimal")).unwrap(), None);
        assert_eq!(preferred(&HeaderMap::new()).unwrap(), None);
        assert!(preferred(&headers("wait=soon")).is_err());
    }
}
