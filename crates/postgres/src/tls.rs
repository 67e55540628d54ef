//! TLS to PostgreSQL: what each `sslmode` accepts as a certificate.

use std::path::Path;
use std::sync::Arc;

use helve_domain::error::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::target::Security;

/// The client's TLS settings, or `None` if TLS is never used. Without `root_cert`, the system's authorities are used.
pub fn client_config(security: Security, root_cert: Option<&Path>, direct: bool) -> Result<Option<Arc<ClientConfig>>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match security {
        Security::Disable => return Ok(None),
        Security::Prefer | Security::Require => Arc::new(Chain { provider: Arc::clone(&provider), roots: None }),
        Security::VerifyCa => Arc::new(Chain { provider: Arc::clone(&provider), roots: Some(roots(root_cert)?) }),
        Security::VerifyFull => {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(root_cert)?), Arc::clone(&provider))
                .build()
                .map_err(|e| Error::Internal(format!("the root certificates cannot be used: {e}")))?
        }
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Internal(format!("TLS: {e}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    if direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(Some(Arc::new(config)))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match file {
        Some(file) => {
            let wrong = |e| Error::Internal(format!("sslrootcert {}: {e}", file.display()));
            for cert in CertificateDer::pem_file_iter(file).map_err(wrong)? {
                let cert = cert.map_err(wrong)?;
                store.add(cert).map_err(|e| Error::Internal(format!("sslrootcert {}: {e}", file.display())))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        let place = file.map_or("the system's store".to_owned(), |f| f.display().to_string());
        return Err(Error::Internal(format!("no root certificate in {place}: set sslrootcert to a PEM file")));
    }
    Ok(store)
}

/// Checks the chain up to `roots`, but not the host name (`verify-ca`); without roots it checks only that the peer owns
/// the key of the certificate it shows (`prefer`, `require`).
#[derive(Debug)]
struct Chain {
    provider: Arc<CryptoProvider>,
    roots: Option<RootCertStore>,
}

impl ServerCertVerifier for Chain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let cert = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            rustls::client::verify_server_cert_signed_by_trust_anchor(&cert, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
