//! A shard with a store, lanes and workers made of memory: every order of events can be played.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::definition::{Spec, WorkflowDefinition};
use helve_domain::delivery::{Attempt, Outcome, Outgoing, WorkerInfo};
use helve_domain::id::{RunId, SessionId, TenantId, WorkerId};
use helve_domain::json::Payload;
use helve_domain::pause::{Pause, Target};
use helve_domain::run::RunError;
use helve_domain::status::RunStatus;

use crate::{
    Answer, Body, Command, Context, CreateKey, Effect, Extra, Incoming, Lane, NewRunRow, NewSession, OpenRow, QueueKey,
    Settings, Shard, Ticket, Transport, Write,
};

/// An open row of the store.
#[derive(Clone)]
pub struct Stored {
    pub row: OpenRow,
    pub body: Arc<Body>,
}

/// A read that is on its way.
pub enum Load {
    /// A window, with the rows of its snapshot, which is as old as it can be.
    Queue(QueueKey, Vec<OpenRow>, bool),
    Run(RunId),
}

pub struct World {
    pub shard: Shard,
    pub now: Timestamp,
    pub tenant: TenantId,
    pub spec: Arc<Spec>,
    pub open: HashMap<RunId, Stored>,
    pub ended: HashMap<RunId, (RunStatus, i32, Option<SessionId>)>,
    pub keys: HashMap<String, RunId>,
    pub pauses: BTreeMap<Target, Pause>,
    /// Pauses whose caller has its answer: nothing of them may start.
    pub shut: HashSet<Target>,
    /// The last order for each target: a pause that is answered after a resume was asked for shuts nothing.
    pub ordered: HashMap<Target, Ticket>,
    pub lanes: [VecDeque<Write>; 2],
    pub loads: VecDeque<Load>,
    pub answers: HashMap<Ticket, Answer>,
    /// Triggers that this shard has to answer.
    pub asked: Vec<Ticket>,
    pub inboxes: HashMap<Transport, VecDeque<Outgoing>>,
    /// Every attempt that was pushed, with the session that got it.
    pub seen: HashMap<Attempt, SessionId>,
    /// What those who watch have heard of each run.
    pub told: HashMap<RunId, Vec<(RunStatus, i32)>>,
    /// The order in which attempts were first pushed.
    pub order: Vec<RunId>,
    pub sessions: HashMap<Transport, (SessionId, String)>,
    hellos: HashMap<Ticket, Transport>,
    pub timers: Option<(Vec<OpenRow>, Timestamp)>,
    /// Until when a run may wait although a slot is free: the database refused something, and it is tried again then.
    pub again_by: Timestamp,
    next: u64,
}

pub fn spec(definition: &str) -> Arc<Spec> {
    let definition: WorkflowDefinition = serde_json::from_str(definition).unwrap();
    Arc::new(definition.compile("w", 1).unwrap())
}

pub fn settings() -> Settings {
    Settings {
        optimistic: true,
        window: 4,
        pending: 1_000,
        grace: Duration::from_secs(15),
        ack: Duration::from_secs(2),
        cancel_grace: Duration::from_secs(5),
        redeliveries: 3,
        traced: false,
    }
}

