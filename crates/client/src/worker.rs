//! A complete worker: it keeps its session across lost sockets and its results until they are stored.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use helve_domain::clock::Clock;
use helve_domain::delivery::{Attempt, Outcome};
use helve_domain::error::{Error, Result};
use helve_domain::id::SessionId;
use helve_domain::run::RunError;
use helve_domain::status::RunStatus;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::frames::{self, Frame, Hello, Resume, Task, Welcome};
use crate::held::Held;
use crate::socket::{Incoming, RawWorker};

mod dial;
#[cfg(test)]
mod tests;

use dial::{Dialled, dial, finished, refusal, say_goodbye};

/// How long a stop waits for running work and unconfirmed results.
const LEAVE: Duration = Duration::from_secs(10);
/// How long `welcome` may take.
const WELCOME: Duration = Duration::from_secs(10);
/// Bytes of one `result` frame, beyond which the next one begins; the engine reads 4 MiB.
const FRAME: usize = 1 << 20;
/// Attempts that one frame names.
const BATCH: usize = 1_000;

/// Who the worker is and where it connects.
#[derive(Clone)]
pub struct Options {
    /// The engine's base URL: `http://host:port`.
    pub url: String,
    /// A token with the scope `worker`.
    pub token: String,
    /// A name for people.
    pub name: String,
    /// The actions that it can do.
    pub actions: Vec<String>,
    /// Its capacity by kind.
    pub slots: BTreeMap<String, u32>,
    /// Definitions to register, each with its name; needs the scope `write`.
    pub workflows: Vec<serde_json::Value>,
}

/// What a worker does. Any function from a task to a future is a handler.
pub trait Handler {
    /// The work on one task.
    type Work: Future<Output = Outcome> + Send + 'static;

    /// Called when a task arrives. Dropping the work stops it.
    fn start(&self, task: Task) -> Self::Work;

    /// The engine has welcomed the worker, for the first time or again.
    fn connected(&self) {}

    /// The engine has stored the result of an attempt.
    fn stored(&self, attempt: Attempt, status: RunStatus) {
        let _ = (attempt, status);
    }
}

impl<F, W> Handler for F
where
    F: Fn(Task) -> W,
    W: Future<Output = Outcome> + Send + 'static,
{
    type Work = W;

    fn start(&self, task: Task) -> W {
        self(task)
    }
}

/// Works until `stop`: then it takes no more tasks, finishes what it has and says goodbye.
///
/// A lost connection does not end it: it reconnects with its session. It ends on a refusal that would recur: a bad
/// token, a definition that is not allowed, a newer socket of the session.
pub async fn run<H: Handler>(options: Options, clock: Clock, stop: CancellationToken, handler: H) -> Result<()> {
    let mut worker = Worker {
        options: Arc::new(options),
        clock,
        stop,
        handler,
        session: None,
        held: Held::default(),
        running: FuturesUnordered::new(),
        backoff: Some(Backoff::default()),
        received: Vec::new(),
        ended: Vec::new(),
        control: Vec::new(),
        leave_by: None,
        move_on: false,
        heard: true,
        said: true,
    };
    let mut next = worker.connect(false).await?;
    while let Some(socket) = next {
        next = match worker.serve(socket).await? {
            End::Done => None,
            End::Lost => worker.connect(true).await?,
            End::Moved(socket) => Some(*socket),
        };
    }
    Ok(())
}

struct Worker<H> {
    options: Arc<Options>,
    clock: Clock,
    stop: CancellationToken,
    handler: H,
    session: Option<(SessionId, String)>,
    held: Held,
    running: FuturesUnordered<BoxFuture<'static, (Attempt, Outcome)>>,
    /// With the dialling future, as long as that runs.
    backoff: Option<Backoff>,
    /// To be confirmed with the next flush.
    received: Vec<Attempt>,
    /// Ended, and not yet reported on this socket.
    ended: Vec<Attempt>,
    /// Frames without content.
    control: Vec<&'static str>,
    /// Set when the worker is asked to stop.
    leave_by: Option<Instant>,
    /// The engine has asked for a new socket.
    move_on: bool,
    /// Whether anything came in, and went out, since the last beat.
    heard: bool,
    said: bool,
}

/// How a socket ended.
enum End {
    Done,
    Lost,
    /// The engine requested it; this one is open already.
    Moved(Box<RawWorker>),
}

