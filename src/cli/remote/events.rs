//! `helve events`.

use std::process::ExitCode;

use clap::Subcommand;
use helve_terminal::out;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::Common;
use super::engine::{Engine, escape};
use super::failure::{Exit, Failure, Result};
use super::input;
use super::list::{Created, Paging};
use super::object::Object;
use super::trigger::encode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Push an event: it starts a run of every workflow that matches
    Push {
        /// What happened, such as image.uploaded
        key: String,
        /// The payload: JSON, @FILE, or - for standard input
        #[arg(long, value_name = "JSON")]
        payload: Option<String>,
        /// Metadata of the event and its runs; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        metadata: Vec<String>,
        /// Where it comes from; with --source-id it is taken once
        #[arg(long, requires = "source_id")]
        source: Option<String>,
        /// Its id there
        #[arg(long, requires = "source")]
        source_id: Option<String>,
    },
    /// List events, newest first
    List {
        #[command(flatten)]
        filter: EventFilter,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show an event with its runs
    Get {
        /// Its id, `evt_..`
        id: String,
    },
    /// Store an event again for the workflows of now: the one named, or every one that a filter finds
    Replay {
        /// Its id
        id: Option<String>,
        #[command(flatten)]
        filter: EventFilter,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Which events: everything that is given must hold.
#[derive(Debug, clap::Args)]
struct EventFilter {
    /// With this key, or a pattern with `*`
    #[arg(long, value_name = "PATTERN")]
    key: Option<String>,
    /// From this source
    #[arg(long)]
    source: Option<String>,
    #[command(flatten)]
    created: Created,
    /// With this metadata; repeated: with all of them
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
}

impl EventFilter {
    fn single(&self) -> Result<Vec<(&'static str, String)>> {
        let given = [("key", &self.key), ("source", &self.source)];
        let given = given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        Ok(given.chain(self.created.parameters()?).collect())
    }

    fn parameters(&self) -> Result<Vec<(&'static str, String)>> {
        let metadata = self.metadata.iter().map(|pair| ("metadata", pair.clone()));
        Ok(self.single()?.into_iter().chain(metadata).collect())
    }

    fn body(&self) -> Result<Map<String, Value>> {
        let mut body: Map<_, _> =
            self.single()?.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        if !self.metadata.is_empty() {
            body.insert("metadata".to_owned(), input::pairs(&self.metadata)?.into());
        }
        Ok(body)
    }
}

#[derive(serde::Serialize)]
struct Push<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_id: Option<&'a str>,
}

impl Args {
    pub(crate) async fn run(self) -> ExitCode {
        let Self { common, command } = self;
        common.run(async |engine| command.run(engine).await).await
    }
}

impl Command {
    async fn run(self, engine: &Engine) -> Result<Option<Exit>> {
        match self {
            Self::Push { key, payload, metadata, source, source_id } => {
                let payload = payload.as_deref().map(|given| input::json("--payload", given)).transpose()?;
                let metadata = input::pairs(&metadata)?;
                let (source, source_id) = (source.as_deref(), source_id.as_deref());
                let body = encode(&Push { key: &key, payload, metadata, source, source_id })?;
                // Only a source makes it safe to send again.
                let sent = match source {
                    Some(_) => engine.post("/v1/events", Some(body)).await,
                    None => engine.post_plain("/v1/events", body).await,
                };
                engine.show(&sent?)?;
            }
            Self::List { filter, paging } => {
                let head = ["id", "key", "source", "runs", "created"];
                let row = |event: &Object| {
                    let runs = event.list("runs").len().to_string();
                    let created = engine.time(event, "created_at");
                    vec![event.cell("id"), event.cell("key"), event.cell("source"), runs, created]
                };
                engine.list("/v1/events", &filter.parameters()?, &paging, &head, row).await?;
            }
            Self::Get { id } => engine.show(&engine.get(&format!("/v1/events/{}", escape(&id))).await?)?,
            Self::Replay { id, filter, yes } => return replay(engine, id, &filter.body()?, yes).await,
        }
        Ok(None)
    }
}

async fn replay(engine: &Engine, id: Option<String>, filter: &Map<String, Value>, yes: bool) -> Result<Option<Exit>> {
    match (id, filter.is_empty()) {
        (Some(id), true) => {
            let path = format!("/v1/events/{}/replay", escape(&id));
            engine.show(&engine.post_once(&path, None, None).await?)?;
            Ok(None)
        }
        (None, false) => replay_all(engine, filter, yes).await,
        (None, true) => Err(Failure::usage("name the event, or give a filter such as --key PATTERN")),
        (Some(_), false) => Err(Failure::usage("name the event or give a filter, not both")),
    }
}

/// Page by page. What fails is said on standard error, and the others are done all the same.
async fn replay_all(engine: &Engine, filter: &Map<String, Value>, yes: bool) -> Result<Option<Exit>> {
    let path = "/v1/events/replay";
    let preview = engine.post(path, Some(encode(&json!({ "filter": filter, "preview": true }))?)).await?;
    let preview = engine.object(&preview)?.object("preview");
    let (events, runs) = (preview.number("events"), preview.number("runs"));
    if events == 0 {
        out::note("no event matches");
        return Ok(None);
    }
    let more = if preview.raw("more") == Some("true") { "more than " } else { "" };
    let question = format!("Replay {more}{events} events of {}, which start {more}{runs} runs?", engine.described());
    if !input::confirmed(&question, yes)? {
        return Ok(None);
    }
    let (mut cursor, mut counts) = (None::<String>, [0_usize; 3]);
    loop {
        let mut body = json!({ "filter": filter });
        if let Some(cursor) = cursor {
            body["cursor"] = cursor.into();
        }
        let page = engine.post_once(path, Some(encode(&body)?), None).await?;
        if engine.json {
            engine.show(&page)?;
        }
        let page = engine.object(&page)?;
        for item in page.list("results").iter().filter_map(|raw| Object::parse(raw.get().as_bytes())) {
            if item.raw("problem").is_some() {
                counts[2] += 1;
                let line = format!("{}: {}", item.cell("event"), item.object("problem").cell("detail"));
                out::note(&out::plain(&line));
            } else {
                counts[0] += 1;
                counts[1] += item.list("runs").len();
            }
        }
        let [events, runs, failed] = counts;
        out::note(&format!("{events} events replayed, {runs} runs started, {failed} failed"));
        cursor = page.text("next_cursor");
        if cursor.is_none() {
            return Ok((failed > 0).then_some(Exit::Failed));
        }
    }
}
