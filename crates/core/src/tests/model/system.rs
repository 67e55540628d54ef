//! The state of the model: two nodes with the product's shard, their lanes, the database, workers and clients.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::definition::Spec;
use helve_domain::delivery::Attempt;
use helve_domain::id::{RunId, TenantId};
use uuid::Uuid;

use super::pause::{PAUSE, Pausing, RESUME};
use super::store::Store;
use super::worker::{In, Worker};
use super::{Protection, Scope};
use crate::state::session::used_by_holds;
use crate::tests::world;
use crate::{Answer, Command, Context, Effect, Flight, Lane, QueueKey, RowOutcome, Settings, Shard, Ticket, Write};

/// Tickets of hellos are the name of the socket above this; those of triggers lie below.
pub const HELLO: Ticket = 1_000;
/// Timers further away than this do not fire: a model in which everything waits for the execution timeout hides
/// what is stuck.
pub const FORESEEN: Duration = Duration::from_secs(60);

/// A read that a shard asked for.
#[derive(Clone, Debug)]
pub enum Load {
    Queue(QueueKey, Option<(i64, RunId)>, usize, Vec<Arc<str>>),
    Run(RunId),
}

#[derive(Clone)]
pub struct Node {
    pub shard: Shard,
    pub lanes: [VecDeque<Write>; 2],
    pub loads: VecDeque<Load>,
}

/// A statement whose answer does not come.
#[derive(Clone)]
pub struct Hanging {
    pub node: usize,
    pub lane: usize,
    pub epoch: u32,
    pub write: Write,
    pub executed: Option<Vec<RowOutcome>>,
    /// Its lane still waits for it.
    pub awaited: bool,
}

/// A client with one trigger.
#[derive(Clone, Debug, Default)]
pub struct Client {
    pub key: Option<&'static str>,
    pub sent: u64,
    pub told: Option<RunId>,
    pub waiting: bool,
    /// It was told that nothing was created.
    pub refused: bool,
}

#[derive(Clone)]
pub struct System {
    pub now: Timestamp,
    pub nodes: [Option<Node>; 2],
    pub owner: usize,
    pub store: Store,
    pub air: Vec<Hanging>,
    pub workers: Vec<Worker>,
    pub clients: Vec<Client>,
    pub faults: u32,
    /// A takeover may still come.
    pub takeover: bool,
    pub taken_over: bool,
    /// Which worker each attempt was given to.
    pub given: BTreeMap<Attempt, usize>,
    pub given_twice: bool,
    /// A broken invariant inside the core.
    pub broken: bool,
    pub pausing: Pausing,
    pub off: &'static [Protection],
    pub digest: u64,
}

pub fn tenant() -> TenantId {
    TenantId::from_uuid(Uuid::from_u128(1))
}

