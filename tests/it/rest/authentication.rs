//! Tokens: form, expiry, revocation.

use helve::ops::tokens;
use helve_domain::clock::Clock;
use serde_json::json;

use super::problem;
use crate::support;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_valid_bearer_token_counts() {
    let engine = support::engine().await;
    let ask = async |value: &str| {
        engine.client().with_token(None).request("GET", "/v1/runs", &[("authorization", value)], "").await
    };
    let token = &engine.token;
    for good in [format!("Bearer {token}"), format!("bearer {token}"), format!("BEARER  {token} ")] {
        assert_eq!(ask(&good).await.status, 200, "{good}");
    }
    let last = token.chars().last().unwrap();
    let flipped = format!("{}{}", &token[..token.len() - 1], if last == 'a' { 'b' } else { 'a' });
    // Right in form and checksum, and never given out.
    let unknown = helve::ops::secret::generate(helve::ops::secret::TOKEN).unwrap();
    for bad in [
        token.clone(),
        format!("Basic {token}"),
        format!("Bearer {flipped}"),
        format!("Bearer {}", &token[..token.len() - 1]),
        format!("Bearer {token}0"),
        format!("Bearer {}", unknown.reveal()),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "".to_owned(),
    ] {
        problem(&ask(&bad).await, 401, "unauthenticated");
    }
    let in_url = engine.client().with_token(None).request("GET", &format!("/v1/runs?token={token}"), &[], "").await;
    problem(&in_url, 401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_is_refused() {
    let engine = support::engine().await;
    let token = engine.token_with("read").await;
    let sql = engine.sql().await;
    sql.execute("update token set expires_at = now() - interval '1 second' where scopes = 4", &[]).await.unwrap();
    let response = engine.client().with_token(Some(&token)).request("GET", "/v1/runs", &[], "").await;
    problem(&response, 401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_refused_within_five_seconds_and_others_stay() {
    let engine = support::engine().await;
    let token = engine.token_with("read").await;
    let client = engine.client().with_token(Some(&token));
    assert_eq!(client.get("/v1/runs").await.0, 200);
    let mine = tokens::list(&engine.pool, Some(engine.tenant)).await.unwrap();
    let id = mine.iter().find(|t| t.scopes.names() == ["read"]).unwrap().id;
    tokens::revoke(&engine.pool, &Clock::system(), id).await.unwrap();
    let limit = std::time::Duration::from_secs(5);
    support::until_within("the token is refused", limit, || async {
        (client.get("/v1/runs").await.0 == 401).then_some(())
    })
    .await;
    assert_eq!(engine.get("/v1/runs").await.0, 200);
    // A second revocation changes nothing.
    let at = async || {
        tokens::list(&engine.pool, Some(engine.tenant)).await.unwrap().iter().find(|t| t.id == id).unwrap().revoked_at
    };
    let first = at().await;
    tokens::revoke(&engine.pool, &Clock::system(), id).await.unwrap();
    assert_eq!(at().await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_token_shows_nothing_of_its_secret() {
    let engine = support::engine().await;
    let rows = engine.sql().await.query("select to_jsonb(token)::text from token", &[]).await.unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        assert!(!row.get::<_, String>(0).contains(&engine.token[6..30]));
    }
    let (_, listed) = engine.get("/v1/workers").await;
    assert_eq!(listed, json!({"items": [], "next_cursor": null}));
}
