//! Clients that trigger runs, cancel some of them, and record what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use helve_client::Http;
use helve_domain::error::Result;
use helve_supervisor::Supervisor;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::caller::Caller;
use super::ledger::plays::{ACTION, PAIR, PARK_RETRIES, PARKING, PAUSING, Required, ZONED};
use super::ledger::{Kind, Ledger, Nonce, Plan};
use super::players::{Events, Parks, Pauses};
use super::rig::Size;
use super::{failure, start};

/// How long a client waits for an answer. Longer than the engine waits for a commit.
const ANSWER: Duration = Duration::from_secs(12);

/// Running clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<oneshot::Receiver<()>>,
}

/// Numbers that look random and are the same each time: SplitMix64.
pub struct Dice(u64);

impl Dice {
    /// A separate sequence for each seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// From 0 to below `n`.
    pub const fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Registers the load's workflows, all of one action: unless runs are to be parked, the retries suffice for every plan,
/// and follow quickly.
///
/// # Errors
/// `Internal` if the engine refuses one.
pub async fn register(http: &Http) -> Result<()> {
    let retries = json!({"count": 8, "base": "50ms", "factor": 1, "jitter": true});
    let parks = json!({"count": PARK_RETRIES, "base": "20ms", "jitter": false, "on_exhausted": "park"});
    let Required { key, value } = Required::BY_WORKFLOW;
    let zone = json!([{"key": key, "op": "eq", "value": value}]);
    let all = [
        (ACTION, &retries, json!([]), json!(["load.*"])),
        (PAIR, &retries, json!([]), json!(["load.two"])),
        (PARKING, &parks, json!([]), json!([])),
        (PAUSING, &retries, json!([]), json!([])),
        (ZONED, &retries, zone, json!([])),
    ];
    for (name, retries, labels, events) in all {
        let task = json!({"name": name, "action": ACTION, "execution_timeout": "60s", "retries": retries,
                          "labels": labels});
        let workflow = json!({"tasks": [task], "events": events});
        let answer = http.put(&format!("/v1/workflows/{name}"), workflow.to_string()).await?;
        if !answer.status.is_success() {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(failure(format!("the load's workflow {name} was answered {}: {text}", answer.status)));
        }
    }
    Ok(())
}

/// What the task does in a run: most succeed, some after failures.
pub fn plan(dice: &mut Dice) -> Plan {
    match dice.below(20) {
        0 => Plan::SucceedAfter(2),
        1 | 2 => Plan::SucceedAfter(1),
        3 => Plan::FailForGood,
        _ => Plan::SucceedAfter(0),
    }
}

/// The input of a run with this mark.
pub fn input(dice: &mut Dice, nonce: Nonce) -> Value {
    let mut input = json!({"n": nonce, "work_ms": dice.below(40)});
    if dice.below(20) == 0 {
        // Too large to be stored in the row.
        input["padding"] = "x".repeat(2_000).into();
    }
    input
}

impl Load {
    /// Starts clients.
    pub fn start(http: &Http, ledger: &Ledger, size: &Size, supervisor: &Supervisor) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let caller =
            |seed: u64| Caller { http: http.with_timeout(ANSWER), ledger: ledger.clone(), dice: Dice::new(seed + 1) };
        let client = |seed| start(supervisor, "load client", Client(caller(seed)).run(Arc::clone(&stop), *size));
        let mut clients: Vec<_> = (0..size.clients).map(client).collect();
        let (events, parks, pauses) = (Events(caller(1_001)), Parks(caller(1_002)), Pauses(caller(1_003)));
        clients.push(start(supervisor, "load events", events.run(Arc::clone(&stop), *size)));
        clients.push(start(supervisor, "load parks", parks.run(Arc::clone(&stop), *size)));
        clients.push(start(supervisor, "load pauses", pauses.run(Arc::clone(&stop), *size)));
        Self { clients, stop }
    }

    /// Lets every client finish what it insists on, and ends them.
    ///
    /// # Errors
    /// `Internal` when one of them broke.
    pub async fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.map_err(|_| failure("a client of the load broke: its ledger is not whole"))?;
        }
        Ok(())
    }
}

struct Client(Caller);

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>, size: Size) {
        let pause = u64::try_from(size.pause.as_millis()).unwrap_or(0);
        while !stop.load(Ordering::Relaxed) {
            let kind = if self.0.dice.below(2) == 0 { Kind::Keyed } else { Kind::Plain };
            let run = self.create(kind).await;
            if let Some(run) = run.filter(|_| self.0.dice.below(size.cancels) == 0) {
                self.0.cancel(run).await;
            }
            self.0.pause(pause / 2, pause).await;
        }
    }

    async fn create(&mut self, kind: Kind) -> Option<String> {
        let dice = &mut self.0.dice;
        let plan = plan(dice);
        let (workflow, requires, by_run) = match dice.below(12) {
            0 => (ZONED, Some(Required::BY_WORKFLOW), false),
            1 | 2 => (ACTION, Some(Required::number(dice.below(4))), true),
            _ => (ACTION, None, false),
        };
        let nonce = self.0.ledger.intend_on(kind, plan, requires);
        let mut body = json!({"workflow": workflow, "input": input(dice, nonce), "priority": 1 + dice.below(4)});
        if dice.below(10) == 0 {
            body["delay"] = "200ms".into();
        }
        if let Some(Required { key, value }) = requires.filter(|_| by_run) {
            body["labels"] = json!([{"key": key, "op": "eq", "value": value}]);
        }
        let run = self.0.create(kind, nonce, &body).await;
        if kind == Kind::Keyed && run.is_some() && self.0.dice.below(10) == 0 {
            // A caller that forgot the answer.
            self.0.create_keyed(nonce, &body).await;
        }
        run
    }
}
