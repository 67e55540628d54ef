//! Work that goes back: given back by its worker, taken back from it, or due again.

use std::time::Duration;

use helve_domain::clock::Timestamp;
use helve_domain::delivery::{Attempt, Reason};
use helve_domain::id::{RunId, SessionId};
use helve_domain::status::RunStatus;

use crate::state::engine_error;
use crate::state::flight::{Farewell, Note, Placed, Step};
use crate::state::task::{Deferred, Delivery, Phase, TakeBack};
use crate::turn::Turn;
use crate::types::FinishRow;

/// The longest wait before a run that is given back again and again is queued anew.
const MAX_RELEASE_WAIT: Duration = Duration::from_secs(5);

impl Turn<'_> {
    /// Back into the queue without spending a retry. A run that comes back again and again waits longer
    /// each time, so that one worker that refuses it does not spin.
    pub(crate) fn give_back(&mut self, run: RunId, reason: &'static str, note: Note) {
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let retries = task.retries;
        let again = u32::try_from(task.redeliveries()).unwrap_or(0);
        let place = if again == 0 {
            Placed::Queued { expires: task.spec.schedule_timeout.map(|d| self.now.plus(d)), retries }
        } else {
            let wait = Duration::from_millis(10) * 2_u32.saturating_pow(again.min(16));
            Placed::Scheduled { due: self.now.plus(wait.min(MAX_RELEASE_WAIT)), retries }
        };
        self.place(run, place, None, reason, note);
    }

    /// The attempt of a session that is over, or that never got it, goes to another.
    pub(crate) fn take_back(&mut self, run: RunId, session: SessionId, why: TakeBack) {
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let Some(held) = task.held().filter(|h| h.session == session) else {
            return self.let_go_of(session, run);
        };
        if why == TakeBack::Undelivered && held.delivery == Delivery::Received {
            return;
        }
        let attempt = Attempt { run, number: task.attempt };
        let (retries, lost) = (task.retries, task.redeliveries() >= self.shard.settings.redeliveries);
        let expires = task.spec.schedule_timeout.map(|d| self.now.plus(d));
        self.shard.counters.taken_back += 1;
        let note = |farewell| Note { holder: Some((session, attempt, farewell)), ticket: None };
        match why {
            TakeBack::Released => self.give_back(run, "released", note(Farewell::Silent)),
            TakeBack::Lost if lost => {
                let message = format!("its worker was lost {} times", self.shard.settings.redeliveries + 1);
                let error = engine_error("worker_lost", message);
                self.give_up(run, error, Some("worker_lost"), note(Farewell::Silent));
            }
            TakeBack::Lost | TakeBack::Undelivered => {
                let reason = if why == TakeBack::Lost { "worker_lost" } else { "reassigned" };
                let note = note(Farewell::Superseded(Reason::Reassigned));
                self.place(run, Placed::Queued { expires, retries }, None, reason, note);
            }
        }
    }

    /// The timer of a run has fired.
    pub(crate) fn fire(&mut self, run: RunId) {
        let Some(task) = self.shard.tasks.get(&run) else { return };
        match &task.phase {
            Phase::New => {}
            Phase::Scheduled { due } if *due <= self.now => self.due(run),
            Phase::Queued { expires: Some(at) } if *at <= self.now => self.expired(run),
            Phase::Running(held) => match held.delivery {
                Delivery::Sent { .. } => self.unconfirmed(run),
                Delivery::Received if held.deadline.is_some_and(|at| at <= self.now) => self.timed_out(run),
                Delivery::Received => {}
            },
            Phase::Queued { .. } => {
                let key = self.shard.pauses.queue_of(task.tenant, &task.spec);
                self.fill_queue(&key);
            }
            Phase::Scheduled { .. } | Phase::Parked => {}
        }
    }

    /// A scheduled run's time has come: straight to a free slot if nothing is ahead, else into the queue.
    fn due(&mut self, run: RunId) {
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let (key, spec) = (self.shard.pauses.queue_of(task.tenant, &task.spec), task.spec.clone());
        let (entry, tenant, retries) = ((task.rank, run), task.tenant, task.retries);
        if let Some(to) = self.start_of(&key, entry, &spec) {
            let claim = self.claim(run, to);
            self.shard.set_timer(run, None);
            return self.write_changes(tenant, claim.into());
        }
        self.shard.announce(run);
        let expires = spec.schedule_timeout.map(|d| self.now.plus(d));
        self.place_due(run, expires, retries);
    }

    fn place_due(&mut self, run: RunId, expires: Option<Timestamp>, retries: i32) {
        let Some(task) = self.shard.tasks.get(&run) else { return };
        let tenant = task.tenant;
        let row = task.moves(run, task.rests(RunStatus::Queued, expires, retries));
        self.shard.set_timer(run, None);
        let place = Placed::Queued { expires, retries };
        let step = Step::Place { run, place, note: Note::default(), reason: None, code: None };
        self.write_with_consequences(tenant, (FinishRow::Move(Box::new(row)), step), &Note::default());
    }

    /// Everything that a session holds is taken back.
    pub(crate) fn take_all_back(&mut self, session: SessionId, why: TakeBack) {
        let Some(s) = self.shard.sessions.get(&session) else { return };
        let mut held: Vec<RunId> = s.holds.keys().map(|a| a.run).collect();
        held.sort_unstable();
        for run in held {
            if self.shard.tasks.contains_key(&run) {
                self.on_run(run, Deferred::TakeBack { session, reason: why });
            }
        }
    }
}
