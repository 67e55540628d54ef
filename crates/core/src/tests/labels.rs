//! Which worker a run with requirements on labels goes to, and what it does not hold up.

use std::sync::Arc;
use std::time::Duration;

use helve_domain::definition::Spec;
use helve_domain::id::{RunId, WorkerId};
use helve_domain::status::RunStatus::{Queued, Running};

use super::world::{World, settings, spec};
use crate::{Command, Incoming, Settings, Transport, WorkerRow};

/// A task with these labels.
fn asks(labels: &str) -> Arc<Spec> {
    spec(&format!(r#"{{"tasks":[{{"name":"a","labels":[{labels}]}}]}}"#))
}

const GPU: &str = r#"{"key":"gpu","op":"eq","value":"yes"}"#;
const NEAR: &str = r#"{"key":"zone","op":"eq","value":"a","required":false,"weight":3}"#;
const FAST: &str = r#"{"key":"ssd","op":"exists","required":false}"#;

fn connect(w: &mut World, slots: u32, labels: &[(&str, &str)]) -> Transport {
    let worker = w.connect(slots);
    label(w, worker, labels);
    w.settle();
    worker
}

fn label(w: &mut World, worker: Transport, labels: &[(&str, &str)]) {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    w.say(worker, Incoming::Labels(labels));
}

fn trigger(w: &mut World, spec: &Arc<Spec>) -> RunId {
    let run = w.trigger_with(|r| r.spec = Arc::clone(spec)).0;
    w.settle();
    run
}

fn got(w: &mut World, worker: Transport) -> Vec<RunId> {
    w.receive(worker).iter().map(|a| a.run).collect()
}

#[test]
fn only_a_worker_with_the_required_labels_takes_it() {
    for optimistic in [true, false] {
        let mut w = World::new(Settings { optimistic, ..settings() });
        let plain = connect(&mut w, 5, &[]);
        let gpu = connect(&mut w, 1, &[("gpu", "yes")]);
        let runs = [trigger(&mut w, &asks(GPU)), trigger(&mut w, &asks(GPU))];
        assert_eq!(runs.map(|r| w.state(r)), [Running, Queued]);
        assert!(got(&mut w, plain).is_empty());
        let first = w.receive(gpu)[0];
        w.succeed(gpu, first);
        assert_eq!(w.lanes[1][0].rows.len(), 2, "the claim rides");
        w.settle();
        assert_eq!(got(&mut w, gpu), [runs[1]]);
    }
}

#[test]
fn a_run_that_nobody_can_take_blocks_nothing() {
    for optimistic in [true, false] {
        let mut w = World::new(Settings { optimistic, ..settings() });
        let worker = connect(&mut w, 1, &[]);
        let blocked: Vec<_> = (0..3).map(|_| trigger(&mut w, &asks(GPU))).collect();
        let plain = asks("");
        let (first, second) = (trigger(&mut w, &plain), trigger(&mut w, &plain));
        assert_eq!((w.state(first), w.state(second)), (Running, Queued));
        let attempt = w.receive(worker)[0];
        w.succeed(worker, attempt);
        w.settle();
        assert_eq!(got(&mut w, worker), [second]);
        assert!(blocked.iter().all(|r| w.state(*r) == Queued));
    }
}

#[test]
fn what_nobody_can_take_does_not_fill_the_window() {
    let mut w = World::new(settings());
    let blocked: Vec<_> = (0..11).map(|_| trigger(&mut w, &asks(GPU))).collect();
    let plain: Vec<_> = (0..3).map(|_| trigger(&mut w, &asks(""))).collect();
    let worker = connect(&mut w, 3, &[]);
    assert_eq!(got(&mut w, worker), plain, "behind almost three windows");
    let late = trigger(&mut w, &asks(""));
    assert_eq!(w.state(late), Queued);
    let gpu = connect(&mut w, 20, &[("gpu", "yes")]);
    let mut all = got(&mut w, gpu);
    all.retain(|r| *r != late);
    assert_eq!(all, blocked, "in order, when their worker comes");
}

#[test]
fn the_most_preferred_free_worker_takes_it_and_equals_take_turns() {
    let mut w = World::new(settings());
    let plain = connect(&mut w, 2, &[]);
    let fast = connect(&mut w, 1, &[("ssd", "y")]);
    let near = connect(&mut w, 1, &[("zone", "a")]);
    let spec = asks(&[NEAR, FAST].join(","));
    let runs: Vec<_> = (0..4).map(|_| trigger(&mut w, &spec)).collect();
    let order: Vec<Vec<RunId>> = [near, fast, plain].map(|t| got(&mut w, t)).to_vec();
    assert_eq!(order, [vec![runs[0]], vec![runs[1]], vec![runs[2], runs[3]]]);
    let mut w = World::new(settings());
    let workers = [connect(&mut w, 2, &[("zone", "a")]), connect(&mut w, 2, &[("zone", "a")])];
    for _ in 0..4 {
        trigger(&mut w, &spec);
    }
    assert_eq!(workers.map(|t| got(&mut w, t).len()), [2, 2]);
}

#[test]
fn new_labels_wake_what_waits_and_take_nothing_back() {
    let mut w = World::new(settings());
    let worker = connect(&mut w, 2, &[]);
    let runs = [trigger(&mut w, &asks(GPU)), trigger(&mut w, &asks(GPU)), trigger(&mut w, &asks(GPU))];
    assert!(got(&mut w, worker).is_empty());
    label(&mut w, worker, &[("gpu", "yes")]);
    w.settle();
    let held = w.receive(worker);
    assert_eq!(held.iter().map(|a| a.run).collect::<Vec<_>>(), runs[..2]);
    label(&mut w, worker, &[]);
    w.settle();
    w.succeed(worker, held[0]);
    w.settle();
    assert_eq!((w.state(runs[1]), w.state(runs[2])), (Running, Queued));
}

#[test]
fn a_delayed_run_and_a_retry_keep_to_their_labels() {
    let mut w = World::new(settings());
    let plain = connect(&mut w, 5, &[]);
    let text =
        format!(r#"{{"tasks":[{{"name":"a","retries":{{"count":1,"base":"1s","jitter":false}},"labels":[{GPU}]}}]}}"#);
    let spec = spec(&text);
    let at = w.now.plus(Duration::from_secs(2));
    let delayed = w.trigger_with(|r| {
        r.run_at = Some(at);
        r.spec = Arc::clone(&spec);
    });
    w.settle();
    w.advance(Duration::from_secs(3));
    assert_eq!(w.state(delayed.0), Queued);
    let gpu = connect(&mut w, 1, &[("gpu", "yes")]);
    let attempt = w.receive(gpu)[0];
    w.fail(gpu, attempt);
    w.settle();
    w.advance(Duration::from_secs(2));
    assert_eq!(got(&mut w, gpu), [delayed.0]);
    assert!(got(&mut w, plain).is_empty());
}

#[test]
fn a_successor_knows_the_labels_of_runs_and_workers() {
    let mut w = World::new(settings());
    let worker = connect(&mut w, 1, &[("gpu", "yes")]);
    let first = trigger(&mut w, &asks(GPU));
    let second = trigger(&mut w, &asks(GPU));
    let held = w.receive(worker);
    assert_eq!(held[0].run, first);
    let (id, s) = w.shard.sessions.iter().next().unwrap();
    let row = WorkerRow { worker: WorkerId::generate(w.now), ..s.row(*id) };
    let mut next = World::new(settings());
    (next.open, next.tenant, next.now) = (w.open, w.tenant, w.now);
    let running = next.open.values().filter(|s| s.row.state == Running).map(|s| s.row.clone()).collect();
    next.step(Command::Recovered(vec![row], running));
    next.load_timers();
    let plain = connect(&mut next, 5, &[]);
    assert!(got(&mut next, plain).is_empty());
    let gpu = connect(&mut next, 1, &[("gpu", "yes")]);
    assert_eq!(got(&mut next, gpu), [second]);
}
