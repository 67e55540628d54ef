//! What memory says about a run that waits.

use std::sync::Arc;
use std::time::Duration;

use helve_domain::id::RunId;
use helve_domain::status::RunStatus;
use helve_domain::why::{Cause, Place, Why, WorkerState};

use super::pausing::{action, workflow};
use super::world::{World, settings, spec};
use crate::{Incoming, WhyQuery};

const SEC: Duration = Duration::from_secs(1);

impl World {
    fn why(&self, run: RunId) -> Why {
        let row = &self.open[&run].row;
        let asked = WhyQuery {
            tenant: row.tenant,
            run,
            spec: Arc::clone(&row.spec),
            status: row.state,
            due: row.due,
            attempt: row.attempt,
        };
        self.shard.why(&asked, self.now).expect("memory knows")
    }

    fn reason(&self, run: RunId) -> &'static str {
        self.why(run).cause.reason()
    }
}

#[test]
fn without_a_worker_it_says_so_and_names_those_that_cannot() {
    let mut w = World::new(settings());
    let (run, _) = w.trigger();
    w.settle();
    let why = w.why(run);
    assert_eq!((why.cause.reason(), why.text(None).as_str()), ("no_worker", "No connected worker offers `a`."));
    for (message, state) in [(Incoming::Lost, WorkerState::Away), (Incoming::Drain, WorkerState::Draining)] {
        let mut w = World::new(settings());
        let worker = w.connect(1);
        w.say(worker, message);
        let (run, _) = w.trigger();
        w.settle();
        let why = w.why(run);
        let Cause::NoWorker { workers, count, .. } = &why.cause else { panic!("{why:?}") };
        assert_eq!((workers[0].state, *count), (state, 1));
        assert!(why.text(None).contains(state.as_str()), "{}", why.text(None));
    }
}

#[test]
fn who_holds_the_slots_and_how_many_are_before_it() {
    let mut w = World::new(settings());
    let worker = w.connect(2);
    let runs: Vec<_> = (0..15).map(|_| w.trigger().0).collect();
    w.settle();
    w.receive(worker);
    let next = w.why(runs[2]);
    let Cause::NoSlot { wait, never: false } = &next.cause else { panic!("{next:?}") };
    assert_eq!((wait.place, wait.workers[0].used, wait.workers[0].held), (Place { ahead: 0, exact: true }, 2, 2));
    assert_eq!(wait.workers[0].runs, runs[..2]);
    assert!(next.text(None).contains("1 worker offer"), "{}", next.text(None));
    let third = w.why(runs[4]);
    let Cause::Behind { wait } = &third.cause else { panic!("{third:?}") };
    assert_eq!(wait.place, Place { ahead: 2, exact: true });
    // Beyond the window: what memory holds is a lower bound.
    let last = w.why(runs[14]);
    let Cause::Behind { wait } = &last.cause else { panic!("{last:?}") };
    assert!(!wait.place.exact && wait.place.ahead <= 12 && wait.place.ahead > 0, "{:?}", wait.place);
    assert!(last.text(None).contains("at least"), "{}", last.text(None));
    assert!(last.estimate.is_none(), "nothing has started yet: nobody can tell");
    let running = w.why(runs[0]);
    let Cause::Running { received: true, timeout_at: Some(_), .. } = &running.cause else { panic!("{running:?}") };
}

