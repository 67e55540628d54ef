//! New runs and events as columns, and the parts of the statement that writes them.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use helve_domain::change::{CreateKey, InsertRow, NewEventRow, Provided};
use helve_domain::clock::Timestamp;
use uuid::Uuid;

use super::INLINE;
use super::columns::columns;
use super::parts::{Contents, Part, Rows, unbound};

/// Targets whose create keys were won.
pub struct KeyWon(pub(super) HashSet<Uuid>);

impl KeyWon {
    /// Whether what depends on this was written.
    pub fn admits(&self, provided: Provided) -> bool {
        provided.target().is_none_or(|target| self.0.contains(&target))
    }
}

/// Runs.
const RUNS: Contents = 1;
/// Nothing but one run, as values: alone, a list costs more than the row.
const ONE: Contents = 1 << 1;
/// Runs with what an ordinary one has not: a key, an event, labels of their own, a run that they repeat.
const UNUSUAL: Contents = 1 << 2;
/// Create keys.
const KEYS: Contents = 1 << 3;
/// Events.
const EVENTS: Contents = 1 << 4;
/// Inputs that are too large to stand in the row.
const PAYLOADS: Contents = 1 << 5;
/// Something that may depend on a key.
const DEPENDS: Contents = 1 << 6;

/// One ordinary run.
pub(super) const ONE_RUN: Contents = RUNS | ONE;
/// Ordinary runs.
pub(super) const PLAIN_RUNS: Contents = RUNS;

columns! {
    /// A create key that must be won for its target to be written.
    Key => Keys<'a> {
        tenant: Uuid => SqlUuid,
        scope: &'a str => Text,
        key: &'a str => Text,
        body_hash: &'a [u8] => Binary,
        target: Uuid => SqlUuid,
        expires_at: DateTime<Utc> => Timestamptz,
    }
}

columns! {
    /// An event.
    Event => Events<'a> {
        id: Uuid => SqlUuid,
        tenant: Uuid => SqlUuid,
        created_at: DateTime<Utc> => Timestamptz,
        key: &'a str => Text,
        source: Option<&'a str> => Nullable<Text>,
        source_id: Option<&'a str> => Nullable<Text>,
        metadata: Option<&'a [u8]> => Nullable<Binary>,
        payload: &'a [u8] => Binary,
        provided: Option<Uuid> => Nullable<SqlUuid>,
        replay_of: Option<Uuid> => Nullable<SqlUuid>,
        skipped: Option<&'a [u8]> => Nullable<Binary>,
    }
}

columns! {
    /// A run that an event starts.
    Started => Starts {
        event: Uuid => SqlUuid,
        run: Uuid => SqlUuid,
    }
}

columns! {
    /// An input that is too large to stand in the row.
    Input => Payloads<'a> {
        id: Uuid => SqlUuid,
        bytes: &'a [u8] => Binary,
        provided: Option<Uuid> => Nullable<SqlUuid>,
    }
}

columns! {
    /// A new open run.
    Run => Runs<'a> {
        id: Uuid => SqlUuid,
        tenant: Uuid => SqlUuid,
        created_at: DateTime<Utc> => Timestamptz,
        due: Option<DateTime<Utc>> => Nullable<Timestamptz>,
        started_at: Option<DateTime<Utc>> => Nullable<Timestamptz>,
        rank: i64 => BigInt,
        version: i32 => Integer,
        attempt: i32 => Integer,
        state: i16 => SmallInt,
        shard: i16 => SmallInt,
        priority: i16 => SmallInt,
        worker: Option<Uuid> => Nullable<SqlUuid>,
        session: Option<Uuid> => Nullable<SqlUuid>,
        event: Option<Uuid> => Nullable<SqlUuid>,
        workflow: &'a str => Text,
        action: &'a str => Text,
        traceparent: Option<&'a str> => Nullable<Text>,
        input: Option<&'a [u8]> => Nullable<Binary>,
        metadata: Option<&'a [u8]> => Nullable<Binary>,
        provided: Option<Uuid> => Nullable<SqlUuid>,
        replay_of: Option<Uuid> => Nullable<SqlUuid>,
        labels: Option<&'a str> => Nullable<Text>,
    }
}

/// A batch of the create lane, column by column.
#[derive(Default)]
pub struct CreateRows<'a> {
    now: Option<DateTime<Utc>>,
    has: Contents,
    keys: Keys<'a>,
    events: Events<'a>,
    starts: Starts,
    payloads: Payloads<'a>,
    runs: Runs<'a>,
}

impl<'a> CreateRows<'a> {
    /// An empty batch at a time: keys that have expired by then are free again.
    pub fn at(now: Timestamp) -> Self {
        Self { now: Some(now.to_utc()), ..Self::default() }
    }

    /// Adds a create key that must be won for `target` to be written.
    pub fn key(&mut self, key: &'a CreateKey, target: Uuid, expires_at: Timestamp) {
        self.has |= KEYS;
        self.keys.push(Key {
            tenant: key.tenant.uuid(),
            scope: &key.scope,
            key: &key.key,
            body_hash: &key.body_hash,
            target,
            expires_at: expires_at.to_utc(),
        });
    }

