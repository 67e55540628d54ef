//! `helve runs trigger`: a run, and its result when it is waited for.

use std::time::Duration;

use bytes::Bytes;
use helve_domain::duration;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::engine::{Engine, query};
use super::failure::{Exit, Failure, Result};
use super::follow::{exit_of, is_final, standing};
use super::input;

/// The engine holds a request no longer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Trigger {
    /// The workflow's name
    workflow: String,
    /// The input: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
    /// Metadata of the run; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// What it asks of the labels of its worker, instead of what the workflow asks: a list as in its definition
    #[arg(long, value_name = "JSON")]
    labels: Option<String>,
    /// 1 (lowest) to 4
    #[arg(long)]
    priority: Option<i64>,
    /// Not before this much time has gone by, such as 30s
    #[arg(long, conflicts_with = "run_at")]
    delay: Option<String>,
    /// Not before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    run_at: Option<String>,
    /// An idempotency key: the same trigger under the same key gives the same run
    #[arg(long)]
    key: Option<String>,
    /// Wait so long for the result; a run that failed ends the command with 1
    #[arg(long, value_name = "DURATION", value_parser = helve_terminal::args::span)]
    wait: Option<Duration>,
}

#[derive(Serialize)]
struct Body<'a> {
    workflow: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<&'a str>,
}

/// A body as it is sent.
pub(super) fn encode(body: &impl Serialize) -> Result<Bytes> {
    let text = serde_json::to_vec(body);
    Ok(text.map_err(|e| Failure::usage(format!("the request cannot be written: {e}")))?.into())
}

impl Trigger {
    pub(super) async fn run(self, engine: &Engine) -> Result<Option<Exit>> {
        let body = encode(&Body {
            workflow: &self.workflow,
            input: self.input.as_deref().map(|given| input::json("--input", given)).transpose()?,
            metadata: input::pairs(&self.metadata)?,
            labels: self.labels.as_deref().map(|given| input::json("--labels", given)).transpose()?,
            priority: self.priority,
            delay: self.delay.as_deref(),
            run_at: self.run_at.as_deref(),
        })?;
        let until = self.wait.map(|wait| engine.clock.instant() + wait);
        let wait = self.wait.map(|wait| ("wait", duration::format(wait.min(LONGEST_WAIT))));
        let path = query("/v1/runs", wait.as_slice());
        let response = engine.post_once(&path, Some(body), self.key.as_deref()).await?;
        let run = engine.object(&response)?;
        let Some(until) = until else {
            engine.show(&response)?;
            return Ok(None);
        };
        if is_final(&run) || engine.clock.instant() >= until {
            engine.show(&response)?;
            return Ok(exit_of(&run));
        }
        helve_terminal::out::note(&standing(&run));
        let (response, run) = engine.follow_run(&run.cell("id"), Some(until)).await?;
        engine.show(&response)?;
        Ok(exit_of(&run))
    }
}
