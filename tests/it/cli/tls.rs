//! An engine behind a proxy that ends TLS.
#![expect(clippy::disallowed_methods, reason = "the proxy runs beside the test and ends with it")]

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::Person;
use crate::support::engine;

const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/platform/certs");

/// Passes what comes over TLS on to the engine; gives its port.
async fn proxy(engine: String) -> u16 {
    let file = |name: &str| Path::new(CERTS).join(name);
    let certs = CertificateDer::pem_file_iter(file("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(certs, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, engine) = (acceptor.clone(), engine.clone());
            tokio::spawn(async move {
                // A client that does not trust the certificate goes away in the handshake.
                let Ok(mut client) = acceptor.accept(stream).await else { return };
                let mut engine = TcpStream::connect(engine).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_checked_before_the_token_is_sent() {
    let engine = engine().await;
    let port = proxy(engine.url.trim_start_matches("http://").to_owned()).await;
    let person = |host: &str, ca: &str| {
        Person::new()
            .with("HELVE_URL", &format!("https://{host}:{port}"))
            .with("HELVE_TOKEN", &engine.token)
            .with("SSL_CERT_FILE", &format!("{CERTS}/{ca}"))
    };
    person("localhost", "ca.pem").prints(&["runs", "list"]).await;
    person("localhost", "other.pem").is_refused(&["runs", "list"], 5, "no TLS connection to localhost").await;
    // The certificate is for `localhost`.
    person("127.0.0.1", "ca.pem").is_refused(&["runs", "list"], 5, "no TLS connection to 127.0.0.1").await;
}
