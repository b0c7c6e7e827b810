mod proxies;
mod server;
mod tokens;
mod trust;

use model::SystemClock;

use self::server::{Server, answer, ok};
use super::*;
use crate::config::{Authorization, BasicAuth, HttpHeader, Secret, SecretSource};

fn client(config: ClientConfig) -> Client {
    Client::new(config, SystemClock::shared()).expect("valid settings")
}

async fn get(client: &Client, url: &str) -> Result<(u16, String), String> {
    let request = Request::get(url).body(Bytes::new()).expect("a request");
    let answered =
        tokio::time::timeout(Duration::from_secs(10), client.send(request)).await.expect("in time");
    let response = answered.map_err(|e| e.to_string())?;
    let status = response.status().as_u16();
    let body = crate::body::collect_at_most(response.into_body(), 1 << 20).await?;
    Ok((status, String::from_utf8(body.to_vec()).expect("text")))
}

fn bearer(token: SecretSource) -> ClientConfig {
    let authorization = Authorization { kind: "Bearer".into(), credentials: Some(token) };
    ClientConfig { authorization: Some(authorization), ..ClientConfig::default() }
}

#[test]
fn base64_as_the_rfc_has_it() {
    for (plain, coded) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foobar", "Zm9vYmFy"),
        ("\u{ff}?", "w78/"),
    ] {
        assert_eq!(base64(plain.as_bytes()), coded);
    }
}

