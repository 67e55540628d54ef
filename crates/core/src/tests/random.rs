//! Any order of triggers, commits, results, losses, refusals and time: slots are never over-used, no attempt has two
//! workers, nothing ends twice (the world checks at every step), and in the end everything ends.

use std::time::Duration;

use helve_domain::delivery::Attempt;
use helve_domain::pause::Target;
use proptest::prelude::*;

use super::world::{World, settings, spec};
use crate::{Command, Incoming, Settings, Transport};

#[derive(Debug, Clone)]
enum Act {
    Trigger { delay: u8, key: Option<u8>, of: usize },
    Relabel(usize, bool),
    Commit(bool),
    Reject,
    Load,
    AskTimers,
    DeliverTimers,
    Connect(u8),
    GiveUp(usize),
    Receive(usize),
    Succeed(usize),
    Fail(usize),
    FreeSlot(usize),
    Cancel(usize),
    Unpark(usize),
    Lose(usize),
    Resume(usize),
    Goodbye(usize),
    Pause(u8, Option<u16>),
    Unpause(u8, bool),
    Wait(u16),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0_u8..10, proptest::option::weighted(0.2, 0_u8..4), 0..SPECS.len())
            .prop_map(|(d, key, of)| Act::Trigger { delay: d.saturating_sub(7), key, of }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(n, on)| Act::Relabel(n, on)),
        8 => any::<bool>().prop_map(Act::Commit),
        1 => Just(Act::Reject),
        3 => Just(Act::Load),
        1 => Just(Act::AskTimers),
        1 => Just(Act::DeliverTimers),
        2 => (1_u8..4).prop_map(Act::Connect),
        1 => any::<usize>().prop_map(Act::GiveUp),
        5 => any::<usize>().prop_map(Act::Receive),
        6 => any::<usize>().prop_map(Act::Succeed),
        2 => any::<usize>().prop_map(Act::Fail),
        2 => any::<usize>().prop_map(Act::FreeSlot),
        1 => any::<usize>().prop_map(Act::Cancel),
        1 => any::<usize>().prop_map(Act::Unpark),
        1 => any::<usize>().prop_map(Act::Lose),
        1 => any::<usize>().prop_map(Act::Resume),
        1 => any::<usize>().prop_map(Act::Goodbye),
        1 => (0_u8..4, proptest::option::of(1_u16..9_000)).prop_map(|(t, ms)| Act::Pause(t, ms)),
        2 => (0_u8..4, any::<bool>()).prop_map(|(t, gentle)| Act::Unpause(t, gentle)),
        2 => (1_u16..4_000).prop_map(Act::Wait),
    ]
}

const SPECS: [&str; 4] = [
    r#"{"tasks":[{"name":"a","retries":{"count":2,"base":"1s","jitter":false}}]}"#,
    r#"{"tasks":[{"name":"a","retries":{"count":1,"base":"1s","on_exhausted":"park"}}]}"#,
    r#"{"tasks":[{"name":"a","labels":[{"key":"gpu","op":"eq","value":"yes"}]}]}"#,
    r#"{"tasks":[{"name":"a","retries":1,"labels":[{"key":"gpu","op":"exists","required":false}]}]}"#,
];

struct Player {
    world: World,
    sockets: Vec<Transport>,
    lost: Vec<Transport>,
    holding: Vec<(Transport, Attempt)>,
    runs: Vec<helve_domain::id::RunId>,
    rejected: bool,
}

impl Player {
    fn socket(&self, n: usize) -> Option<Transport> {
        (!self.sockets.is_empty()).then(|| self.sockets[n % self.sockets.len()])
    }

    fn held(&mut self, n: usize) -> Option<(Transport, Attempt)> {
        let live: Vec<usize> = (0..self.holding.len()).filter(|i| self.sockets.contains(&self.holding[*i].0)).collect();
        (!live.is_empty()).then(|| self.holding.swap_remove(live[n % live.len()]))
    }

    fn run(&self, n: usize) -> Option<helve_domain::id::RunId> {
        (!self.runs.is_empty()).then(|| self.runs[n % self.runs.len()])
    }

    fn trigger(&mut self, delay: u8, key: Option<u8>, of: usize) {
        let w = &mut self.world;
        let at = (delay > 0).then(|| w.now.plus(Duration::from_secs(u64::from(delay) * 40)));
        let key = key.map(|k| w.with_key(&format!("k{k}")));
        // A second workflow shares the action.
        let second = w.ticket().is_multiple_of(3);
        let (run, _) = w.trigger_with(|r| {
            r.run_at = at;
            r.key = key;
            r.spec = if second { super::pausing::flow("other", SPECS[of]) } else { spec(SPECS[of]) };
        });
        self.runs.push(run);
    }

    fn relabel(&mut self, socket: Transport, on: bool) {
        let labels = on.then(|| ("gpu".to_owned(), "yes".to_owned())).into_iter().collect();
        self.world.say(socket, Incoming::Labels(labels));
    }

