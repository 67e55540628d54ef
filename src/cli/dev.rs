//! `helve dev`: everything on one machine with one command.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use helve_domain::clock::Clock;
use helve_domain::error::{Error, Result};
use helve_domain::id::TenantId;
use helve_domain::secret::Secret;
use helve_postgres::cluster::{Cluster, Options};
use helve_terminal::args::pg_setting;
use helve_terminal::signals::Signals;
use helve_terminal::{out, this_program};
use tracing::{info, warn};

use super::database::Tuning;
use super::settings::Settings;
use super::{kept, port, serve};
use crate::app::App;
use crate::config::Config;
use crate::db::home::Neighbours;
use crate::db::{Pool, health, migrate};
use crate::ops::tenants;

/// The database of the engine on a private server.
const DATABASE: &str = "helve";
/// The tenant that is there from the start.
const TENANT: &str = "dev";

/// Between two looks whether the engine is ready.
const TICK: Duration = Duration::from_millis(5);
/// After this time of waiting a person should know why.
const PATIENCE: Duration = Duration::from_secs(6);

/// A database is used only when a flag names it: `DATABASE_URL` may be that of whatever is worked on in this shell.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, env = "HELVE_PORT", default_value_t = 7733)]
    port: u16,
    /// Only there to say where else it is
    #[arg(long, hide = true, value_parser = no_listen)]
    listen: Option<String>,
    /// Where data and token are kept [default: /var/lib/helve as root, else ~/.local/share/helve]
    #[arg(long, env = "HELVE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Keep nothing, and commit without waiting for the disk
    #[arg(long, conflicts_with_all = ["data_dir", "database_url"])]
    ephemeral: bool,
    /// When ready, print one line of JSON and nothing else
    #[arg(long)]
    json: bool,
    /// Directory of PostgreSQL's programs, instead of looking for them
    #[arg(long, env = "HELVE_PG_BIN", value_name = "DIR")]
    pg_bin: Option<PathBuf>,
    /// Archive with PostgreSQL's programs: .whl, .jar, .zip, .tgz or .txz
    #[arg(long, env = "HELVE_PG_ARCHIVE", value_name = "FILE", conflicts_with = "pg_bin")]
    pg_archive: Option<PathBuf>,
    /// A setting of the private PostgreSQL, such as shared_buffers=1GB; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pg_setting, conflicts_with = "database_url")]
    pg_setting: Vec<(String, String)>,
    /// Use this database and start no server; the variable DATABASE_URL is not used
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Put Helve into the schema of that database also where it has tables of others
    #[arg(long, requires = "database_url")]
    into_existing: bool,
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    settings: Settings,
}

/// Who is used to `serve` may look for it here.
fn no_listen(_: &str) -> Result<String, String> {
    Err("`helve dev` listens on 127.0.0.1 only: --port chooses the port, and `helve serve --listen` the address"
        .to_owned())
}

/// What was started, and what a user needs of it.
struct Ready {
    app: App,
    cluster: Option<Cluster>,
    tenant: TenantId,
    token: Secret,
    /// Where the token is kept.
    kept: Option<PathBuf>,
    database_url: String,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let mut signals = Signals::listen()?;
    let json = args.json;
    let started = async {
        let ready = start(args).await?;
        ready.owns_shards().await?;
        Ok(ready)
    };
    let mut ready = tokio::select! {
        started = started => started?,
        () = signals.next() => return Ok(()),
    };
    if json {
        ready.print_json()?
    } else {
        ready.print_text()?
    }
    let failed = ready.watch(&mut signals).await;
    let Ready { app, cluster, .. } = ready;
    let stop = async {
        app.stop().await;
        if let Some(cluster) = cluster {
            cluster.stop().await;
        }
    };
    info!("stopping");
    signals.unless_again(stop, crate::telemetry::flush).await;
    if failed { Err(failure()) } else { Ok(()) }
}

fn failure() -> Error {
    Error::Internal("the engine stopped after a failure, see the log".to_owned())
}

