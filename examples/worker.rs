//! A Helve worker: `HELVE_URL=http://.. HELVE_TOKEN=helve_.. cargo run --example worker`
//!
//! Everything that a worker must do is here: say hello, confirm what arrives, keep each result until it is stored,
//! come back with the same session after a lost connection, and leave with a goodbye.
#![expect(clippy::disallowed_methods, reason = "an example spawns like any program; the rule is the engine's")]

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;
type Failure = Box<dyn Error + Send + Sync>;

/// The work itself. An error is a failure, which the engine retries.
async fn resize(input: Value) -> Result<Value, Failure> {
    let url = input["url"].as_str().ok_or("the input needs a `url`")?;
    Ok(json!({ "resized": url }))
}

/// A task run and its attempt: one delivery.
type Attempt = (String, i64);
/// How an attempt ended.
type Finished = (Attempt, Value);

/// What a worker remembers from one socket to the next.
struct Worker {
    /// `session` and `secret` of the last welcome.
    session: Option<Value>,
    running: HashMap<Attempt, JoinHandle<()>>,
    /// Results that the engine has not yet stored: they are sent again on the next socket.
    results: HashMap<Attempt, Value>,
    finished: tokio::sync::mpsc::Sender<Finished>,
}

fn attempt(item: &Value) -> Attempt {
    (item["task_run"].as_str().unwrap_or_default().to_owned(), item["attempt"].as_i64().unwrap_or_default())
}

fn named((task_run, attempt): &Attempt) -> Value {
    json!({ "task_run": task_run, "attempt": attempt })
}

impl Worker {
    fn hello(&self) -> Value {
        let mut hello = json!({
            "type": "hello", "protocol": 1, "name": "worker.rs", "sdk": "rust",
            "actions": ["resize"], "slots": {"default": 10}, "labels": {},
            "workflows": [{"name": "resize", "tasks": [{"name": "resize", "retries": 3, "execution_timeout": "30s"}]}],
        });
        if let Some(session) = &self.session {
            let holding: Vec<_> = self.running.keys().chain(self.results.keys()).map(named).collect();
            hello["resume"] = session.clone();
            hello["resume"]["holding"] = json!(holding);
        }
        hello
    }

    /// What to answer to a frame of the engine.
    fn on_frame(&mut self, frame: &Value) -> Vec<Value> {
        let items = |name: &str| frame[name].as_array().cloned().unwrap_or_default();
        match frame["type"].as_str().unwrap_or_default() {
            "welcome" => {
                self.session = Some(json!({ "session": frame["session"], "secret": frame["secret"] }));
                items("superseded").iter().for_each(|item| self.forget(item));
                self.results.values().map(|result| json!({ "type": "result", "results": [result] })).collect()
            }
            "assign" => {
                let tasks = items("tasks");
                let arrived: Vec<_> = tasks.iter().map(|task| named(&attempt(task))).collect();
                tasks.iter().for_each(|task| self.start(task));
                vec![json!({ "type": "received", "tasks": arrived })]
            }
            "stored" => {
                for item in items("results") {
                    self.results.remove(&attempt(&item));
                }
                Vec::new()
            }
            "superseded" => {
                items("tasks").iter().for_each(|item| self.forget(item));
                Vec::new()
            }
            "cancel" => items("tasks").iter().filter_map(|item| self.give_back(item)).collect(),
            "error" => {
                eprintln!("engine: {}: {}", frame["code"], frame["message"]);
                Vec::new()
            }
            // `pong`, `extended`, `reconnect` (its close follows), and whatever is newer than this worker.
            _ => Vec::new(),
        }
    }

    fn start(&mut self, task: &Value) {
        let key = attempt(task);
        // The same attempt comes twice when our confirmation was lost.
        if self.running.contains_key(&key) || self.results.contains_key(&key) {
            return;
        }
        let (input, finished, of) = (task["input"].clone(), self.finished.clone(), key.clone());
        let work = tokio::spawn(async move {
            // In a task of its own, so that a panic of the work is a failure like any other.
            let result = match tokio::spawn(resize(input)).await {
                Ok(Ok(output)) => json!({ "outcome": "succeeded", "output": output }),
                Ok(Err(err)) => json!({ "outcome": "failed", "error": {"message": err.to_string()} }),
                Err(panic) => json!({ "outcome": "failed", "error": {"message": panic.to_string(), "code": "panic"} }),
            };
            let _ = finished.send((of, result)).await;
        });
        self.running.insert(key, work);
    }

