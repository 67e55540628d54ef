//! What the entries ask the owner about runs that wait: pauses, and why.

use helve_domain::error::{Error, Result};
use helve_domain::pause::Paused;
use helve_domain::why::Why;
use tokio::sync::oneshot;

use super::{PauseOrder, Request, Scheduler, WhyQuery};

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
        self.look(Request::Why { asked: Box::new(asked), reply }, answer).await?
    }

    /// Asks the owner what changes nothing: an answer that is lost leaves nothing open.
    pub(super) async fn look<T>(&self, request: Request, answer: oneshot::Receiver<T>) -> Result<T> {
        self.ask(request, answer).await.map_err(|e| match e {
            Error::OutcomeUnknown => Error::unavailable("the scheduler did not answer in time"),
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Clock;
    use helve_domain::error::Code;
    use helve_domain::id::{NodeId, TenantId};

    use crate::sched::Scheduler;

    #[tokio::test]
    async fn a_read_whose_answer_is_lost_leaves_nothing_open() {
        let clock = Clock::system();
        let (scheduler, mut requests) = Scheduler::played(clock.clone(), NodeId::generate(clock.now()));
        let tenant = TenantId::generate(clock.now());
        let lose = async {
            for _ in 0..3 {
                drop(requests.recv().await);
            }
        };
        let reads = async {
            let workers = scheduler.workers(tenant).await.err();
            [workers, scheduler.stats().await.err(), scheduler.action_loads(tenant).await.err()]
        };
        let (errors, ()) = tokio::join!(reads, lose);
        assert_eq!(errors.map(|error| error.unwrap().code()), [Code::Unavailable; 3]);
    }
}
