//! Every failpoint with everything that can happen at it, under load: the engine dies, stands still, or loses an answer.
#![expect(clippy::disallowed_methods, reason = "cases run side by side and end with their test")]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use helve::failpoint::Point;
use helve_domain::clock::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::oracle::Report;
use super::rig::{Rig, Size};
use crate::support::process::EngineProcess;
use crate::support::{fresh_database, until_within};

const VARIABLE: &str = "HELVE_FAILPOINTS";
const KILLED: &str = "engine killed, so that another takes over";
const EXITED: &str = "engine exited at a failpoint";
/// The exit code of a failpoint.
const EXIT: i32 = 137;
/// How long a point may take to be passed.
const FIRES: Duration = Duration::from_secs(25);
/// Engines at once. Most of a case is waiting: for a lease, a grace, tasks that take their time.
const TOGETHER: usize = 10;
const SIZE: Size = Size { clients: 3, pause: Duration::from_millis(70), workers: 2, cancels: 6, plays: &[] };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// As a crash.
    Exit,
    /// One second.
    Stall,
    /// The answer to a committed statement is lost.
    Error,
}

/// One point, and what happens there.
#[derive(Debug, Clone, Copy)]
struct Case {
    point: Point,
    action: Action,
    /// The answer that must get lost before the point is passed at all.
    lost: Option<Point>,
    optimistic: bool,
}

/// Each point with each action that it can have; deaths and lost answers in both ways of scheduling, stalls in turn.
fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    // Bulk jobs are no part of this load: see the tests of jobs. Nor is a second engine to which shards could move: see
    // the tests of several engines.
    let elsewhere = [Point::JobPicked, Point::JobActed, Point::BeforeRelease, Point::AfterRelease];
    let swept = Point::ALL.iter().filter(|point| !elsewhere.contains(point));
    for (number, &point) in swept.enumerate() {
        let before: &[Option<Point>] = match point {
            Point::BeforeReadback | Point::AfterReadback => &[Some(Point::AfterCreate), Some(Point::AfterFinish)],
            _ => &[None],
        };
        for &lost in before {
            for action in [Action::Exit, Action::Stall, Action::Error] {
                if action != Action::Error || point.can_lose() {
                    let modes =
                        [true, false].into_iter().filter(|m| action != Action::Stall || *m == (number % 2 == 0));
                    all.extend(modes.map(|optimistic| Case { point, action, lost, optimistic }));
                }
            }
        }
    }
    // Nor is there another engine to pass anything on to.
    all.retain(|case| !case.point.needs_another_engine());
    all
}

impl Case {
    /// The engine meets these points only when it takes over from another one.
    const fn is_at_takeover(self) -> bool {
        matches!(self.point, Point::BeforeFence | Point::AfterFence | Point::BeforeRecover | Point::AfterRecover)
    }

    /// At which time of passing it happens: the load should be in full swing.
    const fn at(self) -> u32 {
        match self.point {
            _ if self.is_at_takeover() => 1,
            Point::BeforeReadback | Point::AfterReadback => 1,
            // The first one or two statements are those of the first two workers; more are hired later.
            Point::BeforeWorkers | Point::AfterWorkers => 3,
            // An engine that starts looks several times in a row.
            Point::BeforeRenewal | Point::AfterRenewal => 10,
            Point::BeforeTimer | Point::AfterTimer => 6,
            Point::BeforeCancelled | Point::AfterCancelled => 2,
            _ => 25,
        }
    }

    fn variable(self) -> String {
        let action = match self.action {
            Action::Exit => "exit",
            Action::Stall => "stall:1000",
            Action::Error => "error",
        };
        let lost = self.lost.map(|point| format!("{}=error@15;", point.name())).unwrap_or_default();
        format!("{lost}{}={action}@{}", self.point.name(), self.at())
    }

    /// What the engine writes into its log when it happens.
    fn line(self) -> String {
        let action = match self.action {
            Action::Exit => "exit",
            Action::Stall => "stall",
            Action::Error => "error",
        };
        format!("failpoint {} {action}", self.point.name())
    }

    async fn run(self) -> Outcome {
        let database = fresh_database().await;
        let variable = self.variable();
        let armed = if self.is_at_takeover() { "" } else { &variable };
        let mut rig = Rig::launch(self.optimistic, &database, &database, &SIZE, (VARIABLE, armed)).await;
        let mut faults = Vec::new();
        let killed = if self.is_at_takeover() {
            rig.progress(25).await;
            faults.push((KILLED, 1));
            let fault = rig.ledger.fault(KILLED, None);
            rig.engine.kill9();
            rig.engine.set(VARIABLE, &variable);
            rig.engine.spawn();
            Some(fault)
        } else {
            None
        };
        let fired = self.fired(&mut rig, FIRES).await;
        if self.action == Action::Exit {
            let ended = rig.engine.ended().await;
            assert_eq!(ended.code(), Some(EXIT), "{variable}: the engine ended with {ended}");
            rig.engine.set(VARIABLE, "");
            rig.engine.restart().await;
            rig.progress(1).await;
            rig.ledger.happened(EXITED, fired);
            faults.push((EXITED, 1));
        } else {
            // A stall and a lost answer are no faults to the oracle: they excuse nothing, no task is repeated.
            rig.engine.ready().await;
            rig.progress(1).await;
        }
        let stood_still = rig.ledger.now().since(fired);
        if let Some(fault) = killed {
            rig.ledger.healed(fault);
        }
        rig.progress(20).await;
        let starts = 1 + u32::from(self.is_at_takeover()) + u32::from(self.action == Action::Exit);
        assert_eq!(rig.engine.starts, starts, "{variable}");
        let report = rig.end().await.judge(&faults).await;
        Outcome { stood_still, report }
    }

