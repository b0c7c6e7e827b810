//! Whom to trust: verifiers of servers' certificates, the system's trust store, and what to say when trust fails.
//!
//! One thing is more liberal than webpki: a certificate that is itself among the trusted ones is accepted even if it
//! says that it is a certificate authority. `openssl req -x509` makes such certificates, and Go takes them.

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, SecondsFormat, Utc};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, Error, InvalidMessage, RootCertStore,
    SignatureScheme,
};

/// Trusted certificates, as a store and as they were given.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    store: Arc<RootCertStore>,
    given: Arc<Vec<CertificateDer<'static>>>,
}

impl Roots {
    /// # Errors
    /// When there is no usable certificate in `pem`.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let given: Vec<_> = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(given.iter().cloned());
        if added == 0 {
            return Err("no usable certificate".into());
        }
        Ok(Self { store: Arc::new(store), given: Arc::new(given) })
    }

    /// Those of the system, read once.
    pub(crate) fn of_system() -> Result<Self, String> {
        static ROOTS: OnceLock<Roots> = OnceLock::new();
        if let Some(roots) = ROOTS.get() {
            return Ok(roots.clone());
        }
        let from_env = std::env::var("SSL_CERT_FILE").ok();
        let files = from_env.iter().map(String::as_str).chain(SYSTEM_CA_FILES);
        for pem in files.filter_map(|f| std::fs::read(f).ok()) {
            if let Ok(roots) = Self::from_pem(&pem) {
                return Ok(ROOTS.get_or_init(|| roots).clone());
            }
        }
        Err(format!(
            "no trusted certificates of the system found in $SSL_CERT_FILE or {}: set tls_config.ca_file",
            SYSTEM_CA_FILES.join(", ")
        ))
    }

    /// A verifier that trusts them.
    pub(crate) fn verifier(
        self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let chains = WebPkiServerVerifier::builder_with_provider(self.store, provider);
        Ok(Arc::new(TrustChains { chains: chains.build().map_err(|e| e.to_string())?, given: self.given }))
    }
}

/// Where systems keep their trust store as one PEM file.
const SYSTEM_CA_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[derive(Debug)]
struct TrustChains {
    chains: Arc<WebPkiServerVerifier>,
    given: Arc<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for TrustChains {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let result = self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp, now);
        let Err(Error::InvalidCertificate(CertificateError::Other(other))) = &result else { return result };
        let is_authority = other.to_string().contains("CaUsedAsEndEntity");
        if !is_authority || !self.given.iter().any(|g| g == end_entity) {
            return result;
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        check_validity(end_entity, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// `insecure_skip_verify`: checks that the peer has the key of its certificate, and nothing else.
#[derive(Debug)]
pub(crate) struct TrustAnyone(pub(crate) Arc<CryptoProvider>);

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

// === Validity of a certificate that webpki does not look at ===

/// # Errors
/// When `now` is not within the certificate's validity.
fn check_validity(cert: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (not_before, not_after) =
        validity(cert).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let at = |t: DateTime<Utc>| {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(t.timestamp().max(0) as u64))
    };
    if now < at(not_before) {
        let not_before = at(not_before);
        return Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            time: now,
            not_before,
        }));
    }
    if now > at(not_after) {
        let not_after = at(not_after);
        return Err(Error::InvalidCertificate(CertificateError::ExpiredContext { time: now, not_after }));
    }
    Ok(())
}

/// `Certificate.tbsCertificate.validity` (RFC 5280, section 4.1).
fn validity(cert: &[u8]) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let (_, certificate, _) = element(cert)?;
    let (_, mut tbs, _) = element(certificate)?;
    // version [0], serialNumber, signature, issuer, validity
    for _ in 0..5 {
        let (tag, content, rest) = element(tbs)?;
        tbs = rest;
        if tag != 0x30 {
            continue;
        }
        if let Some((from, to)) = times(content) {
            return Some((from, to));
        }
    }
    None
}

fn times(content: &[u8]) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let (from_tag, from, rest) = element(content)?;
    let (to_tag, to, _) = element(rest)?;
    Some((time(from_tag, from)?, time(to_tag, to)?))
}

