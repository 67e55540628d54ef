//! Watching a run or a job until it ends.

use std::time::{Duration, Instant};

use helve_client::Response;
use helve_domain::backoff::Backoff;
use helve_terminal::out;

use super::engine::{Engine, escape};
use super::failure::{Exit, Failure, Result};
use super::object::Object;

/// Between two looks: short after a change, then longer.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);
/// An engine that cannot be asked for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two lines of progress.
const LINE: Duration = Duration::from_secs(1);

/// How a run stands, in one line.
pub(super) fn standing(run: &Object) -> String {
    let mut line = format!("{} {}", run.cell("id"), run.cell("status"));
    let attempt = run.number("attempt");
    if attempt > 0 {
        line.push_str(&format!(", attempt {attempt}"));
    }
    if let Some(worker) = run.text("worker") {
        line.push_str(&format!(", worker {worker}"));
    }
    if let Some(message) = run.object("error").text("message") {
        line.push_str(&format!(": {message}"));
    }
    out::plain(&line)
}

pub(super) fn is_final(run: &Object) -> bool {
    matches!(run.cell("status").as_str(), "succeeded" | "failed" | "cancelled")
}

/// How a command ends that has waited for this run.
pub(super) fn exit_of(run: &Object) -> Option<Exit> {
    match run.cell("status").as_str() {
        "succeeded" => None,
        _ if is_final(run) => Some(Exit::Failed),
        _ => Some(Exit::StillOpen),
    }
}

impl Engine {
    /// Asks until `ended`, until the limit, or until nobody reads what is shown. `changed` hears every answer that differs from the one before. An
    /// engine that is gone for a moment, such as for a deploy, is waited for.
    pub(super) async fn follow(
        &self,
        path: &str,
        until: Option<Instant>,
        ended: impl Fn(&Object) -> bool,
        mut changed: impl FnMut(&Response, &Object) -> Result<()>,
    ) -> Result<(Response, Object)> {
        let mut seen = None;
        let (mut backoff, mut answered) = (Backoff::new(FIRST, LONGEST), self.clock.instant());
        loop {
            match self.get(path).await {
                Ok(response) => {
                    let object = self.object(&response)?;
                    answered = self.clock.instant();
                    if seen.as_ref() != Some(&response.body) {
                        changed(&response, &object)?;
                        seen = Some(response.body.clone());
                        backoff.reset();
                    }
                    if ended(&object) || until.is_some_and(|until| answered >= until) || out::is_unread() {
                        return Ok((response, object));
                    }
                }
                Err(failure) if failure.exit == Exit::Unavailable && seen.is_some() => self.lost(failure, answered)?,
                Err(failure) => return Err(failure),
            }
            let left = until.map(|until| until.saturating_duration_since(self.clock.instant()));
            tokio::time::sleep(backoff.next_wait().min(left.unwrap_or(Duration::MAX))).await;
        }
    }

    fn lost(&self, failure: Failure, answered: Instant) -> Result<()> {
        let silent = self.clock.instant().saturating_duration_since(answered);
        if silent > PATIENCE { Err(failure) } else { Ok(()) }
    }

    /// A line on standard error for each change of a run.
    pub(super) async fn follow_run(&self, id: &str, until: Option<Instant>) -> Result<(Response, Object)> {
        let mut last = String::new();
        let changed = |_: &Response, run: &Object| {
            let line = standing(run);
            if line != last {
                out::note(&line);
                last = line;
            }
            Ok(())
        };
        self.follow(&format!("/v1/runs/{}", escape(id)), until, is_final, changed).await
    }

    /// Lines of progress on standard error until a job has ended; shows it then.
    pub(super) async fn follow_job(&self, id: &str) -> Result<Option<Exit>> {
        let mut line_at: Option<Instant> = None;
        let ended = |job: &Object| matches!(job.cell("status").as_str(), "finished" | "cancelled");
        let changed = |_: &Response, job: &Object| {
            let now = self.clock.instant();
            if ended(job) || line_at.is_none_or(|at| now.saturating_duration_since(at) >= LINE) {
                line_at = Some(now);
                let [total, done, skipped, failed] = ["total", "done", "skipped", "failed"].map(|f| job.number(f));
                let line =
                    format!("{id} {}: {done} of {total} done, {skipped} skipped, {failed} failed", job.cell("status"));
                out::note(&out::plain(&line));
            }
            Ok(())
        };
        let (response, job) = self.follow(&format!("/v1/jobs/{}", escape(id)), None, ended, changed).await?;
        self.show(&response)?;
        let whole = job.cell("status") == "finished" && job.number("failed") == 0;
        Ok((!whole).then_some(Exit::Failed))
    }
}
