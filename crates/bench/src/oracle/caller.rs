//! One client of the load: sends requests, insists, and distinguishes refused from unknown.

use std::time::Duration;

use helve_client::Http;
use helve_domain::error::Error;
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::ledger::{CancelFate, Kind, Ledger, Nonce};
use super::load::Dice;

/// How long a client insists on an answer.
pub const INSIST: Duration = Duration::from_secs(60);

/// What an answer means to its client.
pub enum Answer {
    /// 2xx.
    Ok(Value),
    /// 409, with its code.
    Conflict(String),
    /// Nothing was written.
    Refused,
    /// It may have been written, or not.
    Unknown,
}

/// A client with its ledger.
pub struct Caller {
    /// Where it sends its requests.
    pub http: Http,
    /// Where it records what it was told.
    pub ledger: Ledger,
    /// Decides what it does next.
    pub dice: Dice,
}

impl Caller {
    /// Creates a run once; a refusal is final. Returns the run if it was accepted.
    pub async fn create_once(&mut self, nonce: Nonce, body: &Value) -> Option<String> {
        match self.post("/v1/runs", None, body).await {
            Answer::Ok(answer) => self.accept(nonce, &answer),
            Answer::Refused => {
                self.ledger.refused(nonce);
                None
            }
            Answer::Conflict(code) => {
                self.ledger.surprise(format!("a create without a key conflicts: {code}"));
                None
            }
            Answer::Unknown => None,
        }
    }

    /// Creates a run with a key, repeating the request until it is answered.
    pub async fn create_keyed(&mut self, nonce: Nonce, body: &Value) -> Option<String> {
        let key = format!("key-{nonce}");
        let answer = self.insist("/v1/runs", Some(&key), body).await?;
        self.accept(nonce, &answer)
    }

    /// Creates a run in the way of this kind.
    pub async fn create(&mut self, kind: Kind, nonce: Nonce, body: &Value) -> Option<String> {
        match kind {
            Kind::Plain => self.create_once(nonce, body).await,
            Kind::Keyed => self.create_keyed(nonce, body).await,
        }
    }

    fn accept(&self, nonce: Nonce, answer: &Value) -> Option<String> {
        let Some(run) = answer["id"].as_str() else {
            self.ledger.surprise(format!("a create answered {answer}"));
            return None;
        };
        self.ledger.accepted(nonce, run);
        Some(run.to_owned())
    }

    /// Cancels a run, once.
    pub async fn cancel(&self, run: String) {
        let fate = match self.http.request(Method::POST, &format!("/v1/runs/{run}/cancel"), &[], None).await {
            Ok(response) if response.status == StatusCode::OK => CancelFate::Accepted(self.ledger.now()),
            Ok(response) if response.status == StatusCode::CONFLICT => CancelFate::TooLate,
            Ok(response) if is_retryable(response.status) => CancelFate::Unknown,
            Ok(response) => return self.ledger.surprise(format!("a cancel answered {}", response.status)),
            Err(_) => CancelFate::Unknown,
        };
        self.ledger.facts().cancels.insert(run, fate);
    }

    /// Posts until there is a good answer, for requests that may be repeated.
    pub async fn insist(&mut self, path: &str, key: Option<&str>, body: &Value) -> Option<Value> {
        let asking = async {
            loop {
                if let Answer::Ok(answer) = self.post(path, key, body).await {
                    return answer;
                }
                self.pause(50, 150).await;
            }
        };
        tokio::time::timeout(INSIST, asking).await.ok()
    }

    /// Reads until there is a good answer.
    pub async fn read(&mut self, path: &str) -> Option<Value> {
        let asking = async {
            loop {
                if let Answer::Ok(answer) = self.ask(Method::GET, path, None, None).await {
                    return answer;
                }
                self.pause(50, 150).await;
            }
        };
        tokio::time::timeout(INSIST, asking).await.ok()
    }

    /// Waits for `least` milliseconds and up to `more` in addition.
    pub async fn pause(&mut self, least: u64, more: u64) {
        tokio::time::sleep(Duration::from_millis(least + self.dice.below(more + 1))).await;
    }

    /// Posts once.
    pub async fn post(&self, path: &str, key: Option<&str>, body: &Value) -> Answer {
        self.ask(Method::POST, path, key, Some(body)).await
    }

    async fn ask(&self, method: Method, path: &str, key: Option<&str>, body: Option<&Value>) -> Answer {
        let headers: Vec<_> = key.iter().map(|k| ("idempotency-key", *k)).collect();
        match self.http.request(method, path, &headers, body.map(|body| body.to_string().into())).await {
            Ok(response) if response.status.is_success() => Answer::Ok(super::json(&response.body)),
            Ok(response) if response.status == StatusCode::CONFLICT => {
                Answer::Conflict(super::json(&response.body)["code"].as_str().unwrap_or_default().to_owned())
            }
            Ok(response) if is_retryable(response.status) => match super::json(&response.body)["code"].as_str() {
                Some("unavailable" | "too_many_requests") => Answer::Refused,
                Some("outcome_unknown") => Answer::Unknown,
                other => {
                    self.ledger.surprise(format!("{path} answered {} with code {other:?}", response.status));
                    Answer::Unknown
                }
            },
            Ok(response) => {
                let text = String::from_utf8_lossy(&response.body).into_owned();
                self.ledger.surprise(format!("{path} answered {}: {text}", response.status));
                Answer::Unknown
            }
            // The engine received nothing of it.
            Err(Error::Unavailable { .. }) => Answer::Refused,
            Err(_) => Answer::Unknown,
        }
    }
}

/// Whether a caller may retry after this status.
fn is_retryable(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
}
