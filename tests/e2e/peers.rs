//! Beside the real `prometheus` and `promtool`, where they are installed.

use std::process::Command;

use crate::support::{Exporter, Process, eventually, free_port, get, installed, number, query, ready, write};

fn nodes(dir: &std::path::Path, exporter: u16) -> (Process, u16, Process, u16) {
    let (scraper_port, longterm_port) = (free_port(), free_port());
    let longterm = Process::almanac(&[
        "longterm",
        &format!("--storage.longterm.path={}", dir.join("longterm").display()),
        &format!("--web.listen-address=127.0.0.1:{longterm_port}"),
    ]);
    let file = write(
        dir,
        "p.yml",
        &format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs: [{{job_name: app, static_configs: [{{targets: ['127.0.0.1:{exporter}'], labels: {{longterm: x}}}}]}}]
longterm: {{url: 'http://127.0.0.1:{longterm_port}'}}
"
        ),
    );
    let scraper = Process::almanac(&[
        &format!("--config.file={file}"),
        &format!("--storage.tsdb.path={}", dir.join("tsdb").display()),
        &format!("--web.listen-address=127.0.0.1:{scraper_port}"),
    ]);
    ready(&longterm, longterm_port);
    ready(&scraper, scraper_port);
    (scraper, scraper_port, longterm, longterm_port)
}

#[test]
fn promtool_queries_both_nodes() {
    let Some(promtool) = installed("promtool") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let exporter = Exporter::start();
    let (_scraper, scraper_port, _longterm, longterm_port) = nodes(dir.path(), exporter.port);
    for port in [scraper_port, longterm_port] {
        eventually("samples", || number(port, "count(keep_me)").filter(|n| *n == 20.0));
        let output = Command::new(&promtool)
            .args(["query", "instant", &format!("http://127.0.0.1:{port}"), "count(keep_me) by (job)"])
            .output()
            .expect("promtool runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.starts_with("{job=\"app\"} => 20 @["), "{text}");
    }
}

#[test]
fn prometheus_writes_to_the_long_term_node_and_federates_from_the_scraper_node() {
    let Some(prometheus) = installed("prometheus") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let exporter = Exporter::start();
    let (_scraper, scraper_port, _longterm, longterm_port) = nodes(dir.path(), exporter.port);
    let port = free_port();
    let file = write(
        dir.path(),
        "peer.yml",
        &format!(
            "global: {{scrape_interval: 1s, external_labels: {{peer: prometheus}}}}
scrape_configs:
- job_name: federate
  honor_labels: true
  metrics_path: /federate
  params: {{'match[]': ['{{job=\"app\"}}']}}
  static_configs: [{{targets: ['127.0.0.1:{scraper_port}']}}]
remote_write: [{{url: 'http://127.0.0.1:{longterm_port}/api/v1/write', queue_config: {{batch_send_deadline: 500ms}}}}]
"
        ),
    );
    let peer = Process::start(
        &prometheus,
        &[
            &format!("--config.file={file}"),
            &format!("--storage.tsdb.path={}", dir.path().join("peer").display()),
            &format!("--web.listen-address=127.0.0.1:{port}"),
        ],
    );
    ready(&peer, port);
    eventually("the peer federates all series", || {
        number(port, "count(keep_me{job=\"app\"})").filter(|n| *n == 20.0)
    });
    let rows = eventually("the peer's samples are in the long-term node", || {
        query(longterm_port, "keep_me{peer=\"prometheus\"}").filter(|rows| rows.len() == 20)
    });
    assert!(rows.iter().all(|(labels, _)| labels["job"] == "app" && labels["longterm"] == "x"), "{rows:?}");
}

#[test]
fn prometheus_reads_from_both_nodes() {
    let Some(prometheus) = installed("prometheus") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let exporter = Exporter::start();
    let (_scraper, scraper_port, _longterm, longterm_port) = nodes(dir.path(), exporter.port);
    // More samples than one chunk holds, so that there is more than one.
    eventually("samples", || {
        number(longterm_port, "min(count_over_time(keep_me[1h]))").filter(|n| *n > 130.0)
    });
    for (name, from) in [("scraper", scraper_port), ("longterm", longterm_port)] {
        let port = free_port();
        let file = write(
            dir.path(),
            &format!("{name}.yml"),
            &format!("remote_read: [{{url: 'http://127.0.0.1:{from}/api/v1/read', read_recent: true}}]\n"),
        );
        let peer = Process::start(
            &prometheus,
            &[
                &format!("--config.file={file}"),
                &format!("--storage.tsdb.path={}", dir.path().join(format!("reader-{name}")).display()),
                &format!("--web.listen-address=127.0.0.1:{port}"),
            ],
        );
        ready(&peer, port);
        // A time that no scrape adds to any more.
        let at = number(from, "min(timestamp(keep_me))").expect("a time") - 1.0;
        for expression in ["count_over_time", "sum_over_time", "max_over_time", "last_over_time"] {
            let expression = format!("sum by (i, longterm) ({expression}(keep_me[1h] @ {at:.3}))");
            let expected = query(from, &expression).expect("an answer of ours");
            assert_eq!(expected.len(), 20, "{expression}");
            assert_eq!(query(port, &expression), Some(expected), "{expression} by {name}");
        }
    }
}

#[test]
fn a_remote_store_joins_in_queries_and_its_failure_is_a_warning() {
    let Some(prometheus) = installed("prometheus") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let exporter = Exporter::start();
    let (port, peer_port) = (free_port(), free_port());
    let labels = "external_labels: {region: r1}";
    let peer_file = write(
        dir.path(),
        "peer.yml",
        &format!(
            "global: {{scrape_interval: 1s, {labels}}}
scrape_configs: [{{job_name: far, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}]
",
            exporter.port
        ),
    );
    let file = write(
        dir.path(),
        "p.yml",
        &format!(
            "global: {{scrape_interval: 1s, {labels}}}
scrape_configs: [{{job_name: near, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}]
remote_read: [{{url: 'http://127.0.0.1:{peer_port}/api/v1/read', read_recent: true, name: far}}]
",
            exporter.port
        ),
    );
    let start = |program: Option<&std::path::Path>, file: &str, data: &str, port: u16| {
        let args = [
            format!("--config.file={file}"),
            format!("--storage.tsdb.path={}", dir.path().join(data).display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let process =
            program.map_or_else(|| Process::almanac(&args), |program| Process::start(program, &args));
        ready(&process, port);
        process
    };
    let peer = start(Some(&prometheus), &peer_file, "peer", peer_port);
    let _almanac = start(None, &file, "data", port);
    let rows = eventually("both have samples", || {
        query(port, "count by (job) (keep_me)")
            .filter(|rows| rows.len() == 2 && rows.iter().all(|r| r.1 == 20.0))
    });
    assert_eq!(rows[0].0["job"], "far");
    // The external label is taken off again.
    let far = query(port, "keep_me{job=\"far\",i=\"3\"}").expect("an answer");
    assert!(far.len() == 1 && far[0].0.get("region").is_none(), "{far:?}");
    peer.kill();
    let path = "/api/v1/query?query=count%28keep_me%7Bjob%3D%22near%22%7D%29";
    let text = get(port, path).expect("local data is there");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["data"]["result"][0]["value"][1], "20", "{text}");
    assert!(json["warnings"][0].as_str().is_some_and(|w| w.starts_with("remote_read: ")), "{text}");
}
