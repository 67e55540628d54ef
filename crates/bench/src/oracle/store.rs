//! Reading the store behind the engine's back.

use helve_domain::clock::Timestamp;
use helve_domain::error::Result;
use helve_domain::status::RunStatus;
use helve_supervisor::Supervisor;
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use super::failure;
use super::verdict::{EventRow, Row, Stored};

/// Every run of the database, open or ended, with its input and output wherever they are stored, and how often it was
/// parked and unparked.
const RUNS: &str = "
    with run as (
        select id, state, attempt, retries, created_at, started_at, finished_at, workflow, input, output, event
        from run_history
        union all
        select id, state, attempt, retries, created_at, started_at, null, workflow, input, null, event from open_run
    ),
    marks as (
        select run, count(*) filter (where reason = 'parked') as parks,
            count(*) filter (where reason = 'unparked') as unparks
        from run_transition where reason in ('parked', 'unparked') group by run
    )
    select 'run_' || replace(run.id::text, '-', ''), run.state, run.attempt, run.retries,
        (extract(epoch from run.created_at) * 1000000)::bigint,
        (extract(epoch from run.finished_at) * 1000000)::bigint,
        coalesce(run.input, i.bytes, event.payload),
        coalesce(run.output, o.bytes),
        (extract(epoch from run.started_at) * 1000000)::bigint,
        run.workflow,
        'evt_' || replace(run.event::text, '-', ''),
        coalesce(marks.parks, 0), coalesce(marks.unparks, 0)
    from run
    left join payload i on i.id = run.id and i.kind = 0
    left join payload o on o.id = run.id and o.kind = 1
    left join event on event.id = run.event
    left join marks on marks.run = run.id";
const EVENTS: &str = "
    select 'evt_' || replace(id::text, '-', ''), payload,
        array(select 'run_' || replace(run::text, '-', '') from unnest(runs) as run)
    from event";
/// A parked run waits for a person.
const OPEN: &str = "select concat_ws(' ', id, 'state', state, 'attempt', attempt, 'due', due, 'worker', worker, action)
    from open_run where state <> 4 limit 1000";

/// Opens a plain connection, which lives as long as its client.
///
/// # Errors
/// `Internal` with the driver's message.
pub async fn connect(url: &str, supervisor: &Supervisor) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(|err| said(&err))?;
    super::start(supervisor, "oracle's connection", connection);
    Ok(client)
}

fn said(err: &tokio_postgres::Error) -> helve_domain::error::Error {
    failure(format!("the store cannot be read: {err}"))
}

/// Reads every run and every event.
///
/// # Errors
/// `Internal` if the database cannot be read, or contains what no engine writes.
pub async fn read(database: &str, supervisor: &Supervisor) -> Result<Stored> {
    let client = connect(database, supervisor).await?;
    let runs = client.query(RUNS, &[]).await.map_err(|err| said(&err))?;
    let events = client.query(EVENTS, &[]).await.map_err(|err| said(&err))?;
    Ok(Stored { runs: runs.iter().map(row).collect::<Result<_>>()?, events: events.iter().map(event).collect() })
}

fn event(row: &tokio_postgres::Row) -> EventRow {
    let payload: Value = super::json(row.get(1));
    EventRow { id: row.get(0), nonce: payload["n"].as_u64(), runs: row.get::<_, Vec<String>>(2) }
}

fn row(row: &tokio_postgres::Row) -> Result<Row> {
    let id: String = row.get(0);
    let odd = |what: &str| failure(format!("the store has {what} in {id}"));
    let document = |at: usize| match row.get::<_, Option<&[u8]>>(at) {
        Some(bytes) => serde_json::from_slice::<Value>(bytes).map(Some).map_err(|_| odd("a payload that is no JSON")),
        None => Ok(None),
    };
    let count = |at: usize| u32::try_from(row.get::<_, i64>(at)).map_err(|_| odd("a count that is too large"));
    let state = RunStatus::from_number(row.get(1)).ok_or_else(|| odd("an unknown state"))?;
    Ok(Row {
        nonce: document(6)?.and_then(|input| input["n"].as_u64()),
        status: state.as_str().to_owned(),
        attempt: i64::from(row.get::<_, i32>(2)),
        retries: u32::try_from(row.get::<_, i32>(3)).map_err(|_| odd("a negative count"))?,
        output: document(7)?,
        created: Timestamp::from_micros(row.get(4)),
        started: row.get::<_, Option<i64>>(8).map(Timestamp::from_micros),
        finished: row.get::<_, Option<i64>>(5).map(Timestamp::from_micros),
        workflow: row.get(9),
        event: row.get(10),
        parks: count(11)?,
        unparks: count(12)?,
        id,
    })
}

/// Runs that are neither ended nor parked, with their states.
///
/// # Errors
/// `Internal` when the database cannot be read.
pub async fn open(database: &str, supervisor: &Supervisor) -> Result<Vec<String>> {
    let found = connect(database, supervisor).await?.query(OPEN, &[]).await.map_err(|err| said(&err))?;
    Ok(found.iter().map(|row| row.get(0)).collect())
}
