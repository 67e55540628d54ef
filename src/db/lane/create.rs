//! New runs and events as columns, and the two statements that write them.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Binary, Integer, Nullable, SmallInt, Text as SqlText, Timestamptz};
use helve_domain::change::{CreateKey, InsertRow, NewEventRow};
use helve_domain::clock::Timestamp;
use uuid::Uuid;

use super::INLINE;
use super::text::{Binds, Statement, Text, bind, unbound};

type SqlUuid = diesel::sql_types::Uuid;

/// Targets whose create keys were won.
pub struct KeyWon(pub(super) HashSet<Uuid>);

impl KeyWon {
    /// Whether the create with this target, or without a key, was written.
    pub fn admits(&self, gate: Option<Uuid>) -> bool {
        gate.is_none_or(|g| self.0.contains(&g))
    }
}

/// A batch of the create lane, column by column.
#[derive(Default)]
pub struct CreateRows<'a> {
    now: Option<DateTime<Utc>>,
    keys: Keys<'a>,
    events: Events<'a>,
    payloads: (Vec<Uuid>, Vec<&'a [u8]>, Vec<Option<Uuid>>),
    pub(super) runs: Runs<'a>,
}

#[derive(Default)]
struct Keys<'a> {
    tenant: Vec<Uuid>,
    scope: Vec<&'a str>,
    key: Vec<&'a str>,
    body_hash: Vec<&'a [u8]>,
    target: Vec<Uuid>,
    expires_at: Vec<DateTime<Utc>>,
}

#[derive(Default)]
struct Events<'a> {
    id: Vec<Uuid>,
    tenant: Vec<Uuid>,
    created_at: Vec<DateTime<Utc>>,
    key: Vec<&'a str>,
    source: Vec<Option<&'a str>>,
    source_id: Vec<Option<&'a str>>,
    metadata: Vec<Option<&'a [u8]>>,
    payload: Vec<&'a [u8]>,
    replay_of: Vec<Option<Uuid>>,
    skipped: Vec<Option<&'a [u8]>>,
    gate: Vec<Option<Uuid>>,
    /// (event, run) pairs.
    started: (Vec<Uuid>, Vec<Uuid>),
}

#[derive(Default)]
pub(super) struct Runs<'a> {
    pub(super) id: Vec<Uuid>,
    pub(super) tenant: Vec<Uuid>,
    pub(super) created_at: Vec<DateTime<Utc>>,
    pub(super) due: Vec<Option<DateTime<Utc>>>,
    pub(super) started_at: Vec<Option<DateTime<Utc>>>,
    pub(super) rank: Vec<i64>,
    pub(super) version: Vec<i32>,
    pub(super) attempt: Vec<i32>,
    pub(super) state: Vec<i16>,
    pub(super) shard: Vec<i16>,
    pub(super) priority: Vec<i16>,
    pub(super) worker: Vec<Option<Uuid>>,
    pub(super) session: Vec<Option<Uuid>>,
    pub(super) event: Vec<Option<Uuid>>,
    pub(super) workflow: Vec<&'a str>,
    pub(super) action: Vec<&'a str>,
    pub(super) traceparent: Vec<Option<&'a str>>,
    pub(super) input: Vec<Option<&'a [u8]>>,
    pub(super) metadata: Vec<Option<&'a [u8]>>,
    pub(super) gate: Vec<Option<Uuid>>,
    replay_of: Vec<Option<Uuid>>,
    labels: Vec<Option<&'a str>>,
}

impl<'a> CreateRows<'a> {
    /// An empty batch at a time: keys that have expired by then are free again.
    pub fn at(now: Timestamp) -> Self {
        Self { now: Some(now.to_utc()), ..Self::default() }
    }

    /// Adds a create key that must be won for `target` to be written.
    pub fn key(&mut self, key: &'a CreateKey, target: Uuid, expires_at: Timestamp) {
        let k = &mut self.keys;
        k.tenant.push(key.tenant.uuid());
        k.scope.push(&key.scope);
        k.key.push(&key.key);
        k.body_hash.push(&key.body_hash);
        k.target.push(target);
        k.expires_at.push(expires_at.to_utc());
    }

