//! The proxy does what it says, on a plain connection: the statement stands in the database or not.

use std::time::Duration;

use helve_supervisor::Supervisor;

use super::proxy::{Fate, First, Mode, Proxy, Way};
use super::wire::Lane;
use crate::support::{fresh_database, sql, until};

/// Touches the table whose lock makes a statement wait, and writes a row that shows whether it committed.
const STATEMENT: &str = "/* helve:lane:create */
    with touched as (update open_run set attempt = attempt where id is null)
    insert into tenant (id, name, shard, created_at) values (gen_random_uuid(), $1, 0, now())";
const LIMIT: Duration = Duration::from_secs(10);

async fn written(database: &str, name: &str) -> bool {
    let found = sql(database).await.query("select from tenant where name = $1", &[&name]).await.unwrap();
    !found.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_of_cutting_leaves_what_it_says() {
    let database = fresh_database().await;
    let proxy = Proxy::start(&database, &Supervisor::default()).await.unwrap();
    for way in [Way::Before, Way::Uncommitted, Way::After, Way::While(First::Statement)] {
        let client = sql(&proxy.url).await;
        let statement = client.prepare(STATEMENT).await.unwrap();
        let (first, second) = (format!("{way:?} first"), format!("{way:?} second"));
        let (fate, answers) = tokio::join!(proxy.cut(Lane::Create, way, 1, LIMIT), async {
            let first = client.execute(&statement, &[&first]).await;
            (first, client.execute(&statement, &[&second]).await)
        });
        assert_eq!(answers.0.unwrap(), 1, "{way:?}: the statement before is left alone");
        assert!(answers.1.is_err(), "{way:?}: the answer is lost");
        let fate = fate.unwrap_or_else(|| panic!("{way:?} did not happen"));
        match way {
            Way::Before | Way::Uncommitted => assert_eq!(fate, Fate::Aborted),
            Way::After | Way::While(_) => assert_eq!(fate, Fate::Committed),
        }
        assert!(written(&database, &first).await);
        assert_eq!(written(&database, &second).await, fate == Fate::Committed, "{way:?}");
    }
    assert_eq!(proxy.statements(Lane::Create), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_is_ended_while_it_waits_is_aborted() {
    let database = fresh_database().await;
    let proxy = Proxy::start(&database, &Supervisor::default()).await.unwrap();
    let client = sql(&proxy.url).await;
    let statement = client.prepare(STATEMENT).await.unwrap();
    let admin = sql(&database).await;
    let end = async {
        until("the waiting backend is ended", || async {
            // Of this database: other tests share the server.
            let query = "select pg_terminate_backend(l.pid) from pg_locks l
                         join pg_database d on d.oid = l.database
                         where not l.granted and d.datname = current_database()";
            (!admin.query(query, &[]).await.unwrap().is_empty()).then_some(())
        })
        .await;
    };
    // As the engine's recovery: only when its side is gone.
    let statement = async {
        let answer = client.execute(&statement, &[&"ended"]).await;
        end.await;
        answer
    };
    let (fate, answer) = tokio::join!(proxy.cut(Lane::Create, Way::While(First::Engine), 0, LIMIT), statement);
    assert!(answer.is_err());
    assert_eq!(fate, Some(Fate::Aborted));
    assert!(!written(&database, "ended").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_cut_that_was_not_asked_for() {
    let database = fresh_database().await;
    let proxy = Proxy::start(&database, &Supervisor::default()).await.unwrap();
    let client = sql(&proxy.url).await;
    // Another lane's statement, and one of no lane.
    let (fate, count) = tokio::join!(proxy.cut(Lane::Finish, Way::Before, 0, Duration::from_millis(300)), async {
        client.execute(STATEMENT, &[&"left alone"]).await.unwrap() + client.execute("select 1", &[]).await.unwrap()
    });
    assert_eq!((fate, count), (None, 2));
    // A cut that did not come is not left armed.
    let finish = STATEMENT.replace("lane:create", "lane:finish");
    client.execute(finish.as_str(), &[&"also left alone"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_passes_nothing_and_loses_nothing() {
    let database = fresh_database().await;
    let proxy = Proxy::start(&database, &Supervisor::default()).await.unwrap();
    let client = sql(&proxy.url).await;
    proxy.mode(Mode::BlackHole);
    let mut waiting = std::pin::pin!(client.execute("select 1", &[]));
    let answer = tokio::time::timeout(Duration::from_millis(200), waiting.as_mut()).await;
    assert!(answer.is_err(), "nothing comes back");
    proxy.mode(Mode::Pass);
    assert_eq!(waiting.await.unwrap(), 1);
    proxy.mode(Mode::Slow(Duration::from_millis(50)));
    let began = tokio::time::Instant::now();
    client.execute("select 1", &[]).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(100));
}
