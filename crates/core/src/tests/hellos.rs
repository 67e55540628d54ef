//! Hellos whose socket is gone before their answer: whatever becomes of the row, nobody is taken for connected.

use std::time::Duration;

use helve_domain::delivery::Attempt;
use helve_domain::status::RunStatus::{Queued, Running, Succeeded};

use super::world::{World, settings};
use crate::{Command, Incoming, Settings, Transport};

impl World {
    /// The socket ends before its welcome: what `Owner::gone` says then.
    pub fn give_up(&mut self, transport: Transport) {
        let Some((&session, _)) = self.shard.sessions.iter().find(|s| s.1.transport == Some(transport)) else { return };
        let known = self.sessions.values().any(|s| s.0 == session);
        let message = if known { Incoming::Lost } else { Incoming::Goodbye };
        self.step(Command::Worker { session, transport, message });
    }
}

#[test]
fn a_hello_whose_socket_is_gone_leaves_nothing_behind() {
    for optimistic in [true, false] {
        let mut w = World::new(Settings { optimistic, ..settings() });
        let ghosts = [w.hello(1, None, &[]), w.hello(1, None, &[])];
        // Their rows are not written yet.
        ghosts.into_iter().for_each(|ghost| w.give_up(ghost));
        assert_eq!(w.shard.workers(w.tenant).len(), 0);
        w.settle();
        assert!(w.shard.sessions.is_empty(), "the rows were written late, and change nothing");
        let (run, _) = w.trigger();
        w.settle();
        assert_eq!(w.state(run), Queued, "nobody is there to take it");
        let honest = w.connect(1);
        assert_eq!(w.receive(honest), [Attempt { run, number: 1 }]);
    }
}

#[test]
fn a_hello_whose_row_is_written_and_whose_welcome_nobody_takes_gives_its_work_back_at_once() {
    let mut w = World::new(settings());
    let ghost = w.hello(1, None, &[]);
    assert!(w.commit(1));
    let (run, _) = w.trigger();
    w.settle();
    w.sessions.remove(&ghost).expect("it was welcomed, and the answer came to nobody");
    w.give_up(ghost);
    w.settle();
    assert!(w.shard.sessions.is_empty());
    let honest = w.connect(1);
    assert_eq!(w.receive(honest).len(), 1, "{run} does not wait for the grace of a worker that never was");
}

#[test]
fn a_resume_whose_socket_is_gone_keeps_the_session_and_its_work_for_the_grace() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    let got = w.receive(worker);
    let ghost = w.hello(1, Some(worker), &got);
    w.give_up(ghost);
    let listed = w.shard.workers(w.tenant);
    assert_eq!(listed.iter().map(|s| s.connected).collect::<Vec<_>>(), [false]);
    w.settle();
    assert!(!w.shard.workers(w.tenant)[0].connected, "also when its row is written");
    assert_eq!(w.state(run), Running);
    let again = w.hello(1, Some(worker), &got);
    w.settle();
    w.succeed(again, got[0]);
    w.settle();
    assert_eq!(w.state(run), Succeeded);

    let ghost = w.hello(1, Some(again), &[]);
    w.give_up(ghost);
    w.advance(Duration::from_secs(16));
    assert!(w.shard.sessions.is_empty(), "and no longer than that");
}

#[test]
fn a_word_of_a_socket_that_was_given_up_changes_nothing_of_the_next() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let ghost = w.hello(1, Some(worker), &[]);
    let next = w.hello(1, Some(worker), &[]);
    w.give_up(ghost);
    w.settle();
    w.say(next, Incoming::Received(Vec::new()));
    assert!(w.shard.workers(w.tenant)[0].connected);
    let (run, _) = w.trigger();
    w.settle();
    assert_eq!(w.receive(next), [Attempt { run, number: 1 }]);
}
