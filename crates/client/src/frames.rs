//! The worker socket's frames as a worker sees them.

use std::collections::BTreeMap;

use helve_domain::delivery::{Attempt, Outcome};
use helve_domain::error::{Error, Result};
use helve_domain::id::{RunId, SessionId, WorkerId};
use helve_domain::json::Payload;
use helve_domain::run::RunError;
use helve_domain::status::RunStatus;
use serde::{Deserialize, Serialize};

/// A frame from the engine.
#[derive(Debug)]
pub enum Frame {
    /// The answer to `hello`.
    Welcome(Box<Welcome>),
    /// New work.
    Assign(Vec<Task>),
    /// These results are committed.
    Stored(Vec<(Attempt, RunStatus)>),
    /// These attempts are over.
    Superseded(Vec<Attempt>),
    /// Stop these attempts.
    Cancel(Vec<Attempt>),
    /// Open a new socket, then leave this one.
    Reconnect,
    /// An error about a frame that this worker sent.
    Error {
        /// The stable code.
        code: String,
        /// For people.
        message: String,
    },
    /// `pong`, or a type that is newer than this client.
    Other,
}

/// The answer to `hello`.
#[derive(Debug, Deserialize)]
pub struct Welcome {
    /// The worker's id.
    pub worker: WorkerId,
    /// Its session.
    pub session: SessionId,
    /// Proves the session on the next socket.
    pub secret: String,
    /// Whether the session named in `resume` continues.
    pub resumed: bool,
    /// The longest time between two frames of the worker.
    pub heartbeat_ms: u64,
    /// Held attempts that are no longer this worker's.
    #[serde(default)]
    superseded: Vec<AttemptRef>,
}

impl Welcome {
    /// Held attempts that are no longer this worker's.
    pub fn superseded(&self) -> impl Iterator<Item = Attempt> {
        self.superseded.iter().map(Attempt::from)
    }
}

/// A task to work on.
#[derive(Debug, Clone, Deserialize)]
pub struct Task {
    /// The task run.
    pub task_run: RunId,
    /// The fencing number of this delivery.
    pub attempt: i32,
    /// The run that it belongs to.
    pub run: RunId,
    /// The workflow's name.
    pub workflow: String,
    /// What to do.
    pub action: String,
    /// The run's input.
    pub input: Payload,
    /// The run's metadata.
    pub metadata: Payload,
    /// How long the attempt may take from `received`.
    pub timeout_ms: u64,
    /// W3C trace context.
    #[serde(default)]
    pub traceparent: Option<String>,
}

impl Task {
    /// Which delivery it is.
    pub const fn attempt(&self) -> Attempt {
        Attempt { run: self.task_run, number: self.attempt }
    }
}

/// An attempt inside a frame; a worker has no use for the other fields of its object.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct AttemptRef {
    task_run: RunId,
    attempt: i32,
}

impl From<&AttemptRef> for Attempt {
    fn from(r: &AttemptRef) -> Self {
        Self { run: r.task_run, number: r.attempt }
    }
}

impl From<&Attempt> for AttemptRef {
    fn from(a: &Attempt) -> Self {
        Self { task_run: a.run, attempt: a.number }
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct Tasks<T> {
    tasks: Vec<T>,
}

#[derive(Deserialize)]
struct Results {
    results: Vec<StoredRef>,
}

#[derive(Deserialize)]
struct StoredRef {
    task_run: RunId,
    attempt: i32,
    status: RunStatus,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    #[serde(default, alias = "detail")]
    message: String,
}

impl Frame {
    /// Reads one frame. Unknown fields and types are skipped, so that old and new versions can talk to each other.
    pub fn parse(text: &str) -> Result<Self> {
        fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
            serde_json::from_str(text).map_err(|err| Error::Internal(format!("the engine sent a bad frame: {err}")))
        }
        // Parses the text twice: a tagged enum would first copy it into a tree, and payloads are raw.
        Ok(match read::<Head<'_>>(text)?.kind.as_ref() {
            "assign" => Self::Assign(read::<Tasks<Task>>(text)?.tasks),
            "stored" => {
                let attempt = |r: &StoredRef| Attempt { run: r.task_run, number: r.attempt };
                Self::Stored(read::<Results>(text)?.results.iter().map(|r| (attempt(r), r.status)).collect())
            }
            "superseded" => Self::Superseded(attempts(&read(text)?)),
            "cancel" => Self::Cancel(attempts(&read(text)?)),
            "welcome" => Self::Welcome(Box::new(read(text)?)),
            "reconnect" => Self::Reconnect,
            "error" => {
                let ErrorBody { code, message } = read(text)?;
                Self::Error { code, message }
            }
            _ => Self::Other,
        })
    }
}

fn attempts(list: &Tasks<AttemptRef>) -> Vec<Attempt> {
    list.tasks.iter().map(Attempt::from).collect()
}

/// A worker's first frame.
#[derive(Debug, Serialize)]
pub struct Hello<'a> {
    /// A name for people.
    pub name: &'a str,
    /// The client library.
    pub sdk: &'a str,
    /// The actions that it can do.
    pub actions: &'a [String],
    /// Its capacity by kind.
    pub slots: &'a BTreeMap<String, u32>,
    /// Free labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Definitions to register, each with its name.
    pub workflows: &'a [serde_json::Value],
    /// The session to continue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume<'a>>,
}

/// A session to continue.
#[derive(Debug, Serialize)]
pub struct Resume<'a> {
    session: SessionId,
    secret: &'a str,
    holding: Vec<AttemptRef>,
}

impl<'a> Resume<'a> {
    /// With every attempt in progress and every one whose result was not confirmed.
    pub fn new(session: SessionId, secret: &'a str, holding: impl IntoIterator<Item = Attempt>) -> Self {
        Self { session, secret, holding: holding.into_iter().map(|a| AttemptRef::from(&a)).collect() }
    }
}

