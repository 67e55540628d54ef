//! TLS to a proxy in front of the engine: the system's authorities decide whom to trust.

use std::sync::Arc;

use helve_domain::error::{Error, Result};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::http::CONNECT;

/// The authorities of the system, or those of the PEM file in `SSL_CERT_FILE`.
pub(super) fn config() -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let why = "no root certificate in the system's store: set SSL_CERT_FILE to a PEM file";
        return Err(Error::Internal(why.to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Internal(format!("TLS: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Proves that the peer is `host` before any byte of a request is sent.
pub(super) async fn wrap(config: &Arc<ClientConfig>, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Error::field("", format!("`{host}` is not a name that a certificate can have")))?;
    let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
    match tokio::time::timeout(CONNECT, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) => Err(Error::Internal(format!("no TLS connection to {host}: {e}"))),
        Err(_) => Err(Error::unavailable("no TLS connection to the engine in time")),
    }
}
