//! Outboxes: what the scheduler says to a worker, bounded, until the worker's socket has written it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use helve_domain::delivery::{Assignment, Outgoing};
use tokio::sync::Notify;

use crate::share::Held;

/// Frames of tasks that may wait for one socket.
const MAX_FRAMES: usize = 256;
/// Bytes of payload that may wait for one socket.
const MAX_BYTES: usize = 8 << 20;
/// Bytes by which the tenant's account is changed: small tasks come and go without it.
const STEP: usize = 64 << 10;
/// Control messages that may wait for one socket; past it the socket is beyond help.
const MAX_CONTROL: usize = 16_384;

/// The scheduler's end. Clones share one queue.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

/// The socket's end.
pub struct Inbox(Arc<Shared>);

struct Shared {
    queues: Mutex<Queues>,
    wake: Notify,
}

struct Queues {
    control: VecDeque<Outgoing>,
    tasks: VecDeque<Vec<Assignment>>,
    bytes: usize,
    /// `bytes` on the tenant's account, in steps: an outbox with little in it counts nothing.
    held: Held,
    /// The scheduler was told that there is no room, and waits to hear of some.
    full: bool,
    closed: bool,
}

/// Whether more may be assigned to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// More fits.
    Yes,
    /// Assign nothing until the socket reports that it has caught up.
    No,
    /// The socket is gone.
    Gone,
}

/// A connected pair. What waits in it is counted by `held`.
pub fn outbox(held: Held) -> (Outbox, Inbox) {
    let (control, tasks) = (VecDeque::new(), VecDeque::new());
    let queues = Queues { control, tasks, bytes: 0, held, full: false, closed: false };
    let shared = Arc::new(Shared { queues: Mutex::new(queues), wake: Notify::new() });
    (Outbox(Arc::clone(&shared)), Inbox(shared))
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    fn holds(&mut self, bytes: usize) {
        self.bytes = bytes;
        self.held.set(bytes / STEP * STEP);
    }

    fn over(&self) -> bool {
        self.tasks.len() >= MAX_FRAMES || self.bytes >= MAX_BYTES || self.control.len() >= MAX_CONTROL
    }
}

fn size(tasks: &[Assignment]) -> usize {
    tasks.iter().map(|t| t.input.len() + t.metadata.len() + 256).sum()
}

impl Outbox {
    /// Queues one message. Nothing is dropped: a full outbox says so, and the sender stops assigning.
    pub fn push(&self, message: Outgoing) -> Room {
        let room = {
            let mut q = self.0.lock();
            if q.closed {
                return Room::Gone;
            }
            match message {
                Outgoing::Assign(tasks) => {
                    let bytes = q.bytes + size(&tasks);
                    q.holds(bytes);
                    q.tasks.push_back(tasks);
                }
                control => q.push_control(control),
            }
            if q.over() {
                q.full = true;
                Room::No
            } else {
                Room::Yes
            }
        };
        self.0.wake.notify_one();
        room
    }

    /// Whether the socket is gone: nobody reads what is pushed.
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
}

impl Queues {
    /// Neighbouring confirmations become one frame.
    fn push_control(&mut self, message: Outgoing) {
        match (self.control.back_mut(), message) {
            (Some(Outgoing::Stored(last)), Outgoing::Stored(more)) if last.len() < 1_000 => last.extend(more),
            (Some(Outgoing::Superseded(last)), Outgoing::Superseded(more)) if last.len() < 1_000 => last.extend(more),
            (_, message) => self.control.push_back(message),
        }
    }
}

/// What the socket should write next.
pub struct Next {
    /// The message.
    pub message: Outgoing,
    /// True: the outbox was full and now has room; the scheduler must hear of it.
    pub caught_up: bool,
}

impl Inbox {
    /// The next message, control ahead of tasks. Cancel-safe.
    pub async fn next(&mut self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.0.wake.notified().await;
        }
    }

    /// The next message if one waits.
    pub fn try_next(&mut self) -> Option<Next> {
        let mut q = self.0.lock();
        let message = match q.control.pop_front() {
            Some(control) => control,
            None => {
                let tasks = q.tasks.pop_front()?;
                let bytes = q.bytes.saturating_sub(size(&tasks));
                q.holds(bytes);
                Outgoing::Assign(tasks)
            }
        };
        let low = q.tasks.len() <= MAX_FRAMES / 2 && q.bytes <= MAX_BYTES / 2 && q.control.len() <= MAX_CONTROL / 2;
        let caught_up = q.full && low;
        if caught_up {
            q.full = false;
        }
        Some(Next { message, caught_up })
    }

    /// Whether so much waits that the socket should not be read either.
    pub fn is_full(&self) -> bool {
        self.0.lock().over()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut q = self.0.lock();
        q.closed = true;
        // The scheduler's end may live on for a while.
        q.tasks.clear();
        q.holds(0);
    }
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Timestamp;
    use helve_domain::delivery::{Attempt, Reason};
    use helve_domain::id::{RunId, TenantId};
    use helve_domain::json::Payload;
    use helve_domain::status::RunStatus;

    use super::*;
    use crate::share::Shares;

    fn held() -> Held {
        Shares::new(1 << 20).count(TenantId::generate(Timestamp::from_micros(1)), 0)
    }

    fn attempt() -> Attempt {
        Attempt { run: RunId::generate(Timestamp::from_micros(1)), number: 1 }
    }

    fn task() -> Assignment {
        Assignment {
            attempt: attempt(),
            workflow: "w".into(),
            action: "a".into(),
            input: Payload::null(),
            metadata: Payload::null(),
            timeout: std::time::Duration::from_secs(1),
            traceparent: None,
        }
    }

    #[test]
    fn control_overtakes_tasks_and_confirmations_merge() {
        let (tx, mut rx) = outbox(held());
        tx.push(Outgoing::Assign(vec![task()]));
        tx.push(Outgoing::Stored(vec![(attempt(), RunStatus::Succeeded)]));
        tx.push(Outgoing::Stored(vec![(attempt(), RunStatus::Failed)]));
        tx.push(Outgoing::Superseded(vec![(attempt(), Reason::Timeout)]));
        assert!(matches!(rx.try_next().unwrap().message, Outgoing::Stored(s) if s.len() == 2));
        assert!(matches!(rx.try_next().unwrap().message, Outgoing::Superseded(_)));
        assert!(matches!(rx.try_next().unwrap().message, Outgoing::Assign(_)));
        assert!(rx.try_next().is_none());
    }

    #[test]
    fn a_full_outbox_says_so_and_later_that_it_caught_up() {
        let (tx, mut rx) = outbox(held());
        let rooms: Vec<_> = (0..MAX_FRAMES).map(|_| tx.push(Outgoing::Assign(vec![task()]))).collect();
        assert_eq!(rooms.iter().filter(|r| **r == Room::No).count(), 1);
        let caught_up: Vec<_> = std::iter::from_fn(|| rx.try_next()).map(|n| n.caught_up).collect();
        assert_eq!(caught_up.len(), MAX_FRAMES);
        assert_eq!(caught_up.iter().filter(|c| **c).count(), 1);
        drop(rx);
        assert_eq!(tx.push(Outgoing::Assign(vec![task()])), Room::Gone);
    }
}
