//! What holds for all endpoints: prefix, CORS, methods, limits of bodies, headers and connections, metrics.

use std::io::{Read, Write};
use std::time::Duration;

use api::CorsOrigin;
use url::Url;

use crate::support::{read_answer, start, start_with};

#[test]
fn the_page_and_its_prefix() {
    let server = start();
    for path in ["/", "/graph", "/query", "/targets"] {
        let page = server.get(path);
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, Some("text/html; charset=utf-8")),
            "{path}"
        );
        assert!(page.text().contains("const BASE = \"\";"), "{path}");
    }
    assert_eq!(server.get("/favicon.ico").status, 204);
    let missing = server.get("/nowhere");
    assert_eq!((missing.status, missing.text()), (404, "404 page not found\n"));
    assert_eq!(server.request("PUT", "/api/v1/query", &[], b"").status, 405);
    assert_eq!(server.request("HEAD", "/-/healthy", &[], b"").text(), "");

    let prefixed = start_with(|config, _| {
        config.route_prefix = "/prom".into();
        config.external_url = Url::parse("https://mon.example/x/prom/").expect("URL");
        config.page_title = "a <b>".into();
    });
    let root = prefixed.get("/");
    assert_eq!((root.status, root.header("location")), (302, Some("/prom")));
    for path in ["/prom", "/prom/", "/prom/query"] {
        let page = prefixed.get(path);
        assert_eq!(page.status, 200, "{path}");
        assert!(page.text().contains("const BASE = \"/x/prom\";"), "links follow the external URL");
        assert!(page.text().contains("<title>a &lt;b&gt;</title>"));
    }
    assert_eq!(prefixed.get("/prom/api/v1/query?query=1").status, 200);
    assert_eq!(prefixed.get("/prom/-/healthy").text(), "almanac is Healthy.\n");
    assert_eq!(prefixed.get("/api/v1/query?query=1").status, 404);
    assert_eq!(prefixed.get("/promx/api/v1/query?query=1").status, 404);
}

#[test]
fn browsers_of_other_origins() {
    let server = start();
    let answer = server.request("GET", "/api/v1/labels", &[("Origin", "http://grafana")], b"");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, POST, OPTIONS"));
    let options = server.request("OPTIONS", "/api/v1/query", &[("Origin", "http://grafana")], b"");
    assert_eq!((options.status, options.header("access-control-allow-origin")), (204, Some("*")));
    assert_eq!(server.get("/api/v1/labels").header("access-control-allow-origin"), None);

    let strict = start_with(|c, _| c.cors_origin = CorsOrigin::parse("https?://a|http://b").expect("valid"));
    for (origin, allowed) in
        [("http://a", true), ("http://b", true), ("http://bb", false), ("xhttp://a", false)]
    {
        let answer = strict.request("GET", "/api/v1/nothing-here", &[("Origin", origin)], b"");
        assert_eq!(answer.status, 404);
        let answer = strict.request("GET", "/api/v1/query?query=)", &[("Origin", origin)], b"");
        assert_eq!(answer.header("access-control-allow-origin"), allowed.then_some(origin));
    }
}

#[test]
fn bodies_and_headers_are_limited() {
    let server = start_with(|config, _| config.max_form_bytes = 1000);
    let form = |n: usize| format!("query=1{}", "%20".repeat(n));
    assert_eq!(server.post_form("/api/v1/query", &form(10)).status, 200);
    assert_eq!(server.post_form("/api/v1/query", &form(1000)).status, 413);
    let multipart = [("Content-Type", "multipart/form-data; boundary=x")];
    let answer = server.request("POST", "/api/v1/query", &multipart, b"--x--");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("not supported: multipart/form-data"));
    let long = "x".repeat(3 << 20);
    let mut stream = server.connect();
    let _ = write!(stream, "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\nX: {long}\r\n\r\n");
    let mut head = Vec::new();
    let _ = stream.read_to_end(&mut head);
    assert!(!head.starts_with(b"HTTP/1.1 200"), "a header of 3 MiB is not taken");
    assert_eq!(server.get("/-/healthy").status, 200);
}

#[test]
fn slow_clients_are_cut_off() {
    let server = start_with(|config, _| {
        config.header_timeout = Duration::from_millis(100);
        config.read_timeout = Duration::from_millis(200);
    });
    let mut slow_head = server.connect();
    slow_head.write_all(b"GET / HT").expect("sent");
    let mut rest = Vec::new();
    let _ = slow_head.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    let mut slow_body = server.connect();
    slow_body
        .write_all(b"POST /api/v1/query HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\nq")
        .expect("sent");
    assert_eq!(read_answer(&mut slow_body).status, 408);
}

#[test]
fn connections_over_the_limit_wait() {
    let server = start_with(|config, _| config.max_connections = 1);
    let first = server.connect();
    let mut second = server.connect();
    second.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").expect("sent");
    second.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
    assert!(second.read(&mut [0; 1]).is_err(), "nobody answers while the first is there");
    drop(first);
    second.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    assert_eq!(read_answer(&mut second).status, 200);
}

#[test]
fn requests_are_counted() {
    let server = start();
    server.get("/api/v1/query?query=1");
    server.get("/api/v1/query?query=)");
    server.get("/api/v1/label/job/values");
    let text = server.get("/metrics");
    assert_eq!(
        text.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8; escaping=underscores")
    );
    for line in [
        "prometheus_http_requests_total{code=\"200\",handler=\"/api/v1/query\"} 1",
        "prometheus_http_requests_total{code=\"400\",handler=\"/api/v1/query\"} 1",
        "prometheus_http_requests_total{code=\"200\",handler=\"/api/v1/label/:name/values\"} 1",
        "prometheus_http_request_duration_seconds_count{handler=\"/api/v1/query\"} 2",
        "prometheus_http_response_size_bytes_count{handler=\"/api/v1/query\"} 2",
        "prometheus_ready 1",
    ] {
        assert!(text.text().lines().any(|l| l == line), "{line} in\n{}", text.text());
    }
    let json = server.get("/api/v1/status/self_metrics?metric_name_pattern=prometheus_ready").json();
    assert_eq!(
        json["data"],
        serde_json::json!([{"name": "prometheus_ready", "help": "Whether startup is complete and the server is ready for normal operation.",
            "type": "GAUGE", "metric": [{"gauge": {"value": 1}}]}])
    );
}

#[test]
fn bodies_of_all_clients_together_are_limited() {
    let server = start_with(|config, _| config.max_request_bytes = 1000);
    let mut slow = server.connect();
    let head =
        "POST /api/v1/query HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    write!(slow, "{head}Content-Length: 900\r\n\r\nquery=1{}", "%20".repeat(200)).expect("sent");
    std::thread::sleep(Duration::from_millis(100));
    let form = format!("query=1{}", "%20".repeat(200));
    let refused = server.post_form("/api/v1/query", &form);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert_eq!(server.get("/api/v1/query?query=1").status, 200, "who sends no body is not concerned");
    drop(slow);
    let mut status = 0;
    for _ in 0..100 {
        status = server.post_form("/api/v1/query", &form).status;
        if status == 200 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(status, 200, "the share comes back");
}
