//! A worker of the load: it resumes and reconnects as a good one does, and misbehaves when told to.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use helve_client::RawWorker;
use helve_client::socket::Incoming;
use helve_domain::clock::Timestamp;
use helve_domain::error::Result;
use helve_supervisor::Supervisor;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::failure;
use super::ledger::plays::{ACTION, Labels};
use super::ledger::{Attempt, Ledger, Sent};
use super::load::Dice;
use super::rig::Target;

/// How often an idle worker sends a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// It changes its labels once in this many heartbeats: less often than the time the verdict allows for a change to take
/// effect.
const RELABEL: u32 = 6;

/// What a worker is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Vanish silently, with everything that it had.
    Die,
    /// Read nothing for this long, and keep sending.
    Stall(Duration),
    /// Neither read nor send for this long, with the connection open. Then continue as if nothing had happened.
    Freeze(Duration),
    /// Finish what it has, say goodbye and end.
    Leave,
}

/// A running worker.
pub struct LoadWorker {
    /// The worker's name in the load.
    pub name: String,
    orders: mpsc::Sender<Order>,
    task: oneshot::Receiver<()>,
}

impl LoadWorker {
    /// Starts a worker.
    pub fn start(target: &Target, ledger: &Ledger, number: u32, slots: u32, supervisor: &Supervisor) -> Self {
        let (orders, inbox) = mpsc::channel(4);
        let name = format!("w{number}");
        let state = State {
            url: target.url.clone(),
            token: target.token.clone(),
            ledger: ledger.clone(),
            name: name.clone(),
            slots,
            labels: Labels::of_worker(number),
            beats: 0,
            dice: Dice::new(name.bytes().fold(7, |h, b| h * 31 + u64::from(b))),
            session: None,
            working: HashMap::new(),
            work: FuturesUnordered::new(),
            unconfirmed: HashMap::new(),
            known: HashSet::new(),
        };
        Self { name, orders, task: super::start(supervisor, "load worker", state.run(inbox)) }
    }

    /// Tells it what to do.
    pub async fn order(&self, order: Order) {
        // If it has ended by itself, this is found when its end is waited for.
        let _ = self.orders.send(order).await;
    }

    /// Waits for its end after [`Order::Die`] or [`Order::Leave`].
    ///
    /// # Errors
    /// `Internal` if it does not end, or broke: the ledger then lacks some of what it saw.
    pub async fn ended(self) -> Result<()> {
        match tokio::time::timeout(Duration::from_secs(20), self.task).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(failure(format!("the worker {} broke", self.name))),
            Err(_) => Err(failure(format!("the worker {} does not end", self.name))),
        }
    }
}

struct Session {
    worker: String,
    session: Value,
    secret: Value,
}

type Work = std::pin::Pin<Box<dyn Future<Output = Attempt> + Send>>;

struct State {
    url: String,
    token: String,
    ledger: Ledger,
    name: String,
    slots: u32,
    labels: Labels,
    beats: u32,
    dice: Dice,
    session: Option<Session>,
    /// Attempts in progress, with the task's input.
    working: HashMap<Attempt, Value>,
    work: FuturesUnordered<Work>,
    /// Results that it keeps until they are confirmed.
    unconfirmed: HashMap<Attempt, Value>,
    /// Everything it ever had: an attempt that is sent again is not done again.
    known: HashSet<Attempt>,
}

/// How a connection ended.
enum Ended {
    Broken,
    Dead,
    Left,
}