#[test]
fn slots_that_nobody_has_are_said_to_be_never_there() {
    let mut w = World::new(settings());
    w.connect(2);
    w.spec = spec(r#"{"tasks":[{"name":"a","slots":{"gpu":4}}]}"#);
    let (run, _) = w.trigger();
    w.settle();
    let why = w.why(run);
    assert!(matches!(&why.cause, Cause::NoSlot { never: true, .. }), "{why:?}");
    assert_eq!(why.text(None), "No worker that offers `a` has 4 slots of kind `gpu` at all.");
}

#[test]
fn an_estimate_follows_the_pace_of_the_last_minute() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let runs: Vec<_> = (0..43).map(|_| w.trigger().0).collect();
    w.settle();
    // One a second for forty seconds.
    for _ in 0..40 {
        for attempt in w.receive(worker) {
            w.succeed(worker, attempt);
        }
        w.settle();
        w.advance(SEC);
    }
    assert_eq!(w.state(runs[40]), RunStatus::Running);
    let why = w.why(runs[42]);
    let Cause::Behind { wait } = &why.cause else { panic!("{why:?}") };
    assert_eq!(wait.place, Place { ahead: 1, exact: true });
    let estimate = why.estimate.expect("forty starts are enough");
    let about = Duration::from_millis(1_800)..Duration::from_millis(2_200);
    assert!(about.contains(&estimate.starts_in), "{estimate:?}");
    assert!(estimate.basis.contains("of this queue started in the last"), "{}", estimate.basis);
}

#[test]
fn a_time_a_retry_a_pause_and_a_gentle_start_are_told_apart() {
    let mut w = World::new(settings());
    let worker = w.connect(5);
    let at = w.now.plus(SEC * 30);
    let (later, _) = w.trigger_with(|r| r.run_at = Some(at));
    let far = w.now.plus(SEC * 3_600);
    let (much_later, _) = w.trigger_with(|r| r.run_at = Some(far));
    let (failed, _) = w.trigger();
    w.settle();
    assert!(matches!(w.why(later).cause, Cause::Scheduled { at: due } if due == at));
    assert!(!w.shard.tasks.contains_key(&much_later), "only its row knows it");
    assert!(matches!(w.why(much_later).cause, Cause::Scheduled { at: due } if due == far));
    let got = w.receive(worker);
    w.fail(worker, got[0]);
    assert_eq!(w.reason(failed), "writing");
    w.settle();
    let why = w.why(failed);
    assert!(matches!(why.cause, Cause::Retry { attempt: 1, .. }));
    assert!(why.text(Some("boom")).starts_with("Attempt 1 failed with \"boom\"; the next one is due at "));

    for target in [workflow(), action()] {
        w.pause(target.clone(), Some(SEC * 900));
        w.settle();
        let runs: Vec<_> = (0..3).map(|_| w.trigger().0).collect();
        w.settle();
        let why = w.why(runs[2]);
        let Cause::Paused(paused) = &why.cause else { panic!("{why:?}") };
        assert_eq!((&paused.target, &*paused.pause.by_name), (&target, "ops"));
        assert!(why.text(None).contains("maintenance") && why.estimate.is_none());
        w.resume(target.clone(), Some(0.5));
        w.settle();
        let why = w.why(runs[2]);
        let Cause::Resuming { place, .. } = &why.cause else { panic!("{why:?}") };
        assert_eq!(*place, Place { ahead: 1, exact: true }, "the first went at once");
        assert_eq!(why.estimate.unwrap().starts_in, SEC * 4, "two of them at one in two seconds");
        w.resume(target, None);
        w.settle();
        assert_eq!(w.reason(runs[2]), "running");
        let got = w.receive(worker);
        for attempt in got {
            w.succeed(worker, attempt);
        }
        w.settle();
    }
}

#[test]
fn what_is_being_written_or_read_says_so_and_a_stale_row_is_read_again() {
    let mut w = World::new(settings());
    let (run, _) = w.trigger();
    w.settle();
    w.hello(1, None, &[]);
    while w.commit(1) {}
    assert_eq!(w.reason(run), "loading");
    w.load();
    assert_eq!(w.reason(run), "writing");
    w.settle();
    assert_eq!(w.reason(run), "running");
    let row = &w.open[&run].row;
    let asked = WhyQuery {
        tenant: row.tenant,
        run: RunId::generate(w.now),
        spec: Arc::clone(&row.spec),
        status: RunStatus::Running,
        due: None,
        attempt: 1,
    };
    assert!(w.shard.why(&asked, w.now).is_none());
    // Another tenant's question finds nothing in memory, whatever the id.
    let foreign = WhyQuery { tenant: helve_domain::id::TenantId::generate(w.now), run, ..asked };
    assert!(w.shard.why(&foreign, w.now).is_none());
}
