//! Lists: pages, filters, and one table.

use helve_terminal::out;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::engine::{Engine, query};
use super::failure::{Exit, Failure, Result};
use super::input;
use super::object::Object;
use super::time;

/// How much of a list.
#[derive(Debug, clap::Args)]
pub(super) struct Paging {
    /// At most so many, 1 to 1000 [default: 50]
    #[arg(long)]
    limit: Option<u32>,
    /// Go on where a page ended
    #[arg(long)]
    cursor: Option<String>,
    /// Everything, page by page
    #[arg(long)]
    all: bool,
}

/// Which runs: everything that is given must hold.
#[derive(Debug, clap::Args)]
pub(super) struct RunFilter {
    /// In one of these states: scheduled, queued, running, parked, succeeded, failed, cancelled
    #[arg(long, value_delimiter = ',', value_name = "STATUS")]
    status: Vec<String>,
    /// Of this workflow
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    #[command(flatten)]
    created: Created,
    /// With this metadata; repeated: with all of them
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// Started by this event
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// Replays of this run
    #[arg(long, value_name = "ID")]
    replay_of: Option<String>,
}

/// When it was created.
#[derive(Debug, clap::Args)]
pub(super) struct Created {
    /// Created at this time or later: RFC 3339, or how long ago (90m, 7d)
    #[arg(long, visible_alias = "since", value_name = "TIME")]
    created_after: Option<String>,
    /// Created before this time
    #[arg(long, value_name = "TIME")]
    created_before: Option<String>,
}

impl Created {
    pub(super) fn parameters(&self) -> Result<Vec<(&'static str, String)>> {
        let times = [("created_after", &self.created_after), ("created_before", &self.created_before)];
        times
            .into_iter()
            .filter_map(|(name, at)| Some((name, at.as_ref()?)))
            .map(|(n, at)| Ok((n, time::given(at)?)))
            .collect()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.created_after.is_none() && self.created_before.is_none()
    }
}

impl RunFilter {
    pub(super) fn is_empty(&self) -> bool {
        let Self { status, workflow, created, metadata, event, replay_of } = self;
        status.is_empty()
            && created.is_empty()
            && metadata.is_empty()
            && [workflow, event, replay_of].iter().all(|given| given.is_none())
    }

    fn single(&self) -> Result<Vec<(&'static str, String)>> {
        let Self { workflow, event, replay_of, .. } = self;
        let given = [("workflow", workflow), ("event", event), ("replay_of", replay_of)];
        let given = given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        Ok(given.chain(self.created.parameters()?).collect())
    }

    /// As parameters of the list.
    pub(super) fn parameters(&self) -> Result<Vec<(&'static str, String)>> {
        let status = self.status.iter().map(|status| ("status", status.clone()));
        let metadata = self.metadata.iter().map(|pair| ("metadata", pair.clone()));
        Ok(self.single()?.into_iter().chain(status).chain(metadata).collect())
    }

    /// In words, for a question.
    pub(super) fn described(&self) -> Result<String> {
        let pairs = self.parameters()?.into_iter().map(|(name, value)| format!("{} {value}", name.replace('_', " ")));
        Ok(out::plain(&pairs.collect::<Vec<_>>().join(", ")))
    }

    /// As the filter of a job.
    pub(super) fn body(&self) -> Result<Map<String, Value>> {
        let mut body: Map<_, _> =
            self.single()?.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        if !self.status.is_empty() {
            body.insert("status".to_owned(), self.status.clone().into());
        }
        if !self.metadata.is_empty() {
            body.insert("metadata".to_owned(), input::pairs(&self.metadata)?.into());
        }
        Ok(body)
    }
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

impl Engine {
    async fn page(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        cursor: Option<String>,
        limit: Option<u32>,
    ) -> Result<(String, Page)> {
        let mut parameters = parameters.to_vec();
        parameters.extend(cursor.map(|cursor| ("cursor", cursor)));
        parameters.extend(limit.map(|limit| ("limit", limit.to_string())));
        let body = self.get(&query(path, &parameters)).await?.body;
        let text = String::from_utf8_lossy(&body).into_owned();
        let foreign = |e| Failure::new(Exit::Unavailable, format!("that list is not one of Helve's: {e}"));
        let page = serde_json::from_str(&text).map_err(foreign)?;
        Ok((text, page))
    }

    /// Shows a list: a table, or the JSON of the interface. `row` makes the cells of one object.
    pub(super) async fn list(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        paging: &Paging,
        head: &[&str],
        row: impl Fn(&Object) -> Vec<String>,
    ) -> Result<()> {
        let rows = |page: &Page| -> Vec<_> {
            page.items.iter().filter_map(|raw| Object::parse(raw.get().as_bytes())).map(|item| row(&item)).collect()
        };
        if paging.all {
            return self.list_all(path, parameters, paging, head, rows).await;
        }
        let (text, page) = self.page(path, parameters, paging.cursor.clone(), paging.limit).await?;
        if self.json {
            return Ok(out::line(&text)?);
        }
        out::table(head, &rows(&page))?;
        if let Some(cursor) = page.next_cursor {
            out::note(&format!("there is more: --cursor {cursor}, or --all"));
        }
        Ok(())
    }

    /// A page is shown when it is there: a list may be longer than the memory. The JSON is one list all the same.
    async fn list_all(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        paging: &Paging,
        head: &[&str],
        rows: impl Fn(&Page) -> Vec<Vec<String>>,
    ) -> Result<()> {
        let mut table = out::Table::new(head);
        let (mut cursor, mut first) = (paging.cursor.clone(), true);
        if self.json {
            out::line(r#"{"items":["#)?;
        }
        loop {
            let (_, page) = self.page(path, parameters, cursor.take(), paging.limit.or(Some(1_000))).await?;
            if self.json {
                for item in &page.items {
                    out::line(&format!("{}{}", if first { "" } else { "," }, item.get()))?;
                    first = false;
                }
            } else {
                let text = table.next(&rows(&page));
                if !text.is_empty() {
                    out::line(&text)?;
                }
            }
            cursor = page.next_cursor;
            if cursor.is_none() || out::is_unread() {
                break;
            }
        }
        if self.json {
            out::line(r#"],"next_cursor":null}"#)?;
        }
        Ok(())
    }
}