    /// Adds an event.
    pub fn event(&mut self, event: &'a NewEventRow) {
        let e = &mut self.events;
        e.id.push(event.id.uuid());
        e.tenant.push(event.tenant.uuid());
        e.created_at.push(event.id.created_at().to_utc());
        e.key.push(&event.key);
        e.source.push(event.source.as_ref().map(|s| s.0.as_str()));
        e.source_id.push(event.source.as_ref().map(|s| s.1.as_str()));
        e.metadata.push(metadata(&event.body));
        e.payload.push(event.body.input.bytes());
        e.replay_of.push(event.replay_of.map(|e| e.uuid()));
        e.skipped.push(event.skipped.as_ref().map(|list| &list.bytes()[..]));
        e.gate.push(event.create_key.as_ref().map(|_| event.id.uuid()));
        for run in &event.runs {
            e.started.0.push(event.id.uuid());
            e.started.1.push(run.id.uuid());
        }
    }

    /// Adds a run.
    pub fn run(&mut self, row: &'a InsertRow) {
        let (run, place) = (&row.run, &row.place);
        let input = run.body.input.bytes();
        // The input of an event's run is the event's payload; a large one stands in its own table.
        let inline = run.event.is_none() && input.len() <= INLINE;
        if run.event.is_none() && !inline {
            self.payloads.0.push(run.id.uuid());
            self.payloads.1.push(input);
            self.payloads.2.push(row.gate);
        }
        let r = &mut self.runs;
        r.id.push(run.id.uuid());
        r.tenant.push(run.tenant.uuid());
        r.created_at.push(run.id.created_at().to_utc());
        r.due.push(place.due.map(Timestamp::to_utc));
        r.started_at.push(place.started_at.map(Timestamp::to_utc));
        r.rank.push(row.rank);
        r.version.push(run.spec.version);
        r.attempt.push(place.attempt);
        r.state.push(place.state.number());
        r.shard.push(run.tenant.shard());
        r.priority.push(run.priority.number());
        r.worker.push(place.worker.map(|w| w.0.uuid()));
        r.session.push(place.worker.map(|w| w.1.uuid()));
        r.event.push(run.event.map(|e| e.uuid()));
        r.workflow.push(&run.spec.workflow);
        r.action.push(&run.spec.action);
        r.traceparent.push(run.body.traceparent.as_deref());
        r.input.push(inline.then_some(input));
        r.metadata.push(metadata(&run.body));
        r.gate.push(row.gate);
        r.labels.push(run.spec.labels.own());
        r.replay_of.push(run.replay_of.map(|of| of.uuid()));
    }

    /// Whether the batch is a single ordinary run.
    pub(super) fn is_one(&self) -> bool {
        self.runs.id.len() == 1 && self.is_plain()
    }

    /// Whether the batch has only runs without a key, an event or a large input, and no replay or labels of its own.
    pub(super) fn is_plain(&self) -> bool {
        let no_replay = || self.runs.replay_of.iter().all(Option::is_none);
        let no_labels = || self.runs.labels.iter().all(Option::is_none);
        self.keys.target.is_empty()
            && self.events.id.is_empty()
            && self.payloads.0.is_empty()
            && no_replay()
            && no_labels()
    }
}

/// The empty object is not stored.
fn metadata(body: &helve_domain::change::Body) -> Option<&[u8]> {
    let bytes = body.metadata.bytes();
    (&bytes[..] != b"{}").then_some(bytes)
}

/// One run.
pub(super) struct One;
/// Only runs.
pub(super) struct Plain;
/// Everything.
pub(super) struct Full;

const FENCE: &str = include_str!("../sql/lane/create_fence.sql");

impl Text for Plain {
    const PARTS: &'static [&'static str] = &[FENCE, include_str!("../sql/lane/create_plain.sql")];
    type Row = Nullable<SqlUuid>;
}

impl Text for One {
    const PARTS: &'static [&'static str] = &[FENCE, include_str!("../sql/lane/create_one.sql")];
    type Row = Nullable<SqlUuid>;
}

impl Text for Full {
    const PARTS: &'static [&'static str] = &[FENCE, include_str!("../sql/lane/create_extras.sql")];
    type Row = Nullable<SqlUuid>;
}

pub(super) struct CreateBinds<'a> {
    node: Uuid,
    epoch: i64,
    rows: &'a CreateRows<'a>,
}

