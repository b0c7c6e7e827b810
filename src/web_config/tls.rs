//! `tls_server_config`: certificates, whom clients must be, ciphers and versions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde::Deserialize;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::config::http::join;
use crate::config::scalar::Secret;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TlsServer {
    cert: String,
    key: Secret,
    client_ca: String,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    client_auth_type: String,
    client_ca_file: Option<PathBuf>,
    cipher_suites: Vec<String>,
    curve_preferences: Vec<String>,
    min_version: Option<String>,
    max_version: Option<String>,
    #[allow(dead_code, reason = "accepted and, as in Go since 1.17, without effect")]
    prefer_server_cipher_suites: Option<bool>,
    client_allowed_sans: Option<Vec<String>>,
}

fn given(file: &Option<PathBuf>) -> Option<&PathBuf> {
    file.as_ref().filter(|f| !f.as_os_str().is_empty())
}

impl TlsServer {
    /// Makes file names relative to `dir` and lists them.
    pub(super) fn set_directory(&mut self, dir: &Path) -> Vec<PathBuf> {
        for file in [&mut self.cert_file, &mut self.key_file, &mut self.client_ca_file] {
            join(dir, file);
        }
        [&self.cert_file, &self.key_file, &self.client_ca_file]
            .into_iter()
            .filter_map(given)
            .cloned()
            .collect()
    }

    /// rustls's settings; `None` when nothing about TLS is set.
    ///
    /// # Errors
    /// The first thing that cannot be used.
    pub(super) fn settings(&self, http2: bool) -> Result<Option<ServerConfig>, String> {
        let (cert, key, ca) = (given(&self.cert_file), given(&self.key_file), given(&self.client_ca_file));
        let has_cert = cert.is_some() || !self.cert.is_empty();
        let has_key = key.is_some() || !self.key.0.is_empty();
        let has_ca = ca.is_some() || !self.client_ca.is_empty();
        let provider = Arc::new(self.provider()?);
        let versions = self.versions()?;
        if !has_cert && !has_key && !has_ca && self.client_auth_type.is_empty() {
            return Ok(None);
        }
        if !has_cert {
            return Err("missing one of cert or cert_file".into());
        }
        if !has_key {
            return Err("missing one of key or key_file".into());
        }
        let cert = text("cert_file", cert, &self.cert)?;
        let key = text("key_file", key, &self.key.0)?;
        let verifier = self.client_verifier(has_ca, &provider)?;
        let bad = |reason: String| format!("failed to load X509KeyPair: {reason}");
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&cert).filter_map(Result::ok).collect();
        if chain.is_empty() {
            return Err(bad("tls: failed to find any PEM data in certificate input".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_| bad("tls: failed to find any PEM data in key input".into()))?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|e| format!("tls: {e}"))?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut settings = builder.with_single_cert(chain, key).map_err(|e| bad(format!("tls: {e}")))?;
        settings.alpn_protocols =
            if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        Ok(Some(settings))
    }

    fn versions(&self) -> Result<Vec<&'static tokio_rustls::rustls::SupportedProtocolVersion>, String> {
        let parse = |v: &Option<String>, default: u8| match v.as_deref() {
            None => Ok(default),
            Some("TLS10") => Ok(10),
            Some("TLS11") => Ok(11),
            Some("TLS12") => Ok(12),
            Some("TLS13") => Ok(13),
            Some(other) => Err(format!("unknown TLS version: {other}")),
        };
        let (min, max) = (parse(&self.min_version, 12)?, parse(&self.max_version, 13)?);
        if max < 12 {
            return Err("max_version below TLS12 is not built in: such versions are broken".into());
        }
        if max < min {
            return Err("max_version is below min_version".into());
        }
        let mut out = Vec::new();
        if max >= 13 {
            out.push(&TLS13);
        }
        if min <= 12 {
            out.push(&TLS12);
        }
        Ok(out)
    }

    fn provider(&self) -> Result<CryptoProvider, String> {
        let mut provider = ring::default_provider();
        if !self.cipher_suites.is_empty() {
            if let Some(name) = self.cipher_suites.iter().find(|n| !GO_CIPHERS.contains(&n.as_str())) {
                return Err(format!("unknown cipher: {name}"));
            }
            // As in Go, the suites of TLS 1.3 are not for choosing.
            provider.cipher_suites.retain(|suite| {
                let name = format!("{:?}", suite.suite());
                name.starts_with("TLS13_") || self.cipher_suites.contains(&name)
            });
        }
        if !self.curve_preferences.is_empty() {
            let all = provider.kx_groups.clone();
            provider.kx_groups.clear();
            for name in &self.curve_preferences {
                let group = match name.as_str() {
                    "CurveP256" => "secp256r1",
                    "CurveP384" => "secp384r1",
                    "X25519" => "X25519",
                    // Known, and not built in: the others are offered.
                    "CurveP521" => continue,
                    other => return Err(format!("unknown curve: {other}")),
                };
                provider.kx_groups.extend(all.iter().copied().filter(|g| format!("{:?}", g.name()) == group));
            }
            if provider.kx_groups.is_empty() {
                return Err(
                    "none of curve_preferences is built in: name CurveP256, CurveP384 or X25519".into()
                );
            }
        }
        Ok(provider)
    }

    fn client_verifier(
        &self,
        has_ca: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
        let (checks, must) = match self.client_auth_type.as_str() {
            "" | "NoClientCert" if has_ca => {
                return Err("client CA's have been configured without a Client Auth Policy".into());
            }
            "" | "NoClientCert" => return Ok(None),
            "RequestClientCert" => (false, false),
            "RequireAnyClientCert" | "RequireClientCert" => (false, true),
            "VerifyClientCertIfGiven" => (true, false),
            "RequireAndVerifyClientCert" => (true, true),
            other => return Err(format!("invalid ClientAuth: {other}")),
        };
        let chains = if checks {
            if !has_ca {
                return Err(format!(
                    "client_auth_type {} needs client_ca or client_ca_file",
                    self.client_auth_type
                ));
            }
            let pem = match given(&self.client_ca_file) {
                Some(file) => std::fs::read(file).map_err(|e| format!("open {}: {e}", file.display()))?,
                None => self.client_ca.clone().into_bytes(),
            };
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            Some(builder.build().map_err(|e| format!("client_ca: {e}"))?)
        } else {
            None
        };
        let provider = provider.clone();
        Ok(Some(Arc::new(Clients { chains, must, sans: self.client_allowed_sans.clone(), provider })))
    }
}

