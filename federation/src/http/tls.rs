//! TLS settings of the client, as Prometheus's `tls_config` has them.
//!
//! Files are read once, when the client is made; a rotated certificate needs a configuration reload.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{ConfigBuilderExt, FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::HttpError;

/// TLS settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate authorities in PEM; without it, those of the system.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate in PEM; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The client's key in PEM; needs `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Name expected in the server's certificate, when it is not the host of the address.
    pub server_name: Option<String>,
    /// Takes any certificate.
    pub insecure_skip_verify: bool,
}

pub(super) fn connector(
    config: &TlsConfig,
    http2: bool,
    connect_timeout: Duration,
) -> Result<HttpsConnector<HttpConnector>, HttpError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(connect_timeout));
    tcp.set_nodelay(true);
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(client_config(config)?).https_or_http();
    if let Some(name) = &config.server_name {
        let name = ServerName::try_from(name.clone())
            .map_err(|e| HttpError::Config(format!("server_name {name:?}: {e}")))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    Ok(if http2 {
        builder.enable_all_versions().wrap_connector(tcp)
    } else {
        builder.enable_http1().wrap_connector(tcp)
    })
}

fn client_config(config: &TlsConfig) -> Result<ClientConfig, HttpError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| HttpError::Config(format!("TLS: {e}")))?;
    let builder = if config.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate { provider }))
    } else if let Some(path) = &config.ca_file {
        builder.with_root_certificates(roots(path)?)
    } else {
        match builder.clone().with_native_roots() {
            Ok(builder) => builder,
            Err(e) => {
                // Plain http must work on a machine without certificate authorities; https fails at the handshake
                // there.
                tracing::warn!(error = %e, "no certificate authorities found on this machine");
                builder.with_root_certificates(RootCertStore::empty())
            }
        }
    };
    match (&config.cert_file, &config.key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| file_error("key", key, &e))?;
            builder.with_client_auth_cert(chain, key_der).map_err(|e| {
                HttpError::Config(format!(
                    "TLS certificate {} with key {}: {e}",
                    cert.display(),
                    key.display()
                ))
            })
        }
        _ => Err(HttpError::Config("TLS: cert_file and key_file are only of use together".into())),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, HttpError> {
    let mut store = RootCertStore::empty();
    for cert in certificates(path)? {
        store.add(cert).map_err(|e| file_error("CA certificate", path, &e))?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    let certs: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| file_error("certificate", path, &e))?;
    if certs.is_empty() {
        return Err(HttpError::Config(format!("TLS: no certificate in {}", path.display())));
    }
    Ok(certs)
}

fn file_error(what: &str, path: &Path, e: &dyn std::error::Error) -> HttpError {
    HttpError::Config(format!("TLS {what} {}: {e}", path.display()))
}

/// Takes any certificate but checks that the server holds its key: what `insecure_skip_verify` asks for.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let check = |config: TlsConfig, reason: &str| {
            let e = connector(&config, true, Duration::from_secs(1)).map(drop).expect_err(reason);
            assert!(e.to_string().contains(reason), "{e}");
        };
        let dir = tempfile::tempdir().expect("temporary directory");
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "").expect("writable");
        check(TlsConfig { ca_file: Some("/does/not/exist".into()), ..Default::default() }, "/does/not/exist");
        check(TlsConfig { ca_file: Some(empty.clone()), ..Default::default() }, "no certificate in");
        check(TlsConfig { cert_file: Some(empty), ..Default::default() }, "only of use together");
        check(TlsConfig { server_name: Some("a b".into()), ..Default::default() }, "server_name");
    }

    #[test]
    fn plain_settings_work() {
        for insecure_skip_verify in [false, true] {
            let config = TlsConfig { insecure_skip_verify, ..Default::default() };
            connector(&config, !insecure_skip_verify, Duration::from_secs(1)).expect("a connector");
        }
    }
}