/// A batch's statement.
pub(super) type Create<'a, T> = Statement<T, CreateBinds<'a>>;

impl<'a, T> Create<'a, T> {
    pub const fn new(node: Uuid, epoch: i64, rows: &'a CreateRows<'a>) -> Self {
        Self::of(CreateBinds { node, epoch, rows })
    }
}

impl Binds for CreateBinds<'_> {
    fn bind<'b>(&'b self, n: u8, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let CreateRows { now, keys, events, payloads, runs } = self.rows;
        match n {
            1 => bind!(out, SqlUuid, &self.node),
            2 => bind!(out, BigInt, &self.epoch),
            3 => bind!(out, Array<SqlUuid>, &keys.tenant),
            4 => bind!(out, Array<SqlText>, &keys.scope),
            5 => bind!(out, Array<SqlText>, &keys.key),
            6 => bind!(out, Array<Binary>, &keys.body_hash),
            7 => bind!(out, Array<SqlUuid>, &keys.target),
            8 => bind!(out, Array<Timestamptz>, &keys.expires_at),
            9 => bind!(out, Nullable<Timestamptz>, now),
            10 => bind!(out, Array<SqlUuid>, &events.id),
            11 => bind!(out, Array<SqlUuid>, &events.tenant),
            12 => bind!(out, Array<Timestamptz>, &events.created_at),
            13 => bind!(out, Array<SqlText>, &events.key),
            14 => bind!(out, Array<Nullable<SqlText>>, &events.source),
            15 => bind!(out, Array<Nullable<SqlText>>, &events.source_id),
            16 => bind!(out, Array<Nullable<Binary>>, &events.metadata),
            17 => bind!(out, Array<Binary>, &events.payload),
            18 => bind!(out, Array<Nullable<SqlUuid>>, &events.gate),
            19 => bind!(out, Array<SqlUuid>, &events.started.0),
            20 => bind!(out, Array<SqlUuid>, &events.started.1),
            21 => bind!(out, Array<SqlUuid>, &payloads.0),
            22 => bind!(out, Array<Binary>, &payloads.1),
            23 => bind!(out, Array<Nullable<SqlUuid>>, &payloads.2),
            45 => bind!(out, Array<Nullable<SqlUuid>>, &events.replay_of),
            46 => bind!(out, Array<Nullable<Binary>>, &events.skipped),
            _ => runs.bind(n, out),
        }
    }
}

impl Runs<'_> {
    fn bind<'b>(&'b self, n: u8, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match n {
            24 => bind!(out, Array<SqlUuid>, &self.id),
            25 => bind!(out, Array<SqlUuid>, &self.tenant),
            26 => bind!(out, Array<Timestamptz>, &self.created_at),
            27 => bind!(out, Array<Nullable<Timestamptz>>, &self.due),
            28 => bind!(out, Array<Nullable<Timestamptz>>, &self.started_at),
            29 => bind!(out, Array<BigInt>, &self.rank),
            30 => bind!(out, Array<Integer>, &self.version),
            31 => bind!(out, Array<Integer>, &self.attempt),
            32 => bind!(out, Array<SmallInt>, &self.state),
            33 => bind!(out, Array<SmallInt>, &self.shard),
            34 => bind!(out, Array<SmallInt>, &self.priority),
            35 => bind!(out, Array<Nullable<SqlUuid>>, &self.worker),
            36 => bind!(out, Array<Nullable<SqlUuid>>, &self.session),
            37 => bind!(out, Array<Nullable<SqlUuid>>, &self.event),
            38 => bind!(out, Array<SqlText>, &self.workflow),
            39 => bind!(out, Array<SqlText>, &self.action),
            40 => bind!(out, Array<Nullable<SqlText>>, &self.traceparent),
            41 => bind!(out, Array<Nullable<Binary>>, &self.input),
            42 => bind!(out, Array<Nullable<Binary>>, &self.metadata),
            43 => bind!(out, Array<Nullable<SqlUuid>>, &self.gate),
            44 => bind!(out, Array<Nullable<SqlUuid>>, &self.replay_of),
            47 => bind!(out, Array<Nullable<SqlText>>, &self.labels),
            _ => Err(unbound(n)),
        }
    }
}