fn text(field: &str, file: Option<&PathBuf>, inline: &str) -> Result<Vec<u8>, String> {
    let Some(file) = file else { return Ok(inline.as_bytes().to_vec()) };
    std::fs::read(file).map_err(|e| {
        let reason = e.to_string();
        let reason = reason.rfind(" (os error ").map_or(reason.as_str(), |i| &reason[..i]).to_lowercase();
        format!("failed to read {field} ({0}): open {0}: {reason}", file.display())
    })
}

/// Names that Go's `tls.CipherSuites` knows.
const GO_CIPHERS: [&str; 13] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Checks clients as `client_auth_type` and `client_allowed_sans` say.
#[derive(Debug)]
struct Clients {
    /// Absent when any certificate will do.
    chains: Option<Arc<dyn ClientCertVerifier>>,
    must: bool,
    sans: Option<Vec<String>>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.as_ref().map_or(&[], |c| c.root_hint_subjects())
    }

    fn client_auth_mandatory(&self) -> bool {
        self.must
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(chains) = &self.chains {
            chains.verify_client_cert(end_entity, intermediates, now)?;
        }
        match &self.sans {
            Some(allowed) if !alternative_names(end_entity).iter().any(|n| allowed.contains(n)) => {
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Names, addresses, mail addresses and URIs that a certificate is for (RFC 5280, section 4.2.1.6).
fn alternative_names(cert: &[u8]) -> Vec<String> {
    const OID: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x11];
    let mut out = Vec::new();
    let Some(mut names) = extension(cert, &OID) else { return out };
    while let Some((tag, content, rest)) = httpclient::der_element(names) {
        names = rest;
        match tag {
            // rfc822Name, dNSName, uniformResourceIdentifier
            0x81 | 0x82 | 0x86 => out.push(String::from_utf8_lossy(content).into_owned()),
            0x87 => {
                let v4 = <[u8; 4]>::try_from(content).map(std::net::IpAddr::from);
                let v6 = <[u8; 16]>::try_from(content).map(std::net::IpAddr::from);
                out.extend(v4.or(v6).map(|a| a.to_string()));
            }
            _ => {}
        }
    }
    out
}

/// The sequence in the value of an extension.
fn extension<'a>(cert: &'a [u8], oid: &[u8]) -> Option<&'a [u8]> {
    use httpclient::der_element as element;
    let (_, certificate, _) = element(cert)?;
    let (_, mut tbs, _) = element(certificate)?;
    let extensions = loop {
        let (tag, content, rest) = element(tbs)?;
        if tag == 0xa3 {
            break content;
        }
        tbs = rest;
    };
    let (_, mut list, _) = element(extensions)?;
    loop {
        let (_, one, rest) = element(list)?;
        list = rest;
        if let Some(mut value) = one.strip_prefix(oid) {
            // An optional "critical", then the octets.
            if value.first() == Some(&0x01) {
                value = element(value)?.2;
            }
            let (_, octets, _) = element(value)?;
            return Some(element(octets)?.1);
        }
    }
}
