//! Every order of everything, over the product's `Shard::step`: two nodes, lanes whose answers get lost, workers whose
//! sockets break, clients that ask again. Each protection, switched off, must be missed: docs/decisions/0010.

mod actions;
mod digest;
mod pause;
mod store;
mod system;
mod worker;

use std::collections::BTreeSet;

use helve_domain::delivery::Attempt;
use helve_domain::status::RunStatus;
use stateright::{Checker, HasDiscoveries, Model, Property};

use actions::{Action, report};
use system::System;
use worker::SLOTS;

/// What can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// A result counts for the running attempt only.
    AttemptFence,
    /// A change of a row applies only to the attempt and session that it was decided for.
    Guard,
    /// A statement of an older epoch, or of a fenced node, writes nothing.
    Epoch,
    /// What is not confirmed is sent again, then taken back.
    AckTimeout,
    /// A create key is given once.
    IdempotentCreate,
    /// A lost answer is resolved; without: it counts as a refusal.
    UnknownHandling,
    /// A pause is answered when what was decided before it has landed.
    PauseWaits,
}

const ENDS_ONCE: &str = "a run ends once, with the result of its running attempt";
const ONE_WORKER: &str = "an attempt is given to one worker";
const SLOTS_HOLD: &str = "no worker holds more than its slots";
const ONE_PER_KEY: &str = "a key creates one run";
const ANSWERED_IS_STORED: &str = "what a client was told is stored";
const NOTHING_LOST: &str = "at rest, every run has ended and every client has its answer";
const NONE_REFUSED: &str = "no client is told that its run was not created";
const PAUSE_HOLDS: &str = "after the answer of a pause nothing starts";
const CORE_IS_SOUND: &str = "the core's own invariants hold";
/// What must be met at least once: a model in which nothing happens proves nothing.
const ENDED_LATER: &str = "a run ends with its second attempt";
const UNANSWERED: &str = "a statement is executed and its answer is lost";
const ALL_DONE: &str = "everything comes to rest";
const PAUSED: &str = "a run waits because its workflow is paused";
const SOMETIMES: [&str; 4] = [ENDED_LATER, UNANSWERED, ALL_DONE, PAUSED];

/// How much happens in one exploration.
#[derive(Clone, Copy)]
pub struct Scope {
    workers: usize,
    /// The workers are there before anything else.
    connected: bool,
    /// The second node takes over at some time, or never.
    takeover: bool,
    clients: &'static [Option<&'static str>],
    faults: u32,
    /// Somebody pauses the workflow once, and resumes it some time later.
    pauses: bool,
    off: &'static [Protection],
}

impl Model for Scope {
    type State = System;
    type Action = Action;

    fn init_states(&self) -> Vec<System> {
        vec![System::new(self)]
    }

    fn actions(&self, state: &System, actions: &mut Vec<Action>) {
        if state.broken {
            return;
        }
        actions.extend(state.progress());
        if actions.is_empty() && state.next_timer().is_some() {
            actions.push(Action::Tick);
        }
        actions.extend(state.chances());
    }

    fn next_state(&self, last: &System, action: Action) -> Option<System> {
        let mut next = last.clone();
        next.act(action);
        next.seal();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ENDS_ONCE, |_, s: &System| ends_once(s)),
            Property::always(ONE_WORKER, |_, s: &System| !s.given_twice),
            Property::always(SLOTS_HOLD, |_, s: &System| s.store.held().values().all(|n| *n <= SLOTS as usize)),
            Property::always(ONE_PER_KEY, |_, s: &System| s.store.under_key.values().all(|n| *n == 1)),
            Property::always(ANSWERED_IS_STORED, |_, s: &System| {
                s.clients.iter().filter_map(|c| c.told).all(|run| s.store.knows(run))
            }),
            Property::always(NOTHING_LOST, |_, s: &System| s.broken || !s.is_at_rest() || nothing_lost(s)),
            Property::always(NONE_REFUSED, |_, s: &System| s.clients.iter().all(|c| !c.refused)),
            Property::always(PAUSE_HOLDS, |_, s: &System| !s.pausing.broken),
            Property::always(CORE_IS_SOUND, |_, s: &System| !s.broken),
            Property::sometimes(ENDED_LATER, |m: &Self, s: &System| {
                m.faults == 0 || s.store.ended.values().any(|e| e.attempt == 2)
            }),
            Property::sometimes(UNANSWERED, |m: &Self, s: &System| {
                m.faults == 0 || s.air.iter().any(|h| h.awaited && h.executed.is_some())
            }),
            Property::sometimes(ALL_DONE, |_, s: &System| s.is_at_rest()),
            Property::sometimes(PAUSED, |m: &Self, s: &System| {
                !m.pauses || (s.pausing.shut && !s.store.open.is_empty())
            }),
        ]
    }
}

fn ends_once(s: &System) -> bool {
    s.store.ended.iter().all(|(run, ended)| {
        let attempt = Attempt { run: *run, number: ended.attempt };
        let of_attempt = |output: &String| s.given.get(&attempt).is_some_and(|w| *output == report(*w, attempt));
        ended.times == 1 && (ended.state != RunStatus::Succeeded || ended.output.as_ref().is_some_and(of_attempt))
    })
}

/// An answer may be lost only with the node that owed it.
fn nothing_lost(s: &System) -> bool {
    s.store.open.is_empty() && s.clients.iter().all(|c| c.told.is_some() || c.refused || s.taken_over)
}