#[tokio::test]
async fn connections_are_kept() {
    let server = Server::start(|_| ok("x")).await;
    let client = client(ClientConfig::default());
    for _ in 0..3 {
        assert_eq!(get(&client, &server.url("/metrics?a=b")).await, Ok((200, "x".into())));
    }
    assert_eq!((server.connections(), server.asked().len()), (1, 3));
    let first = &server.asked()[0];
    assert_eq!(first.line(), "GET /metrics?a=b HTTP/1.1");
    assert_eq!(first.header("host"), Some(format!("127.0.0.1:{}", server.port).as_str()));
    assert_eq!(first.header("authorization"), None);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_no_failure() {
    let server = Server::start(|_| answer("200 OK", "Connection: close\r\n", "x")).await;
    let client = client(ClientConfig::default());
    for _ in 0..3 {
        assert_eq!(get(&client, &server.url("/")).await, Ok((200, "x".into())));
    }
}

#[tokio::test]
async fn credentials_are_read_for_each_request() {
    let server = Server::start(|_| ok("")).await;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("secret");
    let with_file = |f: &std::path::Path| SecretSource::File(f.to_owned());
    let token = client(bearer(with_file(&file)));
    let basic = client(ClientConfig {
        basic_auth: Some(BasicAuth { username: SecretSource::inline("u"), password: Some(with_file(&file)) }),
        ..ClientConfig::default()
    });
    let headers = client(ClientConfig {
        headers: vec![HttpHeader {
            name: "X-Scope".into(),
            values: vec![SecretSource::inline("a"), with_file(&file)],
        }],
        ..ClientConfig::default()
    });
    let url = server.url("/");
    let path = file.display();
    for (client, what) in [
        (&token, "unable to read authorization credentials: unable to read file"),
        (&basic, "unable to read basic auth password: unable to read file"),
        (&headers, "unable to read headers file"),
    ] {
        let expected = format!("Get \"{url}\": {what} {path}: open {path}: no such file or directory");
        assert_eq!(get(client, &url).await, Err(expected));
    }
    for secret in ["one", "two"] {
        std::fs::write(&file, format!("  {secret}\n")).expect("written");
        for (client, header, value) in [
            (&token, "authorization", format!("Bearer {secret}")),
            (&basic, "authorization", format!("Basic {}", base64(format!("u:{secret}").as_bytes()))),
            (&headers, "x-scope", "a".into()),
        ] {
            get(client, &url).await.expect("an answer");
            let asked = server.asked().pop().expect("asked");
            assert_eq!(asked.header(header), Some(value.as_str()));
        }
        assert!(
            server
                .asked()
                .pop()
                .expect("asked")
                .head
                .to_lowercase()
                .contains(&format!("x-scope: {secret}\r\n"))
        );
    }
}

#[tokio::test]
async fn the_user_of_a_url_wins() {
    let server = Server::start(|_| ok("")).await;
    let client = client(bearer(SecretSource::inline("t")));
    let url = server.url("/").replace("127", "me:p%40ss@127");
    get(&client, &url).await.expect("an answer");
    let asked = server.asked().remove(0);
    assert_eq!(asked.header("authorization"), Some(format!("Basic {}", base64(b"me:p@ss")).as_str()));
    assert!(!asked.header("host").expect("a host").contains('@'));
    let e = get(&client, "http://me:hunter2@127.0.0.1:1/").await.expect_err("refused");
    assert_eq!(e, "Get \"http://me:***@127.0.0.1:1/\": dial tcp 127.0.0.1:1: connect: connection refused");
}

#[tokio::test]
async fn redirects_are_followed_and_credentials_stay_behind() {
    let last = Server::start(|_| ok("there")).await;
    let other_host = last.url("/x").replace("127.0.0.1", "localhost");
    let back = last.url("/home");
    let second = Server::start(move |asked| match asked.line() {
        "GET /away HTTP/1.1" => answer("302 Found", &format!("Location: {other_host}\r\n"), ""),
        _ => answer("301 Moved Permanently", &format!("Location: {back}\r\n"), "moved"),
    })
    .await;
    let mut config = bearer(SecretSource::inline("secret"));
    config.headers = vec![
        HttpHeader { name: "Cookie".into(), values: vec![SecretSource::Inline(Secret::new("c"))] },
        HttpHeader { name: "X-Plain".into(), values: vec![SecretSource::inline("p")] },
    ];
    let follows = client(config.clone());
    assert_eq!(get(&follows, &second.url("/away")).await, Ok((200, "there".into())));
    assert_eq!(get(&follows, &second.url("/stay")).await, Ok((200, "there".into())));
    let asked = last.asked();
    assert_eq!((asked[0].header("authorization"), asked[0].header("cookie")), (None, None));
    assert_eq!(
        (asked[0].header("x-plain"), asked[0].header("referer")),
        (Some("p"), Some(second.url("/away").as_str()))
    );
    assert_eq!(asked[1].header("authorization"), Some("Bearer secret"));
    assert_eq!(second.connections(), 1, "the connection of a redirect is used again");
    config.follow_redirects = false;
    assert_eq!(get(&client(config), &second.url("/stay")).await, Ok((301, "moved".into())));
}

#[tokio::test]
async fn redirects_end_after_ten_requests() {
    let server = Server::start(|_| answer("307 Temporary Redirect", "Location: /again\r\n", "")).await;
    let e = get(&client(ClientConfig::default()), &server.url("/")).await.expect_err("a loop");
    assert_eq!(e, format!("Get \"{}\": stopped after 10 redirects", server.url("/again")));
    assert_eq!(server.asked().len(), 10);
}

#[tokio::test]
async fn bodies_follow_where_the_method_does() {
    let server = Server::start(|asked| match asked.line().split(' ').nth(1) {
        Some("/308") => answer("308 Permanent Redirect", "Location: /end\r\n", ""),
        Some("/303") => answer("303 See Other", "Location: /end\r\n", ""),
        _ => ok(""),
    })
    .await;
    let client = client(ClientConfig::default());
    for path in ["/308", "/303"] {
        let request =
            Request::post(server.url(path)).header("content-type", "a/b").body(Bytes::from_static(b"body"));
        client.send(request.expect("a request")).await.expect("an answer");
    }
    let asked = server.asked();
    assert_eq!((asked[1].line(), asked[1].body.as_str()), ("POST /end HTTP/1.1", "body"));
    assert_eq!((asked[3].line(), asked[3].body.as_str()), ("GET /end HTTP/1.1", ""));
    assert_eq!(asked[3].header("content-type"), None);
}

#[tokio::test]
async fn failures_are_worded_as_in_go() {
    let gone = Server::start(|_| String::new()).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = silent.accept().await {
            drop(stream);
        }
    });
    let nonsense = Server::start(|_| "nonsense\r\n\r\n".into()).await;
    let c = client(ClientConfig::default());
    let why = async |url: &str| get(&c, url).await.expect_err("no answer");
    assert!(
        why("http://127.0.0.1:1/x")
            .await
            .ends_with("/x\": dial tcp 127.0.0.1:1: connect: connection refused")
    );
    assert!(why("http://[::1]:1/").await.contains("[::1]:1/\": dial tcp [::1]:1: connect: "));
    assert!(
        why("http://no.such.host.invalid/")
            .await
            .ends_with("dial tcp: lookup no.such.host.invalid: no such host")
    );
    assert!(why("ftp://a/").await.ends_with("unsupported protocol scheme \"ftp\""));
    assert!(why("http://127.0.0.1:99999/").await.ends_with("dial tcp: address 99999: invalid port"));
    assert!(why("http://a:b@[::1]:99999/").await.ends_with("dial tcp: address 99999: invalid port"));
    let e = why(&format!("http://{address}/")).await;
    assert!(e.ends_with(": EOF") || e.ends_with("connection reset by peer"), "{e}");
    assert!(why(&nonsense.url("/")).await.ends_with("malformed HTTP response"));
    drop(gone);
    let cut =
        Server::start(|_| "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nabc".into())
            .await;
    let request = Request::get(cut.url("/")).body(Bytes::new()).expect("a request");
    let response = client(ClientConfig::default()).send(request).await.expect("a head");
    drop(cut);
    let _ = response;
}

