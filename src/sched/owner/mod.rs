//! The owner's loop: commands in, decisions by the core, two lanes that commit them, answers and frames out.

mod bulks;
mod chores;
pub mod gauges;
mod handover;
mod hellos;
pub(super) mod intake;
pub(super) mod reads;
mod replies;
mod said;
mod shards;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use helve_core::{Command, Context, Effect, Lane, Settings, Ticket, Transport};
use helve_domain::clock::{Clock, Timestamp};
use helve_domain::delivery::Assignment;
use helve_domain::id::{RunId, SHARDS, SessionId};
use helve_domain::run::Run;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::cluster::Standing;
use crate::cluster::{Order, Report};
use crate::config::Scheduling;
use crate::failpoint::{self, Point};
use crate::hub::Outbox;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::sched::lanes::batch::{Class, Waiting};
use crate::sched::lanes::slot::{LaneSlot, Running, ended, finished};
use crate::sched::lanes::writer::{BatchDone, Done, Job, LaneWriter};
use crate::sched::{Request, Stats};
use crate::traces::Tracer;
use bulks::Bulks;
use chores::Chores;
use intake::Counted;
use reads::{ReadDone, ReadJob, ReadQueue, Reads};
use replies::Reply;
use shards::Shards;

/// Requests that one turn takes before it looks at anything else.
const TURN: usize = 512;
/// The longest sleep: the loop shows that it is alive. At most a quarter of the lease.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How often callers who have gone away are forgotten.
const SWEEP: Duration = Duration::from_secs(30);
/// How often lanes that rest look at their connections.
const LOOK: Duration = Duration::from_secs(1);

/// Whoever waits for a run to end.
pub(in crate::sched) type Waiter = oneshot::Sender<Arc<Run>>;

/// A worker's socket.
pub(in crate::sched) struct Socket {
    pub shard: usize,
    pub session: SessionId,
    /// The session with which it wants to go on.
    pub resumes: Option<SessionId>,
    pub outbox: Outbox,
}

/// All state of the process's shards and the only task that touches it.
pub(in crate::sched) struct Owner {
    pub clock: Clock,
    pub settings: Scheduling,
    pub shards: Shards,
    /// Who waits for an answer of which shard.
    pub replies: HashMap<Ticket, (usize, Reply)>,
    pub next_ticket: Ticket,
    pub sockets: HashMap<Transport, Socket>,
    /// Who waits for the end of a run, by its shard.
    pub waiters: HashMap<RunId, (usize, Vec<Waiter>)>,
    /// Assignments of this turn, by socket: one frame each.
    pub assigned: Vec<(Transport, Vec<Assignment>)>,
    pub reads: ReadQueue,
    pub live: Live,
    pub totals: Stats,
    lanes: [LaneSlot; 2],
    reader: Option<Reads>,
    reading: Running<(Reads, ReadDone)>,
    standing: Standing,
    orders: mpsc::Receiver<Order>,
    pub reports: mpsc::Sender<Report>,
    pub metrics: Arc<Metrics>,
    pub tracer: Tracer,
    pub chores: Chores,
    sweep_at: Timestamp,
    look_at: Timestamp,
    pub quiesced: Vec<oneshot::Sender<()>>,
    /// Bulk requests that are decided a piece at a time.
    pub bulks: Bulks<Counted>,
    effects: Vec<Effect>,
    /// Sums over the shards: optimistic assignments and creates that are not committed.
    optimistic: usize,
    creating: usize,
}

/// What an owner is made of.
pub(in crate::sched) struct OwnerParts {
    pub clock: Clock,
    pub settings: Scheduling,
    pub create: LaneWriter,
    pub finish: LaneWriter,
    pub reader: Reads,
    pub standing: Standing,
    pub orders: mpsc::Receiver<Order>,
    pub reports: mpsc::Sender<Report>,
    pub live: Live,
    pub metrics: Arc<Metrics>,
    pub tracer: Tracer,
}

