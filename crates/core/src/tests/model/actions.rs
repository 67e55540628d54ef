//! What can happen next: what fair play will do sooner or later, what may happen besides, and faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use helve_domain::delivery::{Attempt, Outcome, WorkerInfo};
use helve_domain::id::{RunId, SessionId, WorkerId};
use helve_domain::json::Payload;
use uuid::Uuid;

use super::Protection;
use super::system::{HELLO, Hanging, Load, Node, System, spec, tenant};
use super::worker::{In, Out, SLOTS};
use crate::{Body, Command, CreateKey, Extra, Incoming, NewRunRow, NewSession};

/// How long a stall takes, at least until the next timer: enough to take an assignment back.
const STALL: Duration = Duration::from_secs(6);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A client sends its trigger to a node.
    Trigger(usize, usize),
    /// The next statement of a lane is executed, and its answer arrives.
    Commit(usize, usize),
    /// The oldest read of a node is answered.
    Read(usize),
    /// A lane gives a statement up and finds out what it did.
    Resolve(usize, usize),
    /// A worker opens a socket to the owner, for its session if it has one.
    Connect(usize),
    /// A worker reads a frame.
    Deliver(usize),
    /// A node reads a frame of a worker.
    Hear(usize),
    /// A worker does the work of an attempt.
    Finish(usize, Attempt),
    /// The first node notices that it was taken over.
    Die,
    /// Nothing else is left to do: the next timer.
    Tick,
    /// A statement without an answer executes now.
    Late(usize),
    /// Its answer comes after all.
    Answer(usize),
    /// Fault: a statement is sent and not answered.
    Hang(usize, usize),
    /// Fault: a client does not hear the answer and asks again.
    Again(usize),
    /// Fault: a socket breaks.
    Cut(usize),
    /// Fault: a worker loses a frame that it was sent.
    Overlook(usize),
    /// Fault: a node never hears a confirmation.
    Mute(usize),
    /// Fault: a worker repeats its result.
    Twice(usize),
    /// Fault: time passes while everything else stands still.
    Stall,
    /// Once: the second node takes over; the first one may live on.
    TakeOver,
    /// Once: somebody pauses the workflow.
    Pause,
    /// They resume it, again if the owner that they asked is gone.
    Resume,
}

const NODES: [usize; 2] = [0, 1];
const LANES: [usize; 2] = [0, 1];

impl System {
    /// What fair play does: as long as there is any of this, time stands still.
    pub fn progress(&self) -> Vec<Action> {
        let mut next = Vec::new();
        for (c, client) in self.clients.iter().enumerate() {
            if client.sent == 0 {
                next.push(Action::Trigger(c, self.owner));
            }
        }
        for n in NODES {
            let Some(node) = &self.nodes[n] else { continue };
            if !node.loads.is_empty() {
                next.push(Action::Read(n));
            }
            for l in LANES {
                match self.awaited(n, l) {
                    Some(_) => next.push(Action::Resolve(n, l)),
                    None if self.head(n, l).is_some() => next.push(Action::Commit(n, l)),
                    None => {}
                }
            }
        }
        for (w, worker) in self.workers.iter().enumerate() {
            if worker.socket.is_none() {
                next.push(Action::Connect(w));
            }
            if !worker.inbox.is_empty() {
                next.push(Action::Deliver(w));
            }
            if !worker.outbox.is_empty() {
                next.push(Action::Hear(w));
            }
            next.extend(worker.working.iter().map(|a| Action::Finish(w, *a)));
        }
        if self.taken_over && self.nodes[0].is_some() {
            next.push(Action::Die);
        }
        if self.pausing.wants_resume(self.owner) {
            next.push(Action::Resume);
        }
        next
    }

    /// What may happen and may also never happen, and faults while there are any left.
    pub fn chances(&self) -> Vec<Action> {
        let mut next = Vec::new();
        for (i, hanging) in self.air.iter().enumerate() {
            if hanging.executed.is_none() && self.may_write(hanging.node, hanging.lane, hanging.epoch) {
                next.push(Action::Late(i));
            }
            if hanging.executed.is_some() && hanging.awaited {
                next.push(Action::Answer(i));
            }
        }
        if self.takeover {
            next.push(Action::TakeOver);
        }
        if self.pausing.left {
            next.push(Action::Pause);
        }
        if self.taken_over && self.nodes[0].is_some() {
            let unsent = self.clients.iter().enumerate().filter(|c| c.1.sent == 0);
            next.extend(unsent.map(|(c, _)| Action::Trigger(c, 0)));
        }
        if self.faults > 0 {
            self.add_faults(&mut next);
        }
        next
    }

