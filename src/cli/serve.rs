//! `helve serve`: the engine on an operator's database.

use std::net::SocketAddr;

use helve_domain::clock::Clock;
use helve_domain::error::{Error, Result};
use helve_domain::limits::Limits;
use helve_postgres::Database;
use helve_terminal::out;
use helve_terminal::signals::Signals;
use tracing::info;

use super::database::DatabaseArgs;
use super::settings::Settings;
use crate::app::App;
use crate::config::{Config, Http, Retention, Scheduling, Traces};
use crate::db::health;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Address and port; behind a proxy that does TLS
    #[arg(long, env = "HELVE_LISTEN", default_value = "127.0.0.1:7733", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Start on a database whose settings can lose what was accepted
    #[arg(long)]
    allow_unsafe_settings: bool,
    /// Print the settings as JSON, without secrets, and end
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) async fn run(args: Args) -> Result<()> {
    if args.print_config {
        let url = args.database.database_url.clone().unwrap_or_default();
        let config = config(args.database.tuning.at(&url), args.listen, args.settings);
        let text = serde_json::to_string_pretty(&config);
        return out::line(&text.map_err(|e| Error::Internal(format!("settings: {e}")))?);
    }
    let mut config = config(args.database.required(), args.listen, args.settings);
    super::port::check(config.http.listen, "--listen or HELVE_LISTEN")?;
    super::files::fit(&mut config)?;
    let mut signals = Signals::listen()?;
    tokio::select! {
        checked = health::check(&config.database, args.allow_unsafe_settings) => checked?,
        () = signals.next() => return Ok(()),
    }
    let app = App::start(config, Clock::system()).await?;
    info!(address = %app.address, version = env!("CARGO_PKG_VERSION"), "listening");
    serve(app, &mut signals).await
}

/// Every setting, from its default, the environment and the flags.
pub(super) fn config(database: Database, listen: SocketAddr, settings: Settings) -> Config {
    let mut config = Config {
        database,
        http: Http { listen, ..Http::default() },
        limits: Limits::default(),
        scheduling: Scheduling::default(),
        retention: Retention::default(),
        traces: Traces::default(),
        takeover: false,
    };
    if let Err(wrong) = settings.apply(&mut config) {
        super::usage(wrong);
    }
    config
}

/// Runs until a signal or the loss of something vital, then stops in order.
pub(super) async fn serve(app: App, signals: &mut Signals) -> Result<()> {
    let failed = tokio::select! {
        () = app.failed() => true,
        () = signals.next() => false,
    };
    info!("stopping");
    signals.unless_again(app.stop(), crate::telemetry::flush).await;
    if failed { Err(Error::Internal("stopped after a failure, see the log".to_owned())) } else { Ok(()) }
}
