//! Where a connection goes: a `postgres://` URL, read with the rules of libpq.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use helve_domain::error::{Error, Result};
use percent_encoding::percent_decode_str;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};

use super::tls;
use crate::Database;

/// Where PostgreSQL listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 5432;
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

/// What to do about a password that is misread.
const ENCODE: &str = "In a URL a password is percent-encoded: `@` is %40, `:` %3A, `/` %2F, `?` %3F, `#` %23, `%` %25";

impl Target {
    /// Where it is, for people: never with the password.
    pub fn place(&self) -> String {
        let config = &self.config;
        let hosts = config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(dir) => dir.display().to_string(),
        });
        let addresses = config.get_hostaddrs().iter().map(ToString::to_string);
        let hosts: Vec<_> = hosts.chain(addresses).collect();
        let ports: Vec<_> = config.get_ports().iter().map(ToString::to_string).collect();
        let port = if ports.is_empty() { DEFAULT_PORT.to_string() } else { ports.join(",") };
        // As the server has it: without a name the database is called as the user.
        let user = config.get_user().unwrap_or("the user of this process");
        let name = config.get_dbname().or(config.get_user()).unwrap_or("of the same name");
        format!("the database `{name}` at {}, port {port}, as `{user}`", hosts.join(","))
    }

    /// What may help against an error of the server or the driver.
    pub fn hint(error: &str) -> String {
        if error.contains("authentication failed") { format!(". {ENCODE}") } else { String::new() }
    }

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
    if authority.contains('@') {
        return Err(wrong_url(format!("its user or password has an `@`. {ENCODE}")));
    }

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

/// A URL without its password, for people.
pub fn shown(url: &str) -> String {
    if url.is_empty() {
        return String::new();
    }
    let Some((scheme, rest)) = url.split_once("://") else { return "[no URL]".to_owned() };
    // The last one: what stands before it may be a part of a password that was not encoded.
    let (credentials, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let user = credentials.split(':').next().filter(|user| !user.is_empty()).map(|user| format!("{user}@"));
    let (place, query) = place.split_once('?').map_or((place, None), |(place, query)| (place, Some(query)));
    let pairs = query.map(|query| {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((key, _)) if key.contains("password") => format!("{key}=.."),
            _ => pair.to_owned(),
        });
        format!("?{}", pairs.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{}{place}{}", user.unwrap_or_default(), pairs.unwrap_or_default())
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
    fn people_see_where_it_is_and_never_the_password() {
        for (url, reads) in [
            ("postgres://me:hunter2@db:5433/x?sslmode=require", "postgres://me@db:5433/x?sslmode=require"),
            ("postgres://me:hun@ter2@db/x", "postgres://me@db/x"),
            ("postgres://db/x?user=me&password=hunter2", "postgres://db/x?user=me&password=.."),
            ("hunter2", "[no URL]"),
            ("", ""),
        ] {
            assert_eq!(shown(url), reads);
        }
        let place = |url: &str| target(url).unwrap().place();
        assert_eq!(place("postgres://me:hunter2@db:5433/x"), "the database `x` at db, port 5433, as `me`");
        assert_eq!(place("postgres://me@db"), "the database `me` at db, port 5432, as `me`");
        let wrong = target("postgres://me:hun@ter2@db/x").err().unwrap().to_string();
        assert!(wrong.contains("%40") && !wrong.contains("hun@") && !wrong.contains("ter2"), "{wrong}");
        assert!(Target::hint("password authentication failed for user \"me\"").contains("%40"));
    }

    #[test]
    fn an_error_never_shows_the_password() {
        for url in ["postgres://u:hunter2@db/x?nonsense=1", "postgres://u:hunter2@db/x?sslmode=maybe"] {
            let text = target(url).err().unwrap().to_string();
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