    fn add_faults(&self, next: &mut Vec<Action>) {
        for (n, l) in NODES.into_iter().flat_map(|n| LANES.map(|l| (n, l))) {
            if self.head(n, l).is_some() && self.awaited(n, l).is_none() {
                next.push(Action::Hang(n, l));
            }
        }
        for (c, client) in self.clients.iter().enumerate() {
            if client.key.is_some() && client.sent == 1 && client.waiting {
                next.push(Action::Again(c));
            }
        }
        for (w, worker) in self.workers.iter().enumerate() {
            if worker.welcomed {
                next.push(Action::Cut(w));
            }
            if let Some(In::Assign(_) | In::Stored(_)) = worker.inbox.front() {
                next.push(Action::Overlook(w));
            }
            match worker.outbox.front() {
                Some(Out::Received(_)) => next.push(Action::Mute(w)),
                Some(Out::Result(_)) => next.push(Action::Twice(w)),
                None => {}
            }
        }
        if self.next_timer().is_some() {
            next.push(Action::Stall);
        }
    }

    /// Nothing is left to do, ever.
    pub fn is_at_rest(&self) -> bool {
        self.next_timer().is_none() && self.progress().is_empty()
    }

    pub fn act(&mut self, action: Action) {
        match action {
            Action::Trigger(client, node) => self.trigger(client, node),
            Action::Commit(node, lane) => self.commit(node, lane),
            Action::Read(node) => self.read(node),
            Action::Resolve(node, lane) => self.resolve(node, lane),
            Action::Connect(worker) => self.connect(worker),
            Action::Deliver(w) => {
                if self.workers[w].read() {
                    self.cut(w);
                }
            }
            Action::Hear(w) => self.hear(w),
            Action::Finish(w, attempt) => self.workers[w].finish(attempt),
            Action::Die => self.die(),
            Action::Tick => {
                if let Some(at) = self.next_timer() {
                    self.pass(at);
                }
            }
            Action::Late(i) => {
                let outcomes = self.execute(self.air[i].write.clone());
                self.air[i].executed = Some(outcomes);
            }
            Action::Answer(i) => {
                let hanging = self.air.remove(i);
                let outcomes = hanging.executed.unwrap_or_default();
                self.step(hanging.node, Command::Committed(hanging.write.flight, outcomes));
            }
            Action::TakeOver => self.take_over(),
            Action::Pause => self.pause(),
            Action::Resume => self.resume(),
            fault => {
                self.faults -= 1;
                self.fail(fault);
            }
        }
    }

    fn fail(&mut self, fault: Action) {
        match fault {
            Action::Hang(n, lane) => {
                let epoch = self.store.epochs[n][lane];
                if let Some(write) = self.nodes[n].as_mut().and_then(|node| node.lanes[lane].pop_front()) {
                    self.air.push(Hanging { node: n, lane, epoch, write, executed: None, awaited: true });
                }
            }
            Action::Again(client) => self.trigger(client, self.owner),
            Action::Cut(w) => self.cut(w),
            Action::Overlook(w) => drop(self.workers[w].inbox.pop_front()),
            Action::Mute(w) => drop(self.workers[w].outbox.pop_front()),
            Action::Twice(w) => {
                let again = self.workers[w].outbox[0].clone();
                self.workers[w].outbox.push_back(again);
            }
            Action::Stall => {
                let end = self.now.plus(STALL);
                let first = self.next_timer();
                while let Some(at) = self.next_timer().filter(|at| *at <= end || Some(*at) == first) {
                    self.pass(at);
                }
            }
            _ => unreachable!("not a fault: {fault:?}"),
        }
    }

    /// The second node fences the first one and starts from the rows; what is in the air of the first one stays there.
    fn take_over(&mut self) {
        (self.takeover, self.taken_over) = (false, true);
        self.owner = 1;
        self.store.fenced = true;
        self.nodes[1] = Some(Node::new(self.off));
        self.take_up(1);
    }

    /// All workers connect before anything else happens.
    pub fn meet(&mut self) {
        for w in 0..self.workers.len() {
            self.connect(w);
        }
        while let Some(next) = self.progress().into_iter().find(|a| !matches!(a, Action::Trigger(..))) {
            self.act(next);
        }
    }