impl Owner {
    pub fn new(parts: OwnerParts) -> Self {
        let s = &parts.settings;
        let settings = Settings {
            optimistic: s.optimistic,
            window: s.window,
            pending: s.pending,
            grace: s.grace,
            ack: s.ack,
            cancel_grace: s.cancel_grace,
            redeliveries: s.redeliveries,
            traced: parts.tracer.sampler().is_some(),
        };
        let now = parts.clock.now();
        Self {
            shards: Shards::new(usize::try_from(SHARDS).unwrap_or(0), settings),
            clock: parts.clock,
            settings: parts.settings,
            replies: HashMap::new(),
            next_ticket: 1,
            sockets: HashMap::new(),
            waiters: HashMap::new(),
            assigned: Vec::new(),
            reads: ReadQueue::default(),
            live: parts.live,
            totals: Stats::default(),
            lanes: [LaneSlot::new(parts.create), LaneSlot::new(parts.finish)],
            reader: Some(parts.reader),
            reading: None,
            standing: parts.standing,
            orders: parts.orders,
            reports: parts.reports,
            metrics: parts.metrics,
            tracer: parts.tracer,
            chores: Chores::from(now),
            sweep_at: now.plus(SWEEP),
            look_at: now.plus(LOOK),
            quiesced: Vec::new(),
            bulks: Bulks::default(),
            effects: Vec::new(),
            optimistic: 0,
            creating: 0,
        }
    }

