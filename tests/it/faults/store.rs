//! Reading the store behind the engine's back.

use helve::clock::Timestamp;
use serde_json::Value;

use super::oracle::Row;
use crate::support::sql;

/// Every run of the database, open or ended, with its input and output wherever they stand.
const RUNS: &str = "
    with run as (
        select id, state, attempt, retries, created_at, finished_at, input, output, event from run_history
        union all
        select id, state, attempt, retries, created_at, null, input, null, event from open_run
    )
    select 'run_' || replace(run.id::text, '-', ''), run.state, run.attempt, run.retries,
        (extract(epoch from run.created_at) * 1000000)::bigint,
        (extract(epoch from run.finished_at) * 1000000)::bigint,
        coalesce(run.input, i.bytes, event.payload),
        coalesce(run.output, o.bytes)
    from run
    left join payload i on i.id = run.id and i.kind = 0
    left join payload o on o.id = run.id and o.kind = 1
    left join event on event.id = run.event";

/// Reads every run.
pub async fn rows(database: &str) -> Vec<Row> {
    let found = sql(database).await.query(RUNS, &[]).await.unwrap();
    found
        .iter()
        .map(|row| {
            let json = |at: usize| row.get::<_, Option<&[u8]>>(at).map(|b| serde_json::from_slice::<Value>(b).unwrap());
            Row {
                id: row.get(0),
                nonce: json(6).and_then(|input| input["n"].as_u64()),
                status: status(row.get(1)).to_owned(),
                attempt: i64::from(row.get::<_, i32>(2)),
                retries: u32::try_from(row.get::<_, i32>(3)).unwrap(),
                output: json(7),
                created: Timestamp::from_micros(row.get(4)),
                finished: row.get::<_, Option<i64>>(5).map(Timestamp::from_micros),
            }
        })
        .collect()
}

fn status(number: i16) -> &'static str {
    helve::domain::status::RunStatus::from_number(number).expect("a state of the table").as_str()
}

/// Runs that have not ended, and where they stand.
pub async fn open(database: &str) -> Vec<String> {
    let query = "select concat_ws(' ', id, 'state', state, 'attempt', attempt, 'due', due, 'worker', worker, action)
                 from open_run limit 1000";
    sql(database).await.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}