    fn trigger(&mut self, c: usize, node: usize) {
        let client = &mut self.clients[c];
        client.sent += 1;
        client.waiting = true;
        let name = c as u64 * 10 + client.sent;
        let key = client.key.map(|key| CreateKey {
            tenant: tenant(),
            scope: "w".into(),
            key: key.into(),
            body_hash: [0; 32],
        });
        let run = NewRunRow {
            id: RunId::from_uuid(Uuid::from_u128(u128::from(name))),
            tenant: tenant(),
            spec: spec(),
            body: Arc::new(Body { input: Payload::null(), metadata: Payload::null(), traceparent: None }),
            priority: spec().priority,
            run_at: None,
            key,
            extra: Extra::default(),
        };
        self.step(node, Command::Create(Box::new(run), Some(name)));
    }

    fn commit(&mut self, n: usize, lane: usize) {
        if !self.may_write(n, lane, self.store.epochs[n][lane]) {
            return self.die();
        }
        let Some(write) = self.nodes[n].as_mut().and_then(|node| node.lanes[lane].pop_front()) else { return };
        let outcomes = self.execute(write.clone());
        self.step(n, Command::Committed(write.flight, outcomes));
    }

    /// The lane opens a new connection, which ends what the old one may still do; then it reads back.
    fn resolve(&mut self, n: usize, lane: usize) {
        let Some(i) = self.awaited(n, lane) else { return };
        if self.off.contains(&Protection::UnknownHandling) {
            self.air[i].awaited = false;
            let flight = self.air[i].write.flight;
            return self.step(n, Command::Rejected(flight, "the answer is lost".to_owned()));
        }
        if n == 0 && self.store.fenced && !self.off.contains(&Protection::Epoch) {
            self.air.remove(i);
            return self.die();
        }
        self.store.epochs[n][lane] += 1;
        self.air[i].awaited = false;
        let write = self.air[i].write.clone();
        if !self.off.contains(&Protection::Epoch) || self.air[i].executed.is_some() {
            self.air.remove(i);
        }
        match self.store.traces(&write) {
            Some(outcomes) => self.step(n, Command::Committed(write.flight, outcomes)),
            None => {
                if let Some(node) = &mut self.nodes[n] {
                    node.lanes[lane].push_front(write);
                }
            }
        }
    }

    fn read(&mut self, n: usize) {
        let Some(load) = self.nodes[n].as_mut().and_then(|node| node.loads.pop_front()) else { return };
        let command = match load {
            Load::Queue(key, from, limit, apart) => {
                let gone = |w: &Arc<str>| key.part.as_ref().is_some_and(|p| p != w) || apart.contains(w);
                let (rows, all) = self.store.queue(from, limit, gone);
                Command::QueueLoaded(key, rows, all)
            }
            Load::Run(run) => Command::RunsLoaded(vec![(run, self.store.find(run))]),
        };
        self.step(n, command);
    }

    fn connect(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        worker.sockets += 1;
        let transport = worker.sockets * 10 + w as u64;
        worker.socket = Some((self.owner, transport));
        let id = Uuid::from_u128(u128::from(transport));
        // One secret for each worker: what the secrets do is told elsewhere.
        let secret = [w as u8; 32];
        let hello = NewSession {
            tenant: tenant(),
            worker: WorkerId::from_uuid(id),
            session: SessionId::from_uuid(id),
            secret: (String::new(), secret),
            transport,
            info: WorkerInfo {
                name: "n".into(),
                sdk: "s".into(),
                actions: vec!["a".into()],
                slots: [("default".into(), SLOTS)].into(),
                labels: BTreeMap::new(),
            },
            resume: worker.session.map(|session| (session, secret)),
            holding: worker.holding(),
        };
        self.step(self.owner, Command::Connect(Box::new(hello), HELLO + transport));
    }

    fn hear(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        let (Some((node, transport)), Some(session)) = (worker.socket, worker.session) else { return };
        let message = match worker.outbox.pop_front() {
            Some(Out::Received(attempt)) => Incoming::Received(vec![attempt]),
            Some(Out::Result(attempt)) => {
                let told = Payload::trusted(report(w, attempt).into());
                Incoming::Results(vec![(attempt, Outcome::Succeeded(told))])
            }
            None => return,
        };
        self.step(node, Command::Worker { session, transport, message });
    }

    fn cut(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        let lost = worker.socket.zip(worker.session);
        worker.disconnect();
        if let Some(((node, transport), session)) = lost {
            self.step(node, Command::Worker { session, transport, message: Incoming::Lost });
        }
    }
}

/// What a worker writes into the result of an attempt: who it is, and which attempt.
pub fn report(worker: usize, attempt: Attempt) -> String {
    format!("[{worker},{}]", attempt.number)
}