impl World {
    pub fn new(settings: Settings) -> Self {
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        let mut world = Self {
            shard: Shard::new(settings),
            now,
            tenant: TenantId::generate(now),
            spec: spec(r#"{"tasks":[{"name":"a","retries":{"count":2,"base":"1s","jitter":false}}]}"#),
            open: HashMap::new(),
            ended: HashMap::new(),
            keys: HashMap::new(),
            pauses: BTreeMap::new(),
            shut: HashSet::new(),
            ordered: HashMap::new(),
            lanes: [VecDeque::new(), VecDeque::new()],
            loads: VecDeque::new(),
            answers: HashMap::new(),
            asked: Vec::new(),
            inboxes: HashMap::new(),
            seen: HashMap::new(),
            told: HashMap::new(),
            order: Vec::new(),
            sessions: HashMap::new(),
            hellos: HashMap::new(),
            timers: None,
            again_by: now,
            next: 1,
        };
        world.load_timers();
        world
    }

    /// A world whose runs are of this definition.
    pub fn of(definition: &str, settings: Settings) -> Self {
        let mut world = Self::new(settings);
        world.spec = spec(definition);
        world
    }

    pub fn ticket(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn step(&mut self, command: Command) {
        let cx =
            Context { now: self.now, optimistic_room: 1_000, creating: self.shard.creates_in_flight(), watched: true };
        let mut out = Vec::new();
        self.shard.step(command, cx, &mut out);
        for effect in out {
            match effect {
                Effect::Write(write) => self.lanes[usize::from(write.lane() == Lane::Finish)].push_back(write),
                Effect::Answer(ticket, answer) => self.answered(ticket, answer),
                Effect::Push(transport, message) => self.pushed(transport, message),
                Effect::Ended(..) | Effect::Seen(_) | Effect::Span(_) => {}
                Effect::Changed(change) => self.changed(*change),
                Effect::LoadQueue(key, from, limit, apart) => {
                    let read = self.read_queue(key, from, limit, &apart);
                    self.loads.push_back(read);
                }
                Effect::LoadRun(run) => self.loads.push_back(Load::Run(run)),
            }
        }
        self.check();
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer) {
        if let Answer::Welcome(welcome) = &answer {
            self.sessions.insert(self.hellos[&ticket], (welcome.session, welcome.secret.clone()));
        }
        if let Answer::Paused(paused) = &answer
            && self.ordered.get(&paused.target).is_none_or(|last| *last == ticket)
        {
            self.shut.insert(paused.target.clone());
        }
        self.answers.insert(ticket, answer);
    }

    fn pushed(&mut self, transport: Transport, message: Outgoing) {
        if let Outgoing::Assign(tasks) = &message {
            for task in tasks {
                let session = self.session_of(transport);
                let before = self.seen.insert(task.attempt, session);
                assert!(before.is_none_or(|s| s == session), "I7 two workers got {:?}", task.attempt);
                if before.is_none() {
                    self.order.push(task.attempt.run);
                }
                let row = &self.open[&task.attempt.run].row;
                assert_eq!(
                    (row.state, row.attempt),
                    (RunStatus::Running, task.attempt.number),
                    "pushed before its commit"
                );
            }
        }
        self.inboxes.entry(transport).or_default().push_back(message);
    }

    pub fn session_of(&self, transport: Transport) -> SessionId {
        *self.shard.sessions.iter().find(|s| s.1.transport == Some(transport)).expect("pushed to a live socket").0
    }

    /// What must be true after every step.
    fn check(&self) {
        let creating: usize = self.shard.creating_of.values().sum();
        assert_eq!(creating, self.shard.creating, "creates by tenant are all creates");
        let loading = self.shard.queues.values().filter(|queue| queue.loading).count();
        assert_eq!(loading, self.shard.loading_queues, "every window that is read is counted");
        assert!(self.shard.queues.values().all(|queue| queue.knows_its_heads()), "the heads are those of the classes");
        for s in self.shard.sessions.values() {
            let held = crate::state::session::used_by_holds(s);
            let used: BTreeMap<_, _> = s.used.iter().filter(|u| *u.1 > 0).map(|(k, v)| (k.clone(), *v)).collect();
            let held: BTreeMap<_, _> = held.into_iter().filter(|u| u.1 > 0).collect();
            assert_eq!(used, held, "I13 slots in use are what is held");
            for (kind, used) in used {
                assert!(used <= s.info.slots[&kind], "I12 more slots used than there are");
            }
        }
    }

    pub fn trigger(&mut self) -> (RunId, Ticket) {
        self.trigger_with(|_| {})
    }

    pub fn trigger_with(&mut self, change: impl FnOnce(&mut NewRunRow)) -> (RunId, Ticket) {
        let ticket = self.ticket();
        self.asked.push(ticket);
        let id = RunId::generate(self.now);
        self.now = self.now.plus(Duration::from_micros(1));
        let mut run = NewRunRow {
            id,
            tenant: self.tenant,
            spec: Arc::clone(&self.spec),
            body: Arc::new(Body { input: Payload::null(), metadata: Payload::null(), traceparent: None }),
            priority: self.spec.priority,
            run_at: None,
            key: None,
            extra: Extra::default(),
        };
        change(&mut run);
        self.step(Command::Create(Box::new(run), Some(ticket)));
        (id, ticket)
    }

    pub fn cancel(&mut self, run: RunId) -> Ticket {
        let (tenant, ticket) = (self.tenant, self.ticket());
        self.step(Command::Cancel { tenant, run, ticket });
        ticket
    }

    pub fn unpark(&mut self, run: RunId) -> Ticket {
        let (tenant, ticket) = (self.tenant, self.ticket());
        self.step(Command::Unpark { tenant, run, ticket });
        ticket
    }

    pub fn parked(&self) -> Vec<RunId> {
        let mut parked: Vec<RunId> =
            self.open.values().filter(|s| s.row.state == RunStatus::Parked).map(|s| s.row.run).collect();
        parked.sort_unstable();
        parked
    }

    pub fn with_key(&self, key: &str) -> CreateKey {
        CreateKey { tenant: self.tenant, scope: "w".into(), key: key.into(), body_hash: [0; 32] }
    }

    pub fn connect(&mut self, slots: u32) -> Transport {
        let transport = self.hello(slots, None, &[]);
        self.settle();
        transport
    }

    pub fn hello(&mut self, slots: u32, resume: Option<Transport>, holding: &[Attempt]) -> Transport {
        let (transport, ticket) = (self.ticket(), self.ticket());
        let hash = |s: &str| -> [u8; 32] { <sha2::Sha256 as sha2::Digest>::digest(s.as_bytes()).into() };
        let resume = resume.and_then(|t| self.sessions.get(&t).cloned());
        let new = SessionId::generate(self.now);
        let secret = format!("secret {transport}");
        self.hellos.insert(ticket, transport);
        self.step(Command::Connect(
            Box::new(NewSession {
                tenant: self.tenant,
                worker: WorkerId::generate(self.now),
                session: new,
                secret: (secret.clone(), hash(&secret)),
                transport,
                info: WorkerInfo {
                    name: "n".into(),
                    sdk: "s".into(),
                    actions: vec!["a".into()],
                    slots: [("default".into(), slots)].into(),
                    labels: BTreeMap::new(),
                },
                resume: resume.map(|(id, secret)| (id, hash(&secret))),
                holding: holding.to_vec(),
            }),
            ticket,
        ));
        transport
    }

    pub fn say(&mut self, transport: Transport, message: Incoming) {
        let Some((session, _)) = self.sessions.get(&transport).cloned() else { return };
        self.step(Command::Worker { session, transport, message });
    }

    pub fn succeed(&mut self, transport: Transport, attempt: Attempt) {
        self.say(transport, Incoming::Results(vec![(attempt, Outcome::Succeeded(Payload::null()))]));
    }

    pub fn fail(&mut self, transport: Transport, attempt: Attempt) {
        let error = RunError { message: "boom".into(), code: None, retryable: None, retry_after_ms: None };
        self.say(transport, Incoming::Results(vec![(attempt, Outcome::Failed(error))]));
    }

    /// Attempts in the inbox of a socket, confirmed.
    pub fn receive(&mut self, transport: Transport) -> Vec<Attempt> {
        let mut got = Vec::new();
        for message in std::mem::take(self.inboxes.entry(transport).or_default()) {
            if let Outgoing::Assign(tasks) = message {
                got.extend(tasks.iter().map(|t| t.attempt));
            }
        }
        if !got.is_empty() {
            self.say(transport, Incoming::Received(got.clone()));
        }
        got
    }

    pub fn state(&self, run: RunId) -> RunStatus {
        self.ended.get(&run).map_or_else(|| self.open[&run].row.state, |e| e.0)
    }
}
