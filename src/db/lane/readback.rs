//! After a lost answer: what of a batch stands in the rows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, Binary, Integer, Nullable, SmallInt, Text as SqlText, Timestamptz};
use diesel_async::RunQueryDsl;
use helve_domain::change::{Body, EndRow, Mark, MoveRow};
use helve_domain::clock::Timestamp;
use helve_domain::id::{EventId, RunId};
use helve_domain::status::RunStatus;
use uuid::Uuid;

use super::{LaneConnection, LaneError, classify, finish};
use crate::db::driven::Driven;

type SqlUuid = diesel::sql_types::Uuid;

#[derive(diesel::QueryableByName)]
struct Trace {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SmallInt)]
    what: i16,
    #[diesel(sql_type = SmallInt)]
    state: i16,
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = Integer)]
    retries: i32,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    session: Option<Uuid>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    due: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Binary>)]
    input: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    metadata: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<SqlText>)]
    traceparent: Option<String>,
    #[diesel(sql_type = Nullable<Integer>)]
    freed: Option<i32>,
}

/// How the rows of a batch stand now that nothing of it can be executing any more.
pub struct Traces {
    open: HashMap<Uuid, Trace>,
    ended: HashMap<Uuid, (i16, i32)>,
    events: HashSet<Uuid>,
}

impl LaneConnection {
    /// Reads how these rows stand. `since`: before the first of the batch's ends.
    ///
    /// # Errors
    /// See [`LaneError`].
    pub async fn traces(&mut self, runs: &[RunId], events: &[EventId], since: Timestamp) -> Result<Traces, LaneError> {
        let runs: Vec<Uuid> = runs.iter().map(|r| r.uuid()).collect();
        let events: Vec<Uuid> = events.iter().map(|e| e.uuid()).collect();
        let Driven { conn, driver, last_error } = &mut self.driven;
        let read = diesel::sql_query(include_str!("../sql/lane/traces.sql"))
            .bind::<Array<SqlUuid>, _>(runs)
            .bind::<Array<SqlUuid>, _>(events)
            .bind::<Timestamptz, _>(since.to_utc())
            .load(conn);
        let rows: Vec<Trace> = driver.drive(read).await.map_err(|e| classify(e, last_error))?;
        let mut traces = Traces { open: HashMap::new(), ended: HashMap::new(), events: HashSet::new() };
        for row in rows {
            match row.what {
                0 => drop(traces.open.insert(row.id, row)),
                1 => drop(traces.ended.insert(row.id, (row.state, row.attempt))),
                _ => drop(traces.events.insert(row.id)),
            }
        }
        Ok(traces)
    }
}

impl Traces {
    /// Whether a new run was written.
    pub fn has_run(&self, run: RunId) -> bool {
        self.open.contains_key(&run.uuid()) || self.ended.contains_key(&run.uuid())
    }

    /// Whether an event was written.
    pub fn has_event(&self, event: EventId) -> bool {
        self.events.contains(&event.uuid())
    }

    /// Whether a run ended as the batch wanted.
    pub fn has_end(&self, row: &EndRow) -> bool {
        self.ended.get(&row.run.uuid()) == Some(&(row.state.number(), row.guard.attempt))
    }

    /// Whether a run stands where the batch wanted it, with its payloads if so.
    pub fn has_place(&self, to: &MoveRow) -> Option<Option<Arc<Body>>> {
        let (row, place) = (self.open.get(&to.run.uuid())?, &to.place);
        let same = row.state == place.state.number()
            && row.attempt == place.attempt
            && row.retries == place.retries
            && row.session == place.worker.map(|w| w.1.uuid())
            && (to.mark != Mark::Freed || row.freed == Some(place.attempt))
            && (place.state == RunStatus::Queued || row.due == place.due.map(Timestamp::to_utc));
        let body = || row.input.clone().map(|i| finish::body(i, row.metadata.clone(), row.traceparent.clone()));
        same.then(body)
    }
}
