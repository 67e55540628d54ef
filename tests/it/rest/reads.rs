//! Reading rows: open and final ones as one list, payloads wherever they stand.

use std::sync::atomic::{AtomicU16, Ordering};

use helve::db::Pool;
use helve::db::runs::{self, RunFilter};
use helve_domain::clock::{Clock, Timestamp};
use helve_domain::id::{EventId, RunId, TenantId};
use helve_domain::status::RunStatus;
use tokio_postgres::Client;

use crate::support;

struct Store {
    pool: Pool,
    sql: Client,
    tenant: TenantId,
    start: Timestamp,
    count: AtomicU16,
}

impl Store {
    /// A database with partitions that take everything.
    async fn new() -> Self {
        let database = support::fresh_database().await;
        let sql = support::sql(&database).await;
        for table in ["run_history", "payload", "event"] {
            let name = format!("{table}_everything");
            let (from, to) = if table == "run_history" {
                ("minvalue", "maxvalue")
            } else {
                ("'00000000-0000-0000-0000-000000000000'", "maxvalue")
            };
            let ddl =
                format!("create table if not exists {name} partition of {table} for values from ({from}) to ({to})");
            sql.batch_execute(&ddl).await.unwrap();
        }
        let start = Timestamp::from_micros(Clock::system().now().micros() / 1_000 * 1_000);
        let pool = Pool::new(&helve_postgres::Database { pool_size: 2, ..helve_postgres::Database::at(&database) });
        Self { pool: pool.unwrap(), sql, tenant: TenantId::generate(start), start, count: AtomicU16::new(0) }
    }

    /// A run made so many milliseconds after the start.
    async fn add(&self, millis: u64, state: RunStatus, input: Option<&str>, metadata: Option<&str>) -> RunId {
        let created = self.start.plus(std::time::Duration::from_millis(millis));
        // By hand: the shared generator never goes back behind another test's later time.
        let count = self.count.fetch_add(1, Ordering::SeqCst);
        let millis = u128::from(u64::try_from(created.micros() / 1_000).unwrap());
        let bits = millis << 80 | 7 << 76 | u128::from(count) << 64 | 2 << 62 | u128::from(count);
        let id = RunId::from_uuid(uuid::Uuid::from_u128(bits));
        assert_eq!(id.created_at(), created);
        let (table, more, values) = match state.is_final() {
            true => ("run_history", "finished_at, kind", format!("'{created}', 0")),
            false => ("open_run", "rank, shard", "0, 0".to_owned()),
        };
        let bytes =
            |text: Option<&str>| text.map_or_else(|| "null".to_owned(), |t| format!("convert_to('{t}', 'UTF8')"));
        let insert = format!(
            "insert into {table} (id, tenant, created_at, state, version, attempt, retries, priority, workflow, action, \
             input, metadata, {more}) values ('{}', '{}', '{created}', {}, 1, 0, 0, 2, 'w', 'a', {}, {}, {values})",
            id.uuid(),
            self.tenant.uuid(),
            state.number(),
            bytes(input),
            bytes(metadata),
        );
        self.sql.batch_execute(&insert).await.unwrap();
        id
    }

    async fn ids(&self, filter: RunFilter) -> Vec<RunId> {
        let page = runs::list(&self.pool, self.tenant, &filter, 100).await.unwrap();
        assert!(!page.more);
        page.items.iter().map(|run| run.id).collect()
    }
}

