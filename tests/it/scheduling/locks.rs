//! Rows and tables that somebody has locked in a console: who needs them waits, and nobody else.
#![expect(clippy::disallowed_methods, reason = "what is held up goes on beside the test's own triggers")]

use std::time::Duration;

use helve_domain::clock::Clock;
use serde_json::{Value, json};

use crate::both_ways;
use crate::support::{Engine, until_within, worker};

/// What 40 triggers of another tenant take at the median, one after another.
async fn others_take(engine: &Engine) -> Duration {
    let (other, clock) = (engine.second_tenant().await, Clock::system());
    assert_eq!(other.put("/v1/workflows/w", json!({"tasks": [{"name": "w"}]})).await.0, 200);
    let mut took = Vec::new();
    for n in 0..40 {
        let begun = clock.instant();
        let (status, run) = other.post("/v1/runs", json!({"workflow": "w", "input": n})).await;
        assert_eq!(status, 201, "{run}");
        took.push(clock.instant() - begun);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    took.sort();
    took[20]
}

both_ways! {
    async fn locked_rows_of_one_tenant_slow_nobody_else(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 10).await;
        let mut runs = Vec::new();
        for n in 0..8 {
            runs.push(engine.trigger("work", json!(n)).await);
        }
        let mut tasks = Vec::new();
        while tasks.len() < runs.len() {
            tasks.extend(worker.find_tasks().await);
        }
        let mut sql = engine.sql().await;
        let lock = sql.transaction().await.unwrap();
        lock.batch_execute("select from open_run where action = 'work' for update").await.unwrap();
        let results = async {
            for task in &tasks {
                worker.report(task, json!({"outcome": "succeeded", "output": 1})).await;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        let ((), median) = tokio::join!(results, others_take(&engine));
        assert!(median < Duration::from_millis(250), "{median:?}");
        lock.rollback().await.unwrap();
        for run in &runs {
            assert_eq!(engine.run_is(&run["id"], "succeeded").await["attempt"], 1);
        }
    }
}

both_ways! {
    async fn a_locked_table_holds_up_only_what_needs_it(engine) {
        engine.workflow("work").await;
        let mut sql = engine.sql().await;
        let lock = sql.transaction().await.unwrap();
        lock.batch_execute("lock table idempotency in access exclusive mode").await.unwrap();
        let asked: Vec<_> = (0..20).map(|n| {
            let client = engine.client();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100 * n)).await;
                let key = format!("key-{n}");
                let headers = [("idempotency-key", key.as_str())];
                client.post_with("/v1/runs", &headers, json!({"workflow": "work", "input": n})).await
            })
        }).collect();
        let median = others_take(&engine).await;
        assert!(median < Duration::from_millis(250), "{median:?}");
        lock.rollback().await.unwrap();
        for asked in asked {
            let (status, run): (u16, Value) = asked.await.unwrap();
            assert_eq!(status, 201, "{run}");
        }
        until_within("every run is there once", Duration::from_secs(10), || async {
            let (_, list) = engine.get("/v1/runs?workflow=work&limit=100").await;
            (list["items"].as_array()?.len() == 20).then_some(())
        })
        .await;
    }
}
