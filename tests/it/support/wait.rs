//! Waiting for a condition instead of sleeping.

use std::time::Duration;

/// How long a condition may take to come true, unless the test says.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Asks again and again until the answer is there. Fails the test after [`LIMIT`].
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    until_within(what, LIMIT, ask).await
}

/// As [`until`], with another limit.
pub async fn until_within<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let poll = async {
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    };
    match tokio::time::timeout(limit, poll).await {
        Ok(answer) => answer,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}
