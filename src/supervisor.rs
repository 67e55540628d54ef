//! Every background task of the process: started, watched, stopped and waited for here.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, Span, error, info_span};

use crate::error::Result;

/// Starts tasks, stops them, and waits for them. Clones share one set of tasks.
#[derive(Clone, Default)]
pub struct Supervisor {
    stopping: CancellationToken,
    /// Set when something without which the process is useless has died.
    fatal: CancellationToken,
    tasks: TaskTracker,
}

/// When a loop runs: at least every `period`, and at once when `wake` is notified.
pub struct Schedule {
    /// What the logs call the loop.
    pub name: &'static str,
    /// The longest time between two passes.
    pub period: Duration,
    /// Brings the next pass forward.
    pub wake: Arc<Notify>,
}

impl Supervisor {
    /// Runs `pass` on `schedule` until shutdown.
    ///
    /// A pass takes no input: it reads the database and does what is due, so it is right after a
    /// restart. A pass that fails or panics is logged and runs again later.
    pub fn every<P, F>(&self, schedule: Schedule, mut pass: P)
    where
        P: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let Schedule { name, period, wake } = schedule;
        let stopping = self.stopping.clone();
        let run = async move {
            let mut tick = interval(period);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    _ = tick.tick() => {}
                    () = wake.notified() => {}
                }
                match AssertUnwindSafe(pass()).catch_unwind().await {
                    Ok(Ok(())) => {}
                    Ok(Err(err)) => error!(error = %err, "pass failed, will run again"),
                    Err(_) => error!("pass panicked, will run again"),
                }
            }
        };
        self.tasks.spawn(run.instrument(info_span!("loop", task = name)));
    }

    /// Runs one task that ends by itself; it must watch [`Supervisor::stopping`]. A panic is logged.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_in(info_span!("task", task = name), task);
    }

    /// As [`Supervisor::spawn`], with a span of its own.
    pub fn spawn_in<F>(&self, span: Span, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(
            async move {
                if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                    error!("task panicked");
                }
            }
            .instrument(span),
        );
    }

    /// Runs a task without which the process is useless: its panic or early end asks the process to
    /// stop, and a restart takes over from the rows.
    pub fn spawn_vital<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (fatal, stopping) = (self.fatal.clone(), self.stopping.clone());
        self.tasks.spawn(
            async move {
                let ended = AssertUnwindSafe(task).catch_unwind().await;
                if ended.is_err() || !stopping.is_cancelled() {
                    error!(panicked = ended.is_err(), "a vital task ended: the process stops");
                    fatal.cancel();
                }
            }
            .instrument(info_span!("task", task = name)),
        );
    }

    /// Asks the process to end, for a reason that was logged.
    pub fn fail(&self) {
        self.fatal.cancel();
    }

    /// Resolves when a vital task has died.
    pub async fn failed(&self) {
        self.fatal.cancelled().await;
    }

    /// Cancelled when the process shuts down.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Tells every task to stop and waits for all of them, at most `grace`. False: some were left.
    pub async fn shut_down(&self, grace: Duration) -> bool {
        self.stopping.cancel();
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }
}
