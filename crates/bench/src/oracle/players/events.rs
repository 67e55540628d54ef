//! Events, pushed alone and in bulk, and resent until their outcome is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::oracle::caller::{Answer, Caller, INSIST};
use crate::oracle::ledger::plays::Topic;
use crate::oracle::ledger::{Nonce, Plan};
use crate::oracle::load;
use crate::oracle::rig::Size;

/// The source of the events.
const SOURCE: &str = "load";
/// The largest bulk.
const BULK: u64 = 12;

/// A client that pushes events.
pub struct Events(pub Caller);

/// An event to be pushed.
struct Item {
    nonce: Nonce,
    body: Value,
    /// With an id from its source it may be sent twice.
    sourced: bool,
    /// An answer was lost: the event may exist already.
    may_exist: bool,
    /// It must be refused.
    wrong: bool,
}

/// The outcome of an item.
enum Outcome {
    Taken(Value),
    Refused,
    Unknown,
    /// Refused because of its contents.
    Wrong,
}

impl Events {
    /// Plays until it is told to stop.
    pub async fn run(mut self, stop: Arc<AtomicBool>, size: Size) {
        let pause = u64::try_from(size.pause.as_millis()).unwrap_or(0);
        while !stop.load(Ordering::Relaxed) {
            let bulk = self.0.dice.below(2) == 0;
            let count = if bulk { 1 + self.0.dice.below(BULK) } else { 1 };
            let mut items: Vec<_> = (0..count).map(|_| self.item(bulk)).collect();
            if bulk {
                // A wrong item harms no other.
                items.push(self.wrong());
            }
            // What has no outcome by then is unknown, and judged as such.
            let _ = timeout(INSIST, self.settle(items, bulk, size)).await;
            self.0.pause(pause, 4 * pause).await;
        }
    }

    fn item(&mut self, bulk: bool) -> Item {
        let dice = &mut self.0.dice;
        let topic = match dice.below(6) {
            0 => Topic::Nobody,
            1 | 2 => Topic::Two,
            _ => Topic::One,
        };
        let (plan, sourced) = (load::plan(dice), dice.below(4) != 0);
        self.with(topic, plan, bulk, sourced)
    }

    fn wrong(&mut self) -> Item {
        self.with(Topic::Wrong, Plan::SucceedAfter(0), true, true)
    }

    fn with(&mut self, topic: Topic, plan: Plan, bulk: bool, sourced: bool) -> Item {
        let nonce = self.0.ledger.intend_event(topic, plan, bulk);
        let mut body = json!({"key": topic.key(), "payload": load::input(&mut self.0.dice, nonce)});
        if sourced {
            (body["source"], body["source_id"]) = (SOURCE.into(), nonce.to_string().into());
        }
        Item { nonce, body, sourced, may_exist: false, wrong: topic == Topic::Wrong }
    }

    /// Pushes until each has an outcome, or must not be sent again.
    async fn settle(&mut self, mut items: Vec<Item>, bulk: bool, size: Size) {
        let mut taken = Vec::new();
        while !items.is_empty() {
            let outcomes = if bulk { self.push_all(&items).await } else { vec![self.push(&items[0]).await] };
            let mut open = Vec::new();
            for (mut item, outcome) in std::mem::take(&mut items).into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Taken(event) => {
                        self.take(&item, &event);
                        taken.push((item, event));
                    }
                    Outcome::Wrong => {
                        self.0.ledger.push_refused(item.nonce);
                        if !item.wrong {
                            self.0.ledger.surprise(format!("a right event is called wrong: {}", item.body));
                        }
                    }
                    // A source that gives up: an event that was never accepted must not exist. Others send again.
                    Outcome::Refused if !item.may_exist && (!item.sourced || self.0.dice.below(4) == 0) => {
                        self.0.ledger.push_refused(item.nonce);
                    }
                    Outcome::Refused | Outcome::Unknown if !item.sourced => {}
                    Outcome::Refused => open.push(item),
                    Outcome::Unknown => {
                        item.may_exist = true;
                        open.push(item);
                    }
                }
            }
            items = open;
            if !items.is_empty() {
                self.0.pause(50, 150).await;
            }
        }
        self.afterwards(taken, size).await;
    }

    /// Some sources forget that they were answered; some runs are cancelled.
    async fn afterwards(&mut self, taken: Vec<(Item, Value)>, size: Size) {
        for (item, event) in taken {
            if item.sourced
                && self.0.dice.below(6) == 0
                && let Outcome::Taken(again) = self.push(&item).await
            {
                self.take(&item, &again);
                if again["deduplicated"] != true {
                    self.0.ledger.surprise(format!("an event that was taken is new again: {again}"));
                }
            }
            let run = runs(&event).next().filter(|_| self.0.dice.below(size.cancels) == 0);
            if let Some(run) = run {
                self.0.cancel(run).await;
            }
        }
    }

    fn take(&self, item: &Item, event: &Value) {
        match event["id"].as_str() {
            Some(id) => self.0.ledger.pushed(item.nonce, id, runs(event)),
            None => self.0.ledger.surprise(format!("a push answered {event}")),
        }
    }

    async fn push(&self, item: &Item) -> Outcome {
        self.0.ledger.sends(item.nonce);
        match self.0.post("/v1/events", None, &item.body).await {
            Answer::Ok(event) => Outcome::Taken(event),
            Answer::Refused => Outcome::Refused,
            Answer::Unknown => Outcome::Unknown,
            Answer::Conflict(code) => {
                self.0.ledger.surprise(format!("the same event conflicts with itself: {code}"));
                Outcome::Unknown
            }
        }
    }

    async fn push_all(&self, items: &[Item]) -> Vec<Outcome> {
        for item in items {
            self.0.ledger.sends(item.nonce);
        }
        let bodies: Vec<_> = items.iter().map(|item| &item.body).collect();
        let all = |outcome: fn() -> Outcome| items.iter().map(|_| outcome()).collect();
        match self.0.post("/v1/events/bulk", None, &json!({"events": bodies})).await {
            Answer::Ok(mut answer) => {
                let results = answer["results"].as_array_mut().map(std::mem::take).unwrap_or_default();
                if results.len() != items.len() {
                    self.0.ledger.surprise(format!("{} events in bulk have {} outcomes", items.len(), results.len()));
                    return all(|| Outcome::Unknown);
                }
                results.into_iter().map(|result| self.outcome(result)).collect()
            }
            Answer::Refused => all(|| Outcome::Refused),
            Answer::Unknown => all(|| Outcome::Unknown),
            Answer::Conflict(code) => {
                self.0.ledger.surprise(format!("a bulk of events conflicts: {code}"));
                all(|| Outcome::Unknown)
            }
        }
    }

    fn outcome(&self, mut result: Value) -> Outcome {
        if result["event"].is_object() {
            return Outcome::Taken(result["event"].take());
        }
        match result["problem"]["code"].as_str() {
            Some("unavailable" | "too_many_requests") => Outcome::Refused,
            Some("outcome_unknown") => Outcome::Unknown,
            Some("invalid_field") => Outcome::Wrong,
            _ => {
                self.0.ledger.surprise(format!("an event of a bulk was answered {result}"));
                Outcome::Unknown
            }
        }
    }
}

fn runs(event: &Value) -> impl Iterator<Item = String> + '_ {
    event["runs"].as_array().into_iter().flatten().filter_map(|run| run.as_str().map(str::to_owned))
}
