//! Settings as typed values. They are read from flags and environment in `cli` only.

use std::net::SocketAddr;
use std::time::Duration;

use helve_domain::limits::Limits;
use helve_domain::secret::Secret;
use helve_domain::trace::Sampler;
use helve_postgres::Database;

/// Everything that a running engine needs to know.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Config {
    /// Where PostgreSQL is.
    pub database: Database,
    /// Where to listen.
    pub http: Http,
    /// What clients may send.
    pub limits: Limits,
    /// How runs are given to workers.
    pub scheduling: Scheduling,
    /// How long things are kept.
    pub retention: Retention,
    /// Where traces go.
    pub traces: Traces,
    /// Fence every other node at the start instead of waiting until its lease has run out. Only safe
    /// where no other engine can be alive: `helve dev` with its private database.
    pub takeover: bool,
}

/// The HTTP entry.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Http {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Host and port at which other engines on the same database reach this one; `None`: where it listens, or, if that
    /// is everywhere, the address that the database sees.
    pub advertise: Option<String>,
    /// Connections at once, sockets included.
    pub connections: usize,
    /// Files for connections, those of clients and those to other engines: what the system allows.
    #[serde(skip)]
    pub places: usize,
    /// How long a stop waits for requests and workers before it cuts them.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub drain: Duration,
    /// Worker sockets that one tenant may hold; one more is closed with 4429.
    pub sockets_per_tenant: usize,
    /// Event streams that one tenant may read at once; one more is refused with 429.
    pub streams_per_tenant: usize,
    /// Values of `Origin` that may open a worker socket, compared exactly. Empty: no browser may.
    pub origins: Vec<String>,
    /// Who may ask for the figures of the engine.
    pub metrics: MetricsAccess,
}

/// Who may read `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricsAccess {
    /// Everybody who reaches the port.
    Open,
    /// Who has a token with the scope `admin`.
    Token,
    /// Nobody.
    Off,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7733)),
            advertise: None,
            connections: 20_000,
            places: 1_000_000,
            drain: Duration::from_secs(10),
            sockets_per_tenant: 20_000,
            streams_per_tenant: 200,
            origins: Vec::new(),
            metrics: MetricsAccess::Token,
        }
    }
}

/// How runs are given to workers.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Scheduling {
    /// Off: every trigger is written queued and taken by the polling scheduler.
    pub optimistic: bool,
    /// Uncommitted optimistic assignments of the process; past it a trigger is written queued.
    pub optimistic_slots: usize,
    /// Queued runs of one action that memory holds; the rest waits in the database.
    pub window: usize,
    /// Triggers that wait for a commit, over all tenants; past it a trigger is refused with 429.
    pub pending: usize,
    /// How long a lost worker keeps its attempts.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub grace: Duration,
    /// An assignment that was not confirmed is sent again after this time, and after twice of it; after
    /// three times of it, it is taken back.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub ack: Duration,
    /// How long a cancelled or timed-out attempt may hold its slot.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub cancel_grace: Duration,
    /// Times that a run may be taken back from lost workers before it fails as `worker_lost`.
    pub redeliveries: i32,
    /// Silence on a socket after which the worker counts as gone.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub silence: Duration,
    /// What workers are told as the longest time between two frames.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub heartbeat: Duration,
    /// How long one node's lease lasts without renewal.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub lease: Duration,
}

impl Default for Scheduling {
    fn default() -> Self {
        Self {
            optimistic: true,
            optimistic_slots: 1_000,
            window: 4_096,
            pending: 20_000,
            grace: Duration::from_secs(15),
            ack: Duration::from_secs(2),
            cancel_grace: Duration::from_secs(5),
            redeliveries: 25,
            silence: Duration::from_secs(25),
            heartbeat: Duration::from_secs(10),
            lease: Duration::from_secs(4),
        }
    }
}

/// How long things are kept.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Retention {
    /// Finished runs and events. Whole weeks are dropped, so a run may stay a week longer.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub history: Duration,
    /// Idempotency keys.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub idempotency: Duration,
    /// Bulk jobs with their outcomes, after their end.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub jobs: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3_600);
        Self { history: day * 30, idempotency: day, jobs: day * 7 }
    }
}

/// Where traces go. Without an endpoint nothing is recorded.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Traces {
    /// The URL to which spans are posted, with its path.
    pub endpoint: Option<String>,
    /// Headers of these requests.
    pub headers: Vec<(String, Secret)>,
    /// How long a collector may take for one batch.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub timeout: Duration,
    /// What the engine calls itself.
    pub service_name: String,
    /// What else is said of it.
    pub resource: Vec<(String, String)>,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// Finished spans that wait; one more is dropped.
    pub queue: usize,
    /// Spans of one batch.
    pub batch: usize,
    /// How long a finished span waits for others.
    #[serde(serialize_with = "helve_domain::duration::as_text")]
    pub delay: Duration,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            service_name: "helve".to_owned(),
            resource: Vec::new(),
            sampler: Sampler::default(),
            queue: 16_384,
            batch: 512,
            delay: Duration::from_secs(5),
        }
    }
}
