//! What PostgreSQL refuses, and what somebody else holds up in it, harms who asked for it and stops nobody else.
#![expect(clippy::disallowed_methods, reason = "what is refused goes on beside the test's own triggers")]

use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::Digest;

use crate::both_ways;
use crate::support::{Builder, Engine, until, until_within, worker};

/// Refuses rows of one workflow with the code in its argument. `once`: only the first time.
const REFUSE: &str = "
    create sequence refused;
    create function refuse() returns trigger language plpgsql as $$ begin
        if new.workflow = 'guilty' and (tg_argv[1] = 'always' or nextval('refused') = 1) then
            raise exception 'refused' using errcode = tg_argv[0];
        end if;
        return new;
    end $$";

async fn refuse(engine: &Engine, table: &str, code: &str, often: &str) {
    let sql = engine.sql().await;
    let exists = sql.query_one("select to_regproc('refuse') is not null", &[]).await.unwrap();
    if !exists.get::<_, bool>(0) {
        sql.batch_execute(REFUSE).await.unwrap();
    }
    let text = format!(
        "create trigger refuse before insert on {table} for each row execute function refuse('{code}', '{often}')"
    );
    sql.batch_execute(&text).await.unwrap();
}

async fn allow(engine: &Engine, table: &str) {
    engine.sql().await.batch_execute(&format!("drop trigger refuse on {table}")).await.unwrap();
}

/// Another tenant's triggers are answered although something is wrong with one of this tenant.
async fn others_go_on(engine: &Engine) {
    let other = engine.second_tenant().await;
    let (status, _) = other.put("/v1/workflows/w", json!({"tasks": [{"name": "w"}]})).await;
    assert_eq!(status, 200);
    for n in 0..5 {
        let trigger = other.post("/v1/runs", json!({"workflow": "w", "input": n}));
        let (status, run) = tokio::time::timeout(Duration::from_secs(4), trigger).await.expect("an answer in time");
        assert_eq!(status, 201, "{run}");
    }
}

both_ways! {
    async fn a_refused_trigger_is_told_so_and_stops_nobody(engine) {
        engine.workflow("guilty").await;
        // A row twice in a statement, data, a constraint, a limit of the program, a trigger's own, a missing right.
        for code in ["21000", "22012", "23514", "54000", "P0001", "42501"] {
            refuse(&engine, "open_run", code, "always").await;
            let guilty = engine.client();
            let asked = tokio::spawn(async move {
                guilty.post("/v1/runs", json!({"workflow": "guilty", "input": null})).await
            });
            others_go_on(&engine).await;
            let (status, problem) = asked.await.unwrap();
            assert_eq!((status, &problem["code"]), (500, &json!("internal")), "{code}: {problem}");
            allow(&engine, "open_run").await;
        }
        // Nothing of it is left, and it goes through as soon as nothing is in its way.
        let (_, list) = engine.get("/v1/runs?workflow=guilty").await;
        assert_eq!(list["items"], json!([]));
        engine.trigger("guilty", json!(1)).await;
    }
}

both_ways! {
    async fn a_deadlock_is_tried_again_at_once(engine) {
        engine.workflow("guilty").await;
        refuse(&engine, "open_run", "40P01", "once").await;
        let trigger = engine.trigger("guilty", json!(1));
        tokio::time::timeout(Duration::from_secs(5), trigger).await.expect("an answer in time");
        let tries = engine.sql().await.query_one("select last_value from refused", &[]).await.unwrap();
        assert_eq!(tries.get::<_, i64>(0), 2);
    }
}

both_ways! {
    async fn an_end_that_does_not_go_through_waits_by_itself_and_is_not_lost(engine) {
        for name in ["guilty", "work"] {
            engine.workflow(name).await;
        }
        let mut worker = worker(&engine, &["guilty", "work"], 10).await;
        refuse(&engine, "run_history", "P0001", "always").await;
        let guilty = engine.trigger("guilty", json!(1)).await;
        let task = worker.task().await;
        worker.report(&task, json!({"outcome": "succeeded", "output": "kept"})).await;
        for n in 0..3 {
            let run = engine.trigger("work", json!(n)).await;
            let task = worker.find_tasks().await.remove(0);
            worker.finish(&task, json!(n)).await;
            engine.run_is(&run["id"], "succeeded").await;
        }
        others_go_on(&engine).await;
        assert_eq!(engine.run(&guilty["id"]).await["status"], "running");
        allow(&engine, "run_history").await;
        worker.stored(&task).await;
        let run = engine.run_is(&guilty["id"], "succeeded").await;
        assert_eq!((&run["output"], &run["attempt"]), (&json!("kept"), &json!(1)));
    }
}

