//! Every background task of the process is started, watched, stopped and waited for here.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use helve_domain::error::{Error, Result};
use tokio::runtime::{self, Handle};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, Span, error, info_span};

/// Starts tasks, stops them, and waits for them. Clones share one set of tasks.
#[derive(Clone)]
pub struct Supervisor {
    stopping: CancellationToken,
    /// Set when a task without which the process is useless has died.
    fatal: CancellationToken,
    tasks: TaskTracker,
    /// The runtime of all tasks that have none of their own, whoever starts them.
    shared: Option<Handle>,
}

impl Default for Supervisor {
    /// Without tasks; they will run on the caller's runtime.
    fn default() -> Self {
        Self {
            stopping: CancellationToken::new(),
            fatal: CancellationToken::new(),
            tasks: TaskTracker::new(),
            shared: Handle::try_current().ok(),
        }
    }
}

/// When a loop runs: at least every `period`, and at once when `wake` is notified.
pub struct Schedule {
    /// The loop's name in the logs.
    pub name: &'static str,
    /// The longest time between two passes.
    pub period: Duration,
    /// Brings the next pass forward.
    pub wake: Arc<Notify>,
}

impl Schedule {
    /// A pass every `period`, and never earlier.
    pub fn of(name: &'static str, period: Duration) -> Self {
        Self { name, period, wake: Arc::new(Notify::new()) }
    }
}

impl Supervisor {
    /// Runs `pass` on `schedule` until shutdown.
    ///
    /// A pass takes no input: it reads the database and does what is due, so it also works after a restart. A pass that
    /// fails or panics is logged and runs again later.
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
        self.start(run.instrument(info_span!("loop", task = name)));
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
        self.start(
            async move {
                if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                    error!("task panicked");
                }
            }
            .instrument(span),
        );
    }

    /// Runs a task without which the process is useless: if it panics or ends early, the process is asked to stop, and
    /// a restart takes over from the rows.
    pub fn spawn_vital<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (fatal, stopping) = (self.fatal.clone(), self.stopping.clone());
        self.start(
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

    /// As [`Supervisor::spawn_vital`], on a thread and a runtime of its own: the task keeps running however long others
    /// occupy the threads of the shared one. What it spawns without a supervisor lives and ends with it.
    ///
    /// # Errors
    /// `Internal` when the system gives no thread.
    pub fn spawn_apart<F>(&self, name: &'static str, task: F) -> Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let no_thread = |e: std::io::Error| Error::Internal(format!("no thread for the {name}: {e}"));
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let (end, ended) = oneshot::channel();
        let task = task.instrument(info_span!("task", task = name));
        let run = move || {
            let ended = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(task)));
            // When the process ends, nobody waits for it any more.
            let _ = end.send(ended.is_ok());
        };
        std::thread::Builder::new().name(format!("helve-{name}")).spawn(run).map_err(no_thread)?;
        self.spawn_vital(name, async move {
            if !ended.await.unwrap_or(false) {
                error!("task panicked");
            }
        });
        Ok(())
    }

    /// Runs `work` on the shared runtime, for callers with a runtime of their own: reads of the pool and what follows
    /// from them.
    ///
    /// # Errors
    /// Those of `work`; `Internal` if it panics.
    pub async fn shared<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        self.start(work).await.unwrap_or_else(|_| Err(Error::Internal("a task panicked".to_owned())))
    }

    fn start<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match &self.shared {
            Some(shared) => self.tasks.spawn_on(task, shared),
            None => self.tasks.spawn(task),
        }
    }

    /// Asks the process to end, for a reason already logged.
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
