//! Workers that lie, flood or hardly read: each harms itself only.
#![expect(clippy::disallowed_methods, reason = "a bad worker goes on beside the test's own work")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::both_ways;
use crate::support::{Builder, Engine, Tenant, Worker, attempt, hello, until, until_within, worker};

const ACK: Duration = Duration::from_millis(300);

/// Another tenant with a workflow and a worker for it.
async fn neighbour(engine: &Engine) -> (Tenant, Worker) {
    let tenant = engine.second_tenant().await;
    let task = json!({"tasks": [{"name": "work", "action": "work"}]});
    assert_eq!(tenant.put("/v1/workflows/work", task).await.0, 200);
    let worker = Worker::connect(&engine.url, &tenant.token, hello("neighbour", &["work"], 1)).await;
    (tenant, worker)
}

/// Runs of another tenant go through as if nothing was.
async fn works(tenant: &Tenant, worker: &mut Worker, runs: usize) {
    for n in 0..runs {
        let (status, run) = tenant.post("/v1/runs", json!({"workflow": "work", "input": n})).await;
        assert_eq!(status, 201, "{run}");
        let task = worker.find_tasks().await.remove(0);
        assert_eq!(task["run"], run["id"]);
        assert_eq!(worker.finish(&task, json!(n)).await["status"], "succeeded");
    }
}

both_ways! {
    with Builder::new().scheduling(|s| s.ack = ACK);
    async fn a_confirmation_of_what_was_never_got_confirms_nothing(engine) {
        engine.workflow("work").await;
        let (tenant, mut foreign) = neighbour(&engine).await;
        let mut holder = worker(&engine, &["work"], 1).await;
        let mut liar = Worker::connect(&engine.url, &engine.token, hello("liar", &["other"], 1)).await;
        let run = engine.trigger("work", json!(1)).await;
        let task = holder.expect("assign").await["tasks"][0].clone();
        let mut later = attempt(&task);
        later["attempt"] = json!(2);
        let nothing = json!({"task_run": "run_01890a5d96427774b3dc9d8e5f1a2b3c", "attempt": 1});
        for bad in [&mut liar, &mut foreign] {
            let tasks = [attempt(&task), later.clone(), nothing.clone()];
            bad.send(json!({"type": "received", "tasks": tasks})).await;
            let answer = bad.expect("superseded").await;
            let reasons: Vec<_> = answer["tasks"].as_array().unwrap().iter().map(|t| t["reason"].clone()).collect();
            assert_eq!(reasons, ["unknown"; 3]);
        }
        // It counts as unconfirmed: the holder gets it again.
        assert_eq!(attempt(&holder.expect("assign").await["tasks"][0]), attempt(&task));
        holder.send(json!({"type": "received", "tasks": [attempt(&task)]})).await;
        holder.finish(&task, json!("own")).await;
        let ended = engine.run_is(&run["id"], "succeeded").await;
        assert_eq!((&ended["attempt"], &ended["output"]), (&json!(1), &json!("own")));
        works(&tenant, &mut foreign, 2).await;
    }
}

both_ways! {
    with Builder::new().scheduling(|s| s.ack = ACK);
    async fn a_worker_that_never_confirms_loses_its_socket_and_its_work(engine) {
        engine.workflow("work").await;
        let (tenant, mut other) = neighbour(&engine).await;
        let mut silent = Worker::connect(&engine.url, &engine.token, hello("silent", &["work"], 3)).await;
        let mut runs = Vec::new();
        for n in 0..3 {
            runs.push(engine.trigger("work", json!(n)).await);
        }
        let mut good = worker(&engine, &["work"], 3).await;
        let mut got = Vec::new();
        while got.len() < 3 {
            got.extend(good.find_tasks().await);
        }
        assert!(got.iter().all(|t| t["attempt"] == 2), "{got:?}");
        assert_eq!(silent.closed().await, 4410);
        good.succeed(&got).await;
        for run in &runs {
            engine.run_is(&run["id"], "succeeded").await;
        }
        works(&tenant, &mut other, 2).await;
    }
}

