//! A raw worker: a socket on which a test sends and receives frames one by one.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// The longest wait for a frame that must come.
pub const FRAME: Duration = Duration::from_secs(5);

/// The socket below.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a socket gives.
#[derive(Debug)]
pub enum Incoming {
    /// A frame of the protocol.
    Frame(Value),
    /// The other side closed, with its code.
    Closed(u16),
    /// The connection broke.
    Broken(String),
    /// Nothing came in time.
    Silence,
}

/// A connected worker.
pub struct Worker {
    /// The socket, for tests that speak below the protocol.
    pub socket: Socket,
    /// The `welcome` frame; `null` before a hello.
    pub welcome: Value,
}

/// The upgrade request of a worker socket at `url` (`http://..`).
pub fn upgrade(url: &str, token: Option<&str>) -> Request {
    let mut request =
        format!("{}/v1/worker/connect", url.replacen("http://", "ws://", 1)).into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", "helve.v1".parse().unwrap());
    if let Some(token) = token {
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// A `hello` frame.
pub fn hello(name: &str, actions: &[&str], slots: u32) -> Value {
    json!({"type": "hello", "protocol": 1, "name": name, "sdk": "test", "actions": actions,
           "slots": {"default": slots}, "labels": {}, "workflows": []})
}

impl Worker {
    /// Opens a socket; no hello yet.
    pub async fn open(url: &str, token: Option<&str>) -> Result<Self, tungstenite::Error> {
        let connect = tokio_tungstenite::connect_async(upgrade(url, token));
        let (socket, _) = tokio::time::timeout(FRAME, connect)
            .await
            .map_err(|_| tungstenite::Error::Io(std::io::ErrorKind::TimedOut.into()))??;
        Ok(Self { socket, welcome: Value::Null })
    }

    /// Opens a socket, says `hello` and takes the welcome.
    pub async fn connect(url: &str, token: &str, hello: Value) -> Self {
        let mut worker = Self::open(url, Some(token)).await.unwrap();
        worker.send(hello).await;
        worker.welcome = worker.expect("welcome").await;
        worker
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: Value) {
        self.send_text(frame.to_string()).await;
    }

    /// Sends any text.
    pub async fn send_text(&mut self, text: String) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// What comes next, within `limit`. Protocol pings are answered below and not shown.
    pub async fn incoming(&mut self, limit: Duration) -> Incoming {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Incoming::Frame(serde_json::from_str(text.as_str()).unwrap());
                    }
                    Some(Ok(Message::Close(frame))) => {
                        return Incoming::Closed(frame.map_or(1005, |f| u16::from(f.code)));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(e)) => return Incoming::Broken(e.to_string()),
                    None => return Incoming::Broken("the stream ended".to_owned()),
                }
            }
        };
        tokio::time::timeout(limit, next).await.unwrap_or(Incoming::Silence)
    }

    /// The next frame.
    pub async fn recv(&mut self) -> Value {
        match self.incoming(FRAME).await {
            Incoming::Frame(frame) => frame,
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    /// The next frame of this type. Any other but `pong` fails the test.
    pub async fn expect(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.recv().await;
            match frame["type"].as_str() {
                Some(found) if found == kind => return frame,
                Some("pong") => {}
                _ => panic!("expected `{kind}`, got {frame}"),
            }
        }
    }

    /// The next frame of this type, passing over others.
    pub async fn find(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.recv().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// The close code that ends the socket, passing over frames before it.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.incoming(Duration::from_secs(40)).await {
                Incoming::Closed(code) => return code,
                Incoming::Frame(_) => {}
                other => panic!("expected a close frame, got {other:?}"),
            }
        }
    }

    /// Nothing but `pong` comes for as long as `limit`.
    pub async fn expect_silence(&mut self, limit: Duration) {
        match self.incoming(limit).await {
            Incoming::Silence => {}
            Incoming::Frame(frame) if frame["type"] == "pong" => {}
            other => panic!("expected nothing, got {other:?}"),
        }
    }

    /// The next assigned tasks, at least one, confirmed as received.
    pub async fn tasks(&mut self) -> Vec<Value> {
        let frame = self.expect("assign").await;
        let tasks = frame["tasks"].as_array().unwrap().clone();
        assert!(!tasks.is_empty(), "an assign frame without tasks");
        self.send(json!({"type": "received", "tasks": tasks.iter().map(attempt).collect::<Vec<_>>()})).await;
        tasks
    }

    /// The next task, alone in its frame, confirmed as received.
    pub async fn task(&mut self) -> Value {
        let mut tasks = self.tasks().await;
        assert_eq!(tasks.len(), 1, "expected one task, got {tasks:?}");
        tasks.remove(0)
    }

    /// The tasks of the next `assign` frame, confirmed, passing over other frames.
    pub async fn find_tasks(&mut self) -> Vec<Value> {
        let tasks = self.find("assign").await["tasks"].as_array().unwrap().clone();
        self.send(json!({"type": "received", "tasks": tasks.iter().map(attempt).collect::<Vec<_>>()})).await;
        tasks
    }

    /// Reports the success of many tasks in one frame, each with its input as its output.
    pub async fn succeed(&mut self, tasks: &[Value]) {
        let result = |task: &Value| {
            let mut result = attempt(task);
            result["outcome"] = json!("succeeded");
            result["output"] = task["input"].clone();
            result
        };
        self.send(json!({"type": "result", "results": tasks.iter().map(result).collect::<Vec<_>>()})).await;
    }

    /// Reports success and waits until it is stored.
    pub async fn finish(&mut self, task: &Value, output: Value) -> Value {
        self.report(task, json!({"outcome": "succeeded", "output": output})).await;
        self.stored(task).await
    }

    /// Reports failure and waits until it is stored.
    pub async fn fail(&mut self, task: &Value, error: Value) -> Value {
        self.report(task, json!({"outcome": "failed", "error": error})).await;
        self.stored(task).await
    }

    /// Sends one result: `outcome` has everything but the attempt.
    pub async fn report(&mut self, task: &Value, outcome: Value) {
        let mut result = attempt(task);
        result.as_object_mut().unwrap().extend(outcome.as_object().unwrap().clone());
        self.send(json!({"type": "result", "results": [result]})).await;
    }

    /// Waits until this attempt's result is stored, passing over other frames; gives its entry.
    pub async fn stored(&mut self, task: &Value) -> Value {
        loop {
            let frame = self.find("stored").await;
            let mut results = frame["results"].as_array().unwrap().iter();
            if let Some(entry) = results.find(|r| attempt(r) == attempt(task)) {
                return entry.clone();
            }
        }
    }

    /// The `resume` object of this session.
    pub fn resume(&self, holding: &[&Value]) -> Value {
        json!({"session": self.welcome["session"], "secret": self.welcome["secret"],
               "holding": holding.iter().map(|t| attempt(t)).collect::<Vec<_>>()})
    }

    /// Says goodbye and waits for the close.
    pub async fn goodbye(mut self) {
        self.send(json!({"type": "goodbye"})).await;
        self.closed().await;
    }
}

/// Which attempt a task, a result or a confirmation is about.
pub fn attempt(of: &Value) -> Value {
    json!({"task_run": of["task_run"], "attempt": of["attempt"]})
}