#[tokio::test]
async fn open_and_final_runs_are_one_list() {
    let store = Store::new().await;
    let mut ids = Vec::new();
    for (i, state) in RunStatus::ALL.into_iter().cycle().take(24).enumerate() {
        let metadata = format!(r#"{{"n":"{}"}}"#, i % 2);
        ids.push(store.add(i as u64 / 4, state, Some("1"), Some(&metadata)).await);
    }
    let newest_first: Vec<_> = ids.iter().rev().copied().collect();
    assert_eq!(store.ids(RunFilter::default()).await, newest_first);

    // Page by page, over both tables, also within one millisecond.
    for limit in [1, 5, 23, 24] {
        let (mut got, mut after) = (Vec::new(), None);
        loop {
            let filter = RunFilter { after, ..RunFilter::default() };
            let page = runs::list(&store.pool, store.tenant, &filter, limit).await.unwrap();
            got.extend(page.items.iter().map(|run| run.id));
            after = got.last().copied();
            if !page.more {
                break;
            }
        }
        assert_eq!(got, newest_first, "limit {limit}");
    }

    let wanted =
        |keep: &dyn Fn(usize) -> bool| -> Vec<_> { (0..24).rev().filter(|i| keep(*i)).map(|i| ids[i]).collect() };
    let statuses = vec![RunStatus::Queued, RunStatus::Failed];
    let filter = RunFilter { statuses, ..RunFilter::default() };
    assert_eq!(store.ids(filter).await, wanted(&|i| matches!(i % 7, 1 | 5)));
    let filter = RunFilter { metadata: vec![("n".into(), "1".into())], ..RunFilter::default() };
    assert_eq!(store.ids(filter).await, wanted(&|i| i % 2 == 1));
    let at = store.start.plus(std::time::Duration::from_millis(3));
    let filter = RunFilter { created_after: Some(at), ..RunFilter::default() };
    assert_eq!(store.ids(filter).await, wanted(&|i| i / 4 >= 3));
    let filter = RunFilter { created_before: Some(at), ..RunFilter::default() };
    assert_eq!(store.ids(filter).await, wanted(&|i| i / 4 < 3));
    let filter = RunFilter { workflow: Some("other".into()), ..RunFilter::default() };
    assert_eq!(store.ids(filter).await, []);

    let stranger = TenantId::generate(store.start);
    assert!(runs::list(&store.pool, stranger, &RunFilter::default(), 100).await.unwrap().items.is_empty());
    for id in ids {
        assert_eq!(runs::get(&store.pool, store.tenant, id).await.unwrap().unwrap().id, id);
        assert!(runs::get(&store.pool, stranger, id).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_payload_is_found_wherever_it_stands() {
    let store = Store::new().await;
    let apart = store.add(0, RunStatus::Succeeded, None, None).await;
    let insert =
        format!("insert into payload values ('{0}', 0, '{{\"in\":1}}'), ('{0}', 1, '{{\"out\":1}}')", apart.uuid());
    store.sql.batch_execute(&insert).await.unwrap();
    let event = EventId::generate(store.start);
    let of_event = store.add(1, RunStatus::Queued, None, Some(r#"{"a":"b"}"#)).await;
    let insert = format!(
        "insert into event (id, tenant, created_at, key, payload, runs) values ('{0}', '{1}', '{2}', 'k', '[7]', '{{{3}}}');
         update open_run set event = '{0}'",
        event.uuid(),
        store.tenant.uuid(),
        store.start,
        of_event.uuid()
    );
    store.sql.batch_execute(&insert).await.unwrap();

    let text = |payload: &helve_domain::json::Payload| String::from_utf8(payload.bytes().to_vec()).unwrap();
    let listed = runs::list(&store.pool, store.tenant, &RunFilter::default(), 10).await.unwrap().items;
    for run in [runs::get(&store.pool, store.tenant, apart).await.unwrap().unwrap(), listed[1].clone()] {
        assert_eq!(
            (text(&run.input), run.output.as_ref().map(text)),
            (r#"{"in":1}"#.into(), Some(r#"{"out":1}"#.into()))
        );
        assert_eq!(text(&run.metadata), "{}");
    }
    for run in [runs::get(&store.pool, store.tenant, of_event).await.unwrap().unwrap(), listed[0].clone()] {
        assert_eq!((text(&run.input), run.output.is_none(), run.event), ("[7]".into(), true, Some(event)));
    }
    assert_eq!(store.ids(RunFilter { event: Some(event), ..RunFilter::default() }).await, [of_event]);
}

#[tokio::test]
async fn a_page_of_large_payloads_ends_early_and_goes_on() {
    let store = Store::new().await;
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    for i in 0..20 {
        store.add(i, RunStatus::Failed, Some(&large), None).await;
    }
    let (mut seen, mut pages, mut after) = (0, 0, None);
    loop {
        let filter = RunFilter { after, ..RunFilter::default() };
        let page = runs::list(&store.pool, store.tenant, &filter, 50).await.unwrap();
        let bytes: usize = page.items.iter().map(|run| run.input.len()).sum();
        assert!((1..10 << 20).contains(&bytes), "a page of {bytes} bytes");
        seen += page.items.len();
        pages += 1;
        after = page.items.last().map(|run| run.id);
        if !page.more {
            break;
        }
    }
    assert_eq!((seen, pages), (20, 3));
}