/// Sends frames as fast as the engine takes them, and reads what it says, until it is stopped.
async fn bombard(worker: Worker, frames: Vec<String>, stop: Arc<AtomicBool>, sent: Arc<AtomicUsize>) {
    let (mut sink, mut stream) = worker.socket.split();
    let reading = tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
    for frame in frames.iter().cycle() {
        let frame = sink.send(Message::text(frame.as_str()));
        let taken = tokio::time::timeout(Duration::from_millis(100), frame).await;
        if stop.load(Ordering::Relaxed) || matches!(taken, Ok(Err(_))) {
            break;
        }
        sent.fetch_add(usize::from(taken.is_ok()), Ordering::Relaxed);
    }
    reading.abort();
}

both_ways! {
    async fn a_flood_of_frames_slows_down_its_own_worker_only(engine) {
        engine.workflow("work").await;
        let (tenant, mut other) = neighbour(&engine).await;
        let mut held = worker(&engine, &["work"], 1).await;
        engine.trigger("work", json!(0)).await;
        let task = held.task().await;
        let own = attempt(&task);
        let mut stale = own.clone();
        stale["attempt"] = json!(7);
        let result = |of: &Value| {
            let mut result = of.clone();
            result["outcome"] = json!("failed");
            result["error"] = json!({"message": "no"});
            json!({"type": "result", "results": [result]}).to_string()
        };
        let extend = json!({"type": "extend", "tasks": [{"task_run": own["task_run"], "attempt": 1, "timeout_ms": 60_000}]});
        let floods = [
            vec![json!({"type": "ping"}).to_string()],
            vec![json!({"type": "capacity", "slots": {"default": 2}}).to_string(),
                 json!({"type": "capacity", "slots": {"default": 1}}).to_string()],
            vec![json!({"type": "received", "tasks": [stale.clone()]}).to_string(), result(&stale)],
            vec![json!({"type": "nonsense"}).to_string(), json!({"type": "received", "tasks": 7}).to_string()],
            vec![json!({"type": "drain"}).to_string(), json!({"type": "received", "tasks": []}).to_string()],
        ];
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut bad = Vec::new();
        for frames in floods {
            let flooder = Worker::connect(&engine.url, &engine.token, hello("flood", &["other"], 1)).await;
            bad.push(tokio::spawn(bombard(flooder, frames, Arc::clone(&stop), Arc::clone(&sent))));
        }
        // And the one that holds an attempt: the same extension and confirmation again and again.
        let again = json!({"type": "received", "tasks": [own]});
        let frames = vec![extend.to_string(), again.to_string(), again.to_string()];
        bad.push(tokio::spawn(bombard(held, frames, Arc::clone(&stop), Arc::clone(&sent))));
        until_within("thousands of frames", Duration::from_secs(20), || async {
            (sent.load(Ordering::Relaxed) > 5_000).then_some(())
        })
        .await;
        works(&tenant, &mut other, 10).await;
        stop.store(true, Ordering::Relaxed);
        for flood in bad {
            flood.await.unwrap();
        }
        println!("{} frames were sent", sent.load(Ordering::Relaxed));
        assert_eq!(engine.get("/readyz").await.0, 200);
        let mut fresh = Worker::connect(&engine.url, &engine.token, hello("fresh", &["work"], 1)).await;
        engine.trigger("work", json!(1)).await;
        let task = fresh.find_tasks().await.remove(0);
        fresh.finish(&task, Value::Null).await;
    }
}

/// Passes everything on to the engine, and back what a handshake needs; then one byte a second.
async fn narrow(engine: &Engine) -> String {
    let (listener, to) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), engine.authority.clone());
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(to).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let (mut buffer, mut passed, mut second) = ([0; 1024], 0, tokio::time::interval(Duration::from_secs(1)));
        loop {
            let size = if passed < 1_500 { buffer.len() } else { 1 };
            let Ok(read @ 1..) = from_server.read(&mut buffer[..size]).await else { break };
            passed += read;
            if passed >= 1_500 {
                second.tick().await;
            }
            if to_client.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        up.abort();
    });
    url
}

