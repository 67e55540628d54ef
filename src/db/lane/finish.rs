//! Ends and moves of open runs as columns, and the statements that write them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer, Nullable, SmallInt, Text as SqlText, Timestamptz};
use helve_domain::change::{Body, EndRow, Guard, Mark, MoveRow};
use helve_domain::clock::Timestamp;
use helve_domain::id::RunId;
use helve_domain::json::Payload;
use uuid::Uuid;

use super::INLINE;
use super::text::{Binds, Statement, Text, bind, unbound};

type SqlUuid = diesel::sql_types::Uuid;
type FoundRow = (Option<Uuid>, bool, Option<Vec<u8>>, Option<Vec<u8>>, Option<String>);

/// A batch of the finish lane, column by column.
#[derive(Default)]
pub struct FinishRows<'a> {
    now: Option<DateTime<Utc>>,
    pub(super) ended: EndedRows<'a>,
    pub(super) moved: MovedRows<'a>,
    outputs: (Vec<Uuid>, Vec<&'a [u8]>),
    /// Attempts that a move ends and leaves a trace of: since when they ran.
    ended_attempts: (Vec<Uuid>, Vec<DateTime<Utc>>),
    unusual: bool,
}

#[derive(Default)]
pub(super) struct Guards {
    pub(super) id: Vec<Uuid>,
    pub(super) state: Vec<i16>,
    pub(super) attempt: Vec<i32>,
    pub(super) session: Vec<Option<Uuid>>,
}

#[derive(Default)]
pub(super) struct EndedRows<'a> {
    pub(super) guard: Guards,
    pub(super) state: Vec<i16>,
    pub(super) output: Vec<Option<&'a [u8]>>,
    pub(super) error: Vec<Option<Vec<u8>>>,
    pub(super) finished_at: Vec<DateTime<Utc>>,
    pub(super) reason: Vec<Option<&'a str>>,
}

#[derive(Default)]
pub(super) struct MovedRows<'a> {
    pub(super) guard: Guards,
    pub(super) state: Vec<i16>,
    pub(super) attempt: Vec<i32>,
    pub(super) retries: Vec<i32>,
    pub(super) due: Vec<Option<DateTime<Utc>>>,
    pub(super) worker: Vec<Option<Uuid>>,
    pub(super) session: Vec<Option<Uuid>>,
    pub(super) started_at: Vec<Option<DateTime<Utc>>>,
    pub(super) error: Vec<Option<Vec<u8>>>,
    pub(super) want: Vec<bool>,
    pub(super) reason: Vec<Option<&'a str>>,
    pub(super) whose: Vec<Option<Uuid>>,
    pub(super) rank: Vec<Option<i64>>,
    pub(super) unparked: Vec<Option<i32>>,
    pub(super) freed: Vec<Option<i32>>,
}

impl Guards {
    fn push(&mut self, run: RunId, guard: &Guard) {
        self.id.push(run.uuid());
        self.state.push(guard.state.number());
        self.attempt.push(guard.attempt);
        self.session.push(guard.session.map(|s| s.uuid()));
    }
}

impl<'a> FinishRows<'a> {
    /// An empty batch at a time.
    pub fn at(now: Timestamp) -> Self {
        Self { now: Some(now.to_utc()), ..Self::default() }
    }

    /// Adds the end of a run.
    pub fn end(&mut self, row: &'a EndRow) {
        let output = row.output.as_ref().map(|o| &o.bytes()[..]);
        if let Some(large) = output.filter(|o| o.len() > INLINE) {
            self.outputs.0.push(row.run.uuid());
            self.outputs.1.push(large);
        }
        self.unusual |= row.reason.is_some();
        let e = &mut self.ended;
        e.guard.push(row.run, &row.guard);
        e.state.push(row.state.number());
        e.output.push(output.filter(|o| o.len() <= INLINE));
        e.error.push(row.error.as_ref().map(|e| e.to_bytes()));
        e.finished_at.push(row.finished_at.to_utc());
        e.reason.push(row.reason);
    }

    /// Adds a move of a run.
    pub fn moves(&mut self, row: &'a MoveRow) {
        self.unusual |= row.reason.is_some() || row.mark != Mark::None;
        if let (Some(_), Some((_, started_at))) = (row.reason, row.worker) {
            self.ended_attempts.0.push(row.run.uuid());
            self.ended_attempts.1.push(started_at.to_utc());
        }
        let (m, place) = (&mut self.moved, &row.place);
        m.guard.push(row.run, &row.guard);
        m.state.push(place.state.number());
        m.attempt.push(place.attempt);
        m.retries.push(place.retries);
        m.due.push(place.due.map(Timestamp::to_utc));
        m.worker.push(place.worker.map(|w| w.0.uuid()));
        m.session.push(place.worker.map(|w| w.1.uuid()));
        m.started_at.push(place.started_at.map(Timestamp::to_utc));
        m.error.push(place.error.as_ref().map(|e| e.to_bytes()));
        m.want.push(row.want_body);
        m.reason.push(row.reason);
        m.whose.push(row.worker.map(|(worker, _)| worker.uuid()));
        let (rank, unparked, freed) = match row.mark {
            Mark::None => (None, None, None),
            Mark::Freed => (None, None, Some(place.attempt)),
            Mark::Unparked { rank } => (Some(rank), Some(place.attempt), None),
        };
        m.rank.push(rank);
        m.unparked.push(unparked);
        m.freed.push(freed);
    }

