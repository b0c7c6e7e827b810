//! A pair of scraper nodes that scrape the same, and a long-term node that keeps one clean copy.

use crate::support::{Exporter, Process, eventually, free_port, get, number, query, ready, write};

fn scraper(dir: &std::path::Path, replica: &str, exporter: u16, longterm: u16) -> (Process, u16) {
    let port = free_port();
    let file = write(
        dir,
        &format!("{replica}.yml"),
        &format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, external_labels: {{cluster: c, __replica__: {replica}}}}}
scrape_configs: [{{job_name: app, static_configs: [{{targets: ['127.0.0.1:{exporter}'], labels: {{longterm: x}}}}]}}]
longterm: {{url: 'http://127.0.0.1:{longterm}'}}
"
        ),
    );
    let process = Process::almanac(&[
        &format!("--config.file={file}"),
        &format!("--storage.tsdb.path={}", dir.join(replica).display()),
        &format!("--web.listen-address=127.0.0.1:{port}"),
    ]);
    ready(&process, port);
    (process, port)
}

/// Times of the samples of one series in the long-term node, in milliseconds.
fn times(port: u16) -> Vec<i64> {
    let text = get(port, "/api/v1/query?query=keep_me%7Bi%3D%223%22%7D%5B10m%5D").expect("an answer");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let series = json["data"]["result"].as_array().expect("a matrix");
    assert_eq!(series.len(), 1, "one series: {text}");
    let values = series[0]["values"].as_array().expect("samples").iter();
    values.map(|v| (v[0].as_f64().expect("a time") * 1000.0).round() as i64).collect()
}

#[test]
fn a_pair_is_one_series_and_the_survivor_goes_on_without_a_gap() {
    let dir = tempfile::tempdir().expect("a folder");
    let exporter = Exporter::start();
    let longterm_port = free_port();
    let longterm = Process::almanac(&[
        "longterm",
        &format!("--storage.longterm.path={}", dir.path().join("longterm").display()),
        &format!("--web.listen-address=127.0.0.1:{longterm_port}"),
        "--storage.longterm.ha.failover-timeout=3s",
    ]);
    ready(&longterm, longterm_port);
    let (a, _) = scraper(dir.path(), "a", exporter.port, longterm_port);
    eventually("a's samples", || number(longterm_port, "count(keep_me)").filter(|n| *n == 20.0));
    let (_b, b_port) = scraper(dir.path(), "b", exporter.port, longterm_port);
    let covered = "almanac_longterm_ha_samples_total{outcome=\"covered\"} ";
    eventually("b's samples are covered by a's", || {
        let text = get(longterm_port, "/metrics")?;
        text.lines().find_map(|l| l.strip_prefix(covered)?.parse::<f64>().ok()).filter(|n| *n > 100.0)
    });
    let rows = query(longterm_port, "keep_me{i=\"3\"}").expect("an answer");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(rows[0].0.get("__replica__").is_none() && rows[0].0["cluster"] == "c", "{rows:?}");

    a.kill();
    let killed_at = *times(longterm_port).last().expect("samples");
    eventually("b goes on", || times(longterm_port).last().filter(|t| **t > killed_at + 5_000).copied());
    let times = times(longterm_port);
    let gap = times.windows(2).map(|w| w[1] - w[0]).max().expect("many samples");
    // An interval is half a second; a busy machine scrapes late, which shows in both replicas.
    assert!(gap < 3_000, "a gap of {gap} ms: {times:?}");
    // The survivor still reads its series over both tiers.
    assert_eq!(number(b_port, "count(keep_me)"), Some(20.0));
}