impl<H: Handler> Worker<H> {
    fn dial(&mut self, wait_first: bool) -> BoxFuture<'static, Dialled> {
        let backoff = self.backoff.take().unwrap_or_default();
        dial(Arc::clone(&self.options), self.clock.clone(), backoff, wait_first).boxed()
    }

    /// A new socket; `None` if the worker is to stop and cannot reach the engine any more.
    async fn connect(&mut self, lost: bool) -> Result<Option<RawWorker>> {
        let dialling = self.dial(lost);
        let (stop, grace) = (self.stop.clone(), if self.held.is_empty() { Duration::ZERO } else { LEAVE });
        let given_up = async move {
            stop.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        let dialled = self.attend(async {
            tokio::select! {
                dialled = dialling => Some(dialled),
                () = given_up => None,
            }
        });
        let Some((backoff, socket)) = dialled.await else { return Ok(None) };
        self.backoff = Some(backoff);
        socket.map(Some)
    }

    /// Waits for `work` while the tasks continue.
    async fn attend<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                out = &mut work => return out,
                Some((attempt, outcome)) = self.running.next(), if !self.running.is_empty() => {
                    self.end(attempt, &outcome);
                }
            }
        }
    }

    async fn serve(&mut self, mut socket: RawWorker) -> Result<End> {
        let period = match self.greet(&mut socket).await? {
            Some(welcome) => self.adopt(&welcome),
            None => return Ok(End::Lost),
        };
        let start = tokio::time::Instant::from_std(self.clock.instant()) + period;
        let mut beats = tokio::time::interval_at(start, period);
        let mut silent = 0;
        let mut moving: Option<BoxFuture<'static, Dialled>> = None;
        let mut arrived = Vec::new();
        let stop = self.stop.clone();
        loop {
            let written = self.write(&mut socket, &mut arrived).await;
            if let Some(end) = self.take_all(&mut arrived)? {
                return Ok(end);
            }
            if written.is_err() {
                return Ok(End::Lost);
            }
            if self.leave_by.is_some_and(|by| self.held.is_empty() || self.clock.instant() >= by) {
                say_goodbye(socket).await;
                return Ok(End::Done);
            }
            if std::mem::take(&mut self.move_on) && moving.is_none() {
                moving = Some(self.dial(false));
            }
            // Rare events first: a busy socket must not starve them.
            tokio::select! {
                biased;
                (backoff, dialled) = finished(&mut moving) => {
                    self.backoff = Some(backoff);
                    return Ok(End::Moved(Box::new(dialled?)));
                }
                _ = beats.tick() => {
                    silent = if std::mem::take(&mut self.heard) { 0 } else { silent + 1 };
                    if silent >= 5 {
                        return Ok(End::Lost);
                    }
                    if !std::mem::take(&mut self.said) {
                        self.control.push(r#"{"type":"ping"}"#);
                    }
                }
                () = stop.cancelled(), if self.leave_by.is_none() => {
                    self.leave_by = Some(self.clock.instant() + LEAVE);
                    self.control.push(r#"{"type":"drain"}"#);
                }
                incoming = socket.recv() => arrived.push(incoming),
                Some((attempt, outcome)) = self.running.next(), if !self.running.is_empty() => {
                    self.end(attempt, &outcome);
                }
            }
            // Whatever else is ready by now goes into the same frames and one write.
            arrived.extend(std::iter::from_fn(|| socket.try_recv()).take(64));
            if let Some(end) = self.take_all(&mut arrived)? {
                return Ok(end);
            }
            while let Some(Some((attempt, outcome))) = self.running.next().now_or_never() {
                self.end(attempt, &outcome);
            }
        }
    }

    fn take_all(&mut self, arrived: &mut Vec<Incoming>) -> Result<Option<End>> {
        for incoming in arrived.drain(..) {
            if let Some(end) = self.take(incoming)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// Says hello and waits for the welcome; `None` if the socket closed meanwhile.
    async fn greet(&mut self, socket: &mut RawWorker) -> Result<Option<Welcome>> {
        let options = Arc::clone(&self.options);
        let Options { name, actions, slots, workflows, .. } = &*options;
        let resume = self.session.as_ref().map(|(id, secret)| Resume::new(*id, secret, self.held.attempts()));
        let labels = &BTreeMap::new();
        let sdk = concat!("helve/", env!("CARGO_PKG_VERSION"));
        let hello = Hello { name, sdk, actions, slots, labels, workflows, resume }.encode()?;
        if socket.send_text(hello).await.is_err() {
            return Ok(None);
        }
        let mut refused = None;
        loop {
            let incoming = self.attend(tokio::time::timeout(WELCOME, socket.recv())).await;
            match incoming {
                Ok(Incoming::Text(text)) => match Frame::parse(&text)? {
                    Frame::Welcome(welcome) => return Ok(Some(*welcome)),
                    Frame::Error { code, message } => refused = Some(format!("{code}: {message}")),
                    _ => {}
                },
                Ok(Incoming::Closed(why)) => {
                    return match (refusal(why), refused) {
                        (Some(_), Some(why)) => Err(Error::Internal(format!("the engine refused the worker: {why}"))),
                        (Some(err), None) => Err(err),
                        (None, _) => Ok(None),
                    };
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Continues the session, or begins it. Returns the time between two beats.
    fn adopt(&mut self, welcome: &Welcome) -> Duration {
        if !welcome.resumed {
            // The grace is over: what was held is with other workers now.
            self.held.attempts().into_iter().for_each(|a| self.held.forget(a));
        }
        welcome.superseded().for_each(|a| self.held.forget(a));
        self.session = Some((welcome.session, welcome.secret.clone()));
        self.ended = self.held.unconfirmed();
        self.received.clear();
        (self.heard, self.said) = (true, true);
        self.handler.connected();
        if self.leave_by.is_some() {
            self.control.push(r#"{"type":"drain"}"#);
        }
        Duration::from_millis(welcome.heartbeat_ms.clamp(100, 60_000) / 2)
    }

    /// One frame, or the end of the socket.
    fn take(&mut self, incoming: Incoming) -> Result<Option<End>> {
        self.heard = true;
        let text = match incoming {
            Incoming::Text(text) => text,
            Incoming::Closed(why) => return refusal(why).map_or(Ok(Some(End::Lost)), Err),
        };
        match Frame::parse(&text)? {
            Frame::Assign(tasks) => tasks.into_iter().for_each(|task| self.begin(task)),
            Frame::Stored(results) => {
                for (attempt, status) in results {
                    self.held.forget(attempt);
                    self.handler.stored(attempt, status);
                }
            }
            Frame::Superseded(attempts) => attempts.into_iter().for_each(|a| self.held.supersede(a)),
            Frame::Cancel(attempts) => attempts.into_iter().for_each(|a| self.held.stop(a)),
            Frame::Reconnect => self.move_on = true,
            Frame::Error { code, message } => tracing::warn!(code, message, "the engine did not accept a frame"),
            Frame::Welcome(_) | Frame::Other => {}
        }
        Ok(None)
    }

    fn begin(&mut self, task: Task) {
        let attempt = task.attempt();
        self.received.push(attempt);
        let (abort, registration) = AbortHandle::new_pair();
        if !self.held.begin(attempt, abort) {
            return;
        }
        let work = AssertUnwindSafe(self.handler.start(task)).catch_unwind();
        let outcome = Abortable::new(work, registration).map(|ended| match ended {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::Failed(RunError::of_engine("panic", "the handler panicked")),
            Err(_) => Outcome::Failed(RunError::of_engine("cancelled", "stopped because the attempt was over")),
        });
        self.running.push(outcome.map(move |outcome| (attempt, outcome)).boxed());
    }

    fn end(&mut self, attempt: Attempt, outcome: &Outcome) {
        let item = frames::result_item(attempt, outcome).or_else(|_| {
            let error = RunError::of_engine("bad_output", "the output is not JSON");
            frames::result_item(attempt, &Outcome::Failed(error))
        });
        if item.is_ok_and(|item| self.held.end(attempt, item)) {
            self.ended.push(attempt);
        }
    }

    /// Sends everything that is waiting, in one write. Results stay held until they are stored.
    async fn write(&mut self, socket: &mut RawWorker, arrived: &mut Vec<Incoming>) -> Result<()> {
        if self.control.is_empty() && self.received.is_empty() && self.ended.is_empty() {
            return Ok(());
        }
        self.said = true;
        for attempts in self.received.chunks(BATCH) {
            socket.feed(frames::received(attempts)?).await?;
        }
        self.received.clear();
        let (mut items, mut bytes) = (Vec::new(), 0);
        for item in self.ended.drain(..).filter_map(|a| self.held.item(a)) {
            if !items.is_empty() && (bytes + item.len() > FRAME || items.len() >= BATCH) {
                socket.feed(frames::results(items.drain(..))).await?;
                bytes = 0;
            }
            bytes += item.len();
            items.push(item);
        }
        if !items.is_empty() {
            socket.feed(frames::results(items)).await?;
        }
        for frame in self.control.drain(..) {
            socket.feed(frame.to_owned()).await?;
        }
        socket.flush(arrived).await
    }
}
