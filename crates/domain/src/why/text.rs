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
            Self::OtherLabels => "has other labels",
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

    const fn are(self) -> &'static str {
        if self.ahead == 1 && self.exact { "is" } else { "are" }
    }
}

impl Why {
    /// One sentence. `error`: the last one of the run, for a retry.
    pub fn text(&self, error: Option<&str>) -> String {
        match &self.cause {
            Cause::Scheduled { at } => format!("It is not to start before {}.", when(*at)),
            Cause::Retry { at, attempt } => {
                let after = error.map(|e| format!(" failed with \"{}\"", shortened(e)));
                let after = after.unwrap_or_else(|| " came back".to_owned());
                format!("Attempt {attempt}{after}; the next one is due at {}.", when(*at))
            }
            Cause::Paused(paused) => paused_text(paused),
            Cause::Resuming { paused, place } => {
                let rate = paused.pause.resumed.as_ref().map_or(0.0, |r| r.rate);
                let (starts, are) = (if rate == 1.0 { "run" } else { "runs" }, place.are());
                format!(
                    "The {} starts gently after its pause, {rate} {starts} a second, and {} {are} before this one.",
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
                        let (offer, hold) = if wait.count == 1 { ("offers", "holds") } else { ("offer", "hold") };
                        format!(
                            "It is next, but no worker has {need} free: {workers} {offer} `{}` and {hold} {runs}.",
                            wait.action
                        )
                    }
                }
            }
            Cause::Behind { wait } if wait.place.ahead == 0 => {
                format!("It is next in the queue of `{}` and about to start.", wait.action)
            }
            Cause::Behind { wait } => {
                format!("In the queue of `{}` {} {} before it.", wait.action, wait.place.text(), wait.place.are())
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
    let until =
        pause.expires_at.map_or_else(|| "until somebody resumes it".to_owned(), |at| format!("until {}", when(at)));
    let (by, reason) = (&pause.by_name, shortened(&pause.reason));
    format!("The {} is paused by `{by}` since {}, {until}: {reason}.", paused.target, when(pause.since))
}

fn no_worker_text(action: &str, workers: &[Holder], count: usize) -> String {
    if count == 0 {
        return format!("No connected worker offers `{action}`.");
    }
    let state = |w: &Holder| match w.lacks.as_slice() {
        lacks @ [_, ..] if w.state == WorkerState::OtherLabels => {
            format!("lacks the labels that it requires, {}", shortened(&lacks.join(" and ")))
        }
        _ => w.state.text().to_owned(),
    };
    let named = workers.iter().take(3).map(|w| format!("`{}` {}", w.name, state(w)));
    let named = named.collect::<Vec<_>>().join("; ");
    let more = if count > 3 { format!(" and {} more", count - 3) } else { String::new() };
    format!("No worker that offers `{action}` can take it: {named}{more}.")
}

fn running_text(worker: &Holder, since: Timestamp, received: bool, timeout_at: Option<Timestamp>) -> String {
    let name = if worker.name.is_empty() { worker.worker.to_string() } else { format!("`{}`", worker.name) };
    if let Some(Away { since, until }) = worker.away {
        let (lost, back) = (moment(since), moment(until));
        return format!(
            "Worker {name}, which holds this run, lost its connection at {lost}. If it is not back by {back} UTC, the run goes \
             to another worker."
        );
    }
    if worker.state == WorkerState::Away {
        return format!("Worker {name}, which holds this run, is away and may come back.");
    }
    if !received {
        return format!("It was sent to worker {name} at {}, which has not confirmed it yet.", when(since));
    }
    let timeout = timeout_at.map(|at| format!("; its time ends at {}", when(at))).unwrap_or_default();
    format!("It has been running on worker {name} since {}{timeout}.", when(since))
}

/// A time as a person writes it: to the second.
fn when(at: Timestamp) -> String {
    at.to_utc().format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// One that is near.
fn moment(at: Timestamp) -> String {
    at.to_utc().format("%H:%M:%S").to_string()
}

fn ended_text(status: RunStatus, ended: &Ended) -> String {
    let Ended { at, attempt, worker, retries, error } = ended;
    let at = at.map(|at| format!(" at {}", when(at))).unwrap_or_default();
    let on = worker.map(|worker| format!(" on the worker {worker}")).unwrap_or_default();
    let message = error.as_ref().map(|e| shortened(&e.message)).unwrap_or_default();
    match status {
        RunStatus::Succeeded => format!("It is over: attempt {attempt}{on} succeeded{at}."),
        RunStatus::Cancelled if error.as_ref().and_then(|e| e.code.as_deref()) == Some("schedule_timeout") => {
            format!("It is over: it was cancelled{at}, since {message}.")
        }
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
    let since = losses.started_at.map(|at| format!(", which began at {}", when(at))).unwrap_or_default();
    let attempt = losses.attempt;
    let at = when(losses.at);
    format!(" It lost its worker {times}, the last time at {at} with attempt {attempt}{worker}{since}.")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::WorkerId;
    use crate::run::RunError;

    const NOON: Timestamp = Timestamp::from_micros(1_796_041_612_000_000);

    fn holder(state: WorkerState) -> Holder {
        Holder {
            worker: WorkerId::generate(NOON),
            name: "w".into(),
            state,
            lacks: Vec::new(),
            away: None,
            slots: 1,
            used: 1,
            runs: Vec::new(),
            held: 1,
        }
    }

    fn text(status: RunStatus, cause: Cause) -> String {
        Why { status, cause, estimate: None }.text(None)
    }

    fn running(worker: Holder, received: bool) -> String {
        text(RunStatus::Running, Cause::Running { worker, since: NOON, received, timeout_at: None })
    }

    #[test]
    fn a_run_on_a_worker_reads_as_a_person_would_say_it() {
        let away = Away { since: NOON, until: NOON.plus(std::time::Duration::from_secs(15)) };
        assert_eq!(
            running(Holder { away: Some(away), ..holder(WorkerState::Away) }, true),
            "Worker `w`, which holds this run, lost its connection at 12:26:52. If it is not back by 12:27:07 UTC, the run \
             goes to another worker."
        );
        assert_eq!(
            running(holder(WorkerState::Open), true),
            "It has been running on worker `w` since 2026-11-30 12:26:52 UTC."
        );
        assert!(running(holder(WorkerState::Open), false).starts_with("It was sent to worker `w` at 2026-11-30"));
        assert!(running(holder(WorkerState::Away), true).ends_with("is away and may come back."));
    }

    #[test]
    fn what_no_worker_has_is_named() {
        let lacks = vec!["gpu=a100".to_owned(), "zone in a,b".to_owned()];
        let workers = vec![Holder { lacks, ..holder(WorkerState::OtherLabels) }, holder(WorkerState::Draining)];
        assert_eq!(
            text(RunStatus::Queued, Cause::NoWorker { action: "a".into(), workers, count: 2 }),
            "No worker that offers `a` can take it: `w` lacks the labels that it requires, gpu=a100 and zone in a,b; `w` is \
             draining."
        );
    }

    #[test]
    fn a_run_that_waited_too_long_says_for_what() {
        let error = RunError::of_engine("schedule_timeout", "no slot was free within the schedule timeout of 2s");
        let ended = Ended { at: Some(NOON), attempt: 0, worker: None, retries: 0, error: Some(error) };
        assert_eq!(
            text(RunStatus::Cancelled, Cause::Final(Box::new(ended))),
            "It is over: it was cancelled at 2026-11-30 12:26:52 UTC, since no slot was free within the schedule timeout of 2s."
        );
    }
}