    /// Adds an event.
    pub fn event(&mut self, event: &'a NewEventRow) {
        self.has |= EVENTS | DEPENDS;
        self.events.push(Event {
            id: event.id.uuid(),
            tenant: event.tenant.uuid(),
            created_at: event.id.created_at().to_utc(),
            key: &event.key,
            source: event.source.as_ref().map(|s| s.0.as_str()),
            source_id: event.source.as_ref().map(|s| s.1.as_str()),
            metadata: metadata(&event.body),
            payload: event.body.input.bytes(),
            provided: event.provided().target(),
            replay_of: event.replay_of.map(|e| e.uuid()),
            skipped: event.skipped.as_ref().map(|list| &list.bytes()[..]),
        });
        for run in &event.runs {
            self.starts.push(Started { event: event.id.uuid(), run: run.id.uuid() });
        }
    }

    /// Adds a run.
    pub fn run(&mut self, row: &'a InsertRow) {
        let (run, place) = (&row.run, &row.place);
        let (input, provided) = (run.body.input.bytes(), row.provided.target());
        let (event, replay_of) = (run.extra.event(), run.extra.replay_of());
        // The input of an event's run is the event's payload; a large one stands in its own table.
        let inline = event.is_none() && input.len() <= INLINE;
        if event.is_none() && !inline {
            self.has |= PAYLOADS | DEPENDS;
            self.payloads.push(Input { id: run.id.uuid(), bytes: input, provided });
        }
        let labels = run.spec.labels.own();
        let usual = event.is_none() && replay_of.is_none() && labels.is_none() && provided.is_none();
        self.has |= if usual { RUNS } else { RUNS | UNUSUAL | DEPENDS };
        self.runs.push(Run {
            id: run.id.uuid(),
            tenant: run.tenant.uuid(),
            created_at: run.id.created_at().to_utc(),
            due: place.due.map(Timestamp::to_utc),
            started_at: place.started_at.map(Timestamp::to_utc),
            rank: row.rank,
            version: run.spec.version,
            attempt: place.attempt,
            state: place.state.number(),
            shard: run.tenant.shard(),
            priority: run.priority.number(),
            worker: place.worker.map(|w| w.0.uuid()),
            session: place.worker.map(|w| w.1.uuid()),
            event: event.map(|e| e.uuid()),
            workflow: &run.spec.workflow,
            action: &run.spec.action,
            traceparent: run.body.traceparent.as_deref(),
            input: inline.then_some(input),
            metadata: metadata(&run.body),
            provided,
            replay_of: replay_of.map(|of| of.uuid()),
            labels,
        });
    }
}

/// The empty object is not stored.
fn metadata(body: &helve_domain::change::Body) -> Option<&[u8]> {
    let bytes = body.metadata.bytes();
    (&bytes[..] != b"{}").then_some(bytes)
}

/// The lane of new runs and events.
pub(super) struct CreateLane;

impl Rows for CreateRows<'_> {
    const PARTS: &'static [Part] = &[
        Part::always(include_str!("../sql/lane/create/fence.sql")),
        Part::with(KEYS, include_str!("../sql/lane/create/keys.sql")),
        // Where nothing has a key, nothing depends on one.
        Part::with(DEPENDS, include_str!("../sql/lane/create/no_keys.sql")).without(KEYS),
        Part::with(EVENTS, include_str!("../sql/lane/create/events.sql")),
        Part::with(PAYLOADS, include_str!("../sql/lane/create/payloads.sql")),
        Part::with(RUNS | ONE, include_str!("../sql/lane/create/one_run.sql")),
        Part::with(RUNS, include_str!("../sql/lane/create/plain_runs.sql")).without(ONE | UNUSUAL),
        Part::with(RUNS | UNUSUAL, include_str!("../sql/lane/create/runs.sql")),
        Part::always(include_str!("../sql/lane/create/ours.sql")),
        Part::with(KEYS, include_str!("../sql/lane/create/won.sql")),
    ];
    type Lane = CreateLane;
    type Found = Nullable<SqlUuid>;

    fn contents(&self) -> Contents {
        let only = self.has & !(PAYLOADS | DEPENDS) == RUNS;
        if only && self.runs.id.len() == 1 { self.has | ONE } else { self.has }
    }

    fn bind<'b>(&'b self, name: &str, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match name.split_once('.') {
            Some(("run", column)) => self.runs.bind(column, self.contents() & ONE != 0, out),
            Some(("key", column)) => self.keys.bind(column, false, out),
            Some(("event", column)) => self.events.bind(column, false, out),
            Some(("start", column)) => self.starts.bind(column, false, out),
            Some(("payload", column)) => self.payloads.bind(column, false, out),
            None if name == "now" => out.push_bind_param::<Nullable<Timestamptz>, _>(&self.now),
            _ => Err(unbound(name)),
        }
    }
}