    pub(super) fn shape(&self) -> Shape {
        match (self.ended.state.len(), self.moved.state.len()) {
            _ if self.unusual || !self.outputs.0.is_empty() => Shape::Full,
            (1, 0) => Shape::OneEnded,
            (0, 1) => Shape::OneMoved,
            (1, 1) => Shape::OneBoth,
            (_, 0) => Shape::Ended,
            (0, _) => Shape::Moved,
            _ => Shape::Both,
        }
    }
}

/// Which texts a batch needs: an unused part costs its start-up in every statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Ended,
    Moved,
    Both,
    Full,
    OneEnded,
    OneMoved,
    OneBoth,
}

/// Which rows were as expected, with the payloads that were asked for.
pub struct FinishOutcome {
    found: HashMap<RunId, Option<Arc<Body>>>,
    /// Metadata and trace context of moved rows whose input stands apart.
    apart: HashMap<RunId, (Option<Vec<u8>>, Option<String>)>,
}

impl FinishOutcome {
    /// `None`: the lane is no longer ours.
    pub(super) fn from_rows(rows: Vec<FoundRow>) -> Option<Self> {
        let mut outcome = Self { found: HashMap::with_capacity(rows.len()), apart: HashMap::new() };
        let mut ours = false;
        for (id, moved, input, metadata, traceparent) in rows {
            let Some(run) = id.map(RunId::from_uuid) else {
                ours = true;
                continue;
            };
            if moved && input.is_none() {
                outcome.apart.insert(run, (metadata, traceparent));
                outcome.found.insert(run, None);
            } else {
                outcome.found.insert(run, input.map(|input| body(input, metadata, traceparent)));
            }
        }
        ours.then_some(outcome)
    }

    /// Moved rows whose input was asked for and stands apart.
    pub(super) fn without_input(&self, rows: &FinishRows<'_>) -> Vec<Uuid> {
        let moved = rows.moved.guard.id.iter().zip(&rows.moved.want);
        moved.filter(|(id, want)| **want && self.apart.contains_key(&RunId::from_uuid(**id))).map(|m| *m.0).collect()
    }

    /// Adds the inputs that were read apart.
    pub(super) fn add_inputs(&mut self, inputs: Vec<(Uuid, Vec<u8>)>) {
        for (id, input) in inputs {
            let run = RunId::from_uuid(id);
            if let Some((metadata, traceparent)) = self.apart.remove(&run) {
                self.found.insert(run, Some(body(input, metadata, traceparent)));
            }
        }
    }

    /// Whether the row was as expected, and what came back with it.
    pub fn take(&mut self, run: RunId) -> Option<Option<Arc<Body>>> {
        self.found.remove(&run)
    }
}

/// The payloads of a row.
pub(super) fn body(input: Vec<u8>, metadata: Option<Vec<u8>>, traceparent: Option<String>) -> Arc<Body> {
    let metadata = metadata.map_or_else(|| Bytes::from_static(b"{}"), Bytes::from);
    Arc::new(Body { input: Payload::trusted(Bytes::from(input)), metadata: Payload::trusted(metadata), traceparent })
}

macro_rules! texts {
    ($($(#[$meta:meta])* $name:ident: $($file:literal),+;)+) => {$(
        $(#[$meta])*
        pub(super) struct $name;
        impl Text for $name {
            const PARTS: &'static [&'static str] = &[$(include_str!(concat!("../sql/lane/finish_", $file, ".sql"))),+];
            type Row = (Nullable<SqlUuid>, Bool, Nullable<Binary>, Nullable<Binary>, Nullable<SqlText>);
        }
    )+};
}

texts! {
    /// Only ends.
    Ended: "fence", "ended", "history", "fence_row", "ended_rows";
    /// Only moves.
    Moved: "fence", "moved", "fence_row", "moved_rows";
    /// Ends and moves.
    Both: "fence", "ended", "history", "moved", "fence_row", "ended_rows", "moved_rows";
    /// One end.
    OneEnded: "fence", "one_ended", "history", "fence_row", "ended_rows";
    /// One move.
    OneMoved: "fence", "one_moved", "fence_row", "moved_rows";
    /// One end, and the claim that takes its slot.
    OneBoth: "fence", "one_ended", "history", "one_moved", "fence_row", "ended_rows", "moved_rows";
    /// Also large outputs and traces of what is unusual.
    Full: "fence", "ended", "history", "moved_marked", "extras", "fence_row", "ended_rows", "moved_rows";
}

pub(super) struct FinishBinds<'a> {
    node: Uuid,
    epoch: i64,
    rows: &'a FinishRows<'a>,
}

