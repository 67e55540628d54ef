//! A shard with callers, workers and a database that does at once what it is asked: for measuring, not for testing.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use helve::config::Scheduling;
use helve_core::{
    Answer, Body, Command, Context, CreateRow, Effect, Extra, FinishRow, Incoming, NewRunRow, NewSession, OpenRow,
    RowOutcome, Rows, RunFacts, Settings, Shard, Ticket, Transport, Write,
};
use helve_domain::clock::Timestamp;
use helve_domain::definition::{Spec, WorkflowDefinition};
use helve_domain::delivery::{Attempt, Outcome, Outgoing, WorkerInfo};
use helve_domain::id::{RunId, SessionId, TenantId, WorkerId};
use helve_domain::json::Payload;
use helve_domain::status::RunStatus;

/// The size of an input, as in `helve bench`.
pub const PAYLOAD: usize = 200;

/// A shard and everything around it.
pub struct Play {
    pub shard: Shard,
    pub now: Timestamp,
    tenant: TenantId,
    spec: Arc<Spec>,
    body: Arc<Body>,
    /// The session behind each socket.
    sessions: Vec<SessionId>,
    /// Attempts that were pushed and are not ended, with their sockets.
    held: Vec<(Transport, Attempt)>,
    out: Vec<Effect>,
    next: u64,
}

/// An input of 200 bytes.
pub fn input() -> Payload {
    Payload::trusted(Bytes::from(format!("{{\"data\":\"{}\"}}", "x".repeat(PAYLOAD - 11))))
}

