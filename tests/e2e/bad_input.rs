//! Queries that ask for too much: a standard error soon, or simply the answer, and the memory stays.
#![allow(clippy::disallowed_methods, reason = "waiting for real processes takes real time")]

use std::time::{Duration, Instant};

use crate::support::{Exporter, Process, eventually, free_port, http, number, percent, query, ready, write};

/// How long the worst of them may take, on a busy machine and in an unoptimised build.
const SOON: Duration = Duration::from_secs(20);
/// What the process may use beside what it had.
const MEMORY_MIB: u64 = 700;

struct Node {
    process: Process,
    port: u16,
}

impl Node {
    fn start(dir: &std::path::Path, exporter: u16) -> Self {
        let port = free_port();
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs: [{{job_name: app, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}]
"
        );
        let process = Process::almanac(&[
            &format!("--config.file={}", write(dir, "p.yml", &config)),
            &format!("--storage.tsdb.path={}", dir.join("tsdb").display()),
            &format!("--web.listen-address=127.0.0.1:{port}"),
        ]);
        ready(&process, port);
        eventually("samples", || number(port, "count(keep_me)").filter(|n| *n == 20.0));
        Self { process, port }
    }

    /// Status and body of a form, which must come soon.
    #[track_caller]
    fn ask(&self, path: &str, fields: &[(&str, &str)]) -> (u16, serde_json::Value) {
        let form: Vec<String> = fields.iter().map(|(n, v)| format!("{n}={}", percent(v))).collect();
        let begin = Instant::now();
        let (status, body) = http("POST", self.port, path, form.join("&").as_bytes()).expect("an answer");
        assert!(begin.elapsed() < SOON, "{path} took {:?}", begin.elapsed());
        (status, serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}")))
    }

    /// A standard error.
    #[track_caller]
    fn refused(&self, path: &str, fields: &[(&str, &str)], status: u16, kind: &str, words: &str) {
        let (got, json) = self.ask(path, fields);
        let text = json["error"].as_str().unwrap_or_default();
        assert_eq!(
            (got, &json["status"], &json["errorType"]),
            (status, &"error".into(), &kind.into()),
            "{text}"
        );
        assert!(text.contains(words), "{text}");
        // A bad regular expression is quoted whole, as Prometheus does.
        assert!(text.len() < 200_000, "the error text has {} bytes", text.len());
    }

    /// Most memory it ever used.
    fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("Linux");
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    }
}

#[test]
fn queries_that_ask_for_too_much_are_refused_and_the_node_lives() {
    let dir = tempfile::tempdir().expect("a folder");
    let exporter = Exporter::start();
    let node = Node::start(dir.path(), exporter.port);
    let before = node.peak_mib();
    let nest = |n: usize| format!("{}keep_me{}", "(".repeat(n), ")".repeat(n));
    for (text, words) in [
        (nest(10_000), "levels deep"),
        ("-".repeat(10_000) + "keep_me", "levels deep"),
        ("keep_me".to_owned() + &" + keep_me".repeat(100_000), "levels deep"),
        (format!("{{x=\"{}\"}}", "y".repeat(1 << 20)), "longer than the limit"),
        (format!("{{x=~\"{}\"}}", "(a{1000}){1000}"), "parse error"),
        (format!("{{x=~\"{}\"}}", "(".repeat(100_000)), ""),
        ("keep_me[1e300]".to_owned(), "out of range"),
    ] {
        for path in ["/api/v1/query", "/api/v1/format_query", "/api/v1/parse_query"] {
            node.refused(path, &[("query", &text)], 400, "bad_data", words);
        }
    }
    // A regular expression that backtracking engines never end with.
    let slow = format!("keep_me{{i!~\"(x+x+)+y|(.*)*z{{10}}\", job!~\"{}\"}}", "(a|aa)+".repeat(20));
    assert_eq!(query(node.port, &slow).map(|rows| rows.len()), Some(20));
    for k in ["1e18", "9e15"] {
        assert_eq!(query(node.port, &format!("topk({k}, keep_me)")).map(|rows| rows.len()), Some(20));
    }
    // Samples or bytes, whichever limit is met first.
    let too_many = "query processing would";
    for text in [
        "count_over_time(keep_me[1y:1ms])",
        "max_over_time(vector(1)[1y:1ms])",
        "sum_over_time(time()[100y:1ms])",
        "count_over_time(count_over_time(keep_me[1y:1s])[1y:1s])",
    ] {
        if text.contains("time()[") {
            node.refused("/api/v1/query", &[("query", text)], 400, "bad_data", "");
            continue;
        }
        node.refused("/api/v1/query", &[("query", text)], 422, "execution", too_many);
    }
    let range = |start, end, step| [("query", "keep_me"), ("start", start), ("end", end), ("step", step)];
    node.refused("/api/v1/query_range", &range("0", "1000000000", "1"), 400, "bad_data", "11,000 points");
    node.refused("/api/v1/query_range", &range("0", "9e15", "1ms"), 400, "bad_data", "");
    node.refused("/api/v1/query_range", &range("0", "1", "0"), 400, "bad_data", "zero or negative");
    let used = node.peak_mib().saturating_sub(before);
    assert!(used < MEMORY_MIB, "{used} MiB were used");
    assert_eq!(number(node.port, "count(keep_me)"), Some(20.0), "it goes on");
}
