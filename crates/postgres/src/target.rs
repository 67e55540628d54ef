//! Where a connection goes: a `postgres://` URL, read with the rules of libpq.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use helve_domain::error::{Error, Result};
use percent_encoding::percent_decode_str;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};

use super::tls;
use crate::Database;

/// How long to wait for one address of the server.
const CONNECT: Duration = Duration::from_secs(5);

/// What `sslmode` demands of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Never TLS.
    Disable,
    /// TLS if the server offers it, without verification.
    Prefer,
    /// TLS or nothing, without verification.
    Require,
    /// TLS with a certificate from a known authority.
    VerifyCa,
    /// TLS with a certificate from a known authority for this host name.
    VerifyFull,
}

/// A parsed URL with its TLS settings, ready to connect. Cheap to clone.
#[derive(Clone)]
pub struct Target {
    /// For the driver; the TLS mode is set.
    pub config: tokio_postgres::Config,
    /// How certificates are checked; `None`: never TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Without TLS when the handshake fails, as libpq does for `sslmode=prefer`.
    pub fall_back: bool,
}

impl Target {
    /// Reads the URL of `database`; `name` is what the server shows as the application.
    pub fn new(database: &Database, name: &str) -> Result<Self> {
        let split = split(database.url.reveal())?;
        let wrong = |e: tokio_postgres::Error| match std::error::Error::source(&e) {
            Some(why) => wrong_url(format!("{e}: {why}")),
            None => wrong_url(e.to_string()),
        };
        let mut config: tokio_postgres::Config = split.url.parse().map_err(wrong)?;
        if config.get_application_name().is_none() {
            config.application_name(format!("helve:{name}"));
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if !split.keepalives {
            // A peer that vanished silently is noticed within 25 s when idle, 10 s when written to.
            config.keepalives_idle(Duration::from_secs(10)).keepalives_interval(Duration::from_secs(5));
            config.keepalives_retries(3).tcp_user_timeout(Duration::from_secs(10));
        }
        // As libpq: sslmode says nothing about Unix sockets.
        let local = config.get_hosts().iter().all(|h| matches!(h, Host::Unix(_))) && config.get_hostaddrs().is_empty();
        let security = if local { Security::Disable } else { split.security };
        config.ssl_mode(match security {
            Security::Disable => SslMode::Disable,
            Security::Prefer => SslMode::Prefer,
            Security::Require | Security::VerifyCa | Security::VerifyFull => SslMode::Require,
        });
        let direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
        let tls = tls::client_config(security, split.root_cert.as_deref(), direct)?;
        Ok(Self { config, tls, fall_back: security == Security::Prefer })
    }
}

struct Split {
    /// The URL without the parameters that the driver does not know.
    url: String,
    security: Security,
    root_cert: Option<PathBuf>,
    /// The URL sets keepalives itself.
    keepalives: bool,
}

/// Takes out `sslmode` and `sslrootcert`, and lets a `host` parameter replace the host before the path.
fn split(url: &str) -> Result<Split> {
    let scheme = ["postgres://", "postgresql://"].into_iter().find(|s| url.starts_with(s));
    let scheme = scheme.ok_or_else(|| wrong_url("it must start with `postgres://`".to_owned()))?;
    let rest = &url[scheme.len()..];
    let (credentials, rest) = rest.find('@').map_or(("", rest), |at| rest.split_at(at + 1));
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));

    let (mut security, mut root_cert, mut keepalives) = (Security::Prefer, None, false);
    let mut kept = Vec::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| wrong_url("a parameter has no `=`".to_owned()))?;
        let value = || percent_decode_str(value).decode_utf8_lossy();
        match key {
            "sslmode" => security = parse_security(&value())?,
            "sslrootcert" => root_cert = Some(PathBuf::from(value().as_ref())),
            _ => {
                keepalives |= key.starts_with("keepalives") || key == "tcp_user_timeout";
                kept.push(pair.to_owned());
            }
        }
    }
    let has = |key: &str| kept.iter().any(|p| p.split_once('=').is_some_and(|(k, _)| k == key));
    let mut authority = authority;
    if has("host") {
        let port = authority.rsplit_once(':').filter(|(_, p)| p.bytes().all(|b| b.is_ascii_digit())).map(|(_, p)| p);
        if let Some(port) = port.filter(|p| !p.is_empty() && !has("port")) {
            kept.push(format!("port={port}"));
        }
        authority = "";
    }
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    if root_cert.as_deref().is_some_and(|p| p.as_os_str() == "system") {
        root_cert = None;
    } else if root_cert.is_some() && security == Security::Require {
        // As libpq: if a root certificate is given, `require` checks it.
        security = Security::VerifyCa;
    }
    Ok(Split { url: format!("{scheme}{credentials}{authority}{path}{query}"), security, root_cert, keepalives })
}

fn parse_security(text: &str) -> Result<Security> {
    Ok(match text {
        "disable" => Security::Disable,
        "prefer" => Security::Prefer,
        "require" => Security::Require,
        "verify-ca" => Security::VerifyCa,
        "verify-full" => Security::VerifyFull,
        other => {
            return Err(wrong_url(format!(
                "sslmode `{other}` is not one of disable, prefer, require, verify-ca, verify-full"
            )));
        }
    })
}

fn wrong_url(why: String) -> Error {
    Error::Internal(format!("the database URL cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target> {
        Target::new(&Database::at(url), "test")
    }

    #[test]
    fn sslmode_is_taken_out_and_kept_strict() {
        let s =
            split("postgres://u:p%40@db:5433/x?sslmode=verify-ca&sslrootcert=%2Fetc%2Fca.pem&channel_binding=prefer");
        let s = s.unwrap();
        assert_eq!(s.url, "postgres://u:p%40@db:5433/x?channel_binding=prefer");
        assert_eq!(s.security, Security::VerifyCa);
        assert_eq!(s.root_cert.unwrap(), PathBuf::from("/etc/ca.pem"));
        assert_eq!(split("postgres://db/x").unwrap().security, Security::Prefer);
        let with_root = split("postgres://db/x?sslmode=require&sslrootcert=/ca.pem").unwrap();
        assert_eq!(with_root.security, Security::VerifyCa);
        assert!(split("postgres://db/x?sslmode=allow").is_err());
        assert!(split("mysql://db/x").is_err());
    }

    #[test]
    fn a_host_parameter_replaces_the_host_as_libpq_has_it() {
        let t = target("postgres://postgres@localhost:5433/db?host=/tmp/some%20where&sslmode=verify-full").unwrap();
        assert_eq!(t.config.get_hosts(), [Host::Unix("/tmp/some where".into())]);
        assert_eq!(t.config.get_ports(), [5433]);
        assert_eq!(t.config.get_dbname(), Some("db"));
        assert!(t.tls.is_none(), "a Unix socket knows no TLS");
        let t = target("postgres://postgres@localhost:1/db?host=/tmp&port=2").unwrap();
        assert_eq!(t.config.get_ports(), [2]);
    }

    #[test]
    fn an_error_never_shows_the_password() {
        for url in ["postgres://u:hunter2@db/x?nonsense=1", "postgres://u:hunter2@db/x?sslmode=maybe"] {
            let text = target(url).err().unwrap().to_string();
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