pub fn spec() -> Arc<Spec> {
    static SPEC: OnceLock<Arc<Spec>> = OnceLock::new();
    Arc::clone(SPEC.get_or_init(|| world::spec(r#"{"tasks":[{"name":"a","retries":0}]}"#)))
}

fn settings(off: &[Protection]) -> Settings {
    let never = Duration::from_secs(1_000_000);
    Settings {
        ack: if off.contains(&Protection::AckTimeout) { never } else { world::settings().ack },
        ..world::settings()
    }
}

impl Node {
    pub fn new(off: &[Protection]) -> Self {
        let mut shard = Shard::new(settings(off));
        shard.unfenced = off.contains(&Protection::AttemptFence);
        shard.hasty = off.contains(&Protection::PauseWaits);
        Self { shard, lanes: [VecDeque::new(), VecDeque::new()], loads: VecDeque::new() }
    }
}

impl System {
    pub fn new(scope: &Scope) -> Self {
        let Scope { workers, clients, faults, off, pauses, .. } = *scope;
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        let client = |key: &Option<&'static str>| Client { key: *key, ..Client::default() };
        let mut system = Self {
            now,
            nodes: [Some(Node::new(off)), None],
            owner: 0,
            store: Store::default(),
            air: Vec::new(),
            workers: vec![Worker::default(); workers],
            clients: clients.iter().map(client).collect(),
            faults,
            takeover: scope.takeover,
            taken_over: false,
            given: BTreeMap::new(),
            given_twice: false,
            broken: false,
            pausing: Pausing { left: pauses, ..Pausing::default() },
            off,
            digest: 0,
        };
        system.take_up(0);
        if scope.connected {
            system.meet();
        }
        system.seal();
        system
    }

    /// A node reads what is there and starts to work on it.
    pub fn take_up(&mut self, node: usize) {
        let until = self.now.plus(FORESEEN);
        let (workers, held, due) = self.store.left_behind(until);
        self.step(node, Command::TimersAsked(until));
        self.step(node, Command::PausesFound(self.store.paused()));
        self.step(node, Command::Recovered(workers, held));
        self.step(node, Command::TimersLoaded(due, until, true));
    }

    /// One step of the product's core, and what it wants done.
    pub fn step(&mut self, at: usize, command: Command) {
        let Some(node) = &mut self.nodes[at] else { return };
        let cx =
            Context { now: self.now, optimistic_room: 1_000, creating: node.shard.creates_in_flight(), watched: false };
        let mut out = Vec::new();
        // Without its protections the core may notice by itself that something is wrong.
        if catch_unwind(AssertUnwindSafe(|| node.shard.step(command, cx, &mut out))).is_err() {
            self.broken = true;
            return;
        }
        self.broken |= !slots_add_up(&node.shard);
        for effect in out {
            let Some(node) = &mut self.nodes[at] else { return };
            match effect {
                Effect::Write(write) => node.lanes[usize::from(write.lane() == Lane::Finish)].push_back(write),
                Effect::LoadQueue(key, from, limit, apart) => {
                    node.loads.push_back(Load::Queue(key, from, limit, apart))
                }
                Effect::LoadRun(run) => node.loads.push_back(Load::Run(run)),
                Effect::Ended(..) | Effect::Changed(_) | Effect::Seen(_) | Effect::Span(_) => {}
                Effect::Answer(ticket, answer) => self.answered(at, ticket, answer),
                Effect::Push(transport, message) => {
                    let to = self.workers.iter().position(|w| w.socket == Some((at, transport)));
                    if let (Some(to), Some(frame)) = (to, In::of(&message)) {
                        self.pushed(to, frame);
                    }
                }
            }
        }
    }

    fn pushed(&mut self, to: usize, frame: In) {
        if let In::Assign(attempt) = &frame {
            self.given_twice |= self.given.insert(*attempt, to).is_some_and(|before| before != to);
        }
        self.workers[to].inbox.push_back(frame);
    }

    fn answered(&mut self, at: usize, ticket: Ticket, answer: Answer) {
        if ticket == PAUSE || ticket == RESUME {
            return self.pause_answered(&answer);
        }
        if ticket >= HELLO {
            let transport = ticket - HELLO;
            let Some(worker) = self.workers.iter_mut().find(|w| w.socket == Some((at, transport))) else { return };
            match answer {
                Answer::Welcome(welcome) => {
                    let gone = welcome.superseded.iter().map(|s| s.0).collect();
                    worker.inbox.push_front(In::Welcome(welcome.session, gone));
                }
                _ => worker.disconnect(),
            }
            return;
        }
        let (client, number) = ((ticket / 10) as usize, ticket % 10);
        let key = self.clients[client].key;
        let run = match answer {
            Answer::Created(run) => Some(run.id),
            Answer::KeyTaken(_) => key.and_then(|k| self.store.keys.get(k).copied()),
            _ => None,
        };
        let client = &mut self.clients[client];
        // Who asked again does not hear what the first request became.
        if number == client.sent {
            client.waiting = false;
            client.told = run;
            client.refused = run.is_none();
        }
    }

    /// The first node ends: its sockets break, and what it had not written is gone.
    pub fn die(&mut self) {
        self.nodes[0] = None;
        for worker in self.workers.iter_mut().filter(|w| w.socket.is_some_and(|s| s.0 == 0)) {
            worker.disconnect();
        }
        for hanging in self.air.iter_mut().filter(|h| h.node == 0) {
            hanging.awaited = false;
        }
    }

    /// Whether a statement that was sent under this epoch may write.
    pub fn may_write(&self, node: usize, lane: usize, epoch: u32) -> bool {
        self.off.contains(&Protection::Epoch)
            || (self.store.epochs[node][lane] == epoch && !(node == 0 && self.store.fenced))
    }

    /// The next time at which some node has something to do of itself.
    pub fn next_timer(&self) -> Option<Timestamp> {
        let timers = self.nodes.iter().flatten().filter_map(|n| n.shard.next_timer());
        timers.min().filter(|at| *at <= self.now.plus(FORESEEN))
    }

    /// Time goes on to `at`; everything that is due fires.
    pub fn pass(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
        for node in 0..self.nodes.len() {
            let due = |n: &Node| n.shard.next_timer().is_some_and(|t| t <= self.now);
            if self.nodes[node].as_ref().is_some_and(due) {
                self.step(node, Command::Tick);
            }
        }
    }

    /// The transition of this name in the air.
    pub fn awaited(&self, node: usize, lane: usize) -> Option<usize> {
        self.air.iter().position(|h| h.awaited && h.node == node && h.lane == lane)
    }

    pub fn head(&self, node: usize, lane: usize) -> Option<Flight> {
        let node = self.nodes[node].as_ref()?;
        node.lanes[lane].front().map(|w| w.flight)
    }
}

/// Slots in use are what is held, and no more than there are.
fn slots_add_up(shard: &Shard) -> bool {
    shard.sessions.values().all(|s| {
        let held: BTreeMap<_, _> = used_by_holds(s).into_iter().filter(|u| u.1 > 0).collect();
        let used: BTreeMap<_, _> = s.used.iter().filter(|u| *u.1 > 0).map(|(k, v)| (k.clone(), *v)).collect();
        held == used && used.iter().all(|(kind, used)| *used <= s.info.slots[kind])
    })
}