#[derive(Serialize)]
struct Tagged<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<u32>,
    #[serde(flatten)]
    rest: &'a T,
}

#[derive(Serialize)]
struct Received {
    tasks: Vec<AttemptRef>,
}

#[derive(Serialize)]
struct ResultItem<'a> {
    task_run: RunId,
    attempt: i32,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RunError>,
}

fn encode(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|err| Error::Internal(format!("a frame cannot be written: {err}")))
}

impl Hello<'_> {
    /// The frame.
    pub fn encode(&self) -> Result<String> {
        encode(&Tagged { kind: "hello", protocol: Some(1), rest: self })
    }
}

/// `received`: these attempts arrived.
pub fn received(attempts: &[Attempt]) -> Result<String> {
    let rest = &Received { tasks: attempts.iter().map(AttemptRef::from).collect() };
    encode(&Tagged { kind: "received", protocol: None, rest })
}

/// One item of a `result` frame.
pub fn result_item(attempt: Attempt, outcome: &Outcome) -> Result<String> {
    let (outcome, output, error) = match outcome {
        Outcome::Succeeded(output) => ("succeeded", Some(output), None),
        Outcome::Failed(error) => ("failed", None, Some(error)),
        Outcome::Released => ("released", None, None),
    };
    encode(&ResultItem { task_run: attempt.run, attempt: attempt.number, outcome, output, error })
}

/// `result`: these attempts ended. The items come from [`result_item`].
pub fn results<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::from(r#"{"type":"result","results":["#);
    for (n, item) in items.into_iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        text.push_str(item);
    }
    text.push_str("]}");
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use helve_domain::clock::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn attempt() -> Attempt {
        Attempt { run: RunId::generate(Timestamp::from_micros(1_700_000_000_000_000)), number: 3 }
    }

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_assignment_keeps_its_payload_byte_for_byte() {
        let id = attempt().run;
        let text = format!(
            r#"{{"type":"assign","new":[],"tasks":[{{"task_run":"{id}","attempt":3,"run":"{id}","workflow":"w",
            "action":"a","input":{{"n": 1e400,"s":"\ud800"}},"metadata":{{}},"timeout_ms":30000,"traceparent":null}}]}}"#
        );
        let Frame::Assign(tasks) = Frame::parse(&text).unwrap() else { panic!("not an assignment") };
        assert_eq!(tasks[0].attempt(), attempt_of(id));
        assert_eq!(tasks[0].input.bytes(), r#"{"n": 1e400,"s":"\ud800"}"#.as_bytes());
    }

    fn attempt_of(run: RunId) -> Attempt {
        Attempt { run, number: 3 }
    }

    #[test]
    fn frames_of_the_engine() {
        let id = attempt().run;
        let stored = format!(r#"{{"results":[{{"task_run":"{id}","attempt":3,"status":"failed"}}],"type":"stored"}}"#);
        assert!(
            matches!(Frame::parse(&stored).unwrap(), Frame::Stored(s) if s == [(attempt_of(id), RunStatus::Failed)])
        );
        let over = format!(r#"{{"type":"superseded","tasks":[{{"task_run":"{id}","attempt":3,"reason":"timeout"}}]}}"#);
        assert!(matches!(Frame::parse(&over).unwrap(), Frame::Superseded(a) if a == [attempt_of(id)]));
        assert!(matches!(Frame::parse(r#"{"type":"of the future","x":1}"#).unwrap(), Frame::Other));
        assert!(Frame::parse(r#"{"x":1}"#).is_err());
    }

    #[test]
    fn results_have_the_documented_form() {
        let a = attempt();
        let ok = result_item(a, &Outcome::Succeeded(Payload::trusted(Bytes::from_static(b"{\"ok\": 1e400}")))).unwrap();
        assert!(ok.contains(r#""output":{"ok": 1e400}"#), "{ok}");
        let error = RunError { retry_after_ms: Some(500), ..RunError::of_engine("my_code", "boom") };
        let failed = result_item(a, &Outcome::Failed(error)).unwrap();
        let released = result_item(a, &Outcome::Released).unwrap();
        let frame = parsed(&results([failed.as_str(), released.as_str()]));
        assert_eq!(
            frame,
            json!({"type": "result", "results": [
                {"task_run": a.run, "attempt": 3, "outcome": "failed",
                 "error": {"message": "boom", "code": "my_code", "retry_after_ms": 500}},
                {"task_run": a.run, "attempt": 3, "outcome": "released"},
            ]})
        );
    }

    #[test]
    fn hello_resumes_with_what_is_held() {
        let a = attempt();
        let session = SessionId::generate(Timestamp::from_micros(1));
        let (slots, labels) = (BTreeMap::from([("default".to_owned(), 10)]), BTreeMap::new());
        let resume = Some(Resume::new(session, "s3cret", [a]));
        let actions = ["resize".to_owned()];
        let hello = Hello {
            name: "w1",
            sdk: "test",
            actions: &actions,
            slots: &slots,
            labels: &labels,
            workflows: &[],
            resume,
        };
        assert_eq!(
            parsed(&hello.encode().unwrap()),
            json!({"type": "hello", "protocol": 1, "name": "w1", "sdk": "test", "actions": ["resize"],
                "slots": {"default": 10}, "labels": {}, "workflows": [],
                "resume": {"session": session, "secret": "s3cret",
                    "holding": [{"task_run": a.run, "attempt": 3}]}})
        );
        assert_eq!(
            parsed(&received(&[a]).unwrap()),
            json!({"type": "received", "tasks": [{"task_run": a.run, "attempt": 3}]})
        );
    }
}
