//! Clients that create, push and cancel, and write down what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::failure;
use super::ledger::{CancelFate, Kind, Ledger, Nonce, Plan};
use super::rig::Size;
use crate::client::Http;
use crate::error::{Error, Result};
use crate::supervisor::Supervisor;

/// How long a client insists on an answer.
const INSIST: Duration = Duration::from_secs(60);
/// How long it waits for one. Longer than the engine waits for a commit.
const ANSWER: Duration = Duration::from_secs(12);

/// The action, and the workflow, of the load.
pub const ACTION: &str = "load";

/// Running clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<oneshot::Receiver<()>>,
}

/// Numbers that look random and are the same each time: SplitMix64.
pub struct Dice(u64);

impl Dice {
    /// A sequence of its own for each seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// From 0 to below `n`.
    pub const fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Registers the load's workflow: retries suffice for every plan, and follow quickly.
///
/// # Errors
/// `Internal` when the engine does not take it.
pub async fn register(http: &Http) -> Result<()> {
    let task = json!({"name": ACTION, "action": ACTION, "execution_timeout": "60s",
                      "retries": {"count": 8, "base": "50ms", "factor": 1, "jitter": true}});
    let workflow = json!({"tasks": [task], "events": ["load.*"]});
    let answer = http.put(&format!("/v1/workflows/{ACTION}"), workflow.to_string()).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    Err(failure(format!("the load's workflow was answered {}", answer.status)))
}

impl Load {
    /// Starts clients.
    pub fn start(http: &Http, ledger: &Ledger, size: &Size, supervisor: &Supervisor) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let running = (0..size.clients).map(|seed| {
            let http = http.with_timeout(ANSWER);
            let client = Client { http, ledger: ledger.clone(), dice: Dice::new(seed + 1) };
            super::start(supervisor, "load client", client.run(Arc::clone(&stop), *size))
        });
        Self { clients: running.collect(), stop }
    }

    /// Lets every client finish what it insists on, and ends them.
    ///
    /// # Errors
    /// `Internal` when one of them broke.
    pub async fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.map_err(|_| failure("a client of the load broke: its ledger is not whole"))?;
        }
        Ok(())
    }
}

struct Client {
    http: Http,
    ledger: Ledger,
    dice: Dice,
}

