//! Lists of runs: filters, pages, cursors.

use serde_json::{Value, json};

use super::{pages, problem};
use crate::both_ways;
use crate::support;

both_ways! {
    async fn filters_and_pages_agree(engine) {
        engine.workflow("w").await;
        engine.workflow("v").await;
        let mut worker = support::worker(&engine, &["v"], 1).await;
        let mut ids = Vec::new();
        for i in 0..12 {
            let name = if i % 3 == 0 { "v" } else { "w" };
            let body = json!({"workflow": name, "input": i, "metadata": {"user": (i % 2).to_string(), "q": "a=b&c"}});
            let run = engine.post("/v1/runs", body).await.1;
            if name == "v" {
                let task = worker.task().await;
                if i % 2 == 0 { worker.finish(&task, json!(i)).await } else { worker.fail(&task, json!({"message": "x"})).await };
                engine.run_is(&run["id"], if i % 2 == 0 { "succeeded" } else { "failed" }).await;
            }
            ids.push(run["id"].clone());
        }
        let list = async |query: &str, limit: usize| -> Vec<Value> {
            pages(&engine, &format!("/v1/runs{query}"), limit).await.iter().map(|run| run["id"].clone()).collect()
        };
        let wanted = |keep: &dyn Fn(usize) -> bool| -> Vec<Value> {
            (0..12).rev().filter(|i| keep(*i)).map(|i| ids[i].clone()).collect()
        };
        for limit in [1, 5, 11, 12, 1_000] {
            assert_eq!(list("", limit).await, wanted(&|_| true), "limit {limit}");
        }
        for (query, keep) in [
            ("?status=queued", &(|i: usize| !i.is_multiple_of(3)) as &dyn Fn(usize) -> bool),
            ("?status=succeeded", &|i| i % 6 == 0),
            ("?status=failed,succeeded", &|i| i % 3 == 0),
            ("?status=failed&status=queued", &|i| i % 3 != 0 || i % 2 == 1),
            ("?status=cancelled", &|_| false),
            ("?workflow=v", &|i| i % 3 == 0),
            ("?workflow=never", &|_| false),
            ("?metadata=user=1", &|i| i % 2 == 1),
            ("?metadata=user=1&metadata=q%3Da%3Db%26c&workflow=w", &|i| i % 2 == 1 && i % 3 != 0),
            ("?metadata=user=2", &|_| false),
            ("?created_after=2020-01-01T00:00:00%2B01:00&created_before=2100-01-01T00:00:00Z", &|_| true),
            ("?created_before=2020-01-01T00:00:00Z", &|_| false),
        ] {
            assert_eq!(list(query, 2).await, wanted(keep), "{query}");
        }
        let at = engine.run(&ids[6]).await["created_at"].as_str().unwrap().to_owned();
        assert_eq!(list(&format!("?created_after={at}"), 3).await.len() + list(&format!("?created_before={at}"), 3).await.len(), 12);
        worker.goodbye().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_stable_while_runs_are_added_and_a_cursor_is_of_its_list() {
    let engine = support::engine().await;
    engine.workflow("w").await;
    for i in 0..4 {
        engine.trigger("w", json!(i)).await;
    }
    let (_, first) = engine.get("/v1/runs?limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap().to_owned();
    engine.trigger("w", json!("new")).await;
    let (_, second) = engine.get(&format!("/v1/runs?limit=2&cursor={cursor}")).await;
    let inputs: Vec<_> = second["items"].as_array().unwrap().iter().map(|run| run["input"].clone()).collect();
    assert_eq!((inputs, &second["next_cursor"]), (vec![json!(1), json!(0)], &Value::Null));

    let wrong = [
        cursor[1..].to_owned(),
        format!("{cursor}00"),
        cursor.replace(&cursor[..2], "zz"),
        cursor.to_uppercase() + "x",
    ];
    for cursor in wrong {
        problem(&engine.request("GET", &format!("/v1/runs?cursor={cursor}"), &[], "").await, 400, "invalid_cursor");
    }
    problem(&engine.request("GET", &format!("/v1/events?cursor={cursor}"), &[], "").await, 400, "invalid_cursor");
    let stranger = engine.second_tenant().await;
    problem(&stranger.request("GET", &format!("/v1/runs?cursor={cursor}"), &[], "").await, 400, "invalid_cursor");
}