    /// The result's frame, kept until it is stored; none for an attempt that is over.
    fn finish(&mut self, (key, outcome): Finished) -> Option<Value> {
        self.running.remove(&key)?;
        let mut result = named(&key);
        result.as_object_mut()?.extend(outcome.as_object()?.clone());
        self.results.insert(key, result.clone());
        Some(json!({ "type": "result", "results": [result] }))
    }

    fn forget(&mut self, item: &Value) {
        let key = attempt(item);
        self.results.remove(&key);
        if let Some(work) = self.running.remove(&key) {
            work.abort();
        }
    }

    /// Stops a cancelled attempt, which frees its slot.
    fn give_back(&mut self, item: &Value) -> Option<Value> {
        let key = attempt(item);
        self.running.get(&key)?.abort();
        self.finish((key, json!({ "outcome": "released" })))
    }
}

/// Serves one socket; returns the close code that ended it, 1006 when it broke.
async fn serve(
    socket: &mut Socket,
    worker: &mut Worker,
    finished: &mut tokio::sync::mpsc::Receiver<Finished>,
) -> Result<u16, SocketError> {
    socket.send(Message::text(worker.hello().to_string())).await?;
    loop {
        let frames = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                    Ok(frame) => worker.on_frame(&frame),
                    Err(_) => continue,
                },
                Some(Ok(Message::Close(close))) => return Ok(close.map_or(1005, |c| c.code.into())),
                Some(Ok(_)) => continue, // pings are answered by the library
                Some(Err(err)) => return Err(err),
                None => return Ok(1006),
            },
            Some(done) = finished.recv() => worker.finish(done).into_iter().collect(),
            _ = tokio::signal::ctrl_c() => {
                // Unfinished work goes to other workers at once.
                socket.send(Message::text(json!({ "type": "goodbye" }).to_string())).await?;
                return Ok(1000);
            }
        };
        for frame in frames {
            socket.send(Message::text(frame.to_string())).await?;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::var("HELVE_URL").unwrap_or_else(|_| "http://127.0.0.1:7733".to_owned());
    let url = format!("{}/v1/worker/connect", url.replacen("http", "ws", 1));
    let token = std::env::var("HELVE_TOKEN").map_err(|_| "HELVE_TOKEN is not set")?;
    let (sender, mut finished) = tokio::sync::mpsc::channel(100);
    let mut worker = Worker { session: None, running: HashMap::new(), results: HashMap::new(), finished: sender };
    loop {
        let mut request = url.as_str().into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        request.headers_mut().insert("sec-websocket-protocol", "helve.v1".parse()?);
        let ended = match connect_async(request).await {
            Ok((mut socket, _)) => serve(&mut socket, &mut worker, &mut finished).await,
            Err(err) => Err(err),
        };
        match ended {
            Ok(1000) => return Ok(()),
            // What will not get better: the worker is wrong, may not come in, or was replaced by another.
            Ok(code @ (4400 | 4401 | 4403 | 4409 | 4413)) => return Err(format!("closed with {code}").into()),
            Err(SocketError::Http(answer)) if answer.status().is_client_error() => {
                return Err(format!("refused with {}", answer.status()).into());
            }
            Ok(code) => eprintln!("closed with {code}: coming back"),
            Err(err) => eprintln!("{err}: coming back"),
        }
        // Full jitter: ten thousand workers must not come back in one instant. The engine's grace is 15 s.
        let wait = Duration::from_millis(rand_below(2_000));
        tokio::time::sleep(wait).await;
    }
}

fn rand_below(limit: u64) -> u64 {
    getrandom::u64().unwrap_or_default() % limit
}
