//! Ends and moves of open runs as columns, and the parts of the statement that writes them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use helve_domain::change::{Body, EndRow, Guard, Mark, MoveRow};
use helve_domain::clock::Timestamp;
use helve_domain::id::RunId;
use helve_domain::json::Payload;
use uuid::Uuid;

use super::INLINE;
use super::columns::columns;
use super::parts::{Contents, Part, Rows, unbound};
use crate::db::statement::statement;

type FoundRow = (Option<Uuid>, bool, Option<Vec<u8>>, Option<Vec<u8>>, Option<String>);

/// Ends of open runs.
const ENDS: Contents = 1;
/// Moves of open runs.
const MOVES: Contents = 1 << 1;
/// At most one of each, as values: alone, a list costs more than the row.
const ONE: Contents = 1 << 2;
/// Moves that change more than the place.
const MARKS: Contents = 1 << 3;
/// Outputs that are too large to stand in the row.
const OUTPUTS: Contents = 1 << 4;
/// Ends that leave a trace.
const END_TRACES: Contents = 1 << 5;
/// Moves that leave a trace.
const MOVE_TRACES: Contents = 1 << 6;

/// Only ends.
pub(super) const ONLY_ENDS: Contents = ENDS;
/// Only moves.
pub(super) const ONLY_MOVES: Contents = MOVES;
/// Ends and moves.
pub(super) const BOTH: Contents = ENDS | MOVES;
/// One end.
pub(super) const ONE_END: Contents = ONE | ENDS;
/// One move.
pub(super) const ONE_MOVE: Contents = ONE | MOVES;
/// One end, and the claim that takes its slot.
pub(super) const ONE_OF_BOTH: Contents = ONE | ENDS | MOVES;

columns! {
    /// The end of an open run; `g_`: only if the row is so.
    Ended => EndedRows<'a> {
        id: Uuid => SqlUuid,
        g_state: i16 => SmallInt,
        g_attempt: i32 => Integer,
        g_session: Option<Uuid> => Nullable<SqlUuid>,
        state: i16 => SmallInt,
        output: Option<&'a [u8]> => Nullable<Binary>,
        error: Option<Vec<u8>> => Nullable<Binary>,
        finished_at: DateTime<Utc> => Timestamptz,
        reason: Option<&'a str> => Nullable<Text>,
    }
}

columns! {
    /// A move of an open run; `g_`: only if the row is so.
    Moved => MovedRows<'a> {
        id: Uuid => SqlUuid,
        g_state: i16 => SmallInt,
        g_attempt: i32 => Integer,
        g_session: Option<Uuid> => Nullable<SqlUuid>,
        state: i16 => SmallInt,
        attempt: i32 => Integer,
        retries: i32 => Integer,
        due: Option<DateTime<Utc>> => Nullable<Timestamptz>,
        worker: Option<Uuid> => Nullable<SqlUuid>,
        session: Option<Uuid> => Nullable<SqlUuid>,
        started_at: Option<DateTime<Utc>> => Nullable<Timestamptz>,
        error: Option<Vec<u8>> => Nullable<Binary>,
        want: bool => Bool,
        reason: Option<&'a str> => Nullable<Text>,
        whose: Option<Uuid> => Nullable<SqlUuid>,
        rank: Option<i64> => Nullable<BigInt>,
        unparked: Option<i32> => Nullable<Integer>,
        freed: Option<i32> => Nullable<Integer>,
    }
}

columns! {
    /// An output that is too large to stand in the row.
    Output => Outputs<'a> {
        id: Uuid => SqlUuid,
        bytes: &'a [u8] => Binary,
    }
}

columns! {
    /// An attempt that a move ends and leaves a trace of: since when it ran.
    EndedAttempt => EndedAttempts {
        run: Uuid => SqlUuid,
        started_at: DateTime<Utc> => Timestamptz,
    }
}

/// A batch of the finish lane, column by column.
#[derive(Default)]
pub struct FinishRows<'a> {
    now: Option<DateTime<Utc>>,
    has: Contents,
    ended: EndedRows<'a>,
    moved: MovedRows<'a>,
    outputs: Outputs<'a>,
    ended_attempts: EndedAttempts,
}

impl<'a> FinishRows<'a> {
    /// An empty batch at a time.
    pub fn at(now: Timestamp) -> Self {
        Self { now: Some(now.to_utc()), ..Self::default() }
    }

    /// Adds the end of a run.
    pub fn end(&mut self, row: &'a EndRow) {
        let output = row.output.as_ref().map(|o| &o.bytes()[..]);
        if let Some(bytes) = output.filter(|o| o.len() > INLINE) {
            self.has |= OUTPUTS;
            self.outputs.push(Output { id: row.run.uuid(), bytes });
        }
        self.has |= if row.reason.is_some() { ENDS | END_TRACES } else { ENDS };
        let Guard { state: g_state, attempt: g_attempt, session } = row.guard;
        self.ended.push(Ended {
            id: row.run.uuid(),
            g_state: g_state.number(),
            g_attempt,
            g_session: session.map(|s| s.uuid()),
            state: row.state.number(),
            output: output.filter(|o| o.len() <= INLINE),
            error: row.error.as_ref().map(|e| e.to_bytes()),
            finished_at: row.finished_at.to_utc(),
            reason: row.reason,
        });
    }

