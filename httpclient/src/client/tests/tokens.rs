//! OAuth 2.0 against token servers on this machine.

use std::sync::atomic::{AtomicUsize, Ordering};

use model::clock::ManualClock;
use ring::signature::{RSA_PKCS1_2048_8192_SHA384, UnparsedPublicKey};
use serde_json::{Value, json};

use super::server::{Asked, Server, answer, ok};
use super::*;
use crate::config::{GrantType, OAuth2Config, ProxyConfig, SignatureAlgorithm, TlsConfig};

fn oauth(token_url: String, secret: SecretSource) -> ClientConfig {
    let oauth2 = OAuth2Config {
        client_id: "id&1".into(),
        grant: GrantType::ClientCredentials { secret: Some(secret) },
        token_url,
        scopes: vec!["a".into(), "b".into()],
        endpoint_params: vec![("audience".into(), "x y".into())],
        tls: TlsConfig::default(),
        proxy: ProxyConfig::default(),
    };
    ClientConfig { oauth2: Some(oauth2), ..ClientConfig::default() }
}

fn token(n: usize, expires_in: &str) -> String {
    let body = format!("{{\"access_token\":\"t{n}\",\"token_type\":\"bearer\",\"expires_in\":{expires_in}}}");
    answer("200 OK", "Content-Type: application/json\r\n", &body)
}

/// A server that gives out `t0`, `t1`, …
async fn token_server(expires_in: &'static str) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |_| token(count.fetch_add(1, Ordering::Relaxed), expires_in)).await
}

#[tokio::test]
async fn tokens_are_fetched_kept_and_fetched_again() {
    let target = Server::start(|_| ok("")).await;
    for (expires_in, tokens) in
        [("3600", ["t0", "t0"]), ("\"3600\"", ["t0", "t0"]), ("0", ["t0", "t0"]), ("5", ["t0", "t1"])]
    {
        let server = token_server(expires_in).await;
        let c = client(oauth(server.url("/token"), SecretSource::inline("s")));
        for expected in tokens {
            get(&c, &target.url("/")).await.expect("an answer");
            let asked = target.asked().pop().expect("asked");
            assert_eq!(
                asked.header("authorization"),
                Some(format!("Bearer {expected}").as_str()),
                "{expires_in}"
            );
        }
        let asked = server.asked().remove(0);
        assert_eq!(asked.line(), "POST /token HTTP/1.1");
        assert_eq!(asked.body, "audience=x+y&grant_type=client_credentials&scope=a+b");
        assert_eq!(asked.header("authorization"), Some(format!("Basic {}", base64(b"id%261:s")).as_str()));
    }
}

#[tokio::test]
async fn a_changed_secret_asks_again() {
    let (target, server) = (Server::start(|_| ok("")).await, token_server("3600").await);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("secret");
    let c = client(oauth(server.url("/"), SecretSource::File(file.clone())));
    let e = get(&c, &target.url("/")).await.expect_err("no file");
    assert!(e.contains("unable to read oauth2 client secret: unable to read file "), "{e}");
    for (secret, expected) in [("one", "Bearer t0"), ("one", "Bearer t0"), ("two", "Bearer t1")] {
        std::fs::write(&file, secret).expect("written");
        get(&c, &target.url("/")).await.expect("an answer");
        assert_eq!(target.asked().pop().expect("asked").header("authorization"), Some(expected));
    }
}

#[tokio::test]
async fn the_secret_goes_into_the_body_where_the_header_is_refused() {
    let target = Server::start(|_| ok("")).await;
    let server = Server::start(|asked: &Asked| match asked.header("authorization") {
        Some(_) => answer("401 Unauthorized", "", "no"),
        None => {
            answer("200 OK", "Content-Type: text/plain\r\n", "access_token=q&token_type=Odd&expires_in=1")
        }
    })
    .await;
    let c = client(oauth(server.url("/"), SecretSource::inline("s")));
    for _ in 0..2 {
        get(&c, &target.url("/")).await.expect("an answer");
    }
    assert_eq!(target.asked()[0].header("authorization"), Some("Odd q"));
    assert_eq!(server.asked().len(), 3, "what worked is remembered");
    assert!(server.asked()[1].body.starts_with("audience=x+y&client_id=id%261&client_secret=s&"));
}

