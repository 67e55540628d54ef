//! What one tenant may have of the creates that wait, and what memory lets go of.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helve_domain::delivery::{Attempt, Outgoing};
use helve_domain::error::Code;
use helve_domain::id::TenantId;
use helve_domain::json::{Payload, SMALL};
use helve_domain::status::RunStatus::{Running, Succeeded};

use super::world::{World, settings};
use crate::{Answer, Body, Incoming, Settings};

const SEC: Duration = Duration::from_secs(1);

fn refused(w: &World, ticket: u64) -> bool {
    matches!(&w.answers.get(&ticket), Some(Answer::Failed(e)) if e.code() == Code::TooManyRequests)
}

#[test]
fn one_tenant_may_have_half_of_what_waits_for_its_commit() {
    let mut w = World::new(Settings { pending: 5, ..settings() });
    let other = TenantId::generate(w.now.plus(SEC));
    let own: Vec<_> = (0..4).map(|_| w.trigger().1).collect();
    assert_eq!(own.iter().map(|t| refused(&w, *t)).collect::<Vec<_>>(), [false, false, false, true]);
    let others: Vec<_> = (0..3).map(|_| w.trigger_with(|r| r.tenant = other).1).collect();
    assert_eq!(others.iter().map(|t| refused(&w, *t)).collect::<Vec<_>>(), [false, false, true], "five for all");
    assert!(w.commit(0) && w.reject(0), "committed or refused: both give their place back");
    let (_, again) = w.trigger();
    assert!(!refused(&w, again));
    while w.reject(0) {}
    assert!(w.shard.creating_of.is_empty() && w.shard.creating == 0);
}

#[test]
fn a_large_body_is_let_go_when_the_worker_has_it_and_read_again_when_it_is_lost() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let large = Payload::trusted(Bytes::from(format!("\"{}\"", "x".repeat(SMALL))));
    let body = Arc::new(Body { input: large.clone(), metadata: Payload::null(), traceparent: None });
    let (run, _) = w.trigger_with(|r| r.body = Arc::clone(&body));
    let (small, _) = w.trigger();
    w.settle();
    assert!(w.shard.tasks[&run].body.is_some(), "it may have to be sent again");
    assert_eq!(w.receive(worker), [Attempt { run, number: 1 }]);
    assert!(w.shard.tasks[&run].body.is_none());
    w.say(worker, Incoming::Lost);
    w.advance(SEC * 15);
    let next = w.connect(2);
    w.settle();
    let got = w.receive(next);
    assert!(got.contains(&Attempt { run, number: 2 }) && got.contains(&Attempt { run: small, number: 1 }), "{got:?}");
    assert_eq!(w.state(run), Running);
    for attempt in got {
        w.succeed(next, attempt);
    }
    w.settle();
    assert_eq!((w.state(run), w.state(small)), (Succeeded, Succeeded));
}

#[test]
fn a_worker_that_repeats_itself_fills_no_memory() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    let (run, _) = w.trigger();
    w.settle();
    let attempt = w.receive(worker)[0];
    for _ in 0..500 {
        w.say(worker, Incoming::Extend(vec![(attempt, SEC * 60)]));
        w.succeed(worker, attempt);
    }
    let waiting = w.shard.tasks[&run].deferred.len();
    assert!((1..=64).contains(&waiting), "{waiting} wait behind one transition");
    let told = w.inboxes[&worker].iter();
    assert!(told.filter(|m| matches!(m, Outgoing::Error(Code::TooManyRequests, _))).count() > 800);
    let ticket = w.cancel(run);
    w.settle();
    assert_eq!(w.state(run), Succeeded, "the first result counts, and what a caller asked is answered");
    assert!(w.answers.contains_key(&ticket));
    assert!(w.shard.tasks.is_empty() && w.shard.loading.is_empty());
}

#[test]
fn confirming_again_and_again_counts_as_looking_up() {
    let mut w = World::new(settings());
    let worker = w.connect(1);
    w.trigger();
    w.settle();
    let attempt = w.receive(worker)[0];
    for _ in 0..1_100 {
        w.say(worker, Incoming::Received(vec![attempt]));
    }
    let told = w.inboxes[&worker].iter();
    assert_eq!(told.filter(|m| matches!(m, Outgoing::Error(Code::TooManyRequests, _))).count(), 100);
    w.advance(SEC);
    w.succeed(worker, attempt);
    w.settle();
    assert_eq!(w.state(attempt.run), Succeeded);
}
