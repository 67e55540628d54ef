//! What a socket does before it is welcome, and while its engine does not know whether it still owns the tenant.

use super::*;

#[tokio::test]
async fn what_comes_before_the_welcome_is_read_after_it() {
    let mut bench = Bench::new();
    bench.send(json!({"type": "hello", "protocol": 1, "name": "w", "actions": ["a"]})).await;
    for _ in 0..20 {
        bench.send(json!({"type": "drain"})).await;
    }
    let mut bench = bench.welcomed().await;
    for _ in 0..20 {
        assert!(matches!(bench.told().await, Incoming::Drain));
    }
}

#[tokio::test]
async fn a_stream_that_ends_before_its_welcome_is_reported() {
    for leave in [true, false] {
        let mut bench = Bench::new();
        bench.send(json!({"type": "hello", "protocol": 1, "name": "w", "actions": ["a"]})).await;
        let Some(Request::Connect { transport, outbox, reply, .. }) = bench.request().await else { panic!() };
        if leave {
            bench.worker.send(Message::Close(None)).await.unwrap();
        } else {
            let (pipe, _) = tokio::io::duplex(1);
            bench.worker = WebSocketStream::from_raw_socket(pipe, Role::Client, None).await;
        }
        let Some(Request::Gone { transport: gone }) = bench.request().await else { panic!() };
        assert_eq!(gone, transport);
        assert!(outbox.is_closed() && reply.is_closed());
    }
}

#[tokio::test]
async fn work_leaves_only_while_the_lease_is_trusted() {
    let hour = Duration::from_secs(3_600);
    let mut bench = Bench::new().greeted().await;
    // As after a standstill: the last renewal is long past.
    bench.standing.trust(bench.standing.elapsed(), Duration::ZERO);
    bench.push(Outgoing::Assign(vec![task(1)]));
    let held = tokio::time::timeout(Duration::from_millis(200), bench.worker.next()).await;
    assert!(held.is_err(), "{held:?}");
    bench.standing.trust(bench.standing.elapsed(), hour);
    assert_eq!(bench.frame().await["type"], "assign");

    bench.standing.trust(bench.standing.elapsed(), Duration::ZERO);
    bench.push(Outgoing::Assign(vec![task(1)]));
    bench.standing.fence();
    // Another engine has it: the worker hears of no task, and where to go.
    assert_eq!(bench.closed().await, 4503);
    assert!(matches!(bench.told().await, Incoming::Lost));
}
