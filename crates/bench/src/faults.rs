//! Faults under load on a private engine and database, judged by the ledger oracle.

mod plan;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use helve_domain::clock::{Clock, Timestamp};
use helve_domain::error::Result;
use helve_domain::id::RunId;
use helve_postgres::cluster::{Cluster, Options};
use helve_supervisor::Supervisor;
use helve_terminal::out;
use helve_terminal::this_program;
pub(super) use plan::Wanted;
use serde_json::{Value, json};

use super::{failure, progress};
use crate::oracle::load::Dice;
use crate::oracle::process::{EngineProcess, Setup};
use crate::oracle::proxy::Proxy;
use crate::oracle::rig::{Rig, Target, settings};
use crate::oracle::verdict::{Finding, Report};
use crate::provision::Provision;
use plan::{ENGINE, POSTGRES, Strike};

/// How long to wait for the statement to be cut.
const COMES_BY: Duration = Duration::from_secs(20);
const NAME: &str = "helve";

/// The result of one mode.
struct Outcome {
    optimistic: bool,
    report: Report,
    took: Duration,
    /// The longest time from a fault of each kind to the next confirmed result.
    stood: BTreeMap<&'static str, Duration>,
    /// Where the engine's log is, if something was found.
    log: Option<PathBuf>,
}

/// Injects everything requested, once in each mode; the exit code says whether nothing was found and everything
/// happened.
pub(super) async fn run(wanted: Wanted, modes: &[bool], dir: &Path, json: Option<&Path>) -> Result<ExitCode> {
    let mut outcomes = Vec::new();
    for optimistic in modes {
        let outcome = trial(wanted, *optimistic, dir).await?;
        out::line(outcome.text().trim_end())?;
        outcomes.push(outcome);
    }
    if let Some(file) = json {
        let all: Vec<_> = outcomes.iter().map(Outcome::to_json).collect();
        let wrong = |err| failure(format!("{} cannot be written: {err}", file.display()));
        tokio::fs::write(file, json!({"modes": all}).to_string()).await.map_err(wrong)?;
    }
    Ok(code(outcomes.iter().map(|o| &o.report)))
}

