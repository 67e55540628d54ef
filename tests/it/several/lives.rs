//! Engines that live and whose connections to the database are cut: nobody takes over from them.

use std::time::Duration;

use tokio_postgres::Client;

use crate::support::process::EngineProcess;
use crate::support::{fresh_database, sql, until_within};

const PATIENCE: Duration = Duration::from_secs(30);

/// The engines that the database knows, by the time of their start.
pub async fn nodes(client: &Client) -> Vec<String> {
    let rows = client.query("select id::text from node order by id", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Two engines own half of the shards each.
pub async fn spread(client: &Client) {
    let even = "select count(*) from (select 1 from shard where owner is not null group by owner \
        having count(*) = 32) as even";
    until_within("the shards are spread", PATIENCE, || async {
        (client.query_one(even, &[]).await.unwrap().get::<_, i64>(0) == 2).then_some(())
    })
    .await;
}

/// Waits until every lease has been renewed so often: as many looks at the other engine.
pub async fn renewed(client: &Client, times: usize) {
    let leases = async || -> Vec<String> {
        let rows = client.query("select id::text || expires_at from node order by id", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    for _ in 0..times {
        let before = leases().await;
        until_within("the leases are renewed", PATIENCE, || async {
            let now = leases().await;
            (now.len() != before.len() || now.iter().zip(&before).all(|(a, b)| a != b)).then_some(())
        })
        .await;
    }
}

async fn pair(client: &Client, database: &str, optimistic: &str) -> [EngineProcess; 2] {
    let first = EngineProcess::start(database, &[("HELVE_SCHEDULING_OPTIMISTIC", optimistic)]).await;
    let second = first.twin().await;
    spread(client).await;
    [first, second]
}

/// As a database has it that many applications share.
async fn idle_for_long(optimistic: &str) {
    let database = fresh_database().await;
    let client = sql(&database).await;
    let set = "do $$ begin execute format('alter database %I set idle_session_timeout = ''1s''', \
        current_database()); end $$";
    client.batch_execute(set).await.unwrap();
    let [mut first, mut second] = pair(&client, &database, optimistic).await;
    let before = nodes(&client).await;
    let backends = "select array_agg(l.pid order by l.pid) from lane l join pg_stat_activity a on a.pid = l.pid";
    let pids: Vec<i32> = client.query_one(backends, &[]).await.unwrap().get(0);
    renewed(&client, 4).await;
    assert_eq!(nodes(&client).await, before);
    assert_eq!(client.query_one(backends, &[]).await.unwrap().get::<_, Vec<i32>>(0), pids, "no lane was cut");
    first.ready().await;
    second.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_engines_keep_their_connections_optimistic() {
    idle_for_long("on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_engines_keep_their_connections_queued() {
    idle_for_long("off").await;
}

/// As an operator does who sees idle connections, and again and again.
async fn cut_while_idle(optimistic: &str) {
    let database = fresh_database().await;
    let client = sql(&database).await;
    let [mut first, mut second] = pair(&client, &database, optimistic).await;
    let before = nodes(&client).await;
    for _ in 0..5 {
        let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
            where datname = current_database() and application_name like 'helve:%' and state = 'idle'";
        client.query_one(cut, &[]).await.unwrap();
        until_within("every lane is open again", PATIENCE, || async {
            let open = "select count(*) from lane l join pg_stat_activity a on a.pid = l.pid \
                and a.backend_start = l.backend_start";
            (client.query_one(open, &[]).await.unwrap().get::<_, i64>(0) == 4).then_some(())
        })
        .await;
        renewed(&client, 2).await;
        assert_eq!(nodes(&client).await, before);
    }
    first.ready().await;
    second.ready().await;
    // One that is killed is still noticed at once, and not by its lease.
    client.batch_execute("update node set expires_at = expires_at + interval '60 s'").await.unwrap();
    first.kill9();
    until_within("the dead one is replaced", Duration::from_secs(5), || async {
        (nodes(&client).await.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_whose_idle_connections_are_cut_live_optimistic() {
    cut_while_idle("on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_whose_idle_connections_are_cut_live_queued() {
    cut_while_idle("off").await;
}

/// Everybody who may connect sees which locks are held, and may wait for one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_waits_for_the_lanes_locks_keeps_no_lane_shut() {
    let database = fresh_database().await;
    let client = sql(&database).await;
    let mut engine = EngineProcess::start(&database, &[]).await;
    let held = "select array_agg((classid::bigint << 32) | objid::bigint) from pg_locks \
        where locktype = 'advisory' and objsubid = 1 and granted \
            and database = (select oid from pg_database where datname = current_database())";
    let keys: Vec<i64> = client.query_one(held, &[]).await.unwrap().get(0);
    assert_eq!(keys.len(), 2);
    let stranger = sql(&database).await;
    let wait = keys.iter().map(|key| format!("select pg_advisory_lock({key});")).collect::<String>();
    let waits = async { stranger.batch_execute(&wait).await.unwrap() };
    let cut = async {
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
        until_within("the stranger waits", PATIENCE, || async {
            (client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0).then_some(())
        })
        .await;
        let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
            where datname = current_database() and application_name in ('helve:create', 'helve:finish')";
        client.query_one(cut, &[]).await.unwrap();
    };
    tokio::join!(waits, cut);
    until_within("both lanes are open again", PATIENCE, || async {
        let open = "select count(*) from lane l join pg_stat_activity a on a.pid = l.pid";
        (client.query_one(open, &[]).await.unwrap().get::<_, i64>(0) == 2).then_some(())
    })
    .await;
    engine.ready().await;
}