/// What an answer means to its client.
enum Answer {
    Ok(Value),
    /// Nothing was written.
    Refused,
    Unknown,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>, size: Size) {
        while !stop.load(Ordering::Relaxed) {
            let run = match self.dice.below(10) {
                0..5 => self.create(Kind::Keyed).await,
                5..9 => self.create(Kind::Plain).await,
                _ => self.create(Kind::Event).await,
            };
            if let Some(run) = run.filter(|_| self.dice.below(size.cancels) == 0) {
                self.cancel(run).await;
            }
            let jitter = u64::try_from(size.pause.as_millis()).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(jitter / 2 + self.dice.below(jitter + 1))).await;
        }
    }

    fn plan(&mut self) -> Plan {
        match self.dice.below(20) {
            0 => Plan::SucceedAfter(2),
            1 | 2 => Plan::SucceedAfter(1),
            3 => Plan::FailForGood,
            _ => Plan::SucceedAfter(0),
        }
    }

    async fn create(&mut self, kind: Kind) -> Option<String> {
        let plan = self.plan();
        let nonce = self.ledger.intend(kind, plan);
        let body = self.body(kind, nonce);
        match kind {
            Kind::Plain => match self.ask("/v1/runs", None, &body).await {
                Answer::Ok(answer) => self.accept(nonce, &answer),
                Answer::Refused => {
                    self.ledger.refused(nonce);
                    None
                }
                Answer::Unknown => None,
            },
            Kind::Keyed => {
                let key = format!("key-{nonce}");
                let run = self.insist("/v1/runs", Some(&key), &body).await.and_then(|a| self.accept(nonce, &a));
                if run.is_some() && self.dice.below(10) == 0 {
                    // A caller that forgot its answer.
                    let again = self.insist("/v1/runs", Some(&key), &body).await;
                    again.and_then(|a| self.accept(nonce, &a));
                }
                run
            }
            Kind::Event => {
                let answer = self.push(&body).await?;
                let runs = answer["runs"].as_array().filter(|runs| runs.len() == 1);
                match runs.and_then(|runs| runs[0].as_str()) {
                    Some(run) => {
                        self.ledger.accepted(nonce, run);
                        Some(run.to_owned())
                    }
                    None => {
                        self.ledger.surprise(format!("an event that starts one run answered {answer}"));
                        None
                    }
                }
            }
        }
    }

    /// Pushes an event, alone or as the item of a bulk, until there is an outcome; its source's id makes that safe.
    async fn push(&mut self, event: &Value) -> Option<Value> {
        if self.dice.below(2) == 0 {
            return self.insist("/v1/events", None, event).await;
        }
        let bulk = json!({"events": [event]});
        let ends = tokio::time::sleep(INSIST);
        tokio::pin!(ends);
        loop {
            let answer = tokio::select! {
                answer = self.insist("/v1/events/bulk", None, &bulk) => answer?,
                () = &mut ends => return None,
            };
            let outcome = &answer["results"][0];
            if outcome["event"].is_object() {
                return Some(outcome["event"].clone());
            }
            if !matches!(
                outcome["problem"]["code"].as_str(),
                Some("unavailable" | "too_many_requests" | "outcome_unknown")
            ) {
                self.ledger.surprise(format!("an event of a bulk was answered {answer}"));
                return None;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn body(&mut self, kind: Kind, nonce: Nonce) -> Value {
        let mut input = json!({"n": nonce, "work_ms": self.dice.below(40)});
        if self.dice.below(20) == 0 {
            // Too large to stand in the row.
            input["padding"] = "x".repeat(2_000).into();
        }
        if kind == Kind::Event {
            return json!({"key": "load.event", "payload": input, "source": "load", "source_id": nonce.to_string()});
        }
        let mut body = json!({"workflow": ACTION, "input": input, "priority": 1 + self.dice.below(4)});
        if self.dice.below(10) == 0 {
            body["delay"] = "200ms".into();
        }
        body
    }

    fn accept(&self, nonce: Nonce, answer: &Value) -> Option<String> {
        let Some(run) = answer["id"].as_str() else {
            self.ledger.surprise(format!("a create answered {answer}"));
            return None;
        };
        self.ledger.accepted(nonce, run);
        Some(run.to_owned())
    }

    async fn cancel(&mut self, run: String) {
        let fate = match self.http.request(Method::POST, &format!("/v1/runs/{run}/cancel"), &[], None).await {
            Ok(response) if response.status == StatusCode::OK => CancelFate::Accepted(self.ledger.now()),
            Ok(response) if response.status == StatusCode::CONFLICT => CancelFate::TooLate,
            Ok(response) if is_retryable(response.status) => CancelFate::Unknown,
            Ok(response) => return self.ledger.surprise(format!("a cancel answered {}", response.status)),
            Err(_) => CancelFate::Unknown,
        };
        self.ledger.facts().cancels.insert(run, fate);
    }

    /// Asks until there is an answer; safe because of the key.
    async fn insist(&mut self, path: &str, key: Option<&str>, body: &Value) -> Option<Value> {
        let asking = async {
            loop {
                if let Answer::Ok(answer) = self.ask(path, key, body).await {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50 + self.dice.below(150))).await;
            }
        };
        tokio::time::timeout(INSIST, asking).await.ok()
    }

    async fn ask(&self, path: &str, key: Option<&str>, body: &Value) -> Answer {
        let headers: Vec<_> = key.iter().map(|k| ("idempotency-key", *k)).collect();
        match self.http.request(Method::POST, path, &headers, Some(body.to_string().into())).await {
            Ok(response) if response.status.is_success() => Answer::Ok(super::json(&response.body)),
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
            // The engine saw nothing of it.
            Err(Error::Unavailable { .. }) => Answer::Refused,
            Err(_) => Answer::Unknown,
        }
    }
}

/// Whether a status is one that a caller may retry.
fn is_retryable(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
}