#[tokio::test]
async fn unix_sockets_have_connections_of_their_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("s.sock");
    let server = Server::on_socket(&path);
    let tcp = client(bearer(SecretSource::inline("t")));
    let unix = tcp.over_unix_socket(&path);
    assert_eq!(get(&unix, "http://localhost/metrics").await, Ok((200, "socket".into())));
    let asked = server.asked().remove(0);
    assert_eq!((asked.header("host"), asked.header("authorization")), (Some("localhost"), Some("Bearer t")));
    let missing = tcp.over_unix_socket(dir.path().join("none"));
    let e = get(&missing, "http://localhost/").await.expect_err("nobody there");
    assert!(e.contains(": dial unix ") && e.ends_with(": connect: no such file or directory"), "{e}");
}

#[tokio::test]
async fn a_request_is_part_of_the_trace() {
    use model::trace::{AttributeValue, MemorySink, SpanContext, within};
    let server =
        Server::start(
            |asked| {
                if asked.line().contains("/no") { answer("404 Not Found", "", "") } else { ok("x") }
            },
        )
        .await;
    let client = client(ClientConfig::default());
    let sink = Arc::new(MemorySink::default());
    let root = sink.tracer(SystemClock::shared()).start("root");
    let url = server.url("/metrics");
    within(root.link(), get(&client, &url.replace("//", "//me:secret@"))).await.expect("an answer");
    within(root.link(), get(&client, &server.url("/no"))).await.expect("an answer");
    drop(root);
    let spans = sink.taken();
    let [good, bad, root] = &spans[..] else { panic!("{spans:?}") };
    assert!(good.name == "HTTP GET" && good.parent == Some(root.context.span_id) && good.failure.is_none());
    let of = |span: &model::trace::SpanData, key: &str| {
        span.attributes.iter().find(|(k, _)| *k == key).map(|(_, v)| v.clone())
    };
    assert_eq!(of(good, "url.full"), Some(url.into()));
    assert_eq!(of(good, "server.port"), Some(i64::from(server.port).into()));
    assert_eq!(of(good, "http.response.status_code"), Some(AttributeValue::Int(200)));
    assert_eq!((of(bad, "error.type"), bad.failure.as_deref()), (Some("404".to_owned().into()), Some("")));
    let told = server.asked()[0].header("traceparent").and_then(|h| SpanContext::parse(h, ""));
    assert_eq!(told.expect("a header").span_id, good.context.span_id);
    get(&client, &server.url("/metrics")).await.expect("an answer");
    assert_eq!(server.asked()[2].header("traceparent"), None);
}
