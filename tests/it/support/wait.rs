//! Waiting for a condition instead of sleeping.

use std::time::Duration;

/// How long a condition may take to come true, unless the test says.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Asks again and again until the answer is there. Fails the test after [`LIMIT`].
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    until_within(what, LIMIT, ask).await
}

/// As [`until`], with another limit.
pub async fn until_within<T, F: Future<Output = Option<T>>>(what: &str, limit: Duration, ask: impl FnMut() -> F) -> T {
    helve_bench::oracle::until(what, limit, ask).await.unwrap_or_else(|e| panic!("{e}"))
}