/// Explores everything; nothing may be wrong.
fn prove(scope: Scope, least: usize) {
    let checker = scope.checker().threads(2).spawn_bfs().join();
    println!("{} states, {} steps, depth {}", checker.unique_state_count(), checker.state_count(), checker.max_depth());
    let (met, wrong): (Vec<_>, Vec<_>) = checker.discoveries().into_iter().partition(|d| SOMETIMES.contains(&d.0));
    let wrong: Vec<_> = wrong.into_iter().map(|(name, path)| (name, path.into_actions())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(met.len(), SOMETIMES.len(), "what is to happen happens");
    assert!(checker.is_done(), "everything is explored");
    assert!(checker.unique_state_count() >= least, "the model got smaller: {}", checker.unique_state_count());
}

/// Without these protections the property must fail.
fn miss(off: &'static [Protection], scope: Scope, property: &'static str) {
    let scope = Scope { off, ..scope };
    let first = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = scope.checker().threads(2).finish_when(first).spawn_bfs().join();
    let states = checker.unique_state_count();
    let path =
        checker.discovery(property).unwrap_or_else(|| panic!("{off:?} off: `{property}` holds in {states} states"));
    println!("{states} states; without {off:?}: {:?}", path.into_actions());
}

/// A worker comes while a trigger with a key is on its way; an engine takes over; two more things go wrong.
const TAKEOVER: Scope =
    Scope { workers: 1, connected: false, takeover: true, clients: &[Some("k")], faults: 2, pauses: false, off: &[] };
/// Two runs want one slot; two things go wrong.
const ONE_SLOT: Scope = Scope {
    workers: 1,
    connected: true,
    takeover: false,
    clients: &[None, Some("k")],
    faults: 2,
    pauses: false,
    off: &[],
};
/// A run goes from one worker to another; two things go wrong.
const TWO_WORKERS: Scope =
    Scope { workers: 2, connected: true, takeover: false, clients: &[None], faults: 2, pauses: false, off: &[] };
/// The same over a takeover, while the former owner may live on; one more thing goes wrong.
const TWO_OWNERS: Scope = Scope { takeover: true, faults: 1, ..TWO_WORKERS };

/// Somebody pauses and resumes while two runs want one slot.
const PAUSE: Scope = Scope { clients: &[None, None], faults: 0, pauses: true, ..ONE_SLOT };
/// The same with one run, and one thing goes wrong.
const PAUSE_FAULT: Scope = Scope { clients: &[None], faults: 1, ..PAUSE };
/// The same with one run over a takeover.
const PAUSE_TAKEOVER: Scope = Scope { connected: true, clients: &[None], faults: 0, pauses: true, ..TAKEOVER };

#[test]
fn the_model_holds_with_a_pause() {
    prove(PAUSE, 3_000);
}

#[test]
fn the_model_holds_with_a_pause_and_a_fault() {
    prove(PAUSE_FAULT, 3_000);
}

#[test]
fn the_model_holds_with_a_pause_over_a_takeover() {
    prove(PAUSE_TAKEOVER, 3_000);
}

#[test]
fn the_model_misses_that_a_pause_waits() {
    miss(&[Protection::PauseWaits], PAUSE, PAUSE_HOLDS);
}

#[test]
fn the_model_holds_with_two_owners() {
    prove(TWO_OWNERS, 30_000);
}

#[test]
fn the_model_holds_over_a_takeover() {
    prove(TAKEOVER, 100_000);
}

#[test]
fn the_model_holds_with_two_runs_for_one_slot() {
    prove(ONE_SLOT, 80_000);
}

#[test]
fn the_model_holds_with_two_workers() {
    prove(TWO_WORKERS, 50_000);
}

#[test]
fn the_model_misses_the_attempt_fence() {
    miss(&[Protection::AttemptFence], TWO_WORKERS, ENDS_ONCE);
}

#[test]
fn the_model_misses_the_epoch() {
    miss(&[Protection::Epoch], TAKEOVER, NOTHING_LOST);
}

#[test]
fn the_model_misses_the_ack_timeout() {
    miss(&[Protection::AckTimeout], TWO_WORKERS, NOTHING_LOST);
}

#[test]
fn the_model_misses_the_idempotent_create() {
    miss(&[Protection::IdempotentCreate], ONE_SLOT, ONE_PER_KEY);
}

#[test]
fn the_model_misses_the_handling_of_unknown() {
    miss(&[Protection::UnknownHandling], ONE_SLOT, NOTHING_LOST);
}

/// The guard is the second line: a single owner never needs it, but if a former owner could still write, the guard
/// alone would keep an attempt with one worker. The same events show both.
#[test]
fn the_guard_keeps_an_attempt_with_one_worker_where_the_epoch_fails() {
    use Action::{Commit, Connect, Read, Stall, TakeOver, Trigger};
    let before = [Trigger(0, 0), Commit(0, 0), Connect(0), Commit(0, 1), Read(0), TakeOver, Connect(1), Commit(1, 1)];
    // Both nodes have claimed the run; the first one's worker never confirms, and the run is queued again.
    let after = [Read(1), Commit(1, 1), Stall, Commit(1, 1), Commit(0, 1)];
    let scope = Scope { connected: false, ..TWO_OWNERS };
    let given_twice = |off| {
        let mut system = System::new(&Scope { off, ..scope });
        for action in before.into_iter().chain(after) {
            let possible = [system.progress(), system.chances()].concat();
            assert!(possible.contains(&action), "{action:?} is not possible");
            system.act(action);
        }
        system.given_twice
    };
    assert!(given_twice(&[Protection::Epoch, Protection::Guard]));
    assert!(!given_twice(&[Protection::Epoch]), "the guard refuses the second claim");
}
