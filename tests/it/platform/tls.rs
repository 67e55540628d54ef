//! Each `sslmode` against a server with a certificate for `localhost` from an authority of its own.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use helve::db::connect::connect;
use helve_postgres::Database;
use helve_postgres::cluster::{Cluster, Options};
use nix::unistd::{User, geteuid};

use crate::support::options;

const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/platform/certs");

/// The key where the server accepts it: its own and nobody else's.
fn server_key() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("helve-tls-test-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let key = dir.join("server.key");
    fs::copy(Path::new(CERTS).join("server.key"), &key).unwrap();
    fs::copy(Path::new(CERTS).join("server.pem"), dir.join("server.pem")).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    if geteuid().is_root() {
        let user = ["postgres", "nobody"].into_iter().find_map(|n| User::from_name(n).unwrap()).unwrap();
        chown(&key, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
    dir
}

async fn encrypted_server(dir: &Path, port: u16) -> Cluster {
    let file = |name: &str| dir.join(name).display().to_string();
    let settings = [
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", file("server.pem")),
        ("ssl_key_file", file("server.key")),
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("port", port.to_string()),
    ];
    let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Cluster::start(Options { settings, ..options(false) }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sslmode_accepts_what_libpq_accepts_and_no_more() {
    let dir = server_key();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cluster = encrypted_server(&dir, port).await;
    let (ca, other) = (format!("{CERTS}/ca.pem"), format!("{CERTS}/other.pem"));
    // The certificate is for `localhost`: by its address the same server has the wrong name.
    for (host, mode, root, encrypted) in [
        ("localhost", "disable", None, Some(false)),
        ("localhost", "prefer", None, Some(true)),
        ("127.0.0.1", "require", None, Some(true)),
        ("127.0.0.1", "require", Some(&ca), Some(true)),
        ("127.0.0.1", "require", Some(&other), None),
        ("127.0.0.1", "verify-ca", Some(&ca), Some(true)),
        ("localhost", "verify-ca", Some(&other), None),
        ("localhost", "verify-ca", None, None),
        ("localhost", "verify-full", Some(&ca), Some(true)),
        ("127.0.0.1", "verify-full", Some(&ca), None),
        ("localhost", "verify-full", Some(&other), None),
    ] {
        let root_cert = root.map_or(String::new(), |file| format!("&sslrootcert={file}"));
        let url = format!("postgres://postgres@{host}:{port}/postgres?sslmode={mode}{root_cert}");
        let name = format!("tls {host} {mode} {}", root.is_some());
        let connection = connect(&Database::at(&url), &name).await;
        let what = format!("{host} {mode} {root:?}");
        match encrypted {
            None => assert!(connection.is_err(), "{what} must be refused"),
            Some(encrypted) => {
                let _open = connection.unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(is_encrypted(port, &name).await, encrypted, "{what}");
            }
        }
    }
    cluster.stop().await;
    fs::remove_dir_all(&dir).unwrap();
}

/// What the server says about the connection of that name.
async fn is_encrypted(port: u16, name: &str) -> bool {
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let query = "select s.ssl from pg_stat_ssl s join pg_stat_activity a using (pid) where a.application_name = $1";
    let row = crate::support::sql(&url).await.query_one(query, &[&format!("helve:{name}")]).await.unwrap();
    row.get(0)
}