/// A batch's statement.
pub(super) type Finish<'a, T> = Statement<T, FinishBinds<'a>>;

impl<'a, T> Finish<'a, T> {
    pub const fn new(node: Uuid, epoch: i64, rows: &'a FinishRows<'a>) -> Self {
        Self::of(FinishBinds { node, epoch, rows })
    }
}

impl Binds for FinishBinds<'_> {
    fn bind<'b>(&'b self, n: u8, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let FinishRows { now, ended, moved, outputs, ended_attempts, .. } = self.rows;
        match n {
            1 => bind!(out, SqlUuid, &self.node),
            2 => bind!(out, BigInt, &self.epoch),
            3 | 4 => bind!(out, Array<SqlUuid>, &ended.guard.id),
            5 => bind!(out, Array<SmallInt>, &ended.guard.state),
            6 => bind!(out, Array<Integer>, &ended.guard.attempt),
            7 => bind!(out, Array<Nullable<SqlUuid>>, &ended.guard.session),
            8 => bind!(out, Array<SmallInt>, &ended.state),
            9 => bind!(out, Array<Nullable<Binary>>, &ended.output),
            10 => bind!(out, Array<Nullable<Binary>>, &ended.error),
            11 => bind!(out, Array<Timestamptz>, &ended.finished_at),
            12 => bind!(out, Array<Nullable<SqlText>>, &ended.reason),
            29 => bind!(out, Array<SqlUuid>, &outputs.0),
            30 => bind!(out, Array<Binary>, &outputs.1),
            31 => bind!(out, Nullable<Timestamptz>, now),
            35 => bind!(out, Array<SqlUuid>, &ended_attempts.0),
            36 => bind!(out, Array<Timestamptz>, &ended_attempts.1),
            _ => moved.bind(n, out),
        }
    }
}

impl MovedRows<'_> {
    fn bind<'b>(&'b self, n: u8, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match n {
            13 | 14 => bind!(out, Array<SqlUuid>, &self.guard.id),
            15 => bind!(out, Array<SmallInt>, &self.guard.state),
            16 => bind!(out, Array<Integer>, &self.guard.attempt),
            17 => bind!(out, Array<Nullable<SqlUuid>>, &self.guard.session),
            18 => bind!(out, Array<SmallInt>, &self.state),
            19 => bind!(out, Array<Integer>, &self.attempt),
            20 => bind!(out, Array<Integer>, &self.retries),
            21 => bind!(out, Array<Nullable<Timestamptz>>, &self.due),
            22 => bind!(out, Array<Nullable<SqlUuid>>, &self.worker),
            23 => bind!(out, Array<Nullable<SqlUuid>>, &self.session),
            24 => bind!(out, Array<Nullable<Timestamptz>>, &self.started_at),
            25 => bind!(out, Array<Nullable<Binary>>, &self.error),
            26 => bind!(out, Array<Bool>, &self.want),
            27 => bind!(out, Array<Nullable<SqlText>>, &self.reason),
            28 => bind!(out, Array<Nullable<SqlUuid>>, &self.whose),
            32 => bind!(out, Array<Nullable<BigInt>>, &self.rank),
            33 => bind!(out, Array<Nullable<Integer>>, &self.unparked),
            34 => bind!(out, Array<Nullable<Integer>>, &self.freed),
            _ => Err(unbound(n)),
        }
    }
}

/// Inputs of runs, wherever they stand.
pub(super) struct InputsText;

impl Text for InputsText {
    const PARTS: &'static [&'static str] = &[include_str!("../sql/lane/inputs.sql")];
    type Row = (SqlUuid, Binary);
}

pub(super) struct InputBinds(Vec<Uuid>);

/// Reads inputs that stand apart.
pub(super) type Inputs = Statement<InputsText, InputBinds>;

impl Binds for InputBinds {
    fn bind<'b>(&'b self, n: u8, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match n {
            1 => bind!(out, Array<SqlUuid>, &self.0),
            _ => Err(unbound(n)),
        }
    }
}

impl Inputs {
    pub const fn of_runs(ids: Vec<Uuid>) -> Self {
        Self::of(InputBinds(ids))
    }
}
