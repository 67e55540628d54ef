//! Requests of the entries become commands of the core.

use std::iter::Enumerate;
use std::sync::Arc;
use std::vec::IntoIter;

use data_encoding::HEXLOWER;
use helve_core::{Body, Command, CreateKey, Incoming, NewEventRow, NewRunRow, Ticket, Transport};
use helve_domain::change::Unusual;
use helve_domain::error::Result;
use helve_domain::id::{EventId, RunId, TenantId};
use helve_domain::trace::RunTrace;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::Owner;
use super::gauges::Question;
use super::handover::moved;
use super::replies::{Bulk, Outcomes, Reply};
use crate::failpoint::{self, Point};
use crate::sched::lanes::batch::Class;
use crate::sched::{Connection, Created, EventCreated, Idempotency, NewEvent, NewRun, Request, Stats};
use crate::share::Held;

/// Rows of a bulk request that one turn decides on.
const BULK_TURN: usize = 32;

/// What is left of a bulk request. All its items are one tenant's.
pub(in crate::sched) enum BulkWork {
    Runs(Enumerate<IntoIter<NewRun>>, Outcomes<Created>),
    Events(Enumerate<IntoIter<NewEvent>>, Outcomes<EventCreated>),
}

/// A bulk request, with what its items count against their tenant's share.
pub(in crate::sched) type Counted = (BulkWork, Option<Held>);

impl Owner {
    /// Decides on one request.
    pub fn request(&mut self, request: Request) {
        let Some(request) = self.admit(request) else { return };
        match request {
            Request::Create { run, reply } => {
                let (tenant, watch) = (run.tenant, run.watch);
                let row = self.new_run(run);
                let ticket = self.ticket(shard_of(tenant), Reply::Create { run: row.id, reply, watch });
                self.step(shard_of(tenant), Command::Create(Box::new(row), Some(ticket)), Class::Single);
            }
            Request::CreateMany { runs, held, reply } => {
                let tenant = runs.first().map(|run| run.tenant);
                let bulk = Bulk::of(runs.len(), reply);
                self.begin_bulk(tenant, (BulkWork::Runs(runs.into_iter().enumerate(), bulk), held));
            }
            Request::Events { events, reply } => {
                let tenant = events.first().map(|event| event.tenant);
                let bulk = Bulk::of(events.len(), reply);
                self.begin_bulk(tenant, (BulkWork::Events(events.into_iter().enumerate(), bulk), None));
            }
            Request::Event { event, reply } => {
                let tenant = event.tenant;
                let class = if event.specs.len() > 1 { Class::Bulk } else { Class::Single };
                let ticket = self.ticket(shard_of(tenant), Reply::Event { reply });
                let row = self.new_event(event);
                self.step(shard_of(tenant), Command::CreateEvent(Box::new(row), ticket), class);
            }
            Request::Cancel { tenant, run, reply } => {
                let ticket = self.ticket(shard_of(tenant), Reply::Cancel { reply });
                self.step(shard_of(tenant), Command::Cancel { tenant, run, ticket }, Class::Single);
            }
            Request::Unpark { tenant, run, reply } => {
                let ticket = self.ticket(shard_of(tenant), Reply::Unpark { reply });
                self.step(shard_of(tenant), Command::Unpark { tenant, run, ticket }, Class::Single);
            }
            Request::Pause { order, reply } => {
                let shard = shard_of(order.tenant);
                let ticket = self.ticket(shard, Reply::Pause { reply });
                self.step(shard, Command::Pause(Box::new(order), ticket), Class::Single);
            }
            Request::Why { asked, reply } => {
                let now = self.clock.now();
                let why = self.shards.get(shard_of(asked.tenant)).and_then(|owned| owned.state.why(&asked, now));
                // Nobody may be left to hear it.
                let _ = reply.send(Ok(why));
            }
            Request::Watch { tenant, run, reply } => self.wait_for(run, shard_of(tenant), reply),
            Request::Connect { hello, transport, outbox, reply } => self.connect(hello, transport, outbox, reply),
            Request::Gone { transport } => self.gone(transport),
            Request::Worker { from, message } => self.worker(from, message),
            Request::Snapshot { tenant, reply } => {
                let workers = self.shards.get(shard_of(tenant)).map(|owned| owned.state.workers(tenant));
                let _ = reply.send(workers.unwrap_or_default());
            }
            Request::Stats { reply } => {
                let _ = reply.send(self.stats());
            }
            Request::Measure(question) => self.measure(question),
            Request::Drain { within } => {
                for shard in self.shards.numbers() {
                    self.step(shard, Command::Drain(within), Class::Single);
                }
            }
            Request::Quiesce { reply } => self.quiesced.push(reply),
        }
    }

