//! One tenant's flood and another's single triggers.
#![expect(clippy::disallowed_methods, reason = "the flood goes on beside the test's own triggers")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::both_ways;
use crate::support::{Http, until_within};

/// Runs of one bulk trigger of the flood, and clients that send them.
const BULK: usize = 1_000;
const FLOODS: usize = 2;
/// Single triggers of which the median is taken.
const SINGLES: usize = 40;

/// Sends bulk triggers one after the other until it is told to stop; counts them, and gives what each took.
async fn flood(http: Http, stop: Arc<AtomicBool>, answered: Arc<AtomicU32>) -> Vec<Duration> {
    let items: Vec<_> = (0..BULK).map(|n| json!({"workflow": "flood", "input": n})).collect();
    let (body, mut took) = (json!({"runs": items}).to_string(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let response = http.request("POST", "/v1/runs/bulk", &[], body.clone()).await;
        took.push(start.elapsed());
        assert_eq!(response.status, 200);
        answered.fetch_add(1, Ordering::Relaxed);
    }
    took
}

/// The median of triggers of one run, one after the other, each seen to be accepted.
async fn singles(http: &Http, path: &str, body: Value, status: u16) -> Duration {
    let mut took = Vec::new();
    for _ in 0..SINGLES {
        let start = Instant::now();
        let answer = http.post(path, body.clone()).await;
        took.push(start.elapsed());
        assert_eq!(answer.0, status, "{}", answer.1);
    }
    median(took)
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

both_ways! {
    async fn a_flood_of_one_tenant_leaves_room_for_single_triggers_of_another(engine) {
        engine.workflow("flood").await;
        let other = engine.second_tenant().await;
        let task = json!({"tasks": [{"name": "single", "action": "single"}]});
        assert_eq!(other.put("/v1/workflows/single", task).await.0, 200);
        let single = json!({"workflow": "single", "input": 1});
        singles(&other, "/v1/runs", single.clone(), 201).await;
        let alone = singles(&other, "/v1/runs", single.clone(), 201).await;

        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let start = || tokio::spawn(flood(engine.client(), Arc::clone(&stop), Arc::clone(&answered)));
        let floods: Vec<_> = (0..FLOODS).map(|_| start()).collect();
        until_within("the flood runs", Duration::from_secs(30), || async {
            (answered.load(Ordering::Relaxed) >= 2).then_some(())
        })
        .await;
        let before = answered.load(Ordering::Relaxed);
        let beside = singles(&other, "/v1/runs", single, 201).await;
        let during = answered.load(Ordering::Relaxed) - before;
        // For comparison: one more run of the flood's own kind stands where the flood stands.
        let own = json!({"runs": [{"workflow": "flood", "input": 1}]});
        let behind = singles(&engine, "/v1/runs/bulk", own, 200).await;
        stop.store(true, Ordering::Relaxed);
        let mut bulk = Vec::new();
        for one in floods {
            bulk.extend(one.await.unwrap());
        }
        let bulk = median(bulk);
        println!("alone {alone:?}; beside {during} bulk triggers of {bulk:?} each {beside:?}; behind them {behind:?}");
        assert!(beside * 2 < bulk, "a single trigger took {beside:?}, a bulk trigger {bulk:?}");
        let sql = engine.sql().await;
        let open = sql.query_one("select count(*) from open_run where workflow = 'single'", &[]).await.unwrap();
        assert_eq!(open.get::<_, i64>(0), i64::try_from(3 * SINGLES).unwrap(), "each is accepted once");
    }
}
