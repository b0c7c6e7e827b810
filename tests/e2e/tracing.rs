//! Traces: one request is followed through two nodes, and scrapes, rules and what is sent leave theirs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use wire::trace::ReadSpan;

use crate::support::{Exporter, Process, eventually, free_port, get, http_with, number, ready, write};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Takes spans over HTTP, and answers that all is well.
struct Collector {
    port: u16,
    spans: Arc<Mutex<Vec<ReadSpan>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let spans: Arc<Mutex<Vec<ReadSpan>>> = Arc::default();
        let kept = spans.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let kept = kept.clone();
                std::thread::spawn(move || serve(stream, &kept));
            }
        });
        Self { port, spans }
    }

    fn spans(&self) -> Vec<ReadSpan> {
        self.spans.lock().expect("no panic while it is held").clone()
    }

    /// Spans of a trace, as paths of names from the top.
    fn paths(&self, of: impl Fn(&ReadSpan) -> bool) -> Vec<String> {
        let spans = self.spans();
        let path = |span: &ReadSpan| {
            let mut names = vec![span.name.clone()];
            let mut parent = span.parent;
            while let Some(above) = spans.iter().find(|s| Some(s.span_id) == parent) {
                names.push(above.name.clone());
                parent = above.parent;
            }
            names.reverse();
            names.join(" > ")
        };
        let mut paths: Vec<String> = spans.iter().filter(|s| of(s)).map(path).collect();
        paths.sort();
        paths.dedup();
        paths
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<ReadSpan>>) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    loop {
        let (mut line, mut len) = (String::new(), 0);
        loop {
            line.clear();
            if input.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(n) = line.strip_prefix("content-length: ") {
                len = n.parse().expect("a length");
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; len];
        if input.read_exact(&mut body).is_err() {
            return;
        }
        let spans = wire::trace::read(&body).expect("spans");
        kept.lock().expect("no panic while it is held").extend(spans);
        if out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn section(port: u16, fraction: &str) -> String {
    format!(
        "tracing: {{client_type: http, endpoint: '127.0.0.1:{port}', insecure: true, sampling_fraction: {fraction}}}\n"
    )
}

fn node(dir: &Path, name: &str, port: u16, config: &str) -> Process {
    let file = write(dir, &format!("{name}.yml"), config);
    let process = Process::almanac(&[
        &format!("--config.file={file}"),
        &format!("--storage.tsdb.path={}", dir.join(name).display()),
        &format!("--web.listen-address=127.0.0.1:{port}"),
        "--web.enable-remote-write-receiver",
    ]);
    ready(&process, port);
    process
}

#[test]
fn a_request_is_followed_from_node_to_node() {
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, exporter) = (Collector::start(), Exporter::start());
    let (near, far) = (free_port(), free_port());
    // The far node records what its callers record.
    let _other = node(dir.path(), "far", far, &section(collector.port, "0"));
    write(
        dir.path(),
        "rules.yml",
        "groups: [{name: g, interval: 1s, rules: [{record: r, expr: 'sum(up)'}]}]\n",
    );
    let config = |tracing: &str| {
        format!(
            "global: {{scrape_interval: 1s, query_log_file: queries.log}}\nrule_files: [rules.yml]\n\
             scrape_configs: [{{job_name: j, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}]\n\
             remote_write: [{{url: 'http://127.0.0.1:{far}/api/v1/write', name: w, queue_config: {{batch_send_deadline: 100ms}}}}]\n\
             remote_read: [{{url: 'http://127.0.0.1:{far}/api/v1/read', name: r, read_recent: true}}]\n{tracing}",
            exporter.port
        )
    };
    let process = node(dir.path(), "near", near, &config(&section(collector.port, "1")));
    eventually("the far node has samples", || number(far, "count(keep_me)").filter(|n| *n == 20.0));

    let headers = format!("traceparent: 00-{TRACE}-{CALLER}-01\r\n");
    let path = "/api/v1/query_range?query=sum(keep_me)&start=1700000000&end=1700000060&step=15";
    let (status, body) = http_with("GET", near, path, &headers, b"").expect("an answer");
    assert_eq!(status, 200, "{body}");
    let ours = |s: &ReadSpan| s.trace_id.to_string() == TRACE;
    let request = eventually("the request's own span arrives, which ends last", || {
        collector.spans().into_iter().find(|s| ours(s) && s.name == "GET /api/v1/query_range")
    });
    assert_eq!(request.parent.map(|p| p.to_string()).as_deref(), Some(CALLER));
    assert_eq!((request.kind, request.attribute("http.response.status_code")), (2, "200"));
    assert!(request.resource.contains(&("service.name".into(), "prometheus".into())), "{request:?}");
    let top = "GET /api/v1/query_range > promqlRangeQuery > promqlExec";
    let read = format!("{top} > promqlEval > promqlInnerEval > querierSelect > Remote Read");
    let expect = [
        "GET /api/v1/query_range".to_owned(),
        "GET /api/v1/query_range > promqlRangeQuery".into(),
        top.into(),
        format!("{top} > promqlEval"),
        format!("{top} > promqlEval > promqlInnerEval"),
        format!("{top} > promqlEval > promqlInnerEval > querierSelect"),
        read.clone(),
        format!("{read} > HTTP POST"),
        format!("{read} > HTTP POST > POST /api/v1/read"),
        format!("{top} > promqlEval > promqlPrepare"),
        format!("{top} > promqlEval > promqlPrepare > Querier"),
        format!("{top} > promqlExecQueue"),
    ];
    eventually("the far node's span arrives", || collector.paths(ours).contains(&expect[8]).then_some(()));
    assert_eq!(collector.paths(ours), expect);
    let range = collector.spans().into_iter().find(|s| s.name == "promqlRangeQuery").expect("a span");
    for (key, value) in [
        ("query", "sum(keep_me)"),
        ("start", "2023-11-14T22:13:20Z"),
        ("step", "15s"),
        ("result_series", "0"),
    ] {
        assert_eq!(range.attribute(key), value, "{key}");
    }
    let log = std::fs::read_to_string(dir.path().join("queries.log")).expect("a query log");
    let line = log.lines().find(|l| l.contains("sum(keep_me)")).expect("a line");
    assert!(line.contains(&format!(r#""traceID":"{TRACE}""#)), "{line}");

    let others = |s: &ReadSpan| !ours(s);
    for path in [
        "scrape > scrapeRequest > HTTP GET",
        "scrape > scrapeRead",
        "scrape > newAppender",
        "scrape > scrapeAppend",
        "scrape > scrapeReport",
        "scrape > scrapeCommit",
        "rule group > rule > promqlExec",
        "rule group > rule > newAppender",
        "rule group > rule > ruleAppendResults",
        "rule group > rule > ruleCommit",
        "Remote Send Batch > Remote Store > HTTP POST > POST /api/v1/write",
    ] {
        eventually(path, || collector.paths(others).iter().any(|p| p.starts_with(path)).then_some(()));
    }
    let metrics = get(near, "/metrics").expect("metrics");
    assert!(!metrics.contains("almanac_tracing_spans_sent_total 0\n"), "{metrics}");

    // A caller that does not record is not recorded.
    let headers = format!("traceparent: 00-{}-{CALLER}-00\r\n", "a".repeat(32));
    assert_eq!(http_with("GET", near, path, &headers, b"").map(|(s, _)| s), Some(200));
    // To a collector that is away, and then to none: queries go on, and nothing more arrives.
    write(dir.path(), "near.yml", &config(&section(free_port(), "1")));
    process.signal("HUP");
    eventually("the log says so", || {
        (process.log().matches("tracing switched on").count() == 2).then_some(())
    });
    assert_eq!(number(near, "vector(1)"), Some(1.0));
    write(dir.path(), "near.yml", &config(""));
    process.signal("HUP");
    eventually("the log says so", || process.log().contains("tracing switched off").then_some(()));
    assert_eq!(number(near, "vector(1)"), Some(1.0));
    assert!(collector.spans().iter().all(|s| s.trace_id.to_string() != "a".repeat(32)));
    assert_eq!(process.terminate().0, 0);
}