#[tokio::test]
async fn refusals_show() {
    let target = Server::start(|_| ok("")).await;
    let wrong = Server::start(|_| {
        answer(
            "400 Bad Request",
            "Content-Type: application/json\r\n",
            "{\"error\":\"e\",\"error_description\":\"why\"}",
        )
    })
    .await;
    let broken = Server::start(|_| answer("500 Internal Server Error", "", "oops")).await;
    let empty = Server::start(|_| answer("200 OK", "Content-Type: application/json\r\n", "{}")).await;
    for (server, why) in [
        (wrong.url("/"), "oauth2: \"e\" \"why\"".to_owned()),
        (broken.url("/"), "oauth2: cannot fetch token: 500 Internal Server Error\nResponse: oops".into()),
        (empty.url("/"), "oauth2: server response missing access_token".into()),
        (
            "http://127.0.0.1:1/".into(),
            "Post \"http://127.0.0.1:1/\": dial tcp 127.0.0.1:1: connect: connection refused".into(),
        ),
    ] {
        let e = get(&client(oauth(server, SecretSource::inline("s"))), &target.url("/"))
            .await
            .expect_err("no token");
        assert_eq!(e, format!("Get \"{}\": {why}", target.url("/")));
    }
    assert!(target.asked().is_empty());
}

/// Made with `openssl genrsa 2048` for this test alone.
const RSA_KEY: &str = include_str!("rsa_key.pem");

#[tokio::test]
async fn assertions_are_signed() {
    let (target, server) = (Server::start(|_| ok("")).await, token_server("60").await);
    let mut config = oauth(server.url("/token"), SecretSource::inline(""));
    let claims = json!({"extra": {"a": [1]}, "aud": "mine"});
    let oauth2 = config.oauth2.as_mut().expect("set");
    oauth2.grant = GrantType::JwtBearer {
        key: Some(SecretSource::inline(RSA_KEY)),
        key_id: "k1".into(),
        algorithm: SignatureAlgorithm::Rs384,
        issuer: String::new(),
        audience: String::new(),
        claims: claims.as_object().expect("an object").clone(),
    };
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let c = Client::new(config.clone(), clock).expect("valid");
    get(&c, &target.url("/")).await.expect("an answer");
    assert_eq!(target.asked()[0].header("authorization"), Some("Bearer t0"));
    let form: std::collections::BTreeMap<String, String> =
        url::form_urlencoded::parse(server.asked()[0].body.as_bytes()).into_owned().collect();
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    assert_eq!((form["scope"].as_str(), form["audience"].as_str()), ("a b", "x y"));
    let parts: Vec<&str> = form["assertion"].split('.').collect();
    let json = |part: &str| serde_json::from_slice::<Value>(&unbase64(part)).expect("JSON");
    assert_eq!(json(parts[0]), json!({"alg": "RS384", "kid": "k1", "typ": "JWT"}));
    let says = json(parts[1]);
    assert_eq!((&says["iss"], &says["sub"], &says["aud"]), (&json!("id&1"), &json!("id&1"), &json!("mine")));
    assert_eq!((&says["iat"], &says["exp"]), (&json!(1_700_000_000), &json!(1_700_000_600)));
    assert_eq!((&says["scope"], &says["extra"]), (&json!("a b"), &json!({"a": [1]})));
    assert_eq!(says["jti"].as_str().map(str::len), Some(36));
    use ring::signature::KeyPair;
    use rustls_pki_types::pem::PemObject;
    let der = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(RSA_KEY.as_bytes()).expect("PEM");
    let pair = ring::signature::RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("a key");
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA384, pair.public_key().as_ref().to_vec());
    let signed = form["assertion"].rsplit_once('.').expect("a signature").0;
    public.verify(signed.as_bytes(), &unbase64(parts[2])).expect("the signature fits");

    let oauth2 = config.oauth2.as_mut().expect("set");
    let GrantType::JwtBearer { key, .. } = &mut oauth2.grant else { panic!("set above") };
    *key = Some(SecretSource::inline("nonsense"));
    let e = get(&client(config), &target.url("/")).await.expect_err("no key");
    assert!(e.ends_with("invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key"), "{e}");
}

fn unbase64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = 0_u32;
    let mut count = 0;
    let mut out = Vec::new();
    for c in text.bytes() {
        bits = bits << 6 | DIGITS.iter().position(|d| *d == c).expect("a digit") as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}
