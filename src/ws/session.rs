//! One worker's socket after its welcome: a single loop over what comes, what goes, and time.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use helve_domain::delivery::{Close, Incoming, Outgoing, Reason};
use helve_domain::error::Code;
use helve_domain::id::TenantId;
use helve_domain::json::SMALL;
use helve_domain::ticket::Allowed;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;
use tracing::{debug, info, warn};

use super::guest::{Caller, Guest};
use super::pace::{Mistakes, Pace};
use super::voice::Voice;
use super::wire::{End, Step, Wire};
use super::{Context, greet};
use crate::failpoint::{self, Point};
use crate::frames::{self, Fault, Frame};
use crate::hub::{Inbox, Next};
use crate::sched::Connection;
use crate::share::Held;

/// How long a worker may take nothing of what waits for it.
const STALL: Duration = Duration::from_secs(30);
/// Bytes taken from the outbox for one flush.
const BATCH: usize = 1 << 20;
/// Pings a second, of either kind, or changes of capacity or labels, past which a worker is read more slowly. A change is a
/// statement of its own.
const PINGS: u32 = 10;
/// Attempts a second of which the engine knows nothing, and frames that are wrong or empty, past which a worker is read more slowly.
const STRANGERS: u32 = 100;
/// Fields that nobody knows of which a socket is told.
const UNKNOWN: usize = 16;
/// How long a worker whose tenant has used up its share of memory is not read, after each large frame.
const HELD_UP: Duration = Duration::from_millis(50);

