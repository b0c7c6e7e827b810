//! TLS towards targets: trust, client certificates, server names.
//!
//! Files are read for each new connection, so that they can rotate. The system's trust store is read once.

use std::sync::{Arc, OnceLock};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::{SecretSource, TlsConfig};
use crate::error::{ScrapeFailure, ScraperError};

/// Performs the handshake on a fresh connection to `host`.
pub(super) async fn connect(
    config: &TlsConfig,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, ScrapeFailure> {
    let client = client_config(config).await?;
    let name = if config.server_name.is_empty() { host } else { &config.server_name };
    let server = ServerName::try_from(name.to_owned()).map_err(|e| tls_error(format!("{name:?}: {e}")))?;
    TlsConnector::from(Arc::new(client))
        .connect(server, stream)
        .await
        .map_err(|e| ScrapeFailure::Http { url: format!("https://{host}"), reason: format!("tls: {e}") })
}

fn tls_error(reason: String) -> ScraperError {
    ScraperError::Tls { reason }
}

async fn client_config(config: &TlsConfig) -> Result<ClientConfig, ScraperError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| tls_error(e.to_string()))?;
    let builder = if config.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnyone(provider)))
    } else {
        let roots = match &config.ca {
            Some(ca) => Arc::new(roots_from_pem(&read(ca, "read CA certificates").await?)?),
            None => system_roots()?,
        };
        builder.with_root_certificates(roots)
    };
    let (Some(cert), Some(key)) = (&config.cert, &config.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let certs = certificates(&read(cert, "read client certificate").await?)?;
    let key = PrivateKeyDer::from_pem_slice(&read(key, "read client key").await?)
        .map_err(|e| tls_error(format!("client key: {e}")))?;
    builder.with_client_auth_cert(certs, key).map_err(|e| tls_error(format!("client certificate: {e}")))
}

async fn read(source: &SecretSource, what: &'static str) -> Result<Vec<u8>, ScraperError> {
    match source {
        SecretSource::Inline(s) => Ok(s.expose().as_bytes().to_vec()),
        SecretSource::File(path) => tokio::fs::read(path).await.map_err(|e| ScraperError::File {
            what,
            path: path.clone(),
            reason: e.to_string(),
        }),
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ScraperError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| tls_error(format!("certificate: {e}")))
}

fn roots_from_pem(pem: &[u8]) -> Result<RootCertStore, ScraperError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(pem)?);
    if added == 0 {
        return Err(tls_error("the CA file holds no usable certificate".into()));
    }
    Ok(roots)
}

/// Where systems keep their trust store as one PEM file.
const SYSTEM_CA_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn system_roots() -> Result<Arc<RootCertStore>, ScraperError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    let from_env = std::env::var("SSL_CERT_FILE").ok();
    let files = from_env.iter().map(String::as_str).chain(SYSTEM_CA_FILES);
    for pem in files.filter_map(|f| std::fs::read(f).ok()) {
        if let Ok(roots) = roots_from_pem(&pem) {
            return Ok(ROOTS.get_or_init(|| Arc::new(roots)).clone());
        }
    }
    Err(tls_error(format!(
        "no trusted certificates of the system found in $SSL_CERT_FILE or {}: set tls_config.ca_file",
        SYSTEM_CA_FILES.join(", ")
    )))
}

/// `insecure_skip_verify`: checks that the peer has the key of its certificate, and nothing else.
#[derive(Debug)]
struct TrustAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