    #[expect(clippy::too_many_lines, reason = "one short arm for each act")]
    fn play(&mut self, act: Act) {
        let w = &mut self.world;
        match act {
            Act::Trigger { delay, key, of } => self.trigger(delay, key, of),
            Act::Relabel(n, on) => {
                if let Some(socket) = self.socket(n) {
                    self.relabel(socket, on);
                }
            }
            Act::Commit(finish) => drop(w.commit(usize::from(finish))),
            Act::Reject => self.rejected |= w.reject(1),
            Act::Load => drop(w.load()),
            Act::AskTimers => w.ask_timers(),
            Act::DeliverTimers => w.deliver_timers(),
            Act::Connect(slots) => self.sockets.push(w.hello(u32::from(slots), None, &[])),
            Act::GiveUp(n) => {
                if let Some(socket) = self.socket(n).filter(|s| !self.world.sessions.contains_key(s)) {
                    self.sockets.retain(|s| *s != socket);
                    self.world.give_up(socket);
                }
            }
            Act::Receive(n) => {
                if let Some(socket) = self.socket(n) {
                    let got = self.world.receive(socket);
                    self.holding.extend(got.into_iter().map(|a| (socket, a)));
                }
            }
            Act::Succeed(n) => {
                if let Some((socket, attempt)) = self.held(n) {
                    self.world.succeed(socket, attempt);
                }
            }
            Act::Fail(n) => {
                if let Some((socket, attempt)) = self.held(n) {
                    self.world.fail(socket, attempt);
                }
            }
            Act::FreeSlot(n) => {
                if let Some((socket, attempt)) = self.held(n) {
                    self.holding.push((socket, attempt));
                    self.world.say(socket, Incoming::FreeSlot(vec![attempt]));
                }
            }
            Act::Cancel(n) => {
                if let Some(run) = self.run(n) {
                    self.world.cancel(run);
                }
            }
            Act::Unpark(n) => {
                if let Some(run) = self.run(n) {
                    self.world.unpark(run);
                }
            }
            Act::Lose(n) => {
                if let Some(socket) = self.socket(n).filter(|s| self.world.sessions.contains_key(s)) {
                    self.sockets.retain(|s| *s != socket);
                    self.lost.push(socket);
                    self.world.say(socket, Incoming::Lost);
                }
            }
            Act::Resume(n) => self.resume(n),
            Act::Goodbye(n) => {
                if let Some(socket) = self.socket(n).filter(|s| self.world.sessions.contains_key(s)) {
                    self.sockets.retain(|s| *s != socket);
                    self.world.say(socket, Incoming::Goodbye);
                }
            }
            Act::Pause(t, ms) => {
                if let Some(target) = self.target(t) {
                    self.world.pause(target, ms.map(|ms| Duration::from_millis(u64::from(ms))));
                }
            }
            Act::Unpause(t, gentle) => {
                if let Some(target) = self.target(t) {
                    self.world.resume(target, gentle.then_some(3.0));
                }
            }
            Act::Wait(ms) => {
                w.now = w.now.plus(Duration::from_millis(u64::from(ms)));
                w.step(Command::Tick);
            }
        }
    }

    /// The workflow, another one that shares its action, the action, or a worker.
    fn target(&self, n: u8) -> Option<Target> {
        match n {
            0 => Some(Target::Workflow("w".into())),
            1 => Some(Target::Workflow("other".into())),
            2 => Some(Target::Action("a".into())),
            _ => self.world.shard.sessions.values().map(|s| s.worker).max().map(Target::Worker),
        }
    }

    fn resume(&mut self, n: usize) {
        if self.lost.is_empty() {
            return;
        }
        let old = self.lost.swap_remove(n % self.lost.len());
        let held: Vec<Attempt> = self.holding.iter().filter(|h| h.0 == old).map(|h| h.1).collect();
        let new = self.world.hello(3, Some(old), &held);
        for h in self.holding.iter_mut().filter(|h| h.0 == old) {
            h.0 = new;
        }
        self.sockets.push(new);
    }

    /// An honest worker and enough time: whatever happened before, everything ends.
    fn finish(&mut self) {
        self.world.settle();
        let paused: Vec<Target> = self.world.pauses.keys().cloned().collect();
        for (i, target) in paused.into_iter().enumerate() {
            self.world.resume(target, (i % 2 == 0).then_some(20.0));
        }
        self.world.settle();
        let helper = self.world.connect(3);
        self.relabel(helper, true);
        for _ in 0..400 {
            for socket in self.sockets.clone() {
                for attempt in self.world.receive(socket) {
                    self.world.succeed(socket, attempt);
                }
            }
            for attempt in self.world.receive(helper) {
                self.world.succeed(helper, attempt);
            }
            self.world.settle();
            for run in self.world.parked() {
                self.world.unpark(run);
            }
            self.world.settle();
            if self.world.open.is_empty() {
                break;
            }
            self.world.advance(Duration::from_secs(3));
        }
        let left: Vec<_> = self.world.open.values().map(|s| (s.row.run, s.row.state, s.row.attempt)).collect();
        assert!(left.is_empty(), "stuck: {left:?}");
        self.world.advance(Duration::from_secs(60));
        let used: u32 = self.world.shard.sessions.values().map(|s| s.used.values().sum::<u32>()).sum();
        assert_eq!(used, 0, "I13 a slot leaked");
        assert!(self.world.shard.tasks.is_empty(), "a run is still in memory");
        assert!(
            self.rejected
                || self.world.pauses.keys().all(|t| self.world.shard.pauses.get(self.world.tenant, t).is_some()),
            "a pause is left in the rows"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn everything_ends_in_any_order(acts in proptest::collection::vec(act(), 1..120), optimistic in any::<bool>()) {
        let world = World::new(Settings { optimistic, redeliveries: 1_000, ..settings() });
        let mut player = Player { world, sockets: Vec::new(), lost: Vec::new(), holding: Vec::new(), runs: Vec::new(), rejected: false };
        for act in acts {
            player.play(act);
        }
        player.finish();
    }
}
