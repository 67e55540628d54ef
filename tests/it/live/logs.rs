//! The frame `log`, and the list of what it stored.

use serde_json::{Value, json};

use super::{log, logged, say, taken_in};
use crate::both_ways;
use crate::support::{self, Builder, Worker, hello, worker};

fn messages(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

both_ways! {
    async fn lines_are_listed_in_the_order_of_the_worker(engine) {
        engine.workflow_with("work", json!({"retries": 2})).await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        let (status, page) = engine.get(&format!("/v1/runs/{}/logs", run["id"].as_str().unwrap())).await;
        assert_eq!((status, page), (200, json!({"items": [], "next_after": null, "total": 0, "dropped": 0})));
        let task = worker.task().await;
        let lines = [json!({"message": "a\u{0}b \u{1F600}"}), json!({"message": "", "level": "error", "ago_ms": 60_000})];
        worker.send(log(&task, &lines)).await;
        worker.send(say(&task, ["c".to_owned()])).await;
        worker.fail(&task, json!({"message": "again", "retry_after_ms": 1})).await;
        let again = worker.task().await;
        assert_eq!(again["attempt"], 2);
        worker.send(say(&again, ["d".to_owned()])).await;
        worker.finish(&again, json!(1)).await;

        let page = logged(&engine, &run["id"], 4, 0).await;
        assert_eq!(messages(&page), ["ab \u{1F600}", "", "c", "d"]);
        let of = |name: &str| page["items"].as_array().unwrap().iter().map(|l| l[name].clone()).collect::<Vec<_>>();
        assert_eq!(of("offset"), [0, 1, 2, 3]);
        assert_eq!(of("attempt"), [1, 1, 1, 2]);
        assert_eq!(of("level"), ["info", "error", "info", "info"]);
        let at = |i: usize| of("at")[i].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        assert_eq!((at(0) - at(1)).num_seconds(), 60);
        worker.goodbye().await;
    }
}

both_ways! {
    async fn pages_go_on_where_they_ended(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        let line = |i: u32| json!({"message": i.to_string(), "level": if i.is_multiple_of(2) { "warn" } else { "debug" }});
        worker.send(log(&task, &(0..25).map(line).collect::<Vec<_>>())).await;
        logged(&engine, &run["id"], 25, 0).await;
        let path = format!("/v1/runs/{}/logs", run["id"].as_str().unwrap());
        for (more, expected) in [("", 25), ("&level=warn", 13), ("&level=error", 0)] {
            let (mut found, mut after) = (0, String::new());
            loop {
                let (status, page) = engine.get(&format!("{path}?limit=10{more}{after}")).await;
                assert_eq!((status, &page["total"]), (200, &json!(25)), "{page}");
                found += page["items"].as_array().unwrap().len();
                match page["next_after"].as_i64() {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            assert_eq!(found, expected, "{more}");
        }
        for bad in ["after=-1", "after=x", "after=9223372036854775807", "level=loud", "limit=0", "limit=1001", "x=1"] {
            let (status, problem) = engine.get(&format!("{path}?{bad}")).await;
            assert_eq!(status, 400, "{bad}: {problem}");
            assert!(problem["detail"].as_str().unwrap().contains(bad.split('=').next().unwrap()), "{problem}");
        }
        worker.goodbye().await;
    }
}

both_ways! {
    async fn only_the_holder_of_an_attempt_logs(engine) {
        engine.workflow("work").await;
        let mut holder = worker(&engine, &["work"], 1).await;
        let mut other = worker(&engine, &["something-else"], 1).await;
        let tenant = engine.second_tenant().await;
        let mut foreign = Worker::connect(&engine.url, &tenant.token, hello("theirs", &["work"], 1)).await;
        let run = engine.trigger("work", json!({})).await;
        let task = holder.task().await;
        let refused = async |worker: &mut Worker, task: &Value| {
            worker.send(say(task, ["stolen".to_owned(), "twice".to_owned()])).await;
            let error = worker.expect("error").await;
            assert_eq!(error["code"], "not_held", "{error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(task["task_run"].as_str().unwrap()) && message.contains("2 lines"), "{message}");
        };
        refused(&mut other, &task).await;
        refused(&mut foreign, &task).await;
        let mut ahead = task.clone();
        ahead["attempt"] = json!(2);
        refused(&mut holder, &ahead).await;
        holder.send(say(&task, ["mine".to_owned()])).await;
        holder.finish(&task, json!(1)).await;
        refused(&mut holder, &task).await;
        assert_eq!(messages(&logged(&engine, &run["id"], 1, 0).await), ["mine"]);
        let (status, _) = tenant.get(&format!("/v1/runs/{}/logs", run["id"].as_str().unwrap())).await;
        assert_eq!(status, 404);
    }
}

both_ways! {
    with Builder::new().limits(|l| (l.log_lines, l.log_bytes) = (20, 1_000));
    async fn what_is_over_the_limits_of_a_run_is_counted(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 3).await;
        let lines = |n: u32| (0..n).map(|i| i.to_string());
        let many = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        worker.send(say(&task, lines(15))).await;
        logged(&engine, &many["id"], 15, 0).await;
        worker.send(say(&task, lines(15))).await;
        logged(&engine, &many["id"], 20, 10).await;
        worker.send(say(&task, lines(3))).await;
        let page = logged(&engine, &many["id"], 20, 13).await;
        assert_eq!(messages(&page)[19], "4");

        let large = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        worker.send(say(&task, ["x".repeat(600), "y".repeat(600), "z".to_owned()])).await;
        logged(&engine, &large["id"], 1, 2).await;
        // The other run's are its own.
        let third = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        worker.send(say(&task, lines(1))).await;
        logged(&engine, &third["id"], 1, 0).await;
    }
}

both_ways! {
    with Builder::new().limits(|l| l.log_rate = 10);
    async fn a_worker_that_floods_harms_itself_only(engine) {
        engine.workflow("work").await;
        engine.workflow("quiet").await;
        let mut loud = worker(&engine, &["work"], 1).await;
        let mut quiet = worker(&engine, &["quiet"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        let other = engine.trigger("quiet", json!({})).await;
        let (task, calm) = (loud.task().await, quiet.task().await);
        loud.send(say(&task, (0..5_000).map(|i| i.to_string()))).await;
        quiet.send(say(&calm, ["here".to_owned()])).await;
        logged(&engine, &other["id"], 1, 0).await;
        // Its result counts all the same.
        loud.finish(&task, json!(1)).await;
        let page = support::until("everything is counted", || async {
            let (_, page) = engine.get(&format!("/v1/runs/{}/logs?limit=1000", run["id"].as_str().unwrap())).await;
            (page["total"].as_i64()? + page["dropped"].as_i64()? == 5_000).then_some(page)
        })
        .await;
        assert!((100..=200).contains(&page["total"].as_i64().unwrap()), "{}", page["total"]);
        assert_eq!(messages(&page)[..3], ["0", "1", "2"]);
    }
}

both_ways! {
    async fn a_restart_goes_on_with_the_offsets(engine) {
        engine.workflow("work").await;
        let mut worker = worker(&engine, &["work"], 1).await;
        let run = engine.trigger("work", json!({})).await;
        let task = worker.task().await;
        worker.send(say(&task, (0..50).map(|i| i.to_string()))).await;
        taken_in(&mut worker).await;
        let (resume, token) = (worker.resume(&[&task]), engine.token.clone());
        // A stop stores what it has taken in.
        let engine = engine.restart().await;
        logged(&engine, &run["id"], 50, 0).await;
        let mut hello = hello("test", &["work"], 1);
        hello["resume"] = resume;
        let mut worker = Worker::connect(&engine.url, &token, hello).await;
        assert_eq!(worker.welcome["resumed"], true);
        worker.send(say(&task, (50..60).map(|i| i.to_string()))).await;
        worker.finish(&task, json!(1)).await;
        let page = logged(&engine, &run["id"], 60, 0).await;
        let expected: Vec<String> = (0..60).map(|i| i.to_string()).collect();
        assert_eq!(messages(&page), expected);
        worker.goodbye().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_survive_lost_answers_once_each_and_a_missing_week_is_made() {
    let engine = support::engine().await;
    engine.workflow("work").await;
    let mut worker = worker(&engine, &["work"], 1).await;
    let run = engine.trigger("work", json!({})).await;
    let task = worker.task().await;
    let sql = engine.sql().await;
    let weeks = sql.query("select inhrelid::regclass::text from pg_inherits where inhparent in ('run_log'::regclass, 'run_live'::regclass)", &[]).await.unwrap();
    for week in weeks {
        sql.batch_execute(&format!("drop table {}", week.get::<_, String>(0))).await.unwrap();
    }
    // Connections die while lines are written: each answer that is lost is looked up.
    for i in 0..200 {
        worker.send(say(&task, [i.to_string()])).await;
        if i % 20 == 10 {
            let kill = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'helve:pool' \
                and datname = current_database()";
            sql.execute(kill, &[]).await.unwrap();
        }
    }
    let page = logged(&engine, &run["id"], 200, 0).await;
    let expected: Vec<String> = (0..200).map(|i| i.to_string()).collect();
    assert_eq!(messages(&page), expected);
    worker.finish(&task, json!(1)).await;
    worker.goodbye().await;
}
