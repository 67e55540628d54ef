//! A workflow that is paused, gets runs meanwhile, and is resumed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::oracle::caller::Caller;
use crate::oracle::ledger::plays::PAUSING;
use crate::oracle::ledger::{Kind, Plan};
use crate::oracle::load;
use crate::oracle::rig::Size;

/// A client that pauses and resumes.
pub struct Pauses(pub Caller);

impl Pauses {
    /// Plays until it is told to stop. Nothing stays paused.
    pub async fn run(mut self, stop: Arc<AtomicBool>, size: Size) {
        let pause = u64::try_from(size.pause.as_millis()).unwrap_or(0);
        while !stop.load(Ordering::Relaxed) {
            if self.round(&stop).await.is_none() {
                return self.0.ledger.surprise(format!("{PAUSING} is not paused, or not resumed"));
            }
            self.0.pause(pause, 10 * pause).await;
        }
    }

    async fn round(&mut self, stop: &AtomicBool) -> Option<()> {
        // Some runs that may be queued or running when the pause begins.
        for _ in 0..2 {
            self.create(40).await;
        }
        let why = json!({"reason": "as planned"});
        self.0.insist(&format!("/v1/workflows/{PAUSING}/pause"), None, &why).await?;
        self.0.ledger.paused();
        for _ in 0..2 {
            if self.create(0).await.is_some() {
                self.0.ledger.waits();
            }
        }
        // Some pauses last longer than a killed engine needs to restart.
        let length = if self.0.dice.below(3) == 0 { 4_000 } else { 300 };
        for _ in 0..length / 50 {
            if !stop.load(Ordering::Relaxed) {
                self.0.pause(50, 0).await;
            }
        }
        let how = if self.0.dice.below(2) == 0 { json!({}) } else { json!({"rate": 50}) };
        self.0.ledger.resumes();
        self.0.insist(&format!("/v1/workflows/{PAUSING}/resume"), None, &how).await.map(drop)
    }

    async fn create(&mut self, work_ms: u64) -> Option<String> {
        let plan = match load::plan(&mut self.0.dice) {
            // The next attempt may come during the pause.
            Plan::SucceedAfter(_) => Plan::SucceedAfter(u32::from(self.0.dice.below(3) == 0)),
            other => other,
        };
        let nonce = self.0.ledger.intend(Kind::Keyed, plan);
        let body = json!({"workflow": PAUSING, "input": {"n": nonce, "work_ms": work_ms}});
        self.0.create_keyed(nonce, &body).await
    }
}