    /// Lets a request through if its shard is served here; else answers it.
    fn admit(&mut self, request: Request) -> Option<Request> {
        let tenant = match &request {
            Request::Create { run, .. } => run.tenant,
            Request::CreateMany { runs, .. } => match runs.first() {
                Some(run) => run.tenant,
                None => return Some(request),
            },
            Request::Events { events, .. } => match events.first() {
                Some(event) => event.tenant,
                None => return Some(request),
            },
            Request::Event { event, .. } => event.tenant,
            Request::Connect { hello, .. } => hello.tenant,
            Request::Pause { order, .. } => order.tenant,
            Request::Why { asked, .. } => asked.tenant,
            Request::Cancel { tenant, .. }
            | Request::Unpark { tenant, .. }
            | Request::Watch { tenant, .. }
            | Request::Snapshot { tenant, .. }
            | Request::Measure(Question::Tenant(tenant, _)) => *tenant,
            Request::Measure(_)
            | Request::Worker { .. }
            | Request::Gone { .. }
            | Request::Stats { .. }
            | Request::Drain { .. }
            | Request::Quiesce { .. } => {
                return Some(request);
            }
        };
        if self.takes(shard_of(tenant)) {
            return Some(request);
        }
        // A caller that has gone away needs no answer. Who watches reads the row when the sender is dropped.
        match request {
            Request::Create { reply, .. } => drop(reply.send(Err(moved()))),
            Request::CreateMany { runs, reply, .. } => drop(reply.send(runs.iter().map(|_| Err(moved())).collect())),
            Request::Events { events, reply } => drop(reply.send(events.iter().map(|_| Err(moved())).collect())),
            Request::Event { reply, .. } => drop(reply.send(Err(moved()))),
            Request::Connect { reply, .. } => drop(reply.send(Err(moved()))),
            Request::Cancel { reply, .. } | Request::Unpark { reply, .. } => drop(reply.send(Err(moved()))),
            Request::Pause { reply, .. } => drop(reply.send(Err(moved()))),
            Request::Why { reply, .. } => drop(reply.send(Err(moved()))),
            _ => {}
        }
        None
    }