    /// Serves until the process stops or another one takes over.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>, stopping: CancellationToken) {
        let mut taken = Vec::with_capacity(TURN);
        loop {
            self.standing.tick();
            self.pump();
            let (sleep, bulk, chores) = (self.until_next(), self.bulk_goes_on(), self.chores_go_on());
            let [create, finish] = &mut self.lanes;
            tokio::select! {
                (writer, done) = finished(&mut finish.running) => self.lane_done(Lane::Finish, writer, done),
                (writer, done) = finished(&mut create.running) => self.lane_done(Lane::Create, writer, done),
                n = requests.recv_many(&mut taken, TURN) => {
                    if n == 0 {
                        return;
                    }
                    for request in taken.drain(..) {
                        self.request(request);
                    }
                }
                (reads, done) = finished(&mut self.reading) => self.read_done(reads, done),
                Some(order) = self.orders.recv() => self.order(order),
                () = ended(&mut finish.writer, &mut finish.look) => finish.reopen(),
                () = ended(&mut create.writer, &mut create.look) => create.reopen(),
                () = std::future::ready(()), if bulk => self.advance_bulks(),
                () = tokio::task::yield_now(), if chores => {}
                () = tokio::time::sleep(sleep) => {}
                () = stopping.cancelled() => return,
            }
            self.do_chores();
            self.sweep();
            self.finish_moves();
            self.flush();
        }
    }

    /// What waits for the create lane.
    pub const fn create_waiting(&self) -> &Waiting {
        &self.lanes[0].waiting
    }

    /// What waits for the finish lane.
    pub const fn finish_waiting(&self) -> &Waiting {
        &self.lanes[1].waiting
    }

    fn until_next(&self) -> Duration {
        let now = self.clock.now();
        let next = [self.next_due(), Some(self.chores.read_at), Some(self.sweep_at)].into_iter().flatten().min();
        let longest = LONGEST_SLEEP.min(self.settings.lease / 4);
        let next = next.map_or(longest, |at| at.since(now)).min(longest);
        let instant = self.clock.instant();
        self.lanes.iter().filter_map(|lane| lane.next(instant)).chain(self.until_moves()).fold(next, Duration::min)
    }

    fn pump(&mut self) {
        let now = self.clock.instant();
        for lane in &mut self.lanes {
            lane.pump(now);
        }
        if self.reading.is_none()
            && let Some(reading) = self.reads.next()
        {
            match self.reader.take() {
                Some(mut reads) => {
                    self.reading = Some(Box::pin(async move {
                        let done = reads.run(&reading).await;
                        (reads, done)
                    }));
                }
                None => error!("the scheduler's reader is missing"),
            }
        }
        if !self.quiesced.is_empty() && self.bulks.is_empty() && self.lanes.iter().all(LaneSlot::is_idle) {
            for done in self.quiesced.drain(..) {
                // Who asked may have given up.
                let _ = done.send(());
            }
        }
    }

    fn sweep(&mut self) {
        let now = self.clock.now();
        if self.look_at <= now {
            self.look_at = now.plus(LOOK);
            self.lanes.iter_mut().for_each(|lane| lane.look = true);
        }
        if self.sweep_at <= now {
            self.sweep_at = now.plus(SWEEP);
            self.waiters.retain(|_, (_, waiting)| {
                waiting.retain(|w| !w.is_closed());
                !waiting.is_empty()
            });
            self.sweep_sockets();
        }
    }

    /// One decision and what follows from it. Of a shard that is not owned there is nothing to decide.
    pub fn step(&mut self, shard: usize, command: Command, class: Class) {
        let cx = Context {
            now: self.clock.now(),
            optimistic_room: self.settings.optimistic_slots.saturating_sub(self.optimistic),
            creating: self.creating,
            watched: self.live.is_watched(),
        };
        let Some(owned) = self.shards.get_mut(shard).map(|owned| &mut owned.state) else { return };
        let mut effects = std::mem::take(&mut self.effects);
        self.optimistic -= owned.optimistic_in_flight();
        self.creating -= owned.creates_in_flight();
        owned.step(command, cx, &mut effects);
        self.optimistic += owned.optimistic_in_flight();
        self.creating += owned.creates_in_flight();
        for effect in effects.drain(..) {
            self.effect(shard, effect, class);
        }
        self.effects = effects;
    }

    fn effect(&mut self, shard: usize, effect: Effect, class: Class) {
        match effect {
            Effect::Write(write) => {
                let lane = match write.lane() {
                    Lane::Create => &mut self.lanes[0],
                    Lane::Finish => &mut self.lanes[1],
                };
                lane.waiting.push(Job { shard, write }, class);
            }
            Effect::Answer(ticket, answer) => self.answer(ticket, answer),
            Effect::Push(transport, message) => self.push(transport, message),
            Effect::Ended(run, view) => self.ended(run, view),
            Effect::Changed(change) => self.live.changed(*change),
            Effect::Seen(seen) => self.seen(seen),
            Effect::Span(span) => self.tracer.record(*span),
            Effect::LoadQueue(key, from, limit, apart) => {
                if let Some(of) = self.shards.tenure(shard) {
                    self.reads.push(ReadJob::Queue { of, key, from, limit, apart });
                }
            }
            Effect::LoadRun(run) => {
                if let Some(of) = self.shards.tenure(shard) {
                    self.reads.push_run(of, run);
                }
            }
        }
    }

    /// Transitions that wait for each lane, and what is created and not committed.
    pub fn waiting(&self) -> ([usize; 2], usize) {
        (self.lanes.each_ref().map(|lane| lane.waiting.len()), self.creating)
    }

    fn lane_done(&mut self, lane: Lane, writer: LaneWriter, mut done: BatchDone) {
        let slot = match lane {
            Lane::Create => &mut self.lanes[0],
            Lane::Finish => &mut self.lanes[1],
        };
        slot.landed(&mut done, self.clock.instant());
        let metrics = if lane == Lane::Create { &self.metrics.create } else { &self.metrics.finish };
        metrics.set_aside(slot.aside.len());
        if done.fenced {
            // The writer is not put back: nothing is written any more, and the process ends.
            return self.standing.fence();
        }
        failpoint::hit_now(Point::Committed);
        slot.writer = Some(writer);
        self.totals.batches += done.statements;
        self.totals.unknown += done.unknown;
        for (shard, flight, done) in done.results {
            let command = match done {
                Done::Committed(outcomes) => Command::Committed(flight, outcomes),
                Done::Rejected(why) => Command::Rejected(flight, why),
            };
            self.step(shard, command, Class::Single);
        }
    }

    fn read_done(&mut self, reads: Reads, done: ReadDone) {
        self.reading = None;
        self.reader = Some(reads);
        let commands = match done {
            ReadDone::Commands(commands) => commands,
            ReadDone::Timers(commands) => return self.chores.loaded(commands),
            ReadDone::Key { ticket, holder } => return self.key_found(ticket, holder),
            ReadDone::LeftBehind(left) => return self.gained(left),
        };
        for (of, command) in commands {
            if self.shards.holds(of) {
                self.step(of.shard, command, Class::Single);
            }
        }
    }

    /// Whether a bulk request has items left that are this shard's.
    pub fn has_bulk_of(&self, shard: usize) -> bool {
        self.bulks.any(|tenant| intake::shard_of(tenant) == shard)
    }
}