async fn start(args: Args) -> Result<Ready> {
    let clock = Clock::system();
    let listen = SocketAddr::from(([127, 0, 0, 1], args.port));
    port::check(listen, "--port or HELVE_PORT")?;
    let data_dir = if args.ephemeral { None } else { Some(args.data_dir.clone().map_or_else(default_data_dir, Ok)?) };
    let (cluster, database_url, name) = match &args.database_url {
        Some(url) => (None, url.clone(), format!("token-{}", kept::fingerprint(url))),
        None => {
            if std::env::var_os("DATABASE_URL").is_some_and(|url| !url.is_empty()) {
                info!(
                    "DATABASE_URL is set and not used: `helve dev` has a database of its own, or that of --database-url"
                );
            }
            let cluster = Cluster::start(Options {
                data_dir: data_dir.clone(),
                pg_bin: args.pg_bin.clone(),
                pg_archive: args.pg_archive.clone(),
                durable: !args.ephemeral,
                install: true,
                guard: Some(this_program()?),
                settings: args.pg_setting.clone(),
            })
            .await?;
            cluster.create_database(DATABASE, None).await?;
            let url = cluster.url(DATABASE);
            (Some(cluster), url, "token".to_owned())
        }
    };
    // On its own database no other engine can be alive, so nobody's lease has to run out.
    let mut config =
        Config { takeover: cluster.is_some(), ..serve::config(args.tuning.at(&database_url), listen, args.settings) };
    super::files::fit(&mut config)?;
    let neighbours = if args.into_existing { Neighbours::Accepted } else { Neighbours::Refused };
    for applied in migrate::migrate_beside(&config.database, neighbours).await? {
        info!(migration = applied, "applied");
    }
    health::check(&config.database, true).await?;
    let pool = Pool::new(&config.database)?;
    let tenant = tenants::ensure(&pool, &clock, TENANT).await?.id;
    let kept = data_dir.map(|dir| dir.join(name));
    let token = kept::token(&pool, &clock, tenant, kept.as_deref()).await?;
    let app = App::start(config, clock).await?;
    Ok(Ready { app, cluster, tenant, token, kept, database_url })
}

/// Where `helve dev` keeps data and token when nothing else is said.
pub(super) fn default_data_dir() -> Result<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/helve"));
    }
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let share = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    let missing = || Error::Internal("neither XDG_DATA_HOME nor HOME is set: choose a --data-dir".to_owned());
    share.map(|dir| dir.join("helve")).ok_or_else(missing)
}

/// What a program reads that has started `helve dev --json`.
#[derive(serde::Serialize)]
struct Line<'a> {
    event: &'static str,
    url: &'a str,
    token: &'a str,
    tenant: TenantId,
    database_url: &'a str,
}

impl Ready {
    fn url(&self) -> String {
        format!("http://{}", self.app.address)
    }

    /// Waits until the engine takes work: at once on a private database, and on another one when no other
    /// engine holds its lease.
    async fn owns_shards(&self) -> Result<()> {
        let mut waited = Duration::ZERO;
        while !self.app.is_ready() {
            tokio::select! {
                () = self.app.failed() => return Err(failure()),
                () = tokio::time::sleep(TICK) => waited += TICK,
            }
            if waited == PATIENCE {
                warn!("another engine uses this database: waiting until it has ended");
            }
        }
        Ok(())
    }

    fn print_json(&self) -> Result<()> {
        out::json(&Line {
            event: "ready",
            url: &self.url(),
            token: self.token.reveal(),
            tenant: self.tenant,
            database_url: &self.database_url,
        })
    }

    fn print_text(&self) -> Result<()> {
        let (url, token) = (self.url(), self.token.reveal());
        let kept = self.kept.as_ref().map_or(String::new(), |f| format!("   (kept in {})", f.display()));
        let database = match &self.cluster {
            Some(_) => format!("psql '{}'", self.database_url),
            None => "the one that you gave".to_owned(),
        };
        let stops = if self.cluster.is_some() { "the engine and its database" } else { "the engine" };
        out::line(&format!(
            "\nHelve is ready.\n\n  \
             URL       {url}\n  \
             Token     {token}{kept}\n  \
             Database  {database}\n\n\
             Register a workflow:\n\n  \
             curl -X PUT {url}/v1/workflows/hello -H 'Authorization: Bearer {token}' \
             -H 'Content-Type: application/json' -d '{{\"tasks\":[{{\"name\":\"hello\",\"action\":\"hello\"}}]}}'\n\n\
             Ctrl-C stops {stops}.\n"
        ))
    }

    /// Runs until a signal, or until the engine has lost something vital (true). A private server that
    /// ends is started again: the engine goes on by itself when it is back.
    async fn watch(&mut self, signals: &mut Signals) -> bool {
        loop {
            let ended = async {
                match &self.cluster {
                    Some(cluster) => cluster.ended().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.app.failed() => return true,
                () = signals.next() => return false,
                status = ended => warn!(%status, "the database ended, starting it again"),
            }
            let Some(cluster) = &mut self.cluster else { continue };
            tokio::select! {
                again = cluster.start_again() => if let Err(e) = again {
                    warn!(error = %e, "the database does not start");
                    return true;
                },
                () = signals.next() => return false,
            }
        }
    }
}