both_ways! {
    async fn a_row_that_somebody_has_locked_holds_up_itself_only(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 10).await;
        let locked = engine.trigger("work", json!("locked")).await;
        let task = worker.task().await;
        let mut sql = engine.sql().await;
        let id = locked["id"].as_str().unwrap().trim_start_matches("run_");
        let lock = sql.transaction().await.unwrap();
        lock.batch_execute(&format!("select from open_run where id = '{id}' for update")).await.unwrap();
        worker.report(&task, json!({"outcome": "succeeded", "output": 1})).await;
        for n in 0..3 {
            let run = engine.trigger("work", json!(n)).await;
            let task = worker.find_tasks().await.remove(0);
            worker.report(&task, json!({"outcome": "succeeded", "output": n})).await;
            engine.run_is(&run["id"], "succeeded").await;
        }
        others_go_on(&engine).await;
        assert_eq!(engine.run(&locked["id"]).await["status"], "running");
        lock.rollback().await.unwrap();
        assert_eq!(engine.run_is(&locked["id"], "succeeded").await["output"], 1);
    }
}

/// `/readyz`, with the reason if it is not.
async fn readiness(engine: &Engine) -> (u16, Value) {
    engine.get("/readyz").await
}

both_ways! {
    async fn a_lane_that_stands_makes_the_engine_unready_until_it_goes_on(engine) {
        engine.workflow("work").await;
        let mut sql = engine.sql().await;
        let lock = sql.transaction().await.unwrap();
        lock.batch_execute("lock table open_run in access exclusive mode").await.unwrap();
        let trigger = || {
            let client = engine.client();
            tokio::spawn(async move { client.post("/v1/runs", json!({"workflow": "work", "input": 1})).await.0 })
        };
        let mut asked = vec![trigger()];
        // A single row that is held up does not make the engine unready: more than one batch must find no way.
        let watch = engine.sql().await;
        let waits = "select count(*) from pg_locks where relation = 'open_run'::regclass and not granted";
        for waiting in [true, false] {
            until("the first waits, and is set aside", || async {
                let n: i64 = watch.query_one(waits, &[]).await.unwrap().get(0);
                ((n > 0) == waiting).then_some(())
            })
            .await;
        }
        assert_eq!(readiness(&engine).await.0, 200);
        asked.push(trigger());
        let unready = until_within("the engine is not ready", Duration::from_secs(20), || async {
            let (status, problem) = readiness(&engine).await;
            (status == 503).then_some(problem)
        })
        .await;
        assert!(unready["detail"].as_str().unwrap().contains("committed for 5 s"), "{unready}");
        lock.rollback().await.unwrap();
        // What was set aside is tried again after at most 4 s.
        until_within("both runs are there", Duration::from_secs(20), || async {
            let (_, list) = engine.get("/v1/runs?workflow=work").await;
            (list["items"].as_array()?.len() == 2).then_some(())
        })
        .await;
        assert_eq!(readiness(&engine).await.0, 200);
        // Who waited is answered, by the run or by the word that nobody knows yet; the run is there once.
        for asked in asked {
            assert!([201, 503].contains(&asked.await.unwrap()));
        }
        let (_, list) = engine.get("/v1/runs?workflow=work").await;
        assert_eq!(list["items"].as_array().unwrap().len(), 2, "{list}");
    }
}

both_ways! {
    with Builder::new().limits(|l| l.name_bytes = 8_000);
    async fn a_key_that_no_index_takes_is_refused_and_stops_nobody(engine) {
        engine.workflow("work").await;
        // PostgreSQL would press a simple one together.
        let digits =
            |n: u32| HEXLOWER.encode(&sha2::Sha256::digest(n.to_be_bytes()));
        let key = (0..79).map(digits).collect::<String>()[..5_000].to_owned();
        let guilty = engine.client();
        let asked = tokio::spawn(async move {
            guilty.post_with("/v1/runs", &[("idempotency-key", &key)], json!({"workflow": "work", "input": 1})).await.0
        });
        others_go_on(&engine).await;
        assert_eq!(asked.await.unwrap(), 500);
    }
}

both_ways! {
    async fn a_week_that_is_missing_is_made_when_a_row_needs_it(engine) {
        engine.workflow("work").await;
        let (status, _) = engine.put("/v1/workflows/listens", json!({"tasks": [{"name": "work"}], "events": ["e"]})).await;
        assert_eq!(status, 200);
        let mut worker = worker(&engine, &["work"], 10).await;
        let sql = engine.sql().await;
        let weeks = "select i.inhrelid::regclass::text from pg_inherits i \
            where i.inhparent in ('event'::regclass, 'run_history'::regclass, 'payload'::regclass)";
        for week in sql.query(weeks, &[]).await.unwrap() {
            sql.batch_execute(&format!("drop table {}", week.get::<_, String>(0))).await.unwrap();
        }
        let (status, event) = engine.post("/v1/events", json!({"key": "e", "payload": 1})).await;
        assert_eq!(status, 201, "{event}");
        let large = "x".repeat(5_000);
        let run = engine.trigger("work", json!(large)).await;
        let mut tasks = Vec::new();
        while tasks.len() < 2 {
            tasks.extend(worker.find_tasks().await);
        }
        worker.succeed(&tasks).await;
        assert_eq!(engine.run_is(&run["id"], "succeeded").await["output"], json!(large));
        engine.run_is(&event["runs"][0], "succeeded").await;
    }
}