    /// Adds a move of a run.
    pub fn moves(&mut self, row: &'a MoveRow) {
        self.has |= MOVES;
        if row.reason.is_some() {
            self.has |= MOVE_TRACES;
            if let Some((_, started_at)) = row.worker {
                self.ended_attempts.push(EndedAttempt { run: row.run.uuid(), started_at: started_at.to_utc() });
            }
        }
        let (guard, place) = (&row.guard, &row.place);
        let (rank, unparked, freed) = match row.mark {
            Mark::None => (None, None, None),
            Mark::Freed => (None, None, Some(place.attempt)),
            Mark::Unparked { rank } => (Some(rank), Some(place.attempt), None),
        };
        if row.mark != Mark::None {
            self.has |= MARKS;
        }
        self.moved.push(Moved {
            id: row.run.uuid(),
            g_state: guard.state.number(),
            g_attempt: guard.attempt,
            g_session: guard.session.map(|s| s.uuid()),
            state: place.state.number(),
            attempt: place.attempt,
            retries: place.retries,
            due: place.due.map(Timestamp::to_utc),
            worker: place.worker.map(|w| w.0.uuid()),
            session: place.worker.map(|w| w.1.uuid()),
            started_at: place.started_at.map(Timestamp::to_utc),
            error: place.error.as_ref().map(|e| e.to_bytes()),
            want: row.want_body,
            reason: row.reason,
            whose: row.worker.map(|(worker, _)| worker.uuid()),
            rank,
            unparked,
            freed,
        });
    }
}

/// The lane of ends and moves.
pub(super) struct FinishLane;

impl Rows for FinishRows<'_> {
    const PARTS: &'static [Part] = &[
        Part::always(include_str!("../sql/lane/finish/fence.sql")),
        Part::with(ENDS | ONE, include_str!("../sql/lane/finish/one_ended.sql")),
        Part::with(ENDS, include_str!("../sql/lane/finish/ended.sql")).without(ONE),
        Part::with(ENDS, include_str!("../sql/lane/finish/history.sql")),
        Part::with(MOVES | ONE, include_str!("../sql/lane/finish/one_moved.sql")),
        Part::with(MOVES, include_str!("../sql/lane/finish/moved.sql")).without(ONE | MARKS),
        Part::with(MOVES | MARKS, include_str!("../sql/lane/finish/moved_marked.sql")),
        Part::with(OUTPUTS, include_str!("../sql/lane/finish/outputs.sql")),
        Part::with(END_TRACES, include_str!("../sql/lane/finish/ended_traces.sql")),
        Part::with(MOVE_TRACES, include_str!("../sql/lane/finish/moved_traces.sql")),
        Part::always(include_str!("../sql/lane/finish/fence_row.sql")),
        Part::with(ENDS, include_str!("../sql/lane/finish/ended_rows.sql")),
        Part::with(MOVES, include_str!("../sql/lane/finish/moved_rows.sql")),
    ];
    type Lane = FinishLane;
    type Found = (Nullable<SqlUuid>, Bool, Nullable<Binary>, Nullable<Binary>, Nullable<Text>);

    fn contents(&self) -> Contents {
        let as_lists = self.has & (MARKS | END_TRACES | MOVE_TRACES) != 0;
        let one = !as_lists && self.ended.id.len() <= 1 && self.moved.id.len() <= 1;
        if one { self.has | ONE } else { self.has }
    }

    fn bind<'b>(&'b self, name: &str, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let one = self.contents() & ONE != 0;
        match name.split_once('.') {
            Some(("ended", column)) => self.ended.bind(column, one, out),
            Some(("moved", column)) => self.moved.bind(column, one, out),
            Some(("output", column)) => self.outputs.bind(column, false, out),
            Some(("attempt", column)) => self.ended_attempts.bind(column, false, out),
            None if name == "now" => out.push_bind_param::<Nullable<Timestamptz>, _>(&self.now),
            _ => Err(unbound(name)),
        }
    }
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
        let moved = rows.moved.id.iter().zip(&rows.moved.want);
        moved.filter(|(id, want)| **want && self.apart.contains_key(&RunId::from_uuid(**id))).map(|m| *m.0).collect()
    }

    /// Adds the inputs that were read apart.
    pub(super) fn add_inputs(&mut self, inputs: Vec<FoundInput>) {
        for FoundInput { id, input } in inputs {
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

statement! {
    /// Reads inputs of runs, wherever they stand.
    Inputs("../sql/lane/inputs.sql") {
        "1" => ids: Vec<Uuid> as Array<SqlUuid>,
    }
}

/// An input that stands apart.
#[derive(diesel::QueryableByName)]
pub(super) struct FoundInput {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Binary)]
    input: Vec<u8>,
}
