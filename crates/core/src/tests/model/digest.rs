//! What makes two states of the model the same: everything that a later decision can depend on, in order.

use std::fmt::{self, Debug, Write as _};
use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

use crate::{CreateRow, FinishRow, Rows, Shard, WorkerChange, Write};

use super::system::{Node, System};

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

    fn shard(&mut self, shard: &Shard) {
        self.sorted(shard.tasks.iter().map(|(run, t)| {
            (run, (t.rank, t.retries, t.attempt, t.body.is_some(), &t.phase, t.flight, &t.deferred, t.timer))
        }));
        self.sorted(shard.queues.iter());
        self.sorted(shard.offers.iter());
        for (id, s) in &shard.sessions.iter().collect::<std::collections::BTreeMap<_, _>>() {
            self.put((
                id,
                s.worker,
                s.transport,
                s.lost_at,
                s.ready,
                s.draining,
                s.congested,
                s.paused,
                &s.used,
                s.timer,
            ));
            self.sorted(s.holds.iter());
        }
        self.sorted(shard.pauses.standing.iter());
        self.sorted(shard.pauses.rows.iter());
        self.put((&shard.pauses.timers, &shard.pauses.unanswered));
        self.sorted(shard.flights.iter());
        self.sorted(shard.keys.iter());
        self.sorted(shard.loading.iter());
        self.put((shard.timer_horizon, shard.timer_asked, &shard.welcomes, shard.creating, shard.next_flight));
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
        self.put(write.flight);
        for row in write.rows.creates() {
            match row {
                CreateRow::Run(row) => self.put((row.run.id, &row.place, row.rank)),
                CreateRow::Event(event) => self.put(event.id),
            }
        }
        for row in write.rows.finishes() {
            match row {
                FinishRow::Move(row) => self.put((row.run, row.guard, &row.place, row.want_body)),
                FinishRow::End(row) => self.put((row.run, row.guard, row.state, &row.output)),
            }
        }
        match &write.rows {
            Rows::Create(_) | Rows::Finish(_) => {}
            Rows::Worker(WorkerChange::Put(row)) => self.put((row.worker, row.session)),
            Rows::Worker(WorkerChange::Gone(worker)) => self.put(worker),
            Rows::Pause(row) => self.put(&row.pause),
        }
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
        for (run, (r, _)) in &store.open {
            ink.put((run, r.state, r.attempt, r.retries, r.rank, r.due, r.holder, r.started_at));
        }
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