impl Play {
    /// `workers` with `slots` each, and a window of `window` queued runs in memory.
    pub fn new(workers: usize, slots: u32, window: usize) -> Self {
        let usual = Scheduling::default();
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        let definition: WorkflowDefinition = serde_json::from_str(r#"{"tasks":[{"name":"noop"}]}"#).unwrap();
        let mut play = Self {
            shard: Shard::new(Settings {
                optimistic: true,
                window,
                pending: usual.pending,
                grace: usual.grace,
                ack: usual.ack,
                cancel_grace: usual.cancel_grace,
                redeliveries: 25,
                traced: false,
            }),
            now,
            tenant: TenantId::generate(now),
            spec: Arc::new(definition.compile("noop", 1).unwrap()),
            body: Arc::new(Body { input: input(), metadata: Payload::empty_object(), traceparent: None }),
            sessions: Vec::new(),
            held: Vec::new(),
            out: Vec::new(),
            next: 0,
        };
        play.load_timers(Vec::new());
        (0..workers).for_each(|_| play.connect(slots));
        play
    }

    /// Decides on a command, and on everything that follows from it.
    pub fn step(&mut self, command: Command) {
        let cx = Context {
            now: self.now,
            optimistic_room: 1_000_usize.saturating_sub(self.shard.optimistic_in_flight()),
            creating: self.shard.creates_in_flight(),
            watched: false,
        };
        self.shard.step(command, cx, &mut self.out);
        let mut effects = mem::take(&mut self.out);
        for effect in effects.drain(..) {
            match effect {
                Effect::Write(write) => self.step(Command::Committed(write.flight, outcomes(&write, &self.body))),
                Effect::Push(to, Outgoing::Assign(tasks)) => self.held.extend(tasks.iter().map(|t| (to, t.attempt))),
                // The database holds no queued run that memory does not: nothing is ever left out of a window.
                Effect::LoadQueue(key, ..) => self.step(Command::QueueLoaded(key, Vec::new(), true)),
                Effect::Answer(_, Answer::Welcome(welcome)) => self.sessions.push(welcome.session),
                Effect::Answer(_, Answer::Failed(error)) => panic!("refused: {error:?}"),
                _ => {}
            }
        }
        if self.out.capacity() < effects.capacity() {
            self.out = effects;
        }
    }

    fn connect(&mut self, slots: u32) {
        let (transport, ticket) = (self.sessions.len() as Transport, self.ticket());
        let info = WorkerInfo {
            name: "play".into(),
            sdk: "play".into(),
            actions: vec![self.spec.action.clone()],
            slots: BTreeMap::from([("default".into(), slots)]),
            labels: BTreeMap::new(),
        };
        let hello = NewSession {
            tenant: self.tenant,
            worker: WorkerId::generate(self.now),
            session: SessionId::generate(self.now),
            secret: ("secret".to_owned(), [0; 32]),
            transport,
            info,
            resume: None,
            holding: Vec::new(),
        };
        self.step(Command::Connect(Box::new(hello), ticket));
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        self.next
    }

    /// A trigger as it comes to the core.
    pub fn trigger(&mut self) -> Command {
        self.trigger_at(None)
    }

    fn trigger_at(&mut self, run_at: Option<Timestamp>) -> Command {
        self.now = self.now.plus(std::time::Duration::from_micros(10));
        let run = NewRunRow {
            id: RunId::generate(self.now),
            tenant: self.tenant,
            spec: Arc::clone(&self.spec),
            body: Arc::clone(&self.body),
            priority: self.spec.priority,
            run_at,
            key: None,
            extra: Extra::default(),
        };
        Command::Create(Box::new(run), Some(self.ticket()))
    }

    /// Creates a run, and commits that.
    pub fn create(&mut self) {
        let trigger = self.trigger();
        self.step(trigger);
    }

    /// Creates a run that is due a millisecond from now.
    pub fn schedule(&mut self) {
        let later = self.now.plus(std::time::Duration::from_millis(1));
        let trigger = self.trigger_at(Some(later));
        self.step(trigger);
    }

    /// Lets the time of everything pass that was scheduled.
    pub fn pass(&mut self) {
        self.now = self.now.plus(std::time::Duration::from_millis(2));
        self.step(Command::Tick);
    }

    /// A worker confirms the attempt that it has had for longest; gives it.
    pub fn receive(&mut self) -> (Transport, Attempt) {
        let (transport, attempt) = self.held.swap_remove(0);
        self.say(transport, Incoming::Received(vec![attempt]));
        (transport, attempt)
    }

    /// It succeeds, and the result is committed with whatever takes its place.
    pub fn succeed(&mut self, (transport, attempt): (Transport, Attempt)) {
        self.say(transport, Incoming::Results(vec![(attempt, Outcome::Succeeded(Payload::null()))]));
    }

    fn say(&mut self, transport: Transport, message: Incoming) {
        let session = self.sessions[usize::try_from(transport).unwrap()];
        self.step(Command::Worker { session, transport, message });
    }

    /// The whole life of a run: created, assigned or queued, confirmed, ended. With a backlog it is another run that
    /// ends, and the next of the backlog that is assigned.
    pub fn life(&mut self) {
        self.create();
        let attempt = self.receive();
        self.succeed(attempt);
    }

    /// Runs that workers hold.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The answer to a read of timers: until a minute from now, these rows are all.
    pub fn load_timers(&mut self, rows: Vec<OpenRow>) {
        let until = self.now.plus(std::time::Duration::from_secs(60));
        self.step(Command::TimersAsked(until));
        self.step(Command::TimersLoaded(rows, until, true));
    }

    /// Rows of queued runs, or of runs that are due within this minute, as the database has them.
    pub fn rows(&self, state: RunStatus, n: u32) -> Vec<OpenRow> {
        let row = |i: u32| {
            let at = self.now.plus(std::time::Duration::from_micros(u64::from(i)));
            OpenRow {
                facts: RunFacts {
                    run: RunId::generate(at),
                    tenant: self.tenant,
                    state,
                    attempt: 0,
                    retries: 0,
                    unparked: 0,
                    freed: false,
                    priority: self.spec.priority.number(),
                    rank: self.spec.priority.rank(at),
                    due: (state == RunStatus::Scheduled).then(|| at.plus(std::time::Duration::from_secs(30))),
                    holder: None,
                    started_at: None,
                    extra: Extra::default(),
                },
                spec: Arc::clone(&self.spec),
            }
        };
        (0..n).map(row).collect()
    }

    /// The queue of the one action.
    pub fn queue(&self) -> helve_core::QueueKey {
        helve_core::QueueKey::of(self.tenant, self.spec.action.clone())
    }

    /// What the core wants written for a new run and for its end, as one batch of each has it.
    pub fn writes(&mut self, runs: usize) -> (Vec<CreateRow>, Vec<FinishRow>) {
        let (mut created, mut ended) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let trigger = self.trigger();
            created.extend_from_slice(self.rows_of(trigger).creates());
            let (transport, attempt) = self.receive();
            let (session, output) = (self.sessions[usize::try_from(transport).unwrap()], Payload::null());
            let message = Incoming::Results(vec![(attempt, Outcome::Succeeded(output))]);
            ended.extend_from_slice(self.rows_of(Command::Worker { session, transport, message }).finishes());
        }
        (created, ended)
    }

    /// One step with one transition; commits it.
    fn rows_of(&mut self, command: Command) -> Rows {
        let cx = Context { now: self.now, optimistic_room: 1_000, creating: 0, watched: false };
        let mut out = Vec::new();
        self.shard.step(command, cx, &mut out);
        let write =
            out.into_iter().find_map(|e| if let Effect::Write(write) = e { Some(write) } else { None }).unwrap();
        self.step(Command::Committed(write.flight, outcomes(&write, &self.body)));
        write.rows
    }
}

/// Every row is as expected.
fn outcomes(write: &Write, body: &Arc<Body>) -> Vec<RowOutcome> {
    let body = |wanted: bool| RowOutcome::Applied(wanted.then(|| Arc::clone(body)));
    match &write.rows {
        Rows::Finish(rows) => {
            rows.iter().map(|row| body(matches!(row, FinishRow::Move(row) if row.want_body))).collect()
        }
        other => (0..other.len()).map(|_| body(false)).collect(),
    }
}
