//! Cancels and replays of what a filter finds: counted, asked for, done by a job.

use serde_json::{Map, Value, json};

use super::engine::Engine;
use super::failure::{Exit, Result};
use super::input;
use super::list::RunFilter;
use super::trigger::encode;

/// How to go about it.
#[derive(Debug, clap::Args)]
pub(super) struct Manner {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Create the job and do not wait for its end
    #[arg(long)]
    no_wait: bool,
}

/// One job over every run that the filter finds.
pub(super) async fn job(
    engine: &Engine,
    kind: &str,
    filter: &RunFilter,
    version: Option<&str>,
    manner: &Manner,
) -> Result<Option<Exit>> {
    let mut body =
        Map::from_iter([("kind".to_owned(), Value::from(kind)), ("filter".to_owned(), Value::from(filter.body()?))]);
    if let Some(version) = version {
        body.insert("version".to_owned(), version.into());
    }
    body.insert("dry_run".to_owned(), true.into());
    let preview = engine.post("/v1/jobs", Some(encode(&body)?)).await?;
    let total = engine.object(&preview)?.number("total");
    if total == 0 {
        helve_terminal::out::note("no run matches");
        if engine.json {
            engine.show(&preview)?;
        }
        return Ok(None);
    }
    let runs = if total == 1 { "1 run".to_owned() } else { format!("{total} runs") };
    let verb = if kind == "cancel" { "Cancel" } else { "Replay" };
    let question = format!("{verb} {runs} of {}, those with {}?", engine.described(), filter.described()?);
    if !input::confirmed(&question, manner.yes)? {
        return Ok(None);
    }
    body.remove("dry_run");
    let created = engine.post_once("/v1/jobs", Some(encode(&body)?), None).await?;
    if manner.no_wait {
        engine.show(&created)?;
        return Ok(None);
    }
    let id = engine.object(&created)?.cell("id");
    helve_terminal::out::note(&format!("{id} goes on also when this command is ended: helve jobs watch {id}"));
    engine.follow_job(&id).await
}

/// The same request for each id, in turn; what fails is said, and the others are done all the same.
pub(super) async fn each(engine: &Engine, ids: &[String], action: &str, body: &Value) -> Result<Option<Exit>> {
    let mut exit = None;
    for (n, id) in ids.iter().enumerate() {
        let path = format!("/v1/runs/{}/{action}", super::engine::escape(id));
        let body = (!body.is_null()).then(|| encode(body)).transpose()?;
        let done = match action {
            "replay" => engine.post_once(&path, body, None).await,
            _ => engine.post(&path, body).await,
        };
        match done {
            Ok(response) => {
                if n > 0 && !engine.json {
                    helve_terminal::out::line("")?;
                }
                engine.show(&response)?;
            }
            Err(failure) => {
                failure.print(engine.json);
                exit.get_or_insert(failure.exit);
            }
        }
    }
    Ok(exit)
}

/// The body of a replay.
pub(super) fn replay_body(version: Option<&str>) -> Value {
    version.map_or(Value::Null, |version| json!({ "version": version }))
}
