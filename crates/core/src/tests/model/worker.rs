//! A worker of the model: it works on what it gets, and reports until the result is stored.

use std::collections::{BTreeSet, VecDeque};

use helve_domain::delivery::{Attempt, Outgoing};
use helve_domain::id::SessionId;

use crate::Transport;

/// Slots of each worker.
pub const SLOTS: u32 = 1;

/// A frame to the worker.
#[derive(Clone, Debug, PartialEq)]
pub enum In {
    Welcome(SessionId, Vec<Attempt>),
    Assign(Attempt),
    Stored(Vec<Attempt>),
    Superseded(Vec<Attempt>),
    Close,
}

/// A frame from the worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Out {
    Received(Attempt),
    Result(Attempt),
}

#[derive(Clone, Debug, Default)]
pub struct Worker {
    /// The node and the name of the socket there.
    pub socket: Option<(usize, Transport)>,
    pub session: Option<SessionId>,
    /// On this socket; nothing is said before.
    pub welcomed: bool,
    pub sockets: u64,
    pub inbox: VecDeque<In>,
    pub outbox: VecDeque<Out>,
    pub working: BTreeSet<Attempt>,
    /// Ended here, not known to be stored.
    pub done: BTreeSet<Attempt>,
}

impl In {
    pub fn of(message: &Outgoing) -> Option<Self> {
        Some(match message {
            Outgoing::Assign(tasks) => Self::Assign(tasks[0].attempt),
            Outgoing::Stored(list) => Self::Stored(list.iter().map(|s| s.0).collect()),
            Outgoing::Superseded(list) => Self::Superseded(list.iter().map(|s| s.0).collect()),
            Outgoing::Close(_) => Self::Close,
            Outgoing::Cancel(..)
            | Outgoing::Extended(..)
            | Outgoing::Freed(_)
            | Outgoing::Reconnect(_)
            | Outgoing::Error(..) => {
                return None;
            }
        })
    }
}

impl Worker {
    /// What it says that it holds.
    pub fn holding(&self) -> Vec<Attempt> {
        self.working.union(&self.done).copied().collect()
    }

    /// Reads one frame. True: the socket is to be closed.
    pub fn read(&mut self) -> bool {
        match self.inbox.pop_front() {
            Some(In::Welcome(session, gone)) => {
                (self.session, self.welcomed) = (Some(session), true);
                self.drop_all(&gone);
                self.outbox.extend(self.done.iter().map(|a| Out::Result(*a)));
            }
            Some(In::Assign(attempt)) => {
                if self.done.contains(&attempt) {
                    self.outbox.push_back(Out::Result(attempt));
                } else {
                    self.working.insert(attempt);
                    self.outbox.push_back(Out::Received(attempt));
                }
            }
            Some(In::Stored(gone) | In::Superseded(gone)) => self.drop_all(&gone),
            Some(In::Close) => return true,
            None => {}
        }
        false
    }

    fn drop_all(&mut self, gone: &[Attempt]) {
        for attempt in gone {
            self.working.remove(attempt);
            self.done.remove(attempt);
        }
    }

    /// Does the work of an attempt.
    pub fn finish(&mut self, attempt: Attempt) {
        self.working.remove(&attempt);
        self.done.insert(attempt);
        if self.welcomed {
            self.outbox.push_back(Out::Result(attempt));
        }
    }

    /// The socket is gone with everything in it.
    pub fn disconnect(&mut self) {
        self.socket = None;
        self.welcomed = false;
        self.inbox.clear();
        self.outbox.clear();
    }
}