/// Serves one socket from its hello to its close.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(ctx: &Context, stream: S, caller: Caller) {
    let mut wire = Wire::new(stream, &ctx.limits, ctx.scheduler.standing().clone()).await;
    let (guest, welcome, connection, inbox) = match greet::greet(ctx, &mut wire, caller).await {
        Ok(greeted) => greeted,
        Err(end) => {
            debug!(?end, "a socket ended before its welcome");
            return wire.finish(end).await;
        }
    };
    let mut session = Session::new(ctx, wire, connection, inbox, guest);
    let ended = AssertUnwindSafe(session.run()).catch_unwind().await;
    // Said before the farewell: the grace counts from the loss, not from a peer's last word.
    if !session.left {
        session.tell(Incoming::Lost).await;
    }
    match ended {
        Ok(end) => {
            info!(worker = %welcome.worker, ?end, "worker socket ended");
            session.wire.finish(end).await;
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

struct Session<'c, S> {
    ctx: &'c Context,
    wire: Wire<S>,
    connection: Connection,
    tenant: TenantId,
    inbox: Inbox,
    /// What its ticket allows.
    allowed: Option<Allowed>,
    /// Given back with the socket.
    _place: Option<Held>,
    /// Resolves when the socket must end whatever happens on it.
    cut: BoxFuture<'static, Close>,
    pings: Pace,
    strangers: Pace,
    mistakes: Mistakes,
    voice: Voice,
    /// What it was told of fields that nobody knows.
    unknown: Vec<String>,
    /// When something was last read: the only proof of life.
    heard: Instant,
    /// When we last sent a protocol ping.
    pinged: Instant,
    /// Not read before this time.
    paused: Option<Instant>,
    /// When the socket ends because the engine stops.
    leave_by: Option<Instant>,
    /// It said goodbye.
    left: bool,
}

/// The token's end, or the process's after it gave its workers time to leave.
fn cut(ctx: &Context, revoked: BoxFuture<'static, ()>) -> BoxFuture<'static, Close> {
    let (stopping, drain) = (ctx.stopping.clone(), ctx.drain);
    let stopped = async move {
        stopping.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    Box::pin(async move {
        tokio::select! {
            () = revoked => Close::Auth,
            () = stopped => Close::Draining,
        }
    })
}

impl<'c, S: AsyncRead + AsyncWrite + Unpin> Session<'c, S> {
    fn new(ctx: &'c Context, wire: Wire<S>, connection: Connection, inbox: Inbox, guest: Guest) -> Self {
        let now = ctx.clock.instant();
        Self {
            ctx,
            wire,
            connection,
            tenant: guest.who.tenant,
            inbox,
            allowed: guest.allowed,
            _place: guest.place,
            cut: cut(ctx, guest.revoked),
            pings: Pace::new(PINGS, now),
            strangers: Pace::new(STRANGERS, now),
            mistakes: Mistakes::none(),
            voice: Voice::new(&ctx.limits, now),
            unknown: Vec::new(),
            heard: now,
            pinged: now,
            paused: None,
            leave_by: None,
            left: false,
        }
    }

    async fn run(&mut self) -> End {
        loop {
            let (reads, idle, deadline) = (self.reads(), !self.wire.busy(), self.deadline());
            let ended = tokio::select! {
                step = self.wire.step(reads) => self.on_step(step).await,
                next = self.inbox.next(), if idle => self.on_outgoing(next).await,
                close = &mut self.cut => Some(End::Close(close)),
                () = tokio::time::sleep_until(deadline.into()) => self.on_time(),
            };
            if let Some(end) = ended {
                return end;
            }
        }
    }

    /// Whether the worker is read now.
    fn reads(&self) -> bool {
        self.paused.is_none() && !self.wire.congested() && !self.inbox.is_full()
    }

    /// When something is due if nothing happens before.
    fn deadline(&self) -> Instant {
        let ping = self.heard.max(self.pinged) + self.ctx.scheduling.heartbeat;
        let silence = self.heard + self.ctx.scheduling.silence;
        let stall = self.wire.stalled_since().map(|since| since + STALL);
        [stall, self.paused, self.leave_by].into_iter().flatten().fold(ping.min(silence), Instant::min)
    }

    fn on_time(&mut self) -> Option<End> {
        let now = self.ctx.clock.instant();
        if self.wire.stalled_since().is_some_and(|since| since + STALL <= now) {
            return Some(End::Close(Close::TooSlow));
        }
        if self.leave_by.is_some_and(|at| at <= now) {
            return Some(End::Close(Close::Draining));
        }
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
        }
        if !self.reads() {
            // Its silence is our choice.
            self.heard = now;
        } else if self.heard + self.ctx.scheduling.silence <= now {
            return Some(End::Close(Close::TooSlow));
        }
        if self.heard.max(self.pinged) + self.ctx.scheduling.heartbeat <= now {
            self.pinged = now;
            if !self.wire.busy() {
                self.wire.ping();
            }
        }
        None
    }

    async fn on_step(&mut self, step: Step) -> Option<End> {
        let message = match step {
            Step::Read(message) => message,
            Step::Flushed => return None,
            Step::Ended(end) => return Some(end),
        };
        let now = self.ctx.clock.instant();
        self.heard = now;
        match message {
            Message::Text(text) => {
                let frame = self.counted(text.into(), now);
                self.on_frame(&frame).await
            }
            Message::Binary(_) => {
                let fault = Fault::binary();
                self.wire.push(frames::fault(&fault));
                self.no_frame(&fault)
            }
            Message::Close(_) => Some(End::Gone),
            Message::Ping(_) => {
                self.paused = self.paused.max(self.pings.take(1, now));
                None
            }
            Message::Pong(_) | Message::Frame(_) => None,
        }
    }

    /// A large frame counts against the tenant's share as long as a part of it is held. It cannot be refused, as a
    /// request can: past the share the next one is read later.
    fn counted(&mut self, frame: Bytes, now: Instant) -> Bytes {
        if frame.len() <= SMALL {
            return frame;
        }
        if self.ctx.shares.is_used_up(self.tenant) {
            self.paused = self.paused.max(Some(now + HELD_UP));
        }
        self.ctx.shares.count(self.tenant, frame.len()).keep(frame)
    }

    /// What a text says, after what is wrong with it was answered.
    fn read(&mut self, text: &Bytes) -> Result<Option<Frame>, End> {
        let keep = |mended: Bytes| match mended.len() {
            0..=SMALL => mended,
            large => self.ctx.shares.count(self.tenant, large).keep(mended),
        };
        let decoded = frames::decode_kept(text, &self.ctx.limits, keep);
        for fault in &decoded.faults {
            self.wire.push(frames::fault(fault));
        }
        for told in &decoded.unknown {
            self.tell_unknown(told);
        }
        self.idle_words(&decoded);
        if let (false, Some(fault)) = (decoded.is_frame, decoded.faults.first()) {
            return self.no_frame(fault).map_or(Ok(None), Err);
        }
        Ok(decoded.frame)
    }

    /// Names a field that nobody knows, once a socket: it harms nobody, and its worker may be newer than this engine.
    fn tell_unknown(&mut self, fault: &Fault) {
        if self.unknown.len() < UNKNOWN && !self.unknown.contains(&fault.message) {
            self.unknown.push(fault.message.clone());
            self.wire.push(frames::fault(fault));
        }
    }

    async fn on_frame(&mut self, text: &Bytes) -> Option<End> {
        let frame = match self.read(text) {
            Ok(frame) => frame?,
            Err(end) => return Some(end),
        };
        if let Some(end) = self.beyond_ticket(&frame) {
            return Some(end);
        }
        match frame {
            Frame::Hello(_) => {
                let message = "this socket has had its hello; this one was ignored";
                self.wire.push(frames::fault(&Fault::whole(Code::HelloTwice, message)));
            }
            Frame::Log(said) => {
                let batches = self.voice.log(said, self.heard, self.ctx.clock.now());
                self.tell(Incoming::Log(batches)).await;
            }
            Frame::Progress(said) => {
                let (items, pause) = self.voice.progress(said, self.heard, self.ctx.clock.now());
                self.paused = self.paused.max(pause);
                self.tell(Incoming::Progress(items)).await;
            }
            Frame::Ping => {
                self.paused = self.paused.max(self.pings.take(1, self.heard));
                self.wire.push(frames::pong());
            }
            Frame::Said(said) if says_nothing(&said) => {}
            Frame::Said(said) => return self.on_said(said).await,
        }
        None
    }

    /// What the worker says goes to the owner.
    async fn on_said(&mut self, said: Incoming) -> Option<End> {
        match said {
            Incoming::Received(_) => failpoint::hit(Point::ReadReceived).await,
            Incoming::Results(_) => failpoint::hit(Point::ReadResult).await,
            Incoming::Labels(_) | Incoming::Capacity(_) => {
                self.paused = self.paused.max(self.pings.take(1, self.heard));
            }
            Incoming::Goodbye => self.left = true,
            _ => {}
        }
        self.tell(said).await;
        self.left.then_some(End::Close(Close::Normal))
    }

    /// A message that is no frame ends the socket only when such messages repeat: the worker may hold other work.
    fn no_frame(&mut self, fault: &Fault) -> Option<End> {
        let count = self.mistakes.one_more(self.heard);
        if matches!(count, Some(1) | None) {
            let ((at, reason), closed) = (frames::logged(fault), count.is_none());
            warn!(at, reason, closed, "a worker sent what is no frame");
        }
        count.is_none().then_some(End::Close(Close::BadFrame))
    }

    /// Frames that are wrong or say nothing cost the worker its own time, as those about attempts that are not known.
    fn idle_words(&mut self, decoded: &frames::Decoded) {
        let empty = match &decoded.frame {
            None | Some(Frame::Hello(_) | Frame::Said(Incoming::Drain)) => true,
            Some(Frame::Said(said)) => says_nothing(said),
            Some(Frame::Log(_) | Frame::Progress(_) | Frame::Ping) => false,
        };
        let idle = decoded.faults.len() + usize::from(empty && decoded.faults.is_empty());
        if idle > 0 {
            self.paused = self.paused.max(self.strangers.take(idle, self.heard));
        }
    }

    /// How the socket ends when a frame asks for more than the worker's ticket allows.
    fn beyond_ticket(&mut self, frame: &Frame) -> Option<End> {
        let allowed = self.allowed.as_ref()?;
        let checked = match frame {
            Frame::Said(Incoming::Labels(labels)) => allowed.check_labels(labels),
            Frame::Said(Incoming::Capacity(slots)) => allowed.check_slots(slots),
            _ => return None,
        };
        self.wire.push(frames::fault(&Fault::from(&checked.err()?)));
        Some(End::Close(Close::NotAllowed))
    }

    /// Queues everything that waits, up to a batch, so that one flush writes it.
    async fn on_outgoing(&mut self, first: Next) -> Option<End> {
        let mut next = Some(first);
        while let Some(Next { message, caught_up }) = next {
            if caught_up {
                self.tell(Incoming::CaughtUp).await;
            }
            match message {
                Outgoing::Assign(tasks) => {
                    failpoint::hit(Point::WriteAssign).await;
                    let wire = &mut self.wire;
                    frames::assign(&tasks, self.ctx.limits.frame_bytes, |frame| wire.push_tasks(frame));
                }
                Outgoing::Close(close) => return Some(End::Close(close)),
                message => {
                    self.slow_down(&message);
                    if let Outgoing::Reconnect(within) = message {
                        self.leave_by = Some(self.ctx.clock.instant() + within);
                    }
                    if let Some(frame) = frames::encode(&message) {
                        self.wire.push(frame);
                    }
                }
            }
            next = if self.wire.pending_bytes() < BATCH { self.inbox.try_next() } else { None };
        }
        None
    }

    /// A worker that keeps speaking of attempts that the engine does not know is read more slowly.
    fn slow_down(&mut self, message: &Outgoing) {
        let strangers = match message {
            Outgoing::Superseded(tasks) => tasks.iter().filter(|(_, reason)| *reason == Reason::Unknown).count(),
            Outgoing::Error(Code::TooManyRequests | Code::NotHeld, _) => 1,
            _ => 0,
        };
        if strangers > 0 {
            self.paused = self.paused.max(self.strangers.take(strangers, self.ctx.clock.instant()));
        }
    }

    async fn tell(&mut self, message: Incoming) {
        self.ctx.scheduler.worker(self.connection, message).await;
    }
}

/// Whether a list of attempts is empty: nobody need hear of it.
const fn says_nothing(said: &Incoming) -> bool {
    match said {
        Incoming::Received(attempts) | Incoming::FreeSlot(attempts) => attempts.is_empty(),
        Incoming::Results(results) => results.is_empty(),
        Incoming::Extend(extensions) => extensions.is_empty(),
        _ => false,
    }
}
