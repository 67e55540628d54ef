//! One worker's socket after its welcome: a single loop over what comes, what goes, and time.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use helve_domain::delivery::{Close, Incoming, Outgoing};
use helve_domain::id::TenantId;
use helve_domain::json::SMALL;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;
use tracing::{debug, info};

use super::guest::{Caller, Guest};
use super::wire::{End, Step, Wire};
use super::{Context, greet};
use crate::failpoint::{self, Point};
use crate::frames;
use crate::hub::{Inbox, Next};
use crate::sched::Connection;
use crate::share::Held;
use crate::worker::{Conversation, Heard, Said};

/// How long a worker may take nothing of what waits for it.
const STALL: Duration = Duration::from_secs(30);
/// Bytes taken from the outbox for one flush.
const BATCH: usize = 1 << 20;
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
    /// Given back with the socket.
    _place: Option<Held>,
    /// Resolves when the socket must end whatever happens on it.
    cut: BoxFuture<'static, Close>,
    conversation: Conversation,
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
            _place: guest.place,
            cut: cut(ctx, guest.revoked),
            conversation: Conversation::new(&ctx.limits, guest.allowed, now),
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
                let heard = self.hear(text.into(), now);
                self.act_on(heard).await
            }
            Message::Binary(_) => {
                let heard = self.conversation.hear_binary(now);
                self.act_on(heard).await
            }
            Message::Close(_) => Some(End::Gone),
            Message::Ping(_) => {
                self.paused = self.paused.max(self.conversation.pinged(now));
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

    fn hear(&mut self, text: Bytes, now: Instant) -> Heard {
        let text = self.counted(text, now);
        let (shares, tenant) = (&self.ctx.shares, self.tenant);
        let keep = |mended: Bytes| match mended.len() {
            0..=SMALL => mended,
            large => shares.count(tenant, large).keep(mended),
        };
        let said = Said { at: now, time: self.ctx.clock.now() };
        self.conversation.hear(&text, said, &self.ctx.limits, keep)
    }

    /// What the worker said goes to the owner, and the answers to the worker.
    async fn act_on(&mut self, heard: Heard) -> Option<End> {
        for answer in heard.answers {
            self.wire.push(answer);
        }
        self.paused = self.paused.max(heard.pause);
        if let Some(message) = heard.tell {
            match &message {
                Incoming::Received(_) => failpoint::hit(Point::ReadReceived).await,
                Incoming::Results(_) => failpoint::hit(Point::ReadResult).await,
                Incoming::Goodbye => self.left = true,
                _ => {}
            }
            self.tell(message).await;
        }
        heard.end.map(End::Close)
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
                    let now = self.ctx.clock.instant();
                    self.paused = self.paused.max(self.conversation.answered(&message, now));
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

    async fn tell(&mut self, message: Incoming) {
        self.ctx.scheduler.worker(self.connection, message).await;
    }
}
