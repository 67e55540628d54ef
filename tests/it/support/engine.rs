//! An engine inside the test process, on a database of its own.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Once};
use std::time::Duration;

use helve::app::App;
use helve::config::{Config, Http as HttpConfig, Retention, Scheduling, Traces};
use helve::db::Pool;
use helve::housekeeping::history::Sweep;
use helve::ops::tokens::NewToken;
use helve::ops::{tenants, tokens};
use helve::sched::Scheduler;
use helve_domain::clock::Clock;
use helve_domain::id::TenantId;
use helve_domain::limits::Limits;
use helve_domain::scope::Scopes;
use helve_postgres::Database;
use serde_json::{Value, json};

use super::cluster::{fresh_database, sql};
use super::http::Http;
use super::worker::{self, Worker};

/// Starts an engine that differs from the default.
pub struct Builder {
    scheduling: Scheduling,
    limits: Limits,
    http: HttpConfig,
    retention: Retention,
    traces: Traces,
    clock: Clock,
}

/// A running engine with one tenant and an admin token. It is also an [`Http`] client of itself.
pub struct Engine {
    /// `http://127.0.0.1:port`.
    pub url: String,
    /// An admin token of `tenant`.
    pub token: String,
    /// The tenant of the token.
    pub tenant: TenantId,
    /// The engine's database, for the operations behind the interface.
    pub pool: Pool,
    /// Where the database is.
    pub database: String,
    /// What the engine was started with.
    pub config: Config,
    /// Its time, which may be stepped.
    pub clock: Clock,
    http: Http,
    app: Option<App>,
}

/// A tenant with an admin token. It is also an [`Http`] client.
pub struct Tenant {
    /// The tenant.
    pub id: TenantId,
    /// Its admin token.
    pub token: String,
    http: Http,
}

impl Deref for Engine {
    type Target = Http;
    fn deref(&self) -> &Http {
        &self.http
    }
}

impl Deref for Tenant {
    type Target = Http;
    fn deref(&self) -> &Http {
        &self.http
    }
}

/// An engine with every default.
pub async fn engine() -> Engine {
    Builder::new().start().await
}

/// A worker named `test` with the engine's token: connected, welcomed.
pub async fn worker(engine: &Engine, actions: &[&str], slots: u32) -> Worker {
    Worker::connect(&engine.url, &engine.token, worker::hello("test", actions, slots)).await
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Every default, on a free port, and quick to stop.
    pub fn new() -> Self {
        Self {
            scheduling: Scheduling::default(),
            limits: Limits::default(),
            http: HttpConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                drain: Duration::from_secs(2),
                ..HttpConfig::default()
            },
            retention: Retention::default(),
            traces: Traces::default(),
            clock: Clock::system(),
        }
    }

    /// Optimistic scheduling on or off.
    #[must_use]
    pub const fn optimistic(mut self, on: bool) -> Self {
        self.scheduling.optimistic = on;
        self
    }

    /// Changes the scheduling.
    #[must_use]
    pub fn scheduling(mut self, change: impl FnOnce(&mut Scheduling)) -> Self {
        change(&mut self.scheduling);
        self
    }

    /// Changes the limits.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Changes the HTTP entry.
    #[must_use]
    pub fn http(mut self, change: impl FnOnce(&mut HttpConfig)) -> Self {
        change(&mut self.http);
        self
    }

    /// Changes how long things are kept.
    #[must_use]
    pub fn retention(mut self, change: impl FnOnce(&mut Retention)) -> Self {
        change(&mut self.retention);
        self
    }

    /// Changes where traces go.
    #[must_use]
    pub fn traces(mut self, change: impl FnOnce(&mut Traces)) -> Self {
        change(&mut self.traces);
        self
    }

    /// Starts the engine on a fresh database.
    pub async fn start(self) -> Engine {
        let database = fresh_database().await;
        self.on(&database).await
    }

    /// Starts the engine on a migrated database.
    pub async fn on(self, database: &str) -> Engine {
        show_logs();
        let database = database.to_owned();
        let config = Config {
            database: Database::at(&database),
            http: self.http,
            limits: self.limits,
            scheduling: self.scheduling,
            retention: self.retention,
            traces: self.traces,
            takeover: true,
        };
        let pool = Pool::new(&Database { pool_size: 2, ..config.database.clone() }).unwrap();
        let (tenant, token) = provision(&pool, "test").await;
        let clock = self.clock;
        let app = App::start(config.clone(), clock.clone()).await.expect("the engine starts");
        let url = format!("http://{}", app.address);
        let http = Http::new(&url, Some(&token));
        ready(&http).await;
        Engine { url, token, tenant, pool, database, config, clock, http, app: Some(app) }
    }
}

impl Engine {
    /// The scheduler of the running engine.
    pub fn scheduler(&self) -> &Scheduler {
        self.app.as_ref().unwrap().scheduler()
    }

