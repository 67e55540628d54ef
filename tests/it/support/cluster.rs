//! One private PostgreSQL for the whole test run, and a fresh migrated database for each engine.
#![expect(clippy::disallowed_methods, reason = "a test's connection lives as long as its test")]

use std::sync::atomic::{AtomicU32, Ordering};

use helve_postgres::Database;
use helve_postgres::cluster::{Cluster, Options};
use tokio::sync::{Mutex, OnceCell, oneshot};
use tokio_postgres::NoTls;

/// The database that is copied for each engine.
const TEMPLATE: &str = "helve_template";

/// What a test needs to know of the shared server: the server itself belongs to a thread of its own,
/// because a test's runtime ends with its test.
struct Shared {
    cluster: Cluster,
    /// Two copies of one template at once get in each other's way.
    copying: Mutex<()>,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();
static NAMES: AtomicU32 = AtomicU32::new(1);

/// How a test's server is started: small, not durable, with the built program as its guard, so that it ends
/// with the test process however that ends.
pub fn options(durable: bool) -> Options {
    Options {
        durable,
        guard: Some(env!("CARGO_BIN_EXE_helve").into()),
        settings: vec![("shared_buffers".to_owned(), "128MB".to_owned())],
        ..Options::default()
    }
}

/// The URL of a fresh, migrated, empty database on the shared server.
pub async fn fresh_database() -> String {
    let shared = SHARED.get_or_init(start).await;
    let name = format!("t{}", NAMES.fetch_add(1, Ordering::Relaxed));
    let _one_at_a_time = shared.copying.lock().await;
    let admin = sql(&shared.cluster.url("postgres")).await;
    admin.batch_execute(&format!("create database {name} template {TEMPLATE}")).await.unwrap();
    shared.cluster.url(&name)
}

/// The URL of a fresh database on the shared server that has nothing in it.
pub async fn bare_database() -> String {
    let shared = SHARED.get_or_init(start).await;
    let name = format!("b{}", NAMES.fetch_add(1, Ordering::Relaxed));
    shared.cluster.create_database(&name, None).await.unwrap();
    shared.cluster.url(&name)
}

async fn start() -> Shared {
    let (ready, started) = oneshot::channel();
    std::thread::Builder::new()
        .name("test-postgres".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async move {
                let cluster = Cluster::start(options(false)).await.expect("a private PostgreSQL starts");
                prepare(&cluster).await;
                ready.send(cluster).expect("the test waits");
                // The server's death signal and its child handle hang on this runtime.
                std::future::pending::<()>().await;
            });
        })
        .unwrap();
    let cluster = started.await.expect("the private PostgreSQL started; its log says why not");
    Shared { cluster, copying: Mutex::new(()) }
}

/// Makes and migrates the template.
async fn prepare(cluster: &Cluster) {
    create_migrated(cluster, TEMPLATE).await;
}

/// Creates a database on any cluster and migrates it; gives its URL.
pub async fn create_migrated(cluster: &Cluster, name: &str) -> String {
    let admin = sql(&cluster.url("postgres")).await;
    admin.batch_execute(&format!("create database {name}")).await.unwrap();
    let url = cluster.url(name);
    helve::db::migrate::migrate(&Database::at(&url)).await.expect("the migrations apply");
    url
}

/// A plain SQL connection, for what a test must see behind the engine's back.
pub async fn sql(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap_or_else(|e| panic!("{url}: {e}"));
    tokio::spawn(connection);
    client
}
