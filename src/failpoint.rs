//! Points at which a test makes this process die, stand still or lose an answer; nothing of it is in a release build.

/// One list of all points: the enum, its names and the array for the sweep cannot drift apart.
macro_rules! points {
    ($($point:ident = $name:literal: $what:literal;)+) => {
        /// A boundary at which something can go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point {
            $(#[doc = $what] $point,)+
        }

        impl Point {
            /// Every point that there is.
            pub const ALL: &'static [Self] = &[$(Self::$point,)+];

            /// Its name in `HELVE_FAILPOINTS`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }

            /// What is about to happen there, or just has.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$point => $what,)+
                }
            }
        }
    };
}

points! {
    BeforeCreate = "lane.create.before_send": "A batch of creates is about to be sent";
    AfterCreate = "lane.create.after_send": "A batch of creates is committed, nothing is done about it yet";
    BeforeFinish = "lane.finish.before_send": "A batch of ends and moves is about to be sent";
    AfterFinish = "lane.finish.after_send": "A batch of ends and moves is committed, nothing is done about it yet";
    BeforeWorkers = "lane.workers.before_send": "A batch about workers is about to be sent";
    AfterWorkers = "lane.workers.after_send": "A batch about workers is committed, nothing is done about it yet";
    BeforeReadback = "lane.readback.before": "An answer is lost, the rows are about to be asked";
    AfterReadback = "lane.readback.after": "The rows have told what became of a lost answer";
    Committed = "owner.committed": "The owner has a batch's outcome and is about to apply it";
    BeforeAnswer = "answer.created.before": "A caller is about to be told of its committed run";
    AfterAnswer = "answer.created.after": "A caller has been told of its committed run";
    BeforeCancelled = "answer.cancelled.before": "A caller is about to be told that its run is cancelled";
    AfterCancelled = "answer.cancelled.after": "A caller has been told that its run is cancelled";
    BeforeAssign = "push.assign.before": "A committed assignment is about to go to its worker";
    AfterAssign = "push.assign.after": "A committed assignment lies in its worker's outbox";
    BeforeStored = "push.stored.before": "A committed result is about to be confirmed";
    AfterStored = "push.stored.after": "The confirmation of a committed result lies in the outbox";
    WriteAssign = "socket.assign": "An assignment is about to be written to its socket";
    ReadReceived = "socket.received": "A socket has read a worker's confirmation of an assignment";
    ReadResult = "socket.result": "A socket has read a worker's result";
    Received = "intake.received": "The owner is about to note that an assignment has arrived";
    BeforeTimer = "timer.before": "A timer is about to fire";
    AfterTimer = "timer.after": "A timer has fired, what it decided waits for its lane";
    BeforeForward = "forward.before_send": "A request is about to be passed on to the engine that owns its shard";
    AfterForward = "forward.after_answer": "The owner has answered a request that was passed on, nobody knows it yet";
    BeforeRenewal = "lease.renew.before": "The lease is about to be renewed";
    AfterRenewal = "lease.renew.after": "The lease is renewed, the process does not know it yet";
    BeforeFence = "takeover.before_fence": "Another engine is judged to be gone and is about to be fenced";
    AfterFence = "takeover.fenced": "Another engine is fenced, its shards are not taken yet";
    BeforeRelease = "move.before_release": "Nothing of some shards is left here, they are about to be given up";
    AfterRelease = "move.released": "Shards are given up, nobody knows it yet";
    BeforeRecover = "takeover.before_recover": "What is left behind is read, the shards are about to be rebuilt";
    AfterRecover = "takeover.recovered": "The shards are rebuilt, nothing that follows from it is written yet";
    JobPicked = "job.picked": "Runs of a bulk job are picked, nothing is done to them yet";
    JobActed = "job.acted": "A bulk job has done its work on some runs, the outcomes are not stored yet";
}

impl Point {
    /// Whether the answer to a committed statement can be lost here: only at [`loses_answer`].
    pub const fn can_lose(self) -> bool {
        matches!(self, Self::AfterCreate | Self::AfterFinish | Self::AfterWorkers | Self::AfterForward)
    }

    /// Whether it is passed only where another engine owns a shard.
    pub const fn needs_another_engine(self) -> bool {
        matches!(self, Self::BeforeForward | Self::AfterForward)
    }
}

/// Passes a point in asynchronous code: a stall holds up only who passes.
#[inline]
pub async fn hit(point: Point) {
    loses_answer(point).await;
}

/// Passes a point behind a commit. True: its answer must be taken for lost.
#[inline]
#[cfg(not(debug_assertions))]
pub async fn loses_answer(_: Point) -> bool {
    false
}

/// Passes a point in synchronous code: a stall holds up the whole thread, as a descheduled process would.
#[inline]
#[cfg(not(debug_assertions))]
pub const fn hit_now(_: Point) {}

