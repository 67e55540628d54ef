//! What the entries ask the owner about runs that wait: pauses, and why.

use tokio::sync::oneshot;

use super::{PauseOrder, Request, Scheduler, WhyQuery};
use crate::domain::pause::Paused;
use crate::domain::why::Why;
use crate::error::{Error, Result};

impl Scheduler {
    /// Pauses or resumes: committed when this returns, and after a pause nothing new is assigned. Gives what stands
    /// now: the pause, a gentle start, or nothing.
    pub async fn pause(&self, order: PauseOrder) -> Result<Option<Paused>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Pause { order, reply }, answer).await?
    }

    /// Why a run stands where it stands. `None`: it has moved on since its row was read.
    pub async fn why(&self, asked: WhyQuery) -> Result<Option<Why>> {
        let (reply, answer) = oneshot::channel();
        // Nothing is written: a lost answer is no unknown outcome.
        let why = self.ask(Request::Why { asked: Box::new(asked), reply }, answer).await;
        why.and_then(|why| why).map_err(|e| match e {
            Error::OutcomeUnknown => Error::unavailable("the scheduler did not answer in time"),
            other => other,
        })
    }
}