    pub fn ticket(&mut self, shard: usize, reply: Reply) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.replies.insert(ticket, (shard, reply));
        ticket
    }

    /// As [`Owner::ticket`], for an item of a bulk request; `None`: its shard has moved meanwhile, and it is told so.
    fn item_ticket(&mut self, shard: usize, item: Reply) -> Option<Ticket> {
        if self.shards.get(shard).is_some() {
            return Some(self.ticket(shard, item));
        }
        self.fail(item, moved());
        None
    }

    fn new_run(&self, run: NewRun) -> NewRunRow {
        let key = run.idempotency.map(|i| create_key(run.tenant, &run.spec.workflow, i));
        let id = RunId::generate(self.clock.now());
        let trace = self.trace_of(id, run.traceparent.as_deref());
        NewRunRow {
            id,
            tenant: run.tenant,
            spec: run.spec,
            body: Arc::new(Body { input: run.input, metadata: run.metadata, traceparent: run.traceparent }),
            priority: run.priority,
            run_at: run.run_at,
            key,
            extra: Unusual { replay_of: run.replay_of, trace, ..Unusual::default() }.into(),
        }
    }

    fn new_event(&self, event: NewEvent) -> NewEventRow {
        let now = self.clock.now();
        let id = EventId::generate(now);
        let key = |scope: String, key: &str, body_hash| CreateKey {
            tenant: event.tenant,
            scope: scope.into(),
            key: key.into(),
            body_hash,
        };
        // The scope of an event's key is its source, that of a replay the event; the space keeps both apart from each
        // other and from every workflow's name.
        let create_key = match (&event.source, event.replay_of, &event.once) {
            (Some((source, id)), ..) => Some(key(format!("event {source}"), id, event.body_hash)),
            (None, Some(of), Some(once)) => Some(key(format!("replay {of}"), &once.key, once.body_hash)),
            (None, ..) => None,
        };
        let body = Arc::new(Body { input: event.payload, metadata: event.metadata, traceparent: event.traceparent });
        let run = |spec: Arc<helve_domain::definition::Spec>| {
            let run = RunId::generate(now);
            let trace = self.trace_of(run, body.traceparent.as_deref());
            NewRunRow {
                id: run,
                tenant: event.tenant,
                priority: spec.priority,
                spec,
                body: Arc::clone(&body),
                run_at: None,
                key: None,
                extra: Unusual { event: Some(id), trace, replay_of: None }.into(),
            }
        };
        let runs = event.specs.into_iter().map(run).collect();
        let NewEvent { tenant, key, source, replay_of, skipped, .. } = event;
        NewEventRow { id, tenant, key, source, create_key, body, replay_of, skipped, runs }
    }

    /// The trace of a new run, if that is recorded.
    fn trace_of(&self, run: RunId, traceparent: Option<&str>) -> Option<RunTrace> {
        self.tracer.sampler()?.trace_of(run, traceparent)
    }

    /// Of nothing there is nothing to decide: it is answered already.
    fn begin_bulk(&mut self, tenant: Option<TenantId>, work: Counted) {
        if let Some(tenant) = tenant {
            self.bulks.push(tenant, work);
        }
    }

    /// Whether a bulk request can go on: what its tenant has waiting for the lane is enough for the next batch.
    pub fn bulk_goes_on(&self) -> bool {
        self.bulks.any(|tenant| self.create_waiting().has_room(tenant))
    }

    /// Takes some items of the bulk requests, in turn: a thousand decisions at once would keep everybody else waiting.
    pub fn advance_bulks(&mut self) {
        let mut bulks = std::mem::take(&mut self.bulks);
        let next = bulks.take(|tenant| self.create_waiting().has_room(tenant));
        self.bulks = bulks;
        let Some((tenant, (work, held))) = next else { return };
        let shard = shard_of(tenant);
        match work {
            BulkWork::Runs(mut runs, bulk) => {
                for (place, run) in runs.by_ref().take(BULK_TURN) {
                    let item = Reply::Item { place, bulk: Arc::clone(&bulk) };
                    let Some(ticket) = self.item_ticket(shard, item) else { continue };
                    let row = self.new_run(run);
                    self.step(shard, Command::Create(Box::new(row), Some(ticket)), Class::Bulk);
                }
                if runs.len() > 0 {
                    self.bulks.put_back(tenant, (BulkWork::Runs(runs, bulk), held));
                }
            }
            BulkWork::Events(mut events, bulk) => {
                let mut rows = 0;
                while rows < BULK_TURN
                    && let Some((place, event)) = events.next()
                {
                    rows += 1 + event.specs.len();
                    let item = Reply::EventItem { place, bulk: Arc::clone(&bulk) };
                    let Some(ticket) = self.item_ticket(shard, item) else { continue };
                    let row = self.new_event(event);
                    self.step(shard, Command::CreateEvent(Box::new(row), ticket), Class::Bulk);
                }
                if events.len() > 0 {
                    self.bulks.put_back(tenant, (BulkWork::Events(events, bulk), held));
                }
            }
        }
    }

    fn worker(&mut self, from: Connection, message: Incoming) {
        let Some(shard) = self.sockets.get(&from.transport).map(|s| s.shard) else { return };
        if !self.takes(shard) {
            // It says so again on its next socket.
            return;
        }
        let gone = matches!(message, Incoming::Lost | Incoming::Goodbye);
        if let Incoming::Received(_) = message {
            failpoint::hit_now(Point::Received);
        }
        let message = match message {
            Incoming::Log(batches) => return self.log(shard, from, batches),
            Incoming::Progress(items) => return self.progress(shard, from, items),
            message => message,
        };
        let Connection { session, transport } = from;
        self.step(shard, Command::Worker { session, transport, message }, Class::Single);
        if gone {
            self.flush();
            self.forget_socket(transport);
        }
    }

    fn forget_socket(&mut self, transport: Transport) {
        if self.sockets.remove(&transport).is_none() {
            warn!("a socket was closed twice");
        }
    }

    pub fn stats(&self) -> Stats {
        let (mut stats, counters) = (self.totals, self.shards.counters());
        stats.created += counters.created;
        stats.optimistic += counters.optimistic;
        stats.finished += counters.finished;
        stats.resent += counters.resent;
        stats.taken_back += counters.taken_back;
        stats
    }
}

pub(in crate::sched) fn shard_of(tenant: TenantId) -> usize {
    usize::try_from(tenant.shard()).unwrap_or(0)
}

fn create_key(tenant: TenantId, workflow: &Arc<str>, idempotency: Idempotency) -> CreateKey {
    CreateKey { tenant, scope: Arc::clone(workflow), key: idempotency.key.into(), body_hash: idempotency.body_hash }
}

pub(in crate::sched) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// 256 random bits as hexadecimal digits, with their hash.
pub(in crate::sched) fn fresh_secret() -> Result<(String, [u8; 32]), getrandom::Error> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)?;
    let secret = HEXLOWER.encode(&bytes);
    let hash = hash(&secret);
    Ok((secret, hash))
}
