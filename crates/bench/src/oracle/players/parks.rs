//! Runs that fail until they are parked, and are unparked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::time::timeout;

use crate::oracle::caller::{Answer, Caller, INSIST};
use crate::oracle::ledger::plays::PARKING;
use crate::oracle::ledger::{Kind, Plan};
use crate::oracle::rig::Size;

/// A client that parks and unparks.
pub struct Parks(pub Caller);

impl Parks {
    /// Plays until it is told to stop.
    pub async fn run(mut self, stop: Arc<AtomicBool>, size: Size) {
        let pause = u64::try_from(size.pause.as_millis()).unwrap_or(0);
        let mut round = 0_u32;
        while !stop.load(Ordering::Relaxed) {
            let plan = if round.is_multiple_of(4) { Plan::LeftParked } else { Plan::Parked };
            round += 1;
            // A round that does not end leaves a run open, or parked against its plan: the verdict names it.
            self.round(plan).await;
            self.0.pause(pause / 2, pause).await;
        }
    }

    async fn round(&mut self, plan: Plan) -> Option<()> {
        let nonce = self.0.ledger.intend(Kind::Keyed, plan);
        let body = json!({"workflow": PARKING, "input": {"n": nonce, "work_ms": self.0.dice.below(10)}});
        let run = self.0.create_keyed(nonce, &body).await?;
        self.parked(&run).await?;
        self.0.pause(0, 100).await;
        timeout(INSIST, self.unpark(&run)).await.ok()?;
        if plan == Plan::LeftParked {
            self.parked(&run).await?;
        }
        Some(())
    }

    /// Waits until the run is parked.
    async fn parked(&mut self, run: &str) -> Option<()> {
        let path = format!("/v1/runs/{run}");
        let asking = async {
            loop {
                if self.0.read(&path).await?["status"] == "parked" {
                    return Some(());
                }
                self.0.pause(20, 20).await;
            }
        };
        timeout(INSIST, asking).await.ok()??;
        self.0.ledger.seen_parked(run);
        Some(())
    }

    /// Unparks the run; a conflict after a lost answer means that it was unparked.
    async fn unpark(&mut self, run: &str) {
        let path = format!("/v1/runs/{run}/unpark");
        let mut may_be_done = false;
        self.0.ledger.asks_unpark(run);
        loop {
            match self.0.post(&path, None, &json!({})).await {
                Answer::Ok(_) => return self.0.ledger.unparked(run),
                Answer::Conflict(code) if code == "not_parked" && may_be_done => return self.0.ledger.unparked(run),
                Answer::Conflict(code) => {
                    return self.0.ledger.surprise(format!("an unpark of {run}, which is parked, conflicts: {code}"));
                }
                Answer::Unknown => may_be_done = true,
                Answer::Refused => {}
            }
            self.0.pause(50, 150).await;
        }
    }
}