    /// Waits until it has happened; gives a time shortly before.
    async fn fired(self, rig: &mut Rig, limit: Duration) -> Timestamp {
        let line = self.line();
        let mut before = rig.ledger.now();
        let hires = matches!(self.point, Point::BeforeWorkers | Point::AfterWorkers);
        let mut hire_at = 20;
        until_within(&format!("`{line}` is in the log"), limit, || {
            let stored = rig.ledger.facts().stored.len();
            if hires && stored >= hire_at {
                // Apart from each other, since two that come at once are one statement.
                rig.hire();
                hire_at = stored + 15;
            }
            let fired = rig.engine.log().contains(&line).then_some(before);
            if fired.is_none() {
                before = rig.ledger.now();
            }
            std::future::ready(fired)
        })
        .await
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = format!("{:?}", self.action).to_lowercase();
        let mode = if self.optimistic { "optimistic" } else { "queued" };
        let lost = self.lost.map(|p| format!(" (of {})", p.name())).unwrap_or_default();
        write!(f, "{:<48} {action:<6} {mode:<10}", format!("{}{lost}", self.point.name()))
    }
}

struct Outcome {
    /// From the failpoint to the next confirmed result.
    stood_still: Duration,
    report: Report,
}

/// G1, G2, G5, G9: wherever the engine dies, stands still or loses an answer, nothing accepted is lost, stuck or
/// doubled, and only a death repeats anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
async fn every_failpoint_with_every_action() {
    let turns = Arc::new(Semaphore::new(TOGETHER));
    let (mut running, all) = (JoinSet::new(), cases());
    for (number, case) in all.iter().copied().enumerate() {
        let turns = Arc::clone(&turns);
        running.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            // Spawned, so that one that panics leaves the others and the table.
            (number, tokio::spawn(case.run()).await)
        });
    }
    let mut outcomes = running.join_all().await;
    outcomes.sort_by_key(|(number, _)| *number);
    println!("{:<48} {:<6} {:<10} {:>9} {:>9} {:>9}", "point", "action", "mode", "stood ms", "accepted", "repeated");
    let mut bad = Vec::new();
    for (number, outcome) in &outcomes {
        let case = all[*number];
        match outcome {
            Ok(Outcome { stood_still, report }) => {
                let (millis, accepted, repeated) = (stood_still.as_millis(), report.accepted(), report.justified());
                println!("{case} {millis:>9} {accepted:>9} {repeated:>9}");
                if !report.is_clean() {
                    bad.push(format!("{case}\n{report}"));
                }
            }
            Err(e) => {
                println!("{case} {e}");
                bad.push(format!("{case}\n{e}"));
            }
        }
    }
    let went_on: Vec<_> = outcomes.iter().filter_map(|(_, o)| Some(o.as_ref().ok()?.report.to_json())).collect();
    let sum = |field: &str| went_on.iter().map(|report| report[field].as_u64().unwrap()).sum::<u64>();
    println!(
        "{} points, {} of {} cases fired and went on, {} bad; {} runs accepted, {} cancelled, {} executions",
        Point::ALL.len(),
        went_on.len(),
        all.len(),
        bad.len(),
        sum("accepted"),
        sum("cancelled"),
        sum("executions"),
    );
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// The sweep would not pass over a point that nothing reaches any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
async fn a_failpoint_that_never_fires_fails_its_case() {
    let database = fresh_database().await;
    let case = Case { point: Point::BeforeFence, action: Action::Exit, lost: None, optimistic: true };
    let mut rig = Rig::launch(true, &database, &database, &SIZE, (VARIABLE, &case.variable())).await;
    rig.progress(10).await;
    // Nobody was there to be fenced.
    let fired = tokio::spawn(async move { case.fired(&mut rig, Duration::from_secs(1)).await }).await;
    assert!(fired.is_err_and(|e| e.is_panic()));
}

/// A list that nobody can mean ends the engine instead of testing nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
async fn an_unknown_failpoint_ends_the_engine() {
    let database = fresh_database().await;
    let mut engine = EngineProcess::start(&database, &[]).await;
    engine.stop().await;
    engine.set(VARIABLE, "lane.create.sideways=exit@1");
    engine.spawn();
    let ended = engine.ended().await;
    assert_eq!(ended.code(), Some(2), "{ended}");
    assert!(engine.log().contains("`lane.create.sideways=exit@1` is no failpoint"), "{}", engine.log());
}
