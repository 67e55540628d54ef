//! The one sentence for a person.

use super::{Away, Cause, Ended, Holder, Place, Why, WorkerState};
use crate::clock::Timestamp;
use crate::pause::Paused;
use crate::run::Losses;
use crate::status::RunStatus;

impl WorkerState {
    /// What a sentence says of it.
    const fn text(self) -> &'static str {
        match self {
            Self::OtherLabels => "lacks labels that it requires",
            Self::Open => "is open",
            Self::Away => "is away",
            Self::Draining => "is draining",
            Self::Congested => "is congested",
            Self::Paused => "is paused",
        }
    }
}

impl Place {
    fn text(self) -> String {
        let least = if self.exact { "" } else { "at least " };
        let runs = if self.ahead == 1 { "run" } else { "runs" };
        format!("{least}{} {runs}", self.ahead)
    }
}

impl Why {
    /// One sentence. `error`: the last one of the run, for a retry.
    pub fn text(&self, error: Option<&str>) -> String {
        match &self.cause {
            Cause::Scheduled { at } => format!("It is scheduled to start at {at}."),
            Cause::Retry { at, attempt } => {
                let after = error.map(|e| format!(" failed with \"{}\"", shortened(e)));
                let after = after.unwrap_or_else(|| " came back".to_owned());
                format!("Attempt {attempt}{after}; the next one is due at {at}.")
            }
            Cause::Paused(paused) => paused_text(paused),
            Cause::Resuming { paused, place } => {
                let rate = paused.pause.resumed.as_ref().map_or(0.0, |r| r.rate);
                format!(
                    "The {} was resumed at {rate} starts per second, and {} are before this one.",
                    paused.target,
                    place.text()
                )
            }
            Cause::NoWorker { action, workers, count } => no_worker_text(action, workers, *count),
            Cause::NoSlot { wait, never } => {
                let need = slots(wait.cost, &wait.kind);
                match never {
                    true => format!("No worker that offers `{}` has {need} at all.", wait.action),
                    false => {
                        let held = wait.workers.iter().map(|w| w.held).sum::<usize>();
                        let (workers, runs) = (plural(wait.count, "worker"), plural(held, "run"));
                        format!(
                            "It is next, and no worker has {need} free: {workers} offer `{}` and hold {runs}.",
                            wait.action
                        )
                    }
                }
            }
            Cause::Behind { wait } if wait.place.ahead == 0 => {
                format!("It is next in the queue of `{}` and about to start.", wait.action)
            }
            Cause::Behind { wait } => {
                let are = if wait.place.ahead == 1 && wait.place.exact { "is" } else { "are" };
                format!("In the queue of `{}` {} {are} before it.", wait.action, wait.place.text())
            }
            Cause::Loading => "Its queue is being read; ask again in a moment.".to_owned(),
            Cause::Writing => "A change of it is being written just now; ask again in a moment.".to_owned(),
            Cause::Running { worker, since, received, timeout_at } => {
                running_text(worker, *since, *received, *timeout_at)
            }
            Cause::Parked => {
                let error = error.map(|e| format!(" with \"{}\"", shortened(e))).unwrap_or_default();
                format!("It is parked: its last attempt failed{error}, and it waits for somebody to unpark it.")
            }
            Cause::Final(ended) => ended_text(self.status, ended),
        }
    }
}

fn paused_text(paused: &Paused) -> String {
    let pause = &paused.pause;
    let until = pause.expires_at.map_or_else(|| "until somebody resumes it".to_owned(), |at| format!("until {at}"));
    let (by, reason) = (&pause.by_name, shortened(&pause.reason));
    format!("The {} is paused by `{by}` since {} {until}: {reason}.", paused.target, pause.since)
}

fn no_worker_text(action: &str, workers: &[Holder], count: usize) -> String {
    if count == 0 {
        return format!("No connected worker offers `{action}`.");
    }
    let named = workers.iter().take(3).map(|w| format!("`{}` {}", w.name, w.state.text()));
    let named = named.collect::<Vec<_>>().join(", ");
    let more = if count > 3 { format!(" and {} more", count - 3) } else { String::new() };
    format!("No worker that offers `{action}` can take it: {named}{more}.")
}

fn running_text(worker: &Holder, since: Timestamp, received: bool, timeout_at: Option<Timestamp>) -> String {
    let away = match worker.away {
        Some(Away { since, until }) => {
            format!(", whose connection is lost since {since}: its work goes to others at {until} if it stays away,")
        }
        None if worker.state == WorkerState::Away => ", which is away and may come back,".to_owned(),
        None => String::new(),
    };
    let name = if worker.name.is_empty() { worker.worker.to_string() } else { format!("`{}`", worker.name) };
    let timeout = timeout_at.map(|at| format!("; its time ends at {at}")).unwrap_or_default();
    let how = if received { "runs" } else { "was sent and is not confirmed" };
    format!("It {how} on the worker {name}{away} since {since}{timeout}.")
}

fn ended_text(status: RunStatus, ended: &Ended) -> String {
    let Ended { at, attempt, worker, retries, error } = ended;
    let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
    let on = worker.map(|worker| format!(" on the worker {worker}")).unwrap_or_default();
    let message = error.as_ref().map(|e| shortened(&e.message)).unwrap_or_default();
    match status {
        RunStatus::Succeeded => format!("It is over: attempt {attempt}{on} succeeded{at}."),
        RunStatus::Cancelled => format!("It is over: it was cancelled{at}: {message}."),
        _ if *attempt == 0 => format!("It is over: it failed{at} before its first attempt: {message}."),
        _ => {
            let spent = match retries {
                0 => "it was not retried".to_owned(),
                1 => "it was retried once".to_owned(),
                n => format!("it was retried {n} times"),
            };
            let last = match error.as_ref().and_then(|e| e.retryable) {
                Some(false) => ", and this error was not to be",
                _ => "",
            };
            format!("It is over: attempt {attempt}{on} failed{at} with \"{message}\"; {spent}{last}.")
        }
    }
}

/// A sentence about the workers that a run lost, to stand behind another one.
pub fn losses_text(losses: &Losses) -> String {
    let times = match losses.times {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    };
    let worker = losses.worker.map(|worker| format!(" on the worker {worker}")).unwrap_or_default();
    let since = losses.started_at.map(|at| format!(", which began at {at}")).unwrap_or_default();
    let attempt = losses.attempt;
    format!(" It lost its worker {times}, the last time at {} with attempt {attempt}{worker}{since}.", losses.at)
}

fn slots(cost: u32, kind: &str) -> String {
    let slots = if cost == 1 { "slot" } else { "slots" };
    format!("{cost} {slots} of kind `{kind}`")
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    let text = text.trim_end_matches('.');
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
