//! Workers as columns, and the statement that writes them.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::sql_types::{Binary, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use helve_domain::change::WorkerRow;
use helve_domain::id::WorkerId;
use uuid::Uuid;

use super::columns::columns;
use super::parts::{Contents, Part, Rows, unbound};

columns! {
    /// A worker as it is now.
    Put => Puts<'a> {
        id: Uuid => SqlUuid,
        tenant: Uuid => SqlUuid,
        shard: i16 => SmallInt,
        session: Uuid => SqlUuid,
        secret: &'a [u8] => Binary,
        name: &'a str => Text,
        sdk: &'a str => Text,
        actions: String => Text,
        slots: String => Text,
        labels: String => Text,
        created_at: DateTime<Utc> => Timestamptz,
    }
}

columns! {
    /// A worker that is gone.
    Gone => Gones {
        id: Uuid => SqlUuid,
    }
}

/// Workers put and removed.
#[derive(Default)]
pub(super) struct WorkerRows<'a> {
    put: Puts<'a>,
    gone: Gones,
}

impl<'a> WorkerRows<'a> {
    pub fn new(put: &[&'a WorkerRow], gone: &[WorkerId]) -> Self {
        let json = |v: serde_json::Result<String>| v.unwrap_or_else(|_| "null".to_owned());
        let mut rows = Self::default();
        for row in put {
            rows.put.push(Put {
                id: row.worker.uuid(),
                tenant: row.tenant.uuid(),
                shard: row.tenant.shard(),
                session: row.session.uuid(),
                secret: &row.secret,
                name: &row.info.name,
                sdk: &row.info.sdk,
                actions: json(serde_json::to_string(&row.info.actions)),
                slots: json(serde_json::to_string(&row.info.slots)),
                labels: json(serde_json::to_string(&row.info.labels)),
                created_at: row.worker.created_at().to_utc(),
            });
        }
        for worker in gone {
            rows.gone.push(Gone { id: worker.uuid() });
        }
        rows
    }
}

/// Workers, put or gone: one text for all.
pub(super) const WORKERS: Contents = 0;

/// The finish lane's statement about workers.
pub(super) struct WorkerLane;

impl Rows for WorkerRows<'_> {
    const PARTS: &'static [Part] = &[Part::always(include_str!("../sql/lane/workers.sql"))];
    type Lane = WorkerLane;
    type Found = Nullable<SqlUuid>;

    fn contents(&self) -> Contents {
        WORKERS
    }

    fn bind<'b>(&'b self, name: &str, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match name.split_once('.') {
            Some(("put", column)) => self.put.bind(column, false, out),
            Some(("gone", column)) => self.gone.bind(column, false, out),
            _ => Err(unbound(name)),
        }
    }
}
