//! Open files: as many as the system allows, and no more connections than leave the database its own.

use helve_domain::error::{Error, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::config::Config;
use crate::db::health::BESIDE_POOL;

/// What the process needs beside connections: the runtimes, the log, listeners, certificates, names being looked up,
/// spans on their way.
const OWN: u64 = 64;
/// With fewer an engine is of no use.
const FEWEST: u64 = 16;
/// More than a semaphore may count is as good as no limit.
const MOST: usize = Semaphore::MAX_PERMITS;
/// The part of what is left that clients leave to connections to other engines.
const SPARE: usize = 8;

/// Raises the limit of open files as far as it goes, and lowers the connections of `config` to what fits: beyond that the
/// system refuses the next file to whoever asks, and that may be the one who opens a connection to the database.
///
/// # Errors
/// `Internal` when an engine does not fit at all.
pub(super) fn fit(config: &mut Config) -> Result<()> {
    let limit = raise();
    let kept = kept(config.database.pool_size);
    let Some(places) = places(limit, kept) else {
        let message = format!(
            "the system allows this process {limit} open files, and an engine needs {} at least: raise the hard limit \
             (`ulimit -Hn`, LimitNOFILE= of systemd)",
            kept + FEWEST
        );
        return Err(Error::Internal(message));
    };
    let http = &mut config.http;
    http.places = places;
    let fitting = places - places / SPARE;
    if fitting < http.connections {
        let wanted = http.connections;
        warn!("the system allows {limit} open files: of HELVE_HTTP_CONNECTIONS, {wanted}, {fitting} are taken at once");
        http.connections = fitting;
    }
    Ok(())
}

/// The limit as far as it could be raised.
fn raise() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1_024 };
    // Where it is refused, the old one holds.
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

/// Files that no connection of a client may take.
fn kept(pool_size: u32) -> u64 {
    OWN + u64::from(pool_size) + u64::from(BESIDE_POOL)
}

/// How many files there are for connections; `None`: too few.
fn places(limit: u64, kept: u64) -> Option<usize> {
    let places = limit.saturating_sub(kept);
    (places >= FEWEST).then(|| usize::try_from(places).unwrap_or(MOST).min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_as_fit_beside_what_the_engine_needs() {
        let kept = kept(8);
        assert_eq!(kept, 77);
        for (limit, fits) in [
            (0, None),
            (92, None),
            (93, Some(16)),
            (300, Some(223)),
            (65_536, Some(65_459)),
            (nix::sys::resource::RLIM_INFINITY, Some(MOST)),
        ] {
            assert_eq!(places(limit, kept), fits, "{limit}");
        }
    }

    #[test]
    fn the_limit_is_raised_once() {
        let raised = raise();
        assert_eq!(raise(), raised);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, raised);
    }
}
