use std::sync::Arc;

use api::gate::GateSource;
use bytes::Bytes;
use httpclient::{ClientConfig, SecretSource, TlsConfig};
use model::SystemClock;
use model::clock::ManualClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A folder with a server's certificate, and certificates to show to it.
struct Folder {
    dir: tempfile::TempDir,
    authority: String,
    known: (String, String),
    strange: (String, String),
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Authority::new();
        let server = authority.sign(&["localhost"]);
        for (name, text) in [("cert", &server.0), ("key", &server.1), ("ca", &authority.cert)] {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let known = authority.sign(&["me.example", "10.1.2.3"]);
        Self { dir, known, strange: Authority::new().sign(&["me.example"]), authority: authority.cert }
    }

    fn file(&self, text: &str) -> PathBuf {
        let file = self.dir.path().join("web.yml");
        std::fs::write(&file, text).expect("written");
        file
    }

    fn check(&self, text: &str) -> Result<(), String> {
        validate(&self.file(text))
    }

    /// Whether a client with this certificate gets an answer.
    async fn answers(
        &self,
        tls: Arc<tokio_rustls::rustls::ServerConfig>,
        own: Option<&(String, String)>,
    ) -> bool {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let Ok(mut stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            let _ = stream.flush().await;
        });
        let inline = |t: &String| Some(SecretSource::inline(t));
        let tls = TlsConfig {
            ca: inline(&self.authority),
            cert: own.and_then(|o| inline(&o.0)),
            key: own.and_then(|o| inline(&o.1)),
            ..TlsConfig::default()
        };
        let config = ClientConfig { tls, enable_http2: false, ..ClientConfig::default() };
        let client = httpclient::Client::new(config, SystemClock::shared()).expect("valid");
        let request = http::Request::get(format!("https://localhost:{port}/")).body(Bytes::new());
        let answered = client.send(request.expect("a request")).await.is_ok();
        server.await.expect("no panic");
        answered
    }
}

struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    cert: String,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: rcgen::Issuer::new(params, key), cert }
    }

    fn sign(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(names).expect("names");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

const CERT: &str = "tls_server_config:\n  cert_file: cert\n  key_file: key\n";

#[test]
fn mistakes_are_named_as_the_toolkit_names_them() {
    let folder = Folder::new();
    let tls = |more: &str| format!("{CERT}{more}");
    for good in [
        "",
        "tls_server_config: {}",
        CERT,
        &tls("  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n  curve_preferences: [X25519]\n"),
        &tls("  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca\n"),
        "http_server_config: {http2: false, headers: {X-Frame-Options: deny, Content-Security-Policy: x}}",
        "basic_auth_users: {a: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi}",
        "rate_limit: {burst: 1, interval: 1s}",
    ] {
        assert_eq!(folder.check(good), Ok(()), "{good}");
    }
    for (bad, reason) in [
        ("tls_server_config: {key_file: key}", "missing one of cert or cert_file"),
        ("tls_server_config: {cert_file: cert}", "missing one of key or key_file"),
        ("tls_server_config: {cert_file: none, key_file: key}", "failed to read cert_file ("),
        (
            "tls_server_config: {cert_file: key, key_file: key}",
            "failed to load X509KeyPair: tls: failed to find any PEM data",
        ),
        (&tls("  client_auth_type: Some\n"), "invalid ClientAuth: Some"),
        (&tls("  client_ca_file: ca\n"), "client CA's have been configured without a Client Auth Policy"),
        (&tls("  cipher_suites: [X]\n"), "unknown cipher: X"),
        (&tls("  curve_preferences: [X]\n"), "unknown curve: X"),
        (&tls("  min_version: TLS9\n"), "unknown TLS version: TLS9"),
        ("http_server_config: {headers: {X-Other: y}}", "HTTP header \"X-Other\" can not be configured"),
        (
            "http_server_config: {headers: {X-Frame-Options: y}}",
            "invalid value for X-Frame-Options. Expected one of: [\"deny\" \"sameorigin\"], but got: \"y\"",
        ),
        ("basic_auth_users: {a: b}", "crypto/bcrypt: hashedSecret too short to be a bcrypted password"),
        ("nonsense: 1", "nonsense"),
    ] {
        let e = folder.check(bad).expect_err(bad);
        assert!(e.contains(reason), "{bad}: {e}");
    }
}

#[tokio::test]
async fn clients_are_checked_as_configured() {
    let folder = Folder::new();
    let sans = "  client_allowed_sans: [other.example, 10.1.2.3]\n";
    let ca = "  client_ca_file: ca\n";
    // Settings, and who gets in: nobody in particular, one whom the authority knows, a stranger.
    for (settings, lets_in) in [
        (String::new(), [true, true, true]),
        ("  client_auth_type: RequestClientCert\n".into(), [true, true, true]),
        ("  client_auth_type: RequireClientCert\n".into(), [false, true, true]),
        ("  client_auth_type: RequireAnyClientCert\n".into(), [false, true, true]),
        (format!("  client_auth_type: VerifyClientCertIfGiven\n{ca}"), [true, true, false]),
        (format!("  client_auth_type: RequireAndVerifyClientCert\n{ca}"), [false, true, false]),
        (format!("  client_auth_type: RequireAndVerifyClientCert\n{ca}{sans}"), [false, true, false]),
        (
            format!(
                "  client_auth_type: RequireAndVerifyClientCert\n{ca}  client_allowed_sans: [other.example]\n"
            ),
            [false, false, false],
        ),
        (format!("  client_auth_type: RequestClientCert\n{sans}"), [true, true, false]),
    ] {
        let (gate, _) = read(&folder.file(&format!("{CERT}{settings}"))).expect("valid");
        let tls = gate.tls.expect("TLS");
        let shown = [None, Some(&folder.known), Some(&folder.strange)];
        for (own, expected) in shown.into_iter().zip(lets_in) {
            assert_eq!(folder.answers(tls.clone(), own).await, expected, "{settings} {}", own.is_some());
        }
    }
}

#[test]
fn a_changed_file_counts_and_a_broken_one_refuses() {
    let folder = Folder::new();
    let file = folder.file("http_server_config: {headers: {X-Frame-Options: deny}}");
    let clock = Arc::new(ManualClock::new(0));
    let opened = WebConfigFile::open(file, clock.clone()).expect("valid");
    let passes = || opened.current().map(|g| g.headers.len());
    assert_eq!(passes(), Ok(1));
    for (text, expected) in
        [("http_server_config: {headers: {}}", Some(0)), ("nonsense", None), ("{}", Some(0))]
    {
        folder.file(text);
        clock.advance(2 * REREAD);
        assert_eq!(passes().ok(), expected, "{text}");
    }
}
