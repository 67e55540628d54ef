//! Batches of one row, which is every batch when little goes on: the same columns as single values. A list of one costs
//! the server a function scan, a hash and a bitmap; together about a tenth of a commit.

use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Binary, Bool, Integer, Nullable, SmallInt, Text as SqlText, Timestamptz};
use uuid::Uuid;

use super::create::CreateRows;
use super::finish::FinishRows;
use super::text::{Binds, Statement, bind, unbound};

type SqlUuid = diesel::sql_types::Uuid;

/// The values of one end, one move, or one of each.
pub(super) struct OneFinishBinds<'a> {
    node: Uuid,
    epoch: i64,
    rows: &'a FinishRows<'a>,
}

/// A statement for one end, one move, or one of each.
pub(super) type OneFinish<'a, T> = Statement<T, OneFinishBinds<'a>>;

impl<'a, T> OneFinish<'a, T> {
    pub const fn one(node: Uuid, epoch: i64, rows: &'a FinishRows<'a>) -> Self {
        Self::of(OneFinishBinds { node, epoch, rows })
    }
}

impl Binds for OneFinishBinds<'_> {
    fn bind<'b>(&'b self, n: u8, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let FinishRows { ended, moved, .. } = self.rows;
        match n {
            1 => bind!(out, SqlUuid, &self.node),
            2 => bind!(out, BigInt, &self.epoch),
            4 => bind!(out, SqlUuid, &ended.guard.id[0]),
            5 => bind!(out, SmallInt, &ended.guard.state[0]),
            6 => bind!(out, Integer, &ended.guard.attempt[0]),
            7 => bind!(out, Nullable<SqlUuid>, &ended.guard.session[0]),
            8 => bind!(out, SmallInt, &ended.state[0]),
            9 => bind!(out, Nullable<Binary>, &ended.output[0]),
            10 => bind!(out, Nullable<Binary>, &ended.error[0]),
            11 => bind!(out, Timestamptz, &ended.finished_at[0]),
            14 => bind!(out, SqlUuid, &moved.guard.id[0]),
            15 => bind!(out, SmallInt, &moved.guard.state[0]),
            16 => bind!(out, Integer, &moved.guard.attempt[0]),
            17 => bind!(out, Nullable<SqlUuid>, &moved.guard.session[0]),
            18 => bind!(out, SmallInt, &moved.state[0]),
            19 => bind!(out, Integer, &moved.attempt[0]),
            20 => bind!(out, Integer, &moved.retries[0]),
            21 => bind!(out, Nullable<Timestamptz>, &moved.due[0]),
            22 => bind!(out, Nullable<SqlUuid>, &moved.worker[0]),
            23 => bind!(out, Nullable<SqlUuid>, &moved.session[0]),
            24 => bind!(out, Nullable<Timestamptz>, &moved.started_at[0]),
            25 => bind!(out, Nullable<Binary>, &moved.error[0]),
            26 => bind!(out, Bool, &moved.want[0]),
            _ => Err(unbound(n)),
        }
    }
}

/// The values of one run.
pub(super) struct OneCreateBinds<'a> {
    node: Uuid,
    epoch: i64,
    rows: &'a CreateRows<'a>,
}

/// A statement for one run.
pub(super) type OneCreate<'a, T> = Statement<T, OneCreateBinds<'a>>;

impl<'a, T> OneCreate<'a, T> {
    pub const fn one(node: Uuid, epoch: i64, rows: &'a CreateRows<'a>) -> Self {
        Self::of(OneCreateBinds { node, epoch, rows })
    }
}

impl Binds for OneCreateBinds<'_> {
    fn bind<'b>(&'b self, n: u8, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let runs = &self.rows.runs;
        match n {
            1 => bind!(out, SqlUuid, &self.node),
            2 => bind!(out, BigInt, &self.epoch),
            24 => bind!(out, SqlUuid, &runs.id[0]),
            25 => bind!(out, SqlUuid, &runs.tenant[0]),
            26 => bind!(out, Timestamptz, &runs.created_at[0]),
            27 => bind!(out, Nullable<Timestamptz>, &runs.due[0]),
            28 => bind!(out, Nullable<Timestamptz>, &runs.started_at[0]),
            29 => bind!(out, BigInt, &runs.rank[0]),
            30 => bind!(out, Integer, &runs.version[0]),
            31 => bind!(out, Integer, &runs.attempt[0]),
            32 => bind!(out, SmallInt, &runs.state[0]),
            33 => bind!(out, SmallInt, &runs.shard[0]),
            34 => bind!(out, SmallInt, &runs.priority[0]),
            35 => bind!(out, Nullable<SqlUuid>, &runs.worker[0]),
            36 => bind!(out, Nullable<SqlUuid>, &runs.session[0]),
            38 => bind!(out, SqlText, &runs.workflow[0]),
            39 => bind!(out, SqlText, &runs.action[0]),
            40 => bind!(out, Nullable<SqlText>, &runs.traceparent[0]),
            41 => bind!(out, Nullable<Binary>, &runs.input[0]),
            42 => bind!(out, Nullable<Binary>, &runs.metadata[0]),
            _ => Err(unbound(n)),
        }
    }
}
