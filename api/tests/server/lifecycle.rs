//! Ready, healthy, reload, quit, shutdown, taken ports.

use std::io::Write;
use std::sync::atomic::Ordering;

use api::{ApiConfig, ReadyState, Server};

use crate::support::{read_answer, start, start_with};

#[test]
fn readiness_gates_the_api_and_nothing_else() {
    let server = start();
    for (state, stopping) in [(ReadyState::NotReady, "false"), (ReadyState::Stopping, "true")] {
        server.readiness.set(state);
        for path in ["/-/ready", "/api/v1/query?query=1", "/federate", "/api/v1/targets"] {
            let answer = server.get(path);
            assert_eq!((answer.status, answer.text()), (503, "Service Unavailable"), "{path}");
            assert_eq!(answer.header("x-prometheus-stopping"), Some(stopping));
        }
        assert_eq!(server.request("POST", "/api/v1/write", &[], b"").status, 503);
        for path in ["/-/healthy", "/metrics", "/", "/api/v1/status/walreplay", "/version"] {
            assert_eq!(server.get(path).status, 200, "{path}");
        }
    }
    server.readiness.set(ReadyState::Ready);
    assert_eq!(server.get("/-/ready").text(), "almanac is Ready.\n");
    assert_eq!(server.get("/-/healthy").text(), "almanac is Healthy.\n");
}

#[test]
fn reload_and_quit() {
    let server = start();
    assert_eq!(server.request("POST", "/-/reload", &[], b"").status, 200);
    assert_eq!(server.request("PUT", "/-/reload", &[], b"").status, 200);
    server.fixed.reload_fails.store(true, Ordering::SeqCst);
    let failed = server.request("POST", "/-/reload", &[], b"");
    assert_eq!((failed.status, failed.text()), (500, "failed to reload config: line 3: no such field\n"));
    assert_eq!(server.fixed.reloads.load(Ordering::SeqCst), 3);
    for path in ["/-/reload", "/-/quit"] {
        let get = server.get(path);
        assert_eq!((get.status, get.text()), (405, "Only POST or PUT requests allowed"));
    }
    assert_eq!(server.request("POST", "/-/quit", &[], b"").text(), "Requesting termination... Goodbye!");
    assert_eq!(server.request("POST", "/-/quit", &[], b"").text(), "Termination already in progress.");
    assert_eq!(server.fixed.quits.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_switched_off_says_so() {
    let server = start_with(|config, _| {
        config.enable_lifecycle = false;
        config.enable_admin_api = false;
        config.enable_remote_write_receiver = false;
    });
    for path in ["/-/reload", "/-/quit"] {
        let answer = server.request("POST", path, &[], b"");
        assert_eq!((answer.status, answer.text()), (403, "Lifecycle API is not enabled."));
    }
    let admin = server.request("POST", "/api/v1/admin/tsdb/snapshot", &[], b"");
    assert_eq!(admin.text(), r#"{"status":"error","errorType":"unavailable","error":"admin APIs disabled"}"#);
    let write = server.request("POST", "/api/v1/write", &[], b"");
    assert_eq!(
        (write.status, write.text()),
        (404, "remote write receiver needs to be enabled with --web.enable-remote-write-receiver\n")
    );
    let features = server.get("/api/v1/features").json();
    assert_eq!(features["data"]["api"]["admin"], false);
    assert_eq!(features["data"]["api"]["query_stats"], true);
    assert_eq!(features["data"]["promql_functions"]["rate"], true);
    assert_eq!(features["data"]["promql"]["per_step_stats"], false);
}

#[test]
fn sources_that_are_missing() {
    let server = start_with(|_, deps| {
        deps.rules = None;
        deps.exemplars = None;
        deps.admin = None;
    });
    assert_eq!(server.get("/api/v1/rules").text(), r#"{"status":"success","data":{"groups":[]}}"#);
    assert_eq!(server.get("/api/v1/alerts").text(), r#"{"status":"success","data":{"alerts":[]}}"#);
    assert_eq!(
        server.get("/api/v1/alertmanagers").text(),
        r#"{"status":"success","data":{"activeAlertmanagers":[],"droppedAlertmanagers":[]}}"#
    );
    let exemplars = server.get("/api/v1/query_exemplars?query=up").json();
    assert_eq!(exemplars["error"], "not supported: this store keeps no exemplars");
    let admin = server.request("POST", "/api/v1/admin/tsdb/clean_tombstones", &[], b"").json();
    assert_eq!(admin["error"], "not supported: admin operations of this store");
}

#[test]
fn shutdown_lets_open_requests_finish() {
    let mut server = start();
    let mut stream = server.connect();
    // The body is still on its way when the server is asked to stop.
    let head = "POST /api/v1/query HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sent");
    std::thread::sleep(std::time::Duration::from_millis(100));
    let rest = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        stream.write_all(b"query=1").expect("sent");
        read_answer(&mut stream)
    });
    server.stop();
    assert_eq!(rest.join().expect("no panic").status, 200);
    assert!(std::net::TcpStream::connect(server.addr).is_err(), "nobody listens any more");
}

#[test]
fn a_taken_port_is_one_clear_line() {
    let server = start();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let address = server.addr.to_string();
    let config = ApiConfig { listen_addresses: vec![address.clone()], ..ApiConfig::default() };
    let mut deps = None;
    let other = start_with(|_, d| deps = Some(d.clone()));
    let error = runtime.block_on(Server::bind(config, deps.expect("set"))).err().expect("taken").to_string();
    assert!(error.contains(&address) && error.contains("in use") && !error.contains('\n'), "{error}");
    drop(other);
}
