//! What the entries ask of the owner.

use std::sync::Arc;
use std::time::Duration;

use helve_domain::delivery::Welcome;
use helve_domain::error::Result;
use helve_domain::id::{RunId, TenantId};
use helve_domain::pause::Paused;
use helve_domain::run::Run;
use helve_domain::why::Why;
use tokio::sync::oneshot;

use super::{Connection, Created, EventCreated, Hello, NewEvent, NewRun, PauseOrder, Stats, WhyQuery, WorkerState};
use crate::hub::Outbox;
use crate::share::Held;

/// One request of an entry, with the way back to who asked.
pub(crate) enum Request {
    Create {
        run: NewRun,
        reply: oneshot::Sender<Result<Created>>,
    },
    CreateMany {
        runs: Vec<NewRun>,
        held: Option<Held>,
        reply: oneshot::Sender<Vec<Result<Created>>>,
    },
    Event {
        event: NewEvent,
        reply: oneshot::Sender<Result<EventCreated>>,
    },
    Events {
        events: Vec<NewEvent>,
        reply: oneshot::Sender<Vec<Result<EventCreated>>>,
    },
    Cancel {
        tenant: TenantId,
        run: RunId,
        reply: oneshot::Sender<Result<()>>,
    },
    Unpark {
        tenant: TenantId,
        run: RunId,
        reply: oneshot::Sender<Result<()>>,
    },
    Pause {
        order: PauseOrder,
        reply: oneshot::Sender<Result<Option<Paused>>>,
    },
    Why {
        asked: Box<WhyQuery>,
        reply: oneshot::Sender<Result<Option<Why>>>,
    },
    Watch {
        tenant: TenantId,
        run: RunId,
        reply: oneshot::Sender<Arc<Run>>,
    },
    Connect {
        hello: Hello,
        transport: u64,
        outbox: Outbox,
        reply: oneshot::Sender<Result<(Welcome, Connection)>>,
    },
    /// Nobody waits for the answer to this socket's hello any more.
    Gone {
        transport: u64,
    },
    Worker {
        from: Connection,
        message: helve_domain::delivery::Incoming,
    },
    Snapshot {
        tenant: TenantId,
        reply: oneshot::Sender<Vec<WorkerState>>,
    },
    Stats {
        reply: oneshot::Sender<Stats>,
    },
    Measure(crate::sched::owner::gauges::Question),
    Drain {
        within: Duration,
    },
    Quiesce {
        reply: oneshot::Sender<()>,
    },
}