    /// Another engine on the same database, with the same tenant and token. Does not wait until it is ready.
    pub async fn beside(&self, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { takeover: false, ..self.config.clone() };
        change(&mut config);
        let clock = self.clock.clone();
        let app = App::start(config.clone(), clock.clone()).await.expect("the engine starts");
        let url = format!("http://{}", app.address);
        let http = Http::new(&url, Some(&self.token));
        let pool = Pool::new(&Database { pool_size: 2, ..config.database.clone() }).unwrap();
        let (token, database) = (self.token.clone(), self.database.clone());
        Self { url, token, tenant: self.tenant, pool, database, config, clock, http, app: Some(app) }
    }

    /// What deletes its old runs, to be driven by hand.
    pub fn sweep(&self) -> Sweep {
        Sweep::new(self.pool.clone(), Arc::default())
    }

    /// Another tenant of the same engine.
    pub async fn second_tenant(&self) -> Tenant {
        let (id, token) = provision(&self.pool, &format!("second-{}", Clock::system().now().micros())).await;
        Tenant { id, http: self.http.with_token(Some(&token)), token }
    }

    /// A token of the engine's tenant with these scopes, separated by commas.
    pub async fn token_with(&self, scopes: &str) -> String {
        new_token(&self.pool, self.tenant, scopes).await
    }

    /// A client of this engine.
    pub fn client(&self) -> Http {
        self.http.clone()
    }

    /// A SQL connection to the engine's database.
    pub async fn sql(&self) -> tokio_postgres::Client {
        sql(&self.database).await
    }

    /// Registers a workflow with one task of the same name and action.
    pub async fn workflow(&self, name: &str) {
        self.workflow_with(name, json!({})).await;
    }

    /// Registers a workflow with one task; `options` are more fields of the task.
    pub async fn workflow_with(&self, name: &str, options: Value) {
        let mut task = json!({"name": name, "action": name});
        task.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let (status, body) = self.put(&format!("/v1/workflows/{name}"), json!({"tasks": [task]})).await;
        assert_eq!(status, 200, "{body}");
    }

    /// Triggers a run; gives it as the answer shows it.
    pub async fn trigger(&self, workflow: &str, input: Value) -> Value {
        let (status, run) = self.post("/v1/runs", json!({"workflow": workflow, "input": input})).await;
        assert_eq!(status, 201, "{run}");
        run
    }

    /// A run as it stands now.
    pub async fn run(&self, id: &Value) -> Value {
        let (status, run) = self.get(&format!("/v1/runs/{}", id.as_str().unwrap())).await;
        assert_eq!(status, 200, "{run}");
        run
    }

    /// Waits until the run has this status; gives it.
    pub async fn run_is(&self, id: &Value, status: &str) -> Value {
        super::until(&format!("{id} is {status}"), || async {
            let run = self.run(id).await;
            (run["status"] == status).then_some(run)
        })
        .await
    }

    /// Bytes of memory that tenants' requests hold, and how many tenants hold any.
    pub fn held(&self) -> (usize, usize) {
        self.app.as_ref().map_or((0, 0), App::held)
    }

    /// Stops the engine as an operator would.
    pub async fn stop(mut self) {
        if let Some(app) = self.app.take() {
            app.stop().await;
        }
    }

    /// Stops the engine and starts another on the same database, on another port.
    pub async fn restart(self) -> Self {
        self.restart_at(Clock::system()).await
    }

    /// As [`Engine::restart`], with another clock.
    pub async fn restart_at(mut self, clock: Clock) -> Self {
        if let Some(app) = self.app.take() {
            app.stop().await;
        }
        self.clock = clock;
        let app = App::start(self.config.clone(), self.clock.clone()).await.expect("the engine starts again");
        self.url = format!("http://{}", app.address);
        self.http = Http::new(&self.url, Some(&self.token));
        ready(&self.http).await;
        self.app = Some(app);
        self
    }
}

impl Drop for Engine {
    /// A broken promise fails the test that is closest to it.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(helve_domain::error::broken_invariants(), 0, "soft invariants were broken: see the log");
        }
    }
}

/// Waits until the engine owns its shards.
async fn ready(http: &Http) {
    super::until("the engine is ready", || async { (http.get("/readyz").await.0 == 200).then_some(()) }).await;
}

/// A new tenant with an admin token.
pub async fn provision(pool: &Pool, name: &str) -> (TenantId, String) {
    let tenant = tenants::ensure(pool, &Clock::system(), name).await.unwrap();
    let token = new_token(pool, tenant.id, "admin").await;
    (tenant.id, token)
}

async fn new_token(pool: &Pool, tenant: TenantId, scopes: &str) -> String {
    let new = NewToken {
        name: "test".to_owned(),
        scopes: Scopes::parse(scopes).unwrap(),
        expires_in: Some(Duration::from_secs(3_600)),
    };
    let (_, secret) = tokens::create(pool, &Clock::system(), tenant, new).await.unwrap();
    secret.reveal().to_owned()
}

/// The engine's logs go where the test's output goes: shown when it fails. `HELVE_LOG` filters them.
fn show_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = std::env::var("HELVE_LOG").unwrap_or_else(|_| "warn".to_owned());
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_ansi(false)
            .with_test_writer()
            .try_init();
    });
}
