use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::{Authorization, HttpConfig, Secret, SecretSource};
use crate::discovery::testing::{PATIENCE, addresses, context, metric};

/// Answers every request with what is set; keeps the heads of requests.
#[derive(Clone, Default)]
struct Server {
    answer: Arc<Mutex<String>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> (Self, String) {
        let server = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = server.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 8192];
                let mut len = 0;
                while !head[..len].ends_with(b"\r\n\r\n") {
                    match stream.read(&mut head[len..]).await {
                        Ok(n) if n > 0 => len += n,
                        _ => break,
                    }
                }
                shared.heads.lock().push(String::from_utf8_lossy(&head[..len]).to_lowercase());
                let answer = shared.answer.lock().clone();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (server, url)
    }

    fn set(&self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        *self.answer.lock() = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
        );
    }
}

const JSON: &str = "Content-Type: application/json; charset=UTF-8\r\n";

fn refresher(url: &str, http: HttpConfig) -> (Refresher, prometheus::Registry) {
    let interval = u64::try_from(PATIENCE.as_millis()).unwrap();
    let config = HttpDiscoveryConfig { url: url.to_owned(), refresh_interval_ms: interval, http };
    let (context, registry) = context();
    (Refresher::new(config, context).unwrap(), registry)
}

fn authorization(kind: &str, secret: &str) -> HttpConfig {
    let credentials = Some(SecretSource::Inline(Secret::new(secret)));
    let authorization = Authorization { kind: kind.into(), credentials };
    HttpConfig { authorization: Some(authorization), ..HttpConfig::default() }
}

#[tokio::test]
async fn groups_are_fetched_and_kept_over_failures() {
    let (server, url) = Server::start().await;
    server.set("200 OK", JSON, r#"[{"targets": ["a:1"], "labels": {"x": "y"}}, {"targets": ["b:1"]}]"#);
    let url = format!("{url}/targets?a=b");
    let (mut refresher, registry) = refresher(&url, authorization("Bearer", "secret-token"));
    let sink = Arc::clone(&refresher.context.sink);
    assert!(!sink.is_synced());
    assert_eq!(refresher.refresh().await, PATIENCE);
    assert!(sink.is_synced());
    let groups = sink.list();
    assert_eq!(groups.len(), 2);
    assert_eq!(&*groups[0].source, format!("{url}:0"));
    assert_eq!(&groups[0].labels["__meta_url"], url);
    assert_eq!(&groups[0].labels["x"], "y");
    let head = server.heads.lock()[0].clone();
    assert!(head.starts_with("get /targets?a=b http/1.1\r\n"), "{head}");
    for header in [
        "authorization: bearer secret-token",
        "accept: application/json",
        "x-prometheus-refresh-interval-seconds: 20\r\n",
    ] {
        assert!(head.contains(header), "{head}");
    }

    let failures = [
        ("500 Oops", JSON, "[]"),
        ("200 OK", "Content-Type: text/plain\r\n", "[]"),
        ("200 OK", JSON, "[null]"),
        ("200 OK", JSON, "["),
        ("301 Moved", "", ""),
    ];
    for (i, (status, headers, body)) in failures.into_iter().enumerate() {
        server.set(status, headers, body);
        // The pause grows, up to the interval.
        assert_eq!(refresher.refresh().await, Duration::from_secs(1 << i).min(PATIENCE), "{status}");
        assert_eq!(sink.list().len(), 2, "{status} {headers} {body}");
    }
    let labels = [("mechanism", "http"), ("config", "job")];
    assert_eq!(metric(&registry, "prometheus_sd_http_failures_total", &[]), 5.0);
    assert_eq!(metric(&registry, "prometheus_sd_refresh_failures_total", &labels), 5.0);

    server.set("200 OK", JSON, r#"[{"targets": ["c:1"]}]"#);
    assert_eq!(refresher.refresh().await, PATIENCE);
    assert_eq!(addresses(&sink.list()), ["c:1"]);
}

#[tokio::test]
async fn a_status_is_told_as_the_server_put_it() {
    let (server, url) = Server::start().await;
    server.set("503 Come back later", JSON, "");
    let (refresher, _registry) = refresher(&url, HttpConfig::default());
    let failed = fetch(&refresher.config, &refresher.client, "test").await.expect_err("no targets");
    assert_eq!(failed.to_string(), format!("{url}: server returned HTTP status 503 Come back later"));
}

#[tokio::test]
async fn redirects_leave_credentials_behind() {
    let (first, url) = Server::start().await;
    let (second, target) = Server::start().await;
    // Another host by its name: ports do not count.
    let target = target.replace("127.0.0.1", "localhost");
    first.set("302 Found", &format!("Location: {target}/there\r\n"), "");
    second.set("200 OK", JSON, r#"[{"targets": ["a:1"]}]"#);
    let (mut refresher, _registry) = refresher(&url, authorization("Key", "s3cret"));
    refresher.refresh().await;
    assert_eq!(addresses(&refresher.context.sink.list()), ["a:1"]);
    assert!(first.heads.lock()[0].contains("authorization: key s3cret"));
    assert!(!second.heads.lock()[0].contains("s3cret"));
}

#[test]
fn content_types() {
    for good in ["application/json", "Application/JSON; charset=utf-8", "application/json;charset=\"UTF-8\""]
    {
        assert!(is_json(good), "{good}");
    }
    for bad in ["", "text/json", "application/json; charset=latin1", "application/jsonx"] {
        assert!(!is_json(bad), "{bad}");
    }
}