both_ways! {
    with Builder::new().scheduling(|s| s.ack = ACK);
    async fn a_worker_that_reads_a_byte_a_second_keeps_nobody_waiting(engine) {
        engine.workflow("work").await;
        let (tenant, mut other) = neighbour(&engine).await;
        let slow = Worker::connect(&narrow(&engine).await, &engine.token, hello("slow", &["work"], 4)).await;
        let mut runs = Vec::new();
        for _ in 0..4 {
            runs.push(engine.trigger("work", json!("x".repeat(500_000))).await);
        }
        let mut good = worker(&engine, &["work"], 4).await;
        let mut done = 0;
        while done < 4 {
            let tasks = good.find_tasks().await;
            assert!(tasks.iter().all(|t| t["attempt"] == 2), "it was with the slow one before");
            done += tasks.len();
            good.succeed(&tasks).await;
        }
        for run in &runs {
            engine.run_is(&run["id"], "succeeded").await;
        }
        works(&tenant, &mut other, 3).await;
        drop(slow);
        until_within("nothing of it is held", Duration::from_secs(10), || async {
            (engine.held().0 == 0).then_some(())
        })
        .await;
    }
}

both_ways! {
    async fn a_worker_that_lies_about_its_slots_gets_what_it_said_last(engine) {
        engine.workflow("work").await;
        let (tenant, mut other) = neighbour(&engine).await;
        let mut liar = worker(&engine, &["work"], 0).await;
        for wrong in [
            r#"{"type":"capacity","slots":{"default":-1}}"#,
            r#"{"type":"capacity","slots":{"default":100001}}"#,
            r#"{"type":"capacity","slots":{"default":1e30}}"#,
            r#"{"type":"capacity","slots":{"default":4294967296}}"#,
            r#"{"type":"capacity","slots":{"":1}}"#,
            r#"{"type":"capacity","slots":[1]}"#,
        ] {
            liar.send_text(wrong.to_owned()).await;
            assert_eq!(liar.expect("error").await["code"], "bad_frame", "{wrong}");
        }
        // Up and down, and the same kind twice, of which the last counts.
        for slots in [1, 100_000, 0, 50] {
            liar.send(json!({"type": "capacity", "slots": {"default": slots, "gpu": slots}})).await;
        }
        liar.send_text(r#"{"type":"capacity","slots":{"default":90,"default":3}}"#.to_owned()).await;
        until("the last one counts", || async {
            let (_, workers) = engine.get("/v1/workers").await;
            (workers["items"][0]["slots"]["default"]["total"] == 3).then_some(())
        })
        .await;
        let mut runs = Vec::new();
        for n in 0..6 {
            runs.push(engine.trigger("work", json!(n)).await["id"].clone());
        }
        let mut tasks = Vec::new();
        while tasks.len() < 3 {
            tasks.extend(liar.find_tasks().await);
        }
        assert_eq!(tasks.len(), 3, "never more than it has");
        // Less than it holds: it finishes what it has, and gets nothing until it is below.
        liar.send(json!({"type": "capacity", "slots": {"default": 1}})).await;
        liar.finish(&tasks[0], Value::Null).await;
        liar.finish(&tasks[1], Value::Null).await;
        liar.expect_silence(Duration::from_millis(300)).await;
        liar.finish(&tasks[2], Value::Null).await;
        let mut honest = Worker::connect(&engine.url, &engine.token, hello("honest", &["work"], 3)).await;
        let mut left = honest.find_tasks().await;
        while left.len() < 2 {
            left.extend(honest.find_tasks().await);
        }
        honest.succeed(&left).await;
        let last = liar.find_tasks().await.remove(0);
        liar.finish(&last, Value::Null).await;
        for run in &runs {
            assert_eq!(engine.run_is(run, "succeeded").await["attempt"], 1);
        }
        works(&tenant, &mut other, 2).await;
    }
}
