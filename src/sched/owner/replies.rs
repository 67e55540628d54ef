//! What the owner tells others: callers, workers' outboxes, and who waits for a run to end.

use std::sync::Arc;

use helve_core::{Answer, Command, Ticket, Transport};
use helve_domain::delivery::{Outgoing, Welcome};
use helve_domain::error::{Code, Error, Result};
use helve_domain::id::{EventId, RunId};
use helve_domain::pause::Paused;
use helve_domain::run::Run;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::reads::ReadJob;
use super::{Owner, Waiter};
use crate::failpoint::{self, Point};
use crate::hub::Room;
use crate::sched::lanes::batch::Class;
use crate::sched::{Connection, Created, EventCreated};

/// Who waits for an answer, and for which.
pub(in crate::sched) enum Reply {
    Create {
        run: RunId,
        reply: oneshot::Sender<Result<Created>>,
        watch: bool,
    },
    /// One item of a bulk request.
    Item {
        place: usize,
        bulk: Outcomes<Created>,
    },
    /// One event of a bulk request.
    EventItem {
        place: usize,
        bulk: Outcomes<EventCreated>,
    },
    Event {
        reply: oneshot::Sender<Result<EventCreated>>,
    },
    Cancel {
        reply: oneshot::Sender<Result<()>>,
    },
    Unpark {
        reply: oneshot::Sender<Result<()>>,
    },
    /// A pause or a resume: what stands now.
    Pause {
        reply: oneshot::Sender<Result<Option<Paused>>>,
    },
    Connect {
        transport: Transport,
        reply: oneshot::Sender<Result<(Welcome, Connection)>>,
    },
}

/// The outcomes of a bulk request, answered when the last is there.
pub(in crate::sched) struct Bulk<T> {
    outcomes: Vec<Option<Result<T>>>,
    missing: usize,
    reply: Option<oneshot::Sender<Vec<Result<T>>>>,
}

/// Outcomes to which every item has a handle.
pub(in crate::sched) type Outcomes<T> = Arc<std::sync::Mutex<Bulk<T>>>;

impl<T> Bulk<T> {
    /// No outcome yet of `missing` items. Without any it is answered at once.
    pub fn of(missing: usize, reply: oneshot::Sender<Vec<Result<T>>>) -> Outcomes<T> {
        let mut bulk = Self { outcomes: (0..missing).map(|_| None).collect(), missing, reply: Some(reply) };
        bulk.answer();
        Arc::new(std::sync::Mutex::new(bulk))
    }

    fn set(&mut self, place: usize, outcome: Result<T>) {
        if let Some(slot) = self.outcomes.get_mut(place)
            && slot.replace(outcome).is_none()
        {
            self.missing -= 1;
        }
        self.answer();
    }

    fn answer(&mut self) {
        if self.missing == 0
            && let Some(reply) = self.reply.take()
        {
            // The caller may have gone: the runs stay.
            let _ = reply.send(std::mem::take(&mut self.outcomes).into_iter().flatten().collect());
        }
    }
}

impl Owner {
    /// A caller's answer. One that has gone away is no reason to do anything differently.
    pub fn answer(&mut self, ticket: Ticket, answer: Answer) {
        let answer = match answer {
            // Who holds the key stands in its row.
            Answer::KeyTaken(key) => return self.reads.push(ReadJob::Key { key, ticket }),
            other => other,
        };
        let Some((shard, reply)) = self.replies.remove(&ticket) else { return };
        match (reply, answer) {
            (Reply::Create { run: id, reply, watch }, Answer::Created(run)) => {
                let finished = watch.then(|| self.watch(id, shard));
                failpoint::hit_now(Point::BeforeAnswer);
                let _ = reply.send(Ok(Created::New { run, finished }));
                failpoint::hit_now(Point::AfterAnswer);
            }
            (Reply::Item { place, bulk }, Answer::Created(run)) => {
                set(&bulk, place, Ok(Created::New { run, finished: None }));
            }
            (Reply::Event { reply }, Answer::EventCreated(id, runs)) => {
                let _ = reply.send(Ok(EventCreated::New { id, runs }));
            }
            (Reply::EventItem { place, bulk }, Answer::EventCreated(id, runs)) => {
                set(&bulk, place, Ok(EventCreated::New { id, runs }));
            }
            (Reply::Cancel { reply }, Answer::Cancelled) => {
                failpoint::hit_now(Point::BeforeCancelled);
                let _ = reply.send(Ok(()));
                failpoint::hit_now(Point::AfterCancelled);
            }
            (Reply::Unpark { reply }, Answer::Unparked) => drop(reply.send(Ok(()))),
            (Reply::Pause { reply }, Answer::Paused(paused)) => drop(reply.send(Ok(Some(*paused)))),
            (Reply::Pause { reply }, Answer::Resumed(paused)) => drop(reply.send(Ok(paused.map(|p| *p)))),
            (Reply::Connect { transport, reply }, Answer::Welcome(welcome)) => {
                let session = welcome.session;
                if let Some(socket) = self.sockets.get_mut(&transport) {
                    socket.session = session;
                }
                if reply.send(Ok((*welcome, Connection { session, transport }))).is_err() {
                    self.gone(transport);
                }
            }
            (reply, Answer::Failed(error)) => self.fail(reply, error),
            (reply, _) => self.fail(reply, Error::Internal("an answer of a wrong kind".to_owned())),
        }
    }

