//! What makes two states of the model the same: everything that a later decision can depend on, in order.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write as _};
use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

use super::system::{Node, System};
use crate::state::pauses::Pauses;
use crate::state::session::Session;
use crate::state::task::Task;
use crate::{CreateRow, EndRow, FinishRow, InsertRow, MoveRow, OpenRow, Rows, RunFacts, Shard, WorkerChange, Write};

/// Text that is only hashed; gathered first, since an unoptimised hasher is slow with many small pieces.
struct Ink(String);

impl Ink {
    fn put(&mut self, part: impl Debug) {
        write!(self.0, "{part:?};").expect("a string takes everything");
    }

    fn sorted<K: Ord + Debug, V: Debug>(&mut self, parts: impl Iterator<Item = (K, V)>) {
        let mut parts: Vec<_> = parts.collect();
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        self.put(parts);
    }

    /// Every field is named: a new one does not compile until somebody has said whether decisions look at it.
    fn shard(&mut self, shard: &Shard) {
        let Shard {
            settings: _,
            tasks,
            queues,
            offers,
            sessions,
            pauses,
            flights,
            keys,
            // They follow from the tasks and the sessions.
            timers: _,
            session_timers: _,
            timer_horizon,
            timer_asked,
            loading,
            welcomes,
            // These follow from the queues, the tasks and the flights.
            loading_queues: _,
            creating: _,
            creating_of: _,
            optimistic: _,
            next_flight,
            draining,
            // Nothing is decided by them.
            counters: _,
            unfenced: _,
            hasty: _,
        } = shard;
        self.sorted(tasks.iter().map(|(run, task)| (run, Judged(task))));
        self.sorted(queues.iter());
        self.sorted(offers.iter());
        self.sorted(sessions.iter().map(|(id, session)| (id, Judged(session))));
        let Pauses { standing, rows, timers, unanswered } = pauses;
        self.sorted(standing.iter());
        self.sorted(rows.iter());
        self.put((timers, unanswered));
        self.sorted(flights.iter());
        self.sorted(keys.iter());
        self.sorted(loading.iter());
        self.put((timer_horizon, timer_asked, welcomes, next_flight, draining));
    }

    fn node(&mut self, node: &Node) {
        self.shard(&node.shard);
        for lane in &node.lanes {
            self.put("lane");
            lane.iter().for_each(|write| self.write(write));
        }
        self.put(&node.loads);
    }

    fn write(&mut self, write: &Write) {
        let Write { flight, tenant: _, rows } = write;
        self.put(flight);
        for row in rows.creates() {
            match row {
                CreateRow::Run(row) => {
                    let InsertRow { run, place, rank, provided } = &**row;
                    self.put((run.id, place, rank, provided));
                }
                CreateRow::Event(event) => self.put(event.id),
            }
        }
        for row in rows.finishes() {
            match row {
                FinishRow::Move(row) => {
                    // The worker and the reason are for people.
                    let MoveRow { run, tenant: _, guard, place, mark, worker: _, want_body, reason: _ } = &**row;
                    self.put((run, guard, place, mark, want_body));
                }
                FinishRow::End(row) => {
                    let EndRow { run, tenant: _, guard, state, output, error: _, finished_at: _, reason: _ } = &**row;
                    self.put((run, guard, state, output));
                }
            }
        }
        match rows {
            Rows::Create(_) | Rows::Finish(_) => {}
            Rows::Worker(WorkerChange::Put(row)) => self.put((row.worker, row.session)),
            Rows::Worker(WorkerChange::Gone(worker)) => self.put(worker),
            Rows::Pause(row) => self.put(&row.pause),
        }
    }

    fn row(&mut self, row: &OpenRow) {
        let OpenRow { facts, spec: _ } = row;
        let RunFacts {
            run,
            tenant: _,
            state,
            attempt,
            retries,
            unparked,
            freed,
            priority: _,
            rank,
            due,
            holder,
            started_at,
            extra: _,
        } = facts;
        self.put((run, state, attempt, retries, unparked, freed, rank, due, holder, started_at));
    }
}

/// What decisions look at of something in memory.
struct Judged<'a, T>(&'a T);

impl Debug for Judged<'_, Task> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Task {
            // They are the same for every run of the model.
            tenant: _,
            spec: _,
            priority: _,
            extra: _,
            rank,
            retries,
            attempt,
            unparked,
            body,
            phase,
            flight,
            deferred,
            timer,
        } = self.0;
        (rank, retries, attempt, unparked, body.is_some(), phase, flight, deferred, timer).fmt(f)
    }
}

impl Debug for Judged<'_, Session> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Session {
            worker,
            tenant: _,
            // Whoever knows the session knows its secret.
            secret: _,
            former: _,
            info: _,
            used,
            transport,
            lost_at,
            ready,
            draining,
            congested,
            paused,
            holds,
            timer,
            // The model's workers do not come near it.
            lookups: _,
        } = self.0;
        let holds: BTreeMap<_, _> = holds.iter().collect();
        (worker, transport, lost_at, ready, draining, congested, paused, used, timer, holds).fmt(f)
    }
}

impl System {
    /// Fixes what the state is, after the last change.
    pub fn seal(&mut self) {
        let mut ink = Ink(String::with_capacity(8_192));
        for node in &self.nodes {
            match node {
                Some(node) => ink.node(node),
                None => ink.put("none"),
            }
        }
        for hanging in &self.air {
            ink.put((hanging.node, hanging.lane, hanging.epoch, &hanging.executed, hanging.awaited));
            ink.write(&hanging.write);
        }
        let store = &self.store;
        store.open.values().for_each(|(row, _)| ink.row(row));
        ink.put((&store.ended, &store.keys, &store.under_key, store.epochs, store.fenced));
        ink.put(store.workers.values().map(|w| (w.worker, w.session)).collect::<Vec<_>>());
        ink.put((&self.workers, &self.clients, &self.given));
        ink.put((&self.pausing, &store.pause));
        ink.put((self.now, self.owner, self.faults, self.takeover, self.taken_over, self.given_twice, self.broken));
        let hash = Sha256::digest(ink.0.as_bytes());
        self.digest = hash.iter().take(8).fold(0, |all, byte| (all << 8) | u64::from(*byte));
    }
}

impl Hash for System {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

impl PartialEq for System {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.store.open.values().map(|(r, _)| (r.run, r.state, r.attempt)).collect();
        let faults = self.faults;
        write!(f, "open {rows:?}, ended {:?}, workers {:?}, {faults} faults left", self.store.ended, self.workers)
    }
}