impl State {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            let ended = match self.connect().await {
                Some(mut socket) => self.talk(&mut socket, &mut orders).await,
                None => match orders.try_recv() {
                    Ok(Order::Die | Order::Leave) | Err(mpsc::error::TryRecvError::Disconnected) => Ended::Dead,
                    Ok(Order::Stall(_) | Order::Freeze(_)) | Err(mpsc::error::TryRecvError::Empty) => Ended::Broken,
                },
            };
            if matches!(ended, Ended::Dead | Ended::Left) {
                return self.forget_all();
            }
            tokio::time::sleep(Duration::from_millis(50 + self.dice.below(250))).await;
        }
    }

    /// Opens a socket and resumes; `None` if the engine is not reachable.
    async fn connect(&mut self) -> Option<RawWorker> {
        let mut socket = RawWorker::connect(&self.url, &self.token).await.ok()?;
        let said = self.ledger.now();
        let mut hello = json!({"type": "hello", "protocol": 1, "name": self.name, "sdk": "oracle", "actions": [ACTION],
                               "slots": {"default": self.slots}, "labels": self.labels.to_json(), "workflows": []});
        if let Some(session) = &self.session {
            let holding: Vec<_> = self.working.keys().chain(self.unconfirmed.keys()).map(reference).collect();
            hello["resume"] = json!({"session": session.session, "secret": session.secret, "holding": holding});
        }
        socket.send(&hello).await.ok()?;
        let welcome = match tokio::time::timeout(Duration::from_secs(15), socket.recv()).await.ok()? {
            Incoming::Text(text) => super::json(text.as_bytes()),
            Incoming::Closed(_) => return None,
        };
        // An engine that does not own its shards yet says so and closes.
        if welcome["type"] == "error" && welcome["code"] == "unavailable" {
            return None;
        }
        if welcome["type"] != "welcome" {
            self.ledger.surprise(format!("{}: expected a welcome, got {welcome}", self.name));
            return None;
        }
        self.welcome(&welcome, said);
        let results: Vec<_> = self.unconfirmed.values().cloned().collect();
        if !results.is_empty() {
            self.ledger.facts().resent += results.len();
            send(&mut socket, json!({"type": "result", "results": results})).await.ok()?;
        }
        Some(socket)
    }

    /// `said`: when the hello was sent, with the labels.
    fn welcome(&mut self, welcome: &Value, said: Timestamp) {
        if welcome["resumed"] == true {
            self.superseded(&welcome["superseded"]);
        } else {
            // Nothing of the old session belongs to this worker any more. Finished results are sent all the same: the
            // engine must refuse them.
            let (working, worker) = (std::mem::take(&mut self.working), self.worker());
            for attempt in working.keys() {
                self.ledger.end(attempt, &worker, None);
            }
        }
        let worker = welcome["worker"].as_str().unwrap_or_default().to_owned();
        self.ledger.facts().slots.insert(worker.clone(), self.slots);
        self.ledger.labelled(&worker, self.labels, said);
        self.session = Some(Session { worker, session: welcome["session"].clone(), secret: welcome["secret"].clone() });
    }

    fn worker(&self) -> String {
        self.session.as_ref().map(|s| s.worker.clone()).unwrap_or_default()
    }

    async fn talk(&mut self, socket: &mut RawWorker, orders: &mut mpsc::Receiver<Order>) -> Ended {
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaving = false;
        loop {
            if leaving && self.working.is_empty() && self.unconfirmed.is_empty() {
                let _ = send(socket, json!({"type": "goodbye"})).await;
                let _ = tokio::time::timeout(Duration::from_secs(2), socket.recv()).await;
                return Ended::Left;
            }
            let sent = tokio::select! {
                frame = socket.recv() => match frame {
                    Incoming::Text(text) => self.frame(socket, text.as_str()).await,
                    Incoming::Closed(_) => return Ended::Broken,
                },
                Some(attempt) = self.work.next() => self.finished(socket, attempt).await,
                _ = beat.tick() => self.beat(socket).await,
                order = orders.recv() => match order {
                    None | Some(Order::Die) => return Ended::Dead,
                    Some(Order::Stall(time)) => stall(socket, time).await,
                    Some(Order::Freeze(time)) => {
                        tokio::time::sleep(time).await;
                        Ok(())
                    }
                    Some(Order::Leave) => {
                        leaving = true;
                        send(socket, json!({"type": "drain"})).await
                    }
                },
            };
            match sent {
                Ok(()) => {}
                Err(Stop) => return Ended::Broken,
            }
        }
    }

    async fn beat(&mut self, socket: &mut RawWorker) -> Result<(), Stop> {
        self.beats += 1;
        if self.beats % RELABEL != 2 {
            return send(socket, json!({"type": "ping"})).await;
        }
        self.labels = self.labels.changed();
        self.ledger.labelled(&self.worker(), self.labels, self.ledger.now());
        send(socket, json!({"type": "labels", "labels": self.labels.to_json()})).await
    }

    async fn frame(&mut self, socket: &mut RawWorker, text: &str) -> Result<(), Stop> {
        let frame = super::json(text.as_bytes());
        match frame["type"].as_str().unwrap_or_default() {
            "assign" => self.assigned(socket, &frame["tasks"]).await,
            "stored" => {
                for result in items(&frame["results"]) {
                    let attempt = attempt_of(result);
                    self.unconfirmed.remove(&attempt);
                    self.ledger.stored(attempt, result["status"].as_str().unwrap_or_default());
                }
                Ok(())
            }
            "superseded" => {
                self.superseded(&frame["tasks"]);
                Ok(())
            }
            "cancel" => self.cancelled(socket, &frame["tasks"]).await,
            // The engine drains: the next socket resumes.
            "reconnect" => Err(Stop),
            "pong" => Ok(()),
            _ => {
                self.ledger.surprise(format!("{}: a frame {frame}", self.name));
                Ok(())
            }
        }
    }

    async fn assigned(&mut self, socket: &mut RawWorker, tasks: &Value) -> Result<(), Stop> {
        let worker = self.worker();
        for task in items(tasks) {
            let attempt = attempt_of(task);
            if !self.known.insert(attempt.clone()) {
                self.ledger.facts().redelivered += 1;
                continue;
            }
            self.ledger.begin(&attempt, &worker, &self.name);
            self.working.insert(attempt.clone(), task["input"].clone());
            let time = Duration::from_millis(task["input"]["work_ms"].as_u64().unwrap_or(0));
            self.work.push(Box::pin(async move {
                tokio::time::sleep(time).await;
                attempt
            }));
        }
        let received: Vec<_> = items(tasks).iter().map(|t| reference(&attempt_of(t))).collect();
        send(socket, json!({"type": "received", "tasks": received})).await
    }

    async fn finished(&mut self, socket: &mut RawWorker, attempt: Attempt) -> Result<(), Stop> {
        // Cancelled or superseded meanwhile.
        let Some(input) = self.working.remove(&attempt) else { return Ok(()) };
        let nonce = input["n"].as_u64().unwrap_or(0);
        let mut result = reference(&attempt);
        let sent = if let Some(error) = self.ledger.fails(nonce, &attempt.0) {
            (result["outcome"], result["error"]) = ("failed".into(), error);
            Sent::Failed
        } else if self.dice.below(100) == 0 {
            result["outcome"] = "released".into();
            Sent::Released
        } else {
            let mut output = json!({"n": nonce, "attempt": attempt.1, "by": self.name});
            if self.dice.below(20) == 0 {
                output["padding"] = "y".repeat(2_000).into();
            }
            (result["outcome"], result["output"]) = ("succeeded".into(), output.clone());
            Sent::Succeeded(output)
        };
        self.unconfirmed.insert(attempt.clone(), result.clone());
        self.ledger.end(&attempt, &self.worker(), Some(sent));
        send(socket, json!({"type": "result", "results": [result]})).await
    }

    async fn cancelled(&mut self, socket: &mut RawWorker, tasks: &Value) -> Result<(), Stop> {
        let mut results = Vec::new();
        for attempt in items(tasks).iter().map(attempt_of) {
            if self.working.remove(&attempt).is_some() {
                self.ledger.end(&attempt, &self.worker(), None);
                let mut result = reference(&attempt);
                (result["outcome"], result["error"]) = ("failed".into(), json!({"message": "stopped on request"}));
                self.unconfirmed.insert(attempt, result.clone());
                results.push(result);
            }
        }
        if results.is_empty() {
            return Ok(());
        }
        send(socket, json!({"type": "result", "results": results})).await
    }

    fn superseded(&mut self, tasks: &Value) {
        for attempt in items(tasks).iter().map(attempt_of) {
            self.working.remove(&attempt);
            self.unconfirmed.remove(&attempt);
            self.ledger.end(&attempt, &self.worker(), None);
            self.ledger.facts().superseded += 1;
        }
    }

    fn forget_all(&mut self) {
        for attempt in self.working.keys() {
            self.ledger.end(attempt, &self.worker(), None);
        }
    }
}

/// The connection is of no more use.
struct Stop;

async fn send(socket: &mut RawWorker, frame: Value) -> Result<(), Stop> {
    let sending = socket.send(&frame);
    match tokio::time::timeout(Duration::from_secs(10), sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Stop),
    }
}

/// Sends, and reads nothing.
async fn stall(socket: &mut RawWorker, time: Duration) -> Result<(), Stop> {
    let speaking = async {
        loop {
            // The engine may have closed it; this is noticed at the next read.
            let _ = send(socket, json!({"type": "ping"})).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    match tokio::time::timeout(time, speaking).await {
        Err(_) => {}
        Ok(never) => never,
    }
    Ok(())
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn attempt_of(of: &Value) -> Attempt {
    (of["task_run"].as_str().unwrap_or_default().to_owned(), of["attempt"].as_i64().unwrap_or(0))
}

fn reference(attempt: &Attempt) -> Value {
    json!({"task_run": attempt.0, "attempt": attempt.1})
}
