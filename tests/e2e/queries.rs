//! What the program notes about queries: the query log, and the queries that a crash left unfinished.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use crate::support::{Process, eventually, free_port, get, number, ready, write};

/// Takes connections and never says anything.
fn silent_peer() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let taken: Vec<_> = listener.incoming().collect();
        drop(taken);
    });
    port
}

#[test]
fn queries_that_did_not_end_are_named_after_a_crash() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = format!("longterm: {{url: 'http://127.0.0.1:{}'}}\n", silent_peer());
    let file = write(dir.path(), "p.yml", &config);
    let data = dir.path().join("data");
    let port = free_port();
    let start = || {
        let process = Process::almanac(&[
            &format!("--config.file={file}"),
            &format!("--storage.tsdb.path={}", data.display()),
            &format!("--web.listen-address=127.0.0.1:{port}"),
        ]);
        ready(&process, port);
        process
    };
    let process = start();
    assert!(!process.log().contains("did not end"), "{}", process.log());
    // The long-term node does not answer, so this query hangs.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    write!(stream, "GET /api/v1/query?query=very_old&time=1000 HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let active = data.join("queries.active");
    let holds = || std::fs::read(&active).is_ok_and(|b| b.windows(8).any(|w| w == b"very_old"));
    eventually("the query is on the list", || holds().then_some(()));
    process.kill();

    let process = start();
    let log = process.log();
    assert!(log.contains("did not end in the last run") && log.contains("very_old"), "{log}");
    assert!(!holds(), "the list begins anew");
    drop(stream);
}

#[test]
fn queries_are_logged() {
    let dir = tempfile::tempdir().expect("a folder");
    let rules = "groups: [{name: g, interval: 1s, rules: [{record: r, expr: vector(7)}]}]\n";
    write(dir.path(), "rules.yml", rules);
    let config = "global: {query_log_file: queries.log}\nrule_files: [rules.yml]\n";
    let file = write(dir.path(), "p.yml", config);
    let port = free_port();
    let process = Process::almanac(&[
        &format!("--config.file={file}"),
        &format!("--storage.tsdb.path={}", dir.path().join("data").display()),
        &format!("--web.listen-address=127.0.0.1:{port}"),
    ]);
    ready(&process, port);
    let path = dir.path().join("queries.log");
    let line = |has: &str| {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().find(|l| l.contains(has))?;
        Some(serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
    };
    let of_rule = eventually("a rule is evaluated and logged", || line("ruleGroup"));
    assert_eq!(
        (&of_rule["ruleGroup"]["name"], &of_rule["params"]["query"]),
        (&"g".into(), &"vector(7)".into())
    );
    assert_eq!(number(port, "vector(41) + 1"), Some(42.0));
    let of_request = eventually("a query is logged", || line("vector(41)"));
    let expect = serde_json::json!({ "clientIP": "127.0.0.1", "method": "POST", "path": "/api/v1/query" });
    assert_eq!(of_request["httpRequest"], expect);
    assert!(of_request["stats"]["timings"]["execTotalTime"].as_f64().is_some_and(|s| s > 0.0));

    // Moved away and opened anew.
    std::fs::rename(&path, dir.path().join("old.log")).expect("moved");
    process.signal("HUP");
    eventually("the log goes on in a new file", || {
        number(port, "vector(2)");
        line("vector(2)")
    });
    let metrics = get(port, "/metrics").expect("metrics");
    for expect in [
        "prometheus_engine_query_log_enabled 1",
        "prometheus_engine_query_log_failures_total 0",
        "prometheus_engine_queries_concurrent_max 20",
        "prometheus_engine_query_samples_read_total 0",
        "prometheus_engine_query_duration_seconds{slice=\"inner_eval\",quantile=\"0.9\"}",
        "prometheus_engine_query_duration_seconds_count{slice=\"queue_time\"}",
    ] {
        assert!(metrics.contains(expect), "{expect} in\n{metrics}");
    }
}
