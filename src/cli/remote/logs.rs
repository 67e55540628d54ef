//! `helve runs logs`.

use std::time::{Duration, Instant};

use helve_terminal::out;

use super::engine::{Engine, escape, query};
use super::failure::{Exit, Result};
use super::follow::is_final;
use super::object::Object;

/// Lines of one request.
const PAGE: u32 = 1_000;
/// Between two looks at a run that is at work.
const PAUSE: Duration = Duration::from_millis(500);

/// Which lines.
#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    /// The run's id
    id: String,
    /// Lines of this level and above: debug, info, warn, error
    #[arg(long)]
    level: Option<String>,
    /// Lines behind this offset
    #[arg(long, value_name = "OFFSET")]
    after: Option<u64>,
    /// Go on until the run has ended
    #[arg(long, short)]
    follow: bool,
}

impl Logs {
    /// Shows the lines; with `--json` one object of the interface a line.
    pub(super) async fn run(self, engine: &Engine) -> Result<Option<Exit>> {
        let path = format!("/v1/runs/{}", escape(&engine.run_id(&self.id).await?));
        let mut after = self.after;
        // What is stored a moment after the end is seen by one more look.
        let mut ended: Option<Instant> = None;
        loop {
            let more = self.page(engine, &path, &mut after).await?;
            let now = engine.clock.instant();
            if out::is_unread() {
                return Ok(None);
            }
            if more {
                continue;
            }
            if !self.follow || ended.is_some_and(|at| now >= at + PAUSE) {
                return Ok(None);
            }
            if ended.is_none() && is_final(&engine.object(&engine.get(&path).await?)?) {
                ended = Some(now);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One page; whether another one is there already.
    async fn page(&self, engine: &Engine, path: &str, after: &mut Option<u64>) -> Result<bool> {
        let mut parameters = vec![("limit", PAGE.to_string())];
        parameters.extend(after.map(|after| ("after", after.to_string())));
        parameters.extend(self.level.clone().map(|level| ("level", level)));
        let page = engine.object(&engine.get(&query(&format!("{path}/logs"), &parameters)).await?)?;
        for raw in page.list("items") {
            if let Some(line) = Object::parse(raw.get().as_bytes()) {
                *after = Some(line.number("offset"));
                out::line(&if engine.json { raw.get().to_owned() } else { shown(engine, &line) })?;
            }
        }
        let next = page.raw("next_after").and_then(|raw| raw.parse().ok());
        *after = next.or(*after);
        Ok(next.is_some())
    }
}

fn shown(engine: &Engine, line: &Object) -> String {
    let [at, attempt, level] = [engine.time(line, "at"), line.cell("attempt"), line.cell("level")];
    format!("{at:>8}  {attempt:>2}  {level:<5}  {}", out::plain(&line.cell("message")))
}