#[cfg(debug_assertions)]
pub use armed::{hit_now, loses_answer};

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tracing::warn;

    use super::Point;

    /// The exit code of a process that was killed by SIGKILL, as shells give it.
    const KILLED: i32 = 137;
    /// The exit code for a list of failpoints that nobody can mean.
    const WRONG: i32 = 2;

    static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();

    /// What happens at a point.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Action {
        /// The process ends at once, without any clean-up.
        Exit,
        /// It stands still for so long.
        Stall(Duration),
        /// The answer to what was committed is lost.
        Error,
    }

    /// An action that is taken once: at the n-th time that its point is passed.
    #[derive(Debug)]
    pub(super) struct Armed {
        point: Point,
        pub action: Action,
        at: u64,
        passed: AtomicU64,
    }

    impl Armed {
        pub fn is_due(&self, point: Point) -> bool {
            self.point == point && self.passed.fetch_add(1, Ordering::Relaxed) + 1 == self.at
        }
    }

    /// Reads `name=exit@3;name=stall:1000@2;name=error@1`.
    pub(super) fn parse(text: &str) -> Result<Vec<Armed>, String> {
        text.split(';').filter(|item| !item.is_empty()).map(|item| parse_one(item).ok_or(item.to_owned())).collect()
    }

    fn parse_one(item: &str) -> Option<Armed> {
        let (name, rest) = item.split_once('=')?;
        let (action, at) = rest.split_once('@')?;
        let point = Point::ALL.iter().copied().find(|p| p.name() == name)?;
        let action = match action.split_once(':') {
            Some(("stall", millis)) => Action::Stall(Duration::from_millis(millis.parse().ok()?)),
            None if action == "exit" => Action::Exit,
            None if action == "error" && point.can_lose() => Action::Error,
            _ => return None,
        };
        let at = at.parse().ok().filter(|at| *at > 0)?;
        Some(Armed { point, action, at, passed: AtomicU64::new(0) })
    }

    fn due(point: Point) -> Option<Action> {
        let armed = ARMED.get_or_init(|| match parse(&std::env::var("HELVE_FAILPOINTS").unwrap_or_default()) {
            Ok(armed) => armed,
            Err(item) => {
                // Quietly without it, a test would prove nothing.
                warn!("HELVE_FAILPOINTS: `{item}` is no failpoint");
                crate::telemetry::flush();
                std::process::exit(WRONG);
            }
        });
        // Each counts for itself, so all of them are asked.
        let due = armed.iter().filter(|a| a.is_due(point)).map(|a| a.action).reduce(|first, _| first)?;
        let kind = match due {
            Action::Exit => "exit",
            Action::Stall(_) => "stall",
            Action::Error => "error",
        };
        warn!("failpoint {} {kind}", point.name());
        if due == Action::Exit {
            // What it has logged until now is what a killed process would have logged.
            crate::telemetry::flush();
            std::process::exit(KILLED);
        }
        Some(due)
    }

    /// Passes a point behind a commit. True: its answer must be taken for lost.
    pub async fn loses_answer(point: Point) -> bool {
        match due(point) {
            Some(Action::Stall(time)) => {
                tokio::time::sleep(time).await;
                false
            }
            Some(Action::Error) => true,
            Some(Action::Exit) | None => false,
        }
    }

    /// Passes a point in synchronous code: a stall holds up the whole thread, as a descheduled process would.
    pub fn hit_now(point: Point) {
        if let Some(Action::Stall(time)) = due(point) {
            std::thread::sleep(time);
        }
    }
}

#[cfg(debug_assertions)]
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Point;
    use super::armed::{Action, parse};

    #[test]
    fn an_action_is_taken_once_at_the_nth_time() {
        let armed = parse("lane.finish.after_send=error@3;timer.before=stall:1000@1").unwrap();
        assert_eq!(armed[0].action, Action::Error);
        assert_eq!(armed[1].action, Action::Stall(Duration::from_secs(1)));
        let due: Vec<_> = (0..6).map(|_| armed[0].is_due(Point::AfterFinish)).collect();
        assert_eq!(due, [false, false, true, false, false, false]);
        // Another point does not count.
        assert!(!armed[1].is_due(Point::AfterTimer) && armed[1].is_due(Point::BeforeTimer));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(parse("").unwrap().is_empty());
        for wrong in [
            "timer.before",
            "timer.before=exit",
            "timer.before=exit@0",
            "timer.before=exit:5@1",
            "timer.before=stall@1",
            "timer.before=panic@1",
            "timer.never=exit@1",
            // Where no statement was committed, no answer to one can be lost.
            "timer.before=error@1",
        ] {
            assert_eq!(parse(wrong).unwrap_err(), wrong);
        }
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::HashSet<_> = Point::ALL.iter().map(|p| p.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
    }
}