fn code<'a>(mut reports: impl Iterator<Item = &'a Report>) -> ExitCode {
    if reports.all(Report::is_clean) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn trial(wanted: Wanted, optimistic: bool, dir: &Path) -> Result<Outcome> {
    let clock = Clock::system();
    let began = clock.instant();
    let mut dice = Dice::new(u64::from(optimistic) + 1);
    let strikes = wanted.shuffled(&mut dice);
    let mut trial = Trial::start(optimistic, dir, &clock).await?;
    for (done, strike) in strikes.iter().enumerate() {
        // A log that nobody watches is not filled with progress lines.
        if done % 10 == 0 || std::io::stderr().is_terminal() {
            progress(&format!("optimistic {}: {} of {}, {}", mode(optimistic), done + 1, strikes.len(), strike.kind()));
        }
        if let Err(err) = trial.strike(*strike, &mut dice).await {
            // This is a finding, and what was accepted until then is judged all the same.
            trial.rig.ledger.surprise(format!("{}: {err}", strike.kind()));
            break;
        }
    }
    progress("the work comes to its end, and is judged");
    let mut terms = BTreeMap::new();
    for strike in &strikes {
        *terms.entry(strike.kind()).or_insert(0) += 1;
    }
    let terms: Vec<_> = terms.into_iter().collect();
    let (report, stood, log) = trial.end(&terms).await?;
    Ok(Outcome { optimistic, report, took: clock.instant() - began, stood, log })
}

/// The data of one trial, which is removed with it.
struct Place(PathBuf);

impl Drop for Place {
    /// What cannot be removed stays in a directory for temporary files.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Everything that runs in one mode. The fields are dropped in this order.
struct Trial {
    rig: Rig,
    engine: EngineProcess,
    proxy: Proxy,
    cluster: Cluster,
    _place: Place,
    supervisor: Supervisor,
    stood: BTreeMap<&'static str, Duration>,
}

impl Trial {
    async fn start(optimistic: bool, dir: &Path, clock: &Clock) -> Result<Self> {
        progress(&format!("optimistic {}: starting a private PostgreSQL and an engine", mode(optimistic)));
        let name = format!("helve-faults-{}", RunId::generate(clock.now()).uuid().simple());
        let (place, log) = (Place(dir.join(&name)), dir.join(format!("{name}.log")));
        let data_dir = Some(place.0.clone());
        let program = this_program()?;
        let guard = Some(program.clone());
        let cluster = Cluster::start(Options { data_dir, durable: true, guard, ..Options::default() }).await?;
        cluster.create_database(NAME, None).await?;
        let database = cluster.url(NAME);
        let engine = Provision::of(&program, &database);
        engine.migrate().await?;
        let token = engine.token("load", "faults").await?;
        let supervisor = Supervisor::default();
        let proxy = Proxy::start(&database, &supervisor).await?;
        let env = settings(optimistic);
        let engine = EngineProcess::start(Setup { program, database: proxy.url.clone(), env, log }).await?;
        let target = Target { url: engine.url.clone(), token, database };
        let rig = Rig::start(target, &supervisor).await?;
        Ok(Self { rig, engine, proxy, cluster, _place: place, supervisor, stood: BTreeMap::new() })
    }

    async fn strike(&mut self, strike: Strike, dice: &mut Dice) -> Result<()> {
        self.rig.progress(20).await?;
        // At any point between two commits.
        tokio::time::sleep(Duration::from_micros(dice.below(200_000))).await;
        let from = self.rig.ledger.now();
        match strike {
            Strike::Engine => {
                let fault = self.rig.ledger.fault(ENGINE, None);
                self.engine.kill9()?;
                self.engine.restart().await?;
                self.goes_on(ENGINE, from).await?;
                self.rig.ledger.healed(fault);
            }
            Strike::Postgres => {
                let fault = self.rig.ledger.fault(POSTGRES, None);
                self.cluster.kill().await;
                self.cluster.start_again().await?;
                self.goes_on(POSTGRES, from).await?;
                self.rig.ledger.healed(fault);
            }
            Strike::Cut(kind, way, lane) => {
                let skip = u32::try_from(dice.below(6)).unwrap_or(0);
                // The verdict reports a cut that does not happen.
                if self.proxy.cut(lane, way, skip, COMES_BY).await.is_some() {
                    self.rig.ledger.happened(kind, from);
                    self.goes_on(kind, self.rig.ledger.now()).await?;
                }
            }
        }
        Ok(())
    }

    async fn goes_on(&mut self, kind: &'static str, from: Timestamp) -> Result<()> {
        self.rig.progress(1).await?;
        let stood = self.rig.ledger.now().since(from);
        let longest = self.stood.entry(kind).or_default();
        *longest = stood.max(*longest);
        Ok(())
    }

    async fn end(
        self,
        terms: &[(&'static str, u32)],
    ) -> Result<(Report, BTreeMap<&'static str, Duration>, Option<PathBuf>)> {
        let Self { rig, mut engine, proxy, cluster, _place, supervisor, stood } = self;
        let end = rig.end().await?;
        if let Err(err) = engine.stop().await {
            end.ledger.surprise(err.to_string());
        }
        for line in engine.forbidden() {
            end.ledger.surprise(format!("the engine's log: {line}"));
        }
        let report = end.judge(terms).await?;
        engine.keep_log = !report.is_clean();
        let log = engine.keep_log.then(|| engine.setup().log.clone());
        drop((engine, proxy));
        supervisor.shut_down(Duration::from_secs(5)).await;
        cluster.stop().await;
        Ok((report, stood, log))
    }
}

const fn mode(optimistic: bool) -> &'static str {
    if optimistic { "on" } else { "off" }
}

/// The lines of the summary, each with the findings that count for it. Every other finding has a line of its own.
const NAMED: [(&str, &[Finding]); 5] = [
    ("lost", &[Finding::Lost, Finding::EventLost]),
    ("stuck", &[Finding::Stuck]),
    ("doubly accepted", &[Finding::DoubleAccept, Finding::OneKeyTwoRuns, Finding::EventTwice]),
    ("unjustified duplicates", &[Finding::UnjustifiedDuplicate, Finding::OneAttemptTwoWorkers]),
    ("unexpected", &[Finding::Unexpected, Finding::EventUnexpected, Finding::Surprise]),
];

impl Outcome {
    fn faults(&self) -> u32 {
        self.report.faults().values().sum()
    }

    /// An upper bound, at 95 %, of the probability that one more fault does harm; `None` if there is no such bound.
    fn bound(&self) -> Option<f64> {
        let n = self.faults();
        (n > 0 && self.report.is_clean()).then(|| (3.0 / f64::from(n)).min(1.0))
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, usize)> {
        NAMED.iter().map(|(name, findings)| (*name, findings.iter().map(|f| self.report.count(*f)).sum()))
    }

    fn text(&self) -> String {
        let (mode, n, took) = (mode(self.optimistic), self.faults(), self.took.as_secs());
        let found: Vec<_> = self.named().map(|(name, count)| format!("{name} {count}")).collect();
        let stood: Vec<_> = self.stood.iter().map(|(kind, d)| format!("{kind} {:.1} s", d.as_secs_f64())).collect();
        let mut text = format!("optimistic {mode}: {}  in {took} s\n", self.report);
        text += &format!("  {}\n  longest until the next result: {}\n", found.join(", "), stood.join(", "));
        text += &match self.bound() {
            Some(bound) => format!("  N = {n}: one fault does harm with a probability below {bound:.3} (95 %, 3/N)\n"),
            None => format!("  N = {n}: there is no bound, because something was found or nothing was done\n"),
        };
        if let Some(log) = &self.log {
            text += &format!("  the engine's log is kept in {}\n", log.display());
        }
        text
    }

    fn to_json(&self) -> Value {
        let mut all = self.report.to_json();
        let stood: BTreeMap<_, _> = self.stood.iter().map(|(kind, d)| (*kind, d.as_millis())).collect();
        all["optimistic"] = self.optimistic.into();
        all["seconds"] = self.took.as_secs().into();
        all["clean"] = self.report.is_clean().into();
        all["summary"] = json!(self.named().collect::<BTreeMap<_, _>>());
        all["longest_pause_ms"] = json!(stood);
        (all["n"], all["bound"]) = (self.faults().into(), json!(self.bound()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::plan::AFTER;
    use super::*;
    use crate::oracle::ledger::{Kind, Ledger, Plan};
    use crate::oracle::verdict::{Stored, Terms, judge};

    fn outcome(done: &[&'static str], wanted: &[(&'static str, u32)], lose_one: bool) -> Outcome {
        let ledger = Ledger::new();
        for kind in done {
            ledger.happened(kind, ledger.now());
        }
        if lose_one {
            let nonce = ledger.intend(Kind::Plain, Plan::SucceedAfter(0));
            ledger.accepted(nonce, "run_1");
        }
        let terms = Terms { faults: wanted.to_vec(), ..Terms::default() };
        let report = judge(&ledger.facts(), &Stored::default(), &terms);
        Outcome { optimistic: true, report, took: Duration::ZERO, stood: BTreeMap::new(), log: None }
    }

    #[test]
    fn a_finding_or_a_missing_fault_fails() {
        let exit = |o: &Outcome| format!("{:?}", code([&o.report].into_iter()));
        let [good, bad] = [ExitCode::SUCCESS, ExitCode::FAILURE].map(|c| format!("{c:?}"));
        let clean = outcome(&[ENGINE, ENGINE, ENGINE, AFTER], &[(ENGINE, 3), (AFTER, 1)], false);
        assert_eq!((exit(&clean), clean.bound()), (good, Some(0.75)));
        assert!(clean.text().contains("N = 4: one fault does harm with a probability below 0.750"), "{}", clean.text());

        let missing = outcome(&[ENGINE], &[(ENGINE, 1), (POSTGRES, 1)], false);
        assert_eq!((exit(&missing), missing.bound()), (bad.clone(), None));
        assert!(missing.text().contains("postgres killed: 0 of 1"), "{}", missing.text());

        let lost = outcome(&[ENGINE], &[(ENGINE, 1)], true);
        assert_eq!((exit(&lost), lost.bound()), (bad, None));
        assert!(lost.text().contains("lost 1, stuck 0, doubly accepted 0"), "{}", lost.text());
        assert_eq!(lost.to_json()["summary"]["lost"], 1);
    }
}
