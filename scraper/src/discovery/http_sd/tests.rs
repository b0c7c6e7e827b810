use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::{Authorization, HttpConfig, Secret, SecretSource};
use crate::discovery::config::DiscoveryConfig;
use crate::discovery::testing::{addresses, manager, metric, wait};

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

fn config(url: String, http: HttpConfig) -> Vec<(String, Vec<DiscoveryConfig>)> {
    let config = HttpDiscoveryConfig { url, refresh_interval_ms: 50, http };
    vec![("job".to_owned(), vec![DiscoveryConfig::Http(config)])]
}

#[tokio::test]
async fn groups_are_fetched_and_kept_over_failures() {
    let (server, url) = Server::start().await;
    server.set("200 OK", JSON, r#"[{"targets": ["a:1"], "labels": {"x": "y"}}, {"targets": ["b:1"]}]"#);
    let authorization = Authorization {
        kind: "Bearer".into(),
        credentials: Some(SecretSource::Inline(Secret::new("secret-token"))),
    };
    let http = HttpConfig { authorization: Some(authorization), ..HttpConfig::default() };
    let url = format!("{url}/targets?a=b");
    let (manager, registry) = manager();
    let mut receiver = manager.apply(config(url.clone(), http)).remove(0).1;
    let groups = wait(&mut receiver, |groups| groups.len() == 2).await;
    assert_eq!(&*groups[0].source, format!("{url}:0"));
    assert_eq!(&groups[0].labels["__meta_url"], url);
    assert_eq!(&groups[0].labels["x"], "y");
    let head = server.heads.lock()[0].clone();
    assert!(head.starts_with("get /targets?a=b http/1.1\r\n"), "{head}");
    for header in [
        "authorization: bearer secret-token",
        "accept: application/json",
        "x-prometheus-refresh-interval-seconds: 0.05",
    ] {
        assert!(head.contains(header), "{head}");
    }

    for (status, headers, body) in [
        ("500 Oops", JSON, "[]"),
        ("200 OK", "Content-Type: text/plain\r\n", "[]"),
        ("200 OK", JSON, "[null]"),
        ("200 OK", JSON, "["),
        ("301 Moved", "", ""),
    ] {
        server.set(status, headers, body);
        let failures = || metric(&registry, "prometheus_sd_http_failures_total", &[]);
        let before = failures();
        while failures() < before + 2.0 {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(receiver.borrow_and_update().len(), 2, "{status} {headers} {body}");
    }

    server.set("200 OK", JSON, r#"[{"targets": ["c:1"]}]"#);
    let groups = wait(&mut receiver, |groups| groups.len() == 1).await;
    assert_eq!(addresses(&groups), ["c:1"]);
}

#[tokio::test]
async fn redirects_leave_credentials_behind() {
    let (first, url) = Server::start().await;
    let (second, target) = Server::start().await;
    // Another host by its name: ports do not count.
    let target = target.replace("127.0.0.1", "localhost");
    first.set("302 Found", &format!("Location: {target}/there\r\n"), "");
    second.set("200 OK", JSON, r#"[{"targets": ["a:1"]}]"#);
    let authorization =
        Authorization { kind: "Key".into(), credentials: Some(SecretSource::Inline(Secret::new("s3cret"))) };
    let http = HttpConfig { authorization: Some(authorization), ..HttpConfig::default() };
    let (manager, _registry) = manager();
    let mut receiver = manager.apply(config(url, http)).remove(0).1;
    wait(&mut receiver, |groups| groups.len() == 1).await;
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
