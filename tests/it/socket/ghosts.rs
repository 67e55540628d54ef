//! Hellos whose socket is gone before their row is written: nobody is connected, and no work goes there.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::both_ways;
use crate::support::{Engine, Incoming, Worker, hello, until, worker};

/// Longer than an engine waits for the row of a hello.
const LATE: Duration = Duration::from_secs(14);

/// Nobody can write a worker's row until this is dropped or rolled back.
async fn locked(engine: &Engine) -> Client {
    let client = engine.sql().await;
    client.batch_execute("begin; lock table worker").await.unwrap();
    client
}

/// A hello that the engine cannot answer.
async fn unanswered(engine: &Engine, frame: Value) {
    let mut ghost = Worker::open(&engine.url, Some(&engine.token)).await.unwrap();
    ghost.send(frame).await;
    let Incoming::Frame(error) = ghost.incoming(LATE).await else { panic!("no answer to the hello") };
    assert_eq!(error["code"], "outcome_unknown", "{error}");
    assert_eq!(ghost.closed().await, 4503);
}

async fn listed(engine: &Engine) -> Vec<(Value, bool)> {
    let (status, list) = engine.get("/v1/workers").await;
    assert_eq!(status, 200, "{list}");
    let item = |w: &Value| (w["name"].clone(), w["connected"].as_bool().unwrap());
    list["items"].as_array().unwrap().iter().map(item).collect()
}

/// Whoever connects after the ghosts is written after them.
async fn work_goes_to_the_living(engine: &Engine) {
    let mut honest = worker(engine, &["a"], 1).await;
    assert_eq!(listed(engine).await, [(json!("test"), true)]);
    let run = engine.trigger("a", json!(1)).await;
    let task = honest.task().await;
    assert_eq!((&task["run"], &task["attempt"]), (&run["id"], &json!(1)));
    honest.finish(&task, json!(1)).await;
}

both_ways! {
    async fn late_rows_of_failed_hellos_make_no_workers(engine) {
        engine.workflow("a").await;
        let lock = locked(&engine).await;
        tokio::join!(
            unanswered(&engine, hello("ghost", &["a"], 5)),
            unanswered(&engine, hello("ghost", &["a"], 5)),
            unanswered(&engine, hello("ghost", &["a"], 5)),
        );
        assert_eq!(listed(&engine).await, []);
        lock.batch_execute("rollback").await.unwrap();
        work_goes_to_the_living(&engine).await;
        let client = engine.sql().await;
        until("the rows are gone", || async {
            let rows = client.query_one("select count(*) from worker where name = 'ghost'", &[]).await.unwrap();
            (rows.get::<_, i64>(0) == 0).then_some(())
        })
        .await;
    }
}

both_ways! {
    async fn a_worker_that_hangs_up_during_its_hello_leaves_nothing(engine) {
        engine.workflow("a").await;
        let lock = locked(&engine).await;
        let mut ghost = Worker::open(&engine.url, Some(&engine.token)).await.unwrap();
        ghost.send(hello("ghost", &["a"], 5)).await;
        let waiting = "select count(*) from pg_locks where relation = 'worker'::regclass and not granted";
        let client = engine.sql().await;
        until("its row is on its way", || async {
            (client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0).then_some(())
        })
        .await;
        drop(ghost);
        lock.batch_execute("rollback").await.unwrap();
        work_goes_to_the_living(&engine).await;
    }
}

both_ways! {
    async fn a_failed_resume_leaves_a_worker_without_a_socket(engine) {
        engine.workflow("a").await;
        let mut first = worker(&engine, &["a"], 1).await;
        let run = engine.trigger("a", json!(1)).await;
        let task = first.task().await;
        let mut resume = hello("test", &["a"], 1);
        resume["resume"] = first.resume(&[&task]);
        let lock = locked(&engine).await;
        unanswered(&engine, resume.clone()).await;
        assert_eq!(first.closed().await, 4409);
        assert_eq!(listed(&engine).await, [(json!("test"), false)]);
        lock.batch_execute("rollback").await.unwrap();
        // The secret that it has is still good: it never got another.
        let mut again = Worker::connect(&engine.url, &engine.token, resume).await;
        assert_eq!(again.welcome["resumed"], true);
        again.finish(&task, json!(2)).await;
        assert_eq!(engine.run(&run["id"]).await["attempt"], 1);
    }
}