    /// Tells a caller that its request came to nothing.
    pub fn fail(&mut self, reply: Reply, error: Error) {
        match reply {
            Reply::Create { reply, .. } => drop(reply.send(Err(error))),
            Reply::Item { place, bulk } => set(&bulk, place, Err(error)),
            Reply::EventItem { place, bulk } => set(&bulk, place, Err(error)),
            Reply::Event { reply } => drop(reply.send(Err(error))),
            Reply::Cancel { reply } | Reply::Unpark { reply } => drop(reply.send(Err(error))),
            Reply::Pause { reply } => drop(reply.send(Err(error))),
            Reply::Connect { transport, reply } => {
                self.sockets.remove(&transport);
                drop(reply.send(Err(error)));
            }
        }
    }

    /// A create met a key that is taken: the same body joins the earlier create, another is a conflict.
    pub fn key_found(&mut self, ticket: Ticket, holder: Option<(Uuid, bool)>) {
        let Some((_, reply)) = self.replies.remove(&ticket) else { return };
        let (target, same) = match holder {
            Some(holder) => holder,
            // It expired between the two statements: the caller's retry will be the first again.
            None => return self.fail(reply, Error::unavailable("the idempotency key has just expired")),
        };
        let conflict = |what: &str, existing: String| Error::Conflict {
            code: Code::IdempotencyConflict,
            message: what.to_owned(),
            existing: Some(existing),
        };
        let run = RunId::from_uuid(target);
        match reply {
            Reply::Create { reply, .. } if same => drop(reply.send(Ok(Created::Existing(run)))),
            Reply::Item { place, bulk } if same => set(&bulk, place, Ok(Created::Existing(run))),
            Reply::Event { reply } if same => {
                drop(reply.send(Ok(EventCreated::Existing(EventId::from_uuid(target)))));
            }
            Reply::EventItem { place, bulk } if same => {
                set(&bulk, place, Ok(EventCreated::Existing(EventId::from_uuid(target))));
            }
            reply @ (Reply::Event { .. } | Reply::EventItem { .. }) => {
                let what = "an event of this source and id was taken with another content; give a new event a new id";
                self.fail(reply, conflict(what, EventId::from_uuid(target).to_string()));
            }
            other => {
                let what = "this idempotency key was used with another body; use a new key for a new request";
                self.fail(other, conflict(what, run.to_string()));
            }
        }
    }

    /// Says something to a worker. Assignments of one turn become one frame.
    pub fn push(&mut self, transport: Transport, message: Outgoing) {
        let Outgoing::Assign(tasks) = message else { return self.deliver(transport, message) };
        match self.assigned.iter_mut().find(|(t, _)| *t == transport) {
            Some((_, waiting)) => waiting.extend(tasks),
            None => self.assigned.push((transport, tasks)),
        }
    }

    /// Hands the turn's assignments to their sockets.
    pub fn flush(&mut self) {
        for (transport, tasks) in std::mem::take(&mut self.assigned) {
            self.deliver(transport, Outgoing::Assign(tasks));
        }
    }

    fn deliver(&mut self, transport: Transport, message: Outgoing) {
        let Some(socket) = self.sockets.get(&transport) else { return };
        let points = match &message {
            Outgoing::Assign(_) => Some((Point::BeforeAssign, Point::AfterAssign)),
            Outgoing::Stored(_) => Some((Point::BeforeStored, Point::AfterStored)),
            _ => None,
        };
        if let Some((before, _)) = points {
            failpoint::hit_now(before);
        }
        let room = socket.outbox.push(message);
        if let Some((_, after)) = points {
            failpoint::hit_now(after);
        }
        if room == Room::No {
            let (shard, session) = (socket.shard, socket.session);
            self.step(shard, Command::Congested(session), Class::Single);
        }
    }

    /// Resolves when the run ends.
    fn watch(&mut self, run: RunId, shard: usize) -> oneshot::Receiver<Arc<Run>> {
        let (done, end) = oneshot::channel();
        self.wait_for(run, shard, done);
        end
    }

    /// Tells `done` when the run ends.
    pub fn wait_for(&mut self, run: RunId, shard: usize, done: Waiter) {
        self.waiters.entry(run).or_insert_with(|| (shard, Vec::new())).1.push(done);
    }

    /// A run has ended: whoever waits for it is told. Without the payloads in memory the sender is dropped,
    /// and the caller reads the row.
    pub fn ended(&mut self, run: RunId, view: Option<Box<Run>>) {
        let Some((_, waiting)) = self.waiters.remove(&run) else { return };
        let Some(view) = view else { return };
        let view = Arc::new(*view);
        for waiter in waiting {
            let _ = waiter.send(Arc::clone(&view));
        }
    }
}

fn set<T>(bulk: &std::sync::Mutex<Bulk<T>>, place: usize, outcome: Result<T>) {
    bulk.lock().unwrap_or_else(std::sync::PoisonError::into_inner).set(place, outcome);
}
