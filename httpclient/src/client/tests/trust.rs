//! TLS: whom the client trusts, whom it is, and what happens when files change.

use super::server::{Authority, Pair, Server, ok, self_signed_authority};
use super::*;
use crate::config::{TlsConfig, TlsVersion};

fn trusting(pem: &str) -> ClientConfig {
    let tls = TlsConfig { ca: Some(SecretSource::inline(pem)), ..TlsConfig::default() };
    ClientConfig { tls, ..ClientConfig::default() }
}

fn https(server: &Server, host: &str) -> String {
    format!("https://{host}:{}/", server.port)
}

#[tokio::test]
async fn certificates_are_checked() {
    let authority = Authority::new();
    let pair = authority.sign(&["localhost", "other.example"]);
    let server = Server::with_tls(pair.server_config(None), |_| ok("tls")).await;
    let trusts = client(trusting(&authority.cert));
    assert_eq!(get(&trusts, &https(&server, "localhost")).await, Ok((200, "tls".into())));
    let e = get(&trusts, &https(&server, "127.0.0.1")).await.expect_err("another name");
    assert!(e.ends_with("tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"), "{e}");
    let mut named = trusting(&authority.cert);
    named.tls.server_name = "other.example".into();
    assert!(get(&client(named.clone()), &https(&server, "127.0.0.1")).await.is_ok());
    named.tls.server_name = "wrong.example".into();
    let e = get(&client(named), &https(&server, "127.0.0.1")).await.expect_err("another name");
    assert!(e.ends_with("x509: certificate is valid for localhost, other.example, not wrong.example"), "{e}");
    let stranger = client(trusting(&Authority::new().cert));
    let e = get(&stranger, &https(&server, "localhost")).await.expect_err("unknown");
    assert!(
        e.ends_with("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        "{e}"
    );
    let mut anyone = trusting(&Authority::new().cert);
    anyone.tls.insecure_skip_verify = true;
    assert!(get(&client(anyone), &https(&server, "127.0.0.1")).await.is_ok());
}

#[tokio::test]
async fn a_trusted_certificate_may_be_its_own_authority() {
    let pair = self_signed_authority(&["localhost"]);
    let server = Server::with_tls(pair.server_config(None), |_| ok("tls")).await;
    assert!(get(&client(trusting(&pair.cert)), &https(&server, "localhost")).await.is_ok());
    let e = get(&client(trusting(&pair.cert)), &https(&server, "127.0.0.1")).await.expect_err("another name");
    assert!(e.contains("127.0.0.1"), "{e}");
}

#[tokio::test]
async fn times_of_certificates_count() {
    let authority = Authority::new();
    let expired = authority.sign_with(&["localhost"], |p| p.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let server = Server::with_tls(expired.server_config(None), |_| ok("")).await;
    let e = get(&client(trusting(&authority.cert)), &https(&server, "localhost")).await.expect_err("expired");
    assert!(e.contains("x509: certificate has expired or is not yet valid: current time "), "{e}");
    assert!(e.ends_with(" is after 2020-01-01T00:00:00Z"), "{e}");
}

#[tokio::test]
async fn versions_are_kept() {
    let authority = Authority::new();
    let pair = authority.sign(&["localhost"]);
    let server = Server::with_tls(pair.server_config(None), |_| ok("")).await;
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let mut config = trusting(&authority.cert);
        (config.tls.min_version, config.tls.max_version) = (Some(version), Some(version));
        assert!(get(&client(config), &https(&server, "localhost")).await.is_ok(), "{version:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_named_so() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    let e = get(&client(trusting(&Authority::new().cert)), &url).await.expect_err("no TLS");
    assert_eq!(e, format!("Get \"{url}\": http: server gave HTTP response to HTTPS client"));
}

#[tokio::test]
async fn the_client_shows_its_certificate_and_follows_changed_files() {
    let authority = Authority::new();
    let (good, bad) = (authority.sign(&["me"]), Authority::new().sign(&["me"]));
    let config = authority.sign(&["localhost"]).server_config(Some(&authority.cert));
    let server = Server::with_tls(config, |_| ok("mine")).await;
    let dir = tempfile::tempdir().expect("a folder");
    let (cert, key) = (dir.path().join("cert"), dir.path().join("key"));
    let write = |pair: &Pair| {
        std::fs::write(&cert, &pair.cert).expect("written");
        std::fs::write(&key, &pair.key).expect("written");
    };
    let mut settings = trusting(&authority.cert);
    settings.tls.cert = Some(SecretSource::File(cert.clone()));
    settings.tls.key = Some(SecretSource::File(key.clone()));
    let c = client(settings);
    let url = https(&server, "localhost");
    let e = get(&c, &url).await.expect_err("no files");
    assert!(e.contains("unable to read client cert: unable to read file "), "{e}");
    write(&bad);
    let e = get(&c, &url).await.expect_err("a stranger");
    assert!(e.contains("remote error: tls: ") || e.contains("reset") || e.contains("EOF"), "{e}");
    write(&good);
    let deadline = Instant::now() + Duration::from_secs(5);
    while get(&c, &url).await.is_err() {
        assert!(Instant::now() < deadline, "the new files are not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    std::fs::write(&key, "").expect("written");
    tokio::time::sleep(TLS_FILES_INTERVAL).await;
    let e = get(&c, &url).await.expect_err("no key");
    let names = format!(
        "unable to use specified client cert (file {}) & key (file {}): ",
        cert.display(),
        key.display()
    );
    assert!(e.contains(&names), "{e}");
    let none = trusting("nothing");
    let e = get(&client(none), &url).await.expect_err("no certificate");
    assert!(e.ends_with("unable to use specified CA cert inline"), "{e}");
}

#[tokio::test]
async fn http2_is_spoken_where_it_may() {
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    let authority = Authority::new();
    let mut config = authority.sign(&["localhost"]).server_config(None);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://localhost:{}/", listener.local_addr().expect("an address").port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let version = |r: Request<Incoming>| async move {
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(format!(
                    "{:?}",
                    r.version()
                )))))
            };
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service_fn(version)).await;
            });
        }
    });
    for (enable_http2, version) in [(true, "HTTP/2.0"), (false, "HTTP/1.1")] {
        let c = client(ClientConfig { enable_http2, ..trusting(&authority.cert) });
        assert_eq!(get(&c, &url).await, Ok((200, version.into())));
    }
}
