//! From [`TlsConfig`] to rustls's settings, with the texts of all files as they are now.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, SupportedProtocolVersion};

use crate::config::{SecretSource, TlsConfig, TlsVersion};
use crate::trust::{Roots, TrustAnyone};

/// The texts that a configuration's files hold at one moment. Equal ones make equal settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Material {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
}

impl Material {
    /// # Errors
    /// Which file cannot be read.
    pub(crate) async fn read(config: &TlsConfig) -> Result<Self, String> {
        Ok(Self {
            ca: read(&config.ca, "CA cert").await?,
            cert: read(&config.cert, "client cert").await?,
            key: read(&config.key, "client key").await?,
        })
    }
}

async fn read(source: &Option<SecretSource>, what: &str) -> Result<Option<String>, String> {
    match source {
        None => Ok(None),
        Some(source) => source.read().await.map(Some).map_err(|e| format!("unable to read {what}: {e}")),
    }
}

/// Whether some of the settings may change without being configured anew.
pub(crate) fn has_files(config: &TlsConfig) -> bool {
    [&config.ca, &config.cert, &config.key].into_iter().flatten().any(|s| matches!(s, SecretSource::File(_)))
}

/// # Errors
/// What cannot be used.
pub(crate) fn settings(config: &TlsConfig, material: &Material, http2: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(config))
        .map_err(|e| format!("tls: {e}"))?
        .dangerous();
    let builder = if config.insecure_skip_verify {
        builder.with_custom_certificate_verifier(Arc::new(TrustAnyone(provider)))
    } else {
        let roots = match (&material.ca, &config.ca) {
            (Some(pem), Some(source)) => Roots::from_pem(pem.as_bytes())
                .map_err(|_| format!("unable to use specified CA cert {}", source.description()))?,
            _ => Roots::of_system()?,
        };
        builder.with_custom_certificate_verifier(roots.verifier(provider)?)
    };
    let mut out = match (&material.cert, &material.key) {
        (Some(cert), Some(key)) => {
            let wrong = |reason: String| {
                let names = [&config.cert, &config.key]
                    .map(|s| s.as_ref().map_or_else(String::new, SecretSource::description));
                format!("unable to use specified client cert ({}) & key ({}): {reason}", names[0], names[1])
            };
            let (certs, key) = pair(cert, key).map_err(wrong)?;
            builder.with_client_auth_cert(certs, key).map_err(|e| wrong(format!("tls: {e}")))?
        }
        _ => builder.with_no_client_auth(),
    };
    if http2 {
        out.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(out)
}

fn versions(config: &TlsConfig) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&TLS13];
    static ONLY_TLS12: [&SupportedProtocolVersion; 1] = [&TLS12];
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match (config.min_version, config.max_version) {
        (Some(TlsVersion::Tls13), _) => &ONLY_TLS13,
        (_, Some(TlsVersion::Tls12)) => &ONLY_TLS12,
        _ => &BOTH,
    }
}

fn pair(cert: &str, key: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let certs: Vec<_> = CertificateDer::pem_slice_iter(cert.as_bytes()).filter_map(Result::ok).collect();
    if certs.is_empty() {
        return Err("tls: failed to find any PEM data in certificate input".into());
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| "tls: failed to find any PEM data in key input".to_owned())?;
    Ok((certs, key))
}