fn time(tag: u8, text: &[u8]) -> Option<DateTime<Utc>> {
    let text = std::str::from_utf8(text).ok()?;
    let full = match tag {
        0x17 => {
            let century = if text.get(..2)?.parse::<u8>().ok()? >= 50 { "19" } else { "20" };
            format!("{century}{text}")
        }
        0x18 => text.to_owned(),
        _ => return None,
    };
    chrono::NaiveDateTime::parse_from_str(&full, "%Y%m%d%H%M%SZ").ok().map(|t| t.and_utc())
}

/// Tag, content and what follows of the first DER element; `None` when it is not whole.
#[must_use]
pub fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 || rest.len() < count {
            return None;
        }
        let (digits, rest) = rest.split_at(count);
        (digits.iter().fold(0_usize, |n, d| n << 8 | usize::from(*d)), rest)
    };
    (rest.len() >= len).then(|| (tag, &rest[..len], &rest[len..]))
}

// === Words ===

/// A TLS failure in the words of Go's `crypto/tls` and `crypto/x509`.
pub(crate) fn error_text(e: &Error) -> String {
    match e {
        Error::InvalidCertificate(e) => format!("tls: failed to verify certificate: {}", certificate_text(e)),
        Error::AlertReceived(alert) => format!("remote error: tls: {}", alert_text(*alert)),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "http: server gave HTTP response to HTTPS client".into()
        }
        other => format!("tls: {other}"),
    }
}

fn certificate_text(e: &CertificateError) -> String {
    let date = |t: &UnixTime| {
        let time = DateTime::<Utc>::from_timestamp(i64::try_from(t.as_secs()).unwrap_or(i64::MAX), 0);
        time.map_or_else(String::new, |t| t.to_rfc3339_opts(SecondsFormat::Secs, true))
    };
    match e {
        // Another authority of the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "x509: certificate signed by unknown authority".into()
        }
        CertificateError::Expired | CertificateError::NotValidYet => {
            "x509: certificate has expired or is not yet valid".into()
        }
        CertificateError::ExpiredContext { time, not_after } => format!(
            "x509: certificate has expired or is not yet valid: current time {} is after {}",
            date(time),
            date(not_after)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "x509: certificate has expired or is not yet valid: current time {} is before {}",
            date(time),
            date(not_before)
        ),
        CertificateError::NotValidForNameContext { expected, presented } => name_text(expected, presented),
        other => format!("x509: {other}"),
    }
}

fn name_text(expected: &ServerName<'_>, presented: &[String]) -> String {
    let of = |kind: &str| -> Vec<&str> {
        presented
            .iter()
            .filter_map(|p| p.strip_prefix(kind)?.strip_prefix('(')?.strip_suffix(')'))
            .map(|p| p.trim_matches('"'))
            .collect()
    };
    let expected_text = expected.to_str();
    if matches!(expected, ServerName::IpAddress(_)) {
        let addresses = of("IpAddress");
        if addresses.is_empty() {
            return format!(
                "x509: cannot validate certificate for {expected_text} because it doesn't contain any IP SANs"
            );
        }
        return format!("x509: certificate is valid for {}, not {expected_text}", addresses.join(", "));
    }
    let names = of("DnsName");
    if names.is_empty() {
        return format!("x509: certificate is not valid for any names, but wanted to match {expected_text}");
    }
    format!("x509: certificate is valid for {}, not {expected_text}", names.join(", "))
}

fn alert_text(alert: AlertDescription) -> String {
    use AlertDescription as A;
    let text = match alert {
        A::CloseNotify => "close notify",
        A::UnexpectedMessage => "unexpected message",
        A::BadRecordMac => "bad record MAC",
        A::HandshakeFailure => "handshake failure",
        A::BadCertificate => "bad certificate",
        A::UnsupportedCertificate => "unsupported certificate",
        A::CertificateRevoked => "revoked certificate",
        A::CertificateExpired => "expired certificate",
        A::CertificateUnknown => "unknown certificate",
        A::IllegalParameter => "illegal parameter",
        A::UnknownCA => "unknown certificate authority",
        A::AccessDenied => "access denied",
        A::DecodeError => "error decoding message",
        A::DecryptError => "error decrypting message",
        A::ProtocolVersion => "protocol version not supported",
        A::InsufficientSecurity => "insufficient security level",
        A::InternalError => "internal error",
        A::NoApplicationProtocol => "no application protocol",
        A::CertificateRequired => "certificate required",
        A::UnrecognisedName => "unrecognized name",
        other => return format!("alert({})", u8::from(other)),
    };
    text.to_owned()
}
