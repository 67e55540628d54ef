//! Workers as columns, and the statement that writes them.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Binary, Nullable, SmallInt, Text as SqlText, Timestamptz};
use helve_domain::change::WorkerRow;
use helve_domain::id::WorkerId;
use uuid::Uuid;

use super::text::{Binds, Statement, Text, bind, unbound};

type SqlUuid = diesel::sql_types::Uuid;

/// Workers put and removed.
pub(super) struct WorkersText;

impl Text for WorkersText {
    const PARTS: &'static [&'static str] = &[include_str!("../sql/lane/workers.sql")];
    type Row = Nullable<SqlUuid>;
}

#[derive(Default)]
pub(super) struct WorkerBinds {
    node: Uuid,
    epoch: i64,
    id: Vec<Uuid>,
    tenant: Vec<Uuid>,
    shard: Vec<i16>,
    session: Vec<Uuid>,
    secret: Vec<Vec<u8>>,
    name: Vec<String>,
    sdk: Vec<String>,
    actions: Vec<String>,
    slots: Vec<String>,
    labels: Vec<String>,
    created_at: Vec<DateTime<Utc>>,
    gone: Vec<Uuid>,
}

/// A batch's statement.
pub(super) type Workers = Statement<WorkersText, WorkerBinds>;

impl Workers {
    pub fn new(node: Uuid, epoch: i64, put: &[&WorkerRow], gone: &[WorkerId]) -> Self {
        let json = |v: serde_json::Result<String>| v.unwrap_or_else(|_| "null".to_owned());
        let mut b = WorkerBinds { node, epoch, gone: gone.iter().map(|w| w.uuid()).collect(), ..Default::default() };
        for row in put {
            b.id.push(row.worker.uuid());
            b.tenant.push(row.tenant.uuid());
            b.shard.push(row.tenant.shard());
            b.session.push(row.session.uuid());
            b.secret.push(row.secret.to_vec());
            b.name.push(row.info.name.to_string());
            b.sdk.push(row.info.sdk.to_string());
            b.actions.push(json(serde_json::to_string(&row.info.actions)));
            b.slots.push(json(serde_json::to_string(&row.info.slots)));
            b.labels.push(json(serde_json::to_string(&row.info.labels)));
            b.created_at.push(row.worker.created_at().to_utc());
        }
        Self::of(b)
    }
}

impl Binds for WorkerBinds {
    fn bind<'b>(&'b self, n: u8, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match n {
            1 => bind!(out, SqlUuid, &self.node),
            2 => bind!(out, BigInt, &self.epoch),
            3 => bind!(out, Array<SqlUuid>, &self.id),
            4 => bind!(out, Array<SqlUuid>, &self.tenant),
            5 => bind!(out, Array<SmallInt>, &self.shard),
            6 => bind!(out, Array<SqlUuid>, &self.session),
            7 => bind!(out, Array<Binary>, &self.secret),
            8 => bind!(out, Array<SqlText>, &self.name),
            9 => bind!(out, Array<SqlText>, &self.sdk),
            10 => bind!(out, Array<SqlText>, &self.actions),
            11 => bind!(out, Array<SqlText>, &self.slots),
            12 => bind!(out, Array<SqlText>, &self.labels),
            13 => bind!(out, Array<Timestamptz>, &self.created_at),
            14 => bind!(out, Array<SqlUuid>, &self.gone),
            _ => Err(unbound(n)),
        }
    }
}
