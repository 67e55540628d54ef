//! What those who watch hear: every commit once, in the order of the run's life, and as the row has it.

use std::time::Duration;

use helve_domain::delivery::Attempt;
use helve_domain::id::RunId;
use helve_domain::live::{Change, Changed, Stage};
use helve_domain::status::RunStatus::{self, Cancelled, Queued, Running, Scheduled, Succeeded};

use super::world::{World, settings};
use crate::{Command, Incoming, Settings};

impl World {
    /// Checked in every story and every random order.
    pub(super) fn changed(&mut self, change: Change) {
        assert_eq!((change.tenant, change.at), (self.tenant, self.now));
        let Changed::Run { run, status, attempt, .. } = change.what else { return };
        let row = match self.ended.get(&run) {
            Some((status, attempt, _)) => (*status, *attempt),
            None => (self.open[&run].row.state, self.open[&run].row.attempt),
        };
        assert_eq!((status, attempt), row, "{run}: what is told is what is stored");
        let stage = Stage::of(status, attempt);
        let before = self.told.entry(run).or_default();
        assert!(before.last().is_none_or(|(s, a)| Stage::of(*s, *a) < stage), "{run}: {before:?}, then {stage:?}");
        before.push((status, attempt));
    }
}

fn told(w: &World, run: RunId) -> Vec<(RunStatus, i32)> {
    w.told.get(&run).cloned().unwrap_or_default()
}

#[test]
fn a_life_is_told_commit_by_commit() {
    for optimistic in [true, false] {
        let mut w = World::new(Settings { optimistic, ..settings() });
        let worker = w.connect(1);
        let (run, _) = w.trigger();
        assert_eq!(told(&w, run), [], "nothing is told before the commit");
        w.settle();
        let got = w.receive(worker);
        let born = if optimistic { vec![(Running, 1)] } else { vec![(Queued, 0), (Running, 1)] };
        assert_eq!(told(&w, run), born);
        w.fail(worker, got[0]);
        w.settle();
        w.advance(Duration::from_secs(2));
        w.settle();
        let got = w.receive(worker);
        w.succeed(worker, got[0]);
        w.settle();
        assert_eq!(told(&w, run)[born.len()], (Scheduled, 1));
        assert_eq!(told(&w, run)[told(&w, run).len() - 2..], [(Running, 2), (Succeeded, 2)]);
    }
}

#[test]
fn only_the_holder_of_an_attempt_on_its_own_socket_is_heard() {
    let mut w = World::new(settings());
    let (worker, other) = (w.connect(1), w.connect(1));
    let (run, _) = w.trigger();
    w.settle();
    let held = Attempt { run, number: 1 };
    let (holder, stranger) = if w.seen[&held] == w.session_of(worker) { (worker, other) } else { (other, worker) };
    let session = w.session_of(holder);
    assert_eq!(w.shard.holder(session, holder, held), Some(w.tenant));
    assert_eq!(w.shard.holder(w.session_of(stranger), stranger, held), None);
    assert_eq!(w.shard.holder(session, stranger, held), None, "the session of another socket");
    for number in [0, 2] {
        assert_eq!(w.shard.holder(session, holder, Attempt { run, number }), None);
    }
    let ticket = w.ticket();
    w.step(Command::Cancel { tenant: w.tenant, run, ticket });
    assert_eq!(w.shard.holder(session, holder, held), Some(w.tenant), "until the end is committed");
    w.settle();
    assert_eq!(told(&w, run).last(), Some(&(Cancelled, 1)));
    assert_eq!(w.shard.holder(session, holder, held), None);
}

#[test]
fn a_replaced_socket_is_not_heard() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    let (held, session) = (Attempt { run, number: 1 }, w.session_of(worker));
    w.step(Command::Worker { session, transport: worker, message: Incoming::Lost });
    assert_eq!(w.shard.holder(session, worker, held), None);
}
