//! From the scraper node to the long-term node: what is tagged arrives, all of it, whoever dies in between.

use std::path::Path;
use std::time::Duration;

use crate::support::{Exporter, Process, eventually, free_port, number, query, ready, write};

struct Pair {
    scraper_args: Vec<String>,
    longterm_args: Vec<String>,
    scraper_port: u16,
    longterm_port: u16,
}

impl Pair {
    fn new(dir: &Path, exporter: u16) -> Self {
        let (scraper_port, longterm_port) = (free_port(), free_port());
        let config = format!(
            "global:
  scrape_interval: 100ms
  scrape_timeout: 100ms
  external_labels: {{cluster: test}}
scrape_configs:
- job_name: app
  static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]
  metric_relabel_configs:
  - {{source_labels: [__name__], regex: 'keep_me|scrapes_total', target_label: longterm, replacement: 'true'}}
longterm:
  url: http://127.0.0.1:{longterm_port}
"
        );
        let file = write(dir, "p.yml", &config);
        Self {
            scraper_args: vec![
                format!("--config.file={file}"),
                format!("--storage.tsdb.path={}", dir.join("tsdb").display()),
                format!("--web.listen-address=127.0.0.1:{scraper_port}"),
            ],
            longterm_args: vec![
                "longterm".into(),
                format!("--storage.longterm.path={}", dir.join("longterm").display()),
                format!("--web.listen-address=127.0.0.1:{longterm_port}"),
            ],
            scraper_port,
            longterm_port,
        }
    }

    fn start(args: &[String], port: u16) -> Process {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let process = Process::almanac(&args);
        ready(&process, port);
        process
    }

    fn scraper(&self) -> Process {
        Self::start(&self.scraper_args, self.scraper_port)
    }

    fn longterm(&self) -> Process {
        Self::start(&self.longterm_args, self.longterm_port)
    }
}

/// Series in a comparable form: labels without the external one, and the count of their samples.
fn counts(port: u16, selector: &str) -> Option<Vec<(String, f64)>> {
    let mut rows: Vec<(String, f64)> = query(port, &format!("count_over_time({selector}[10m])"))?
        .into_iter()
        .map(|(mut labels, count)| {
            if let Some(map) = labels.as_object_mut() {
                map.remove("cluster");
            }
            (labels.to_string(), count)
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    Some(rows)
}

#[test]
fn killing_either_node_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let exporter = Exporter::start();
    let pair = Pair::new(dir.path(), exporter.port);
    let longterm = pair.longterm();
    let scraper = pair.scraper();
    let arrived = |n: u64| {
        let target = exporter.scrapes() + n;
        eventually("samples arrive", || {
            number(pair.longterm_port, "max(scrapes_total)").filter(|v| *v >= target as f64)
        });
    };
    arrived(10);
    longterm.kill();
    let before = exporter.scrapes();
    eventually("scraping goes on without the long-term node", || {
        (exporter.scrapes() > before + 10).then_some(())
    });
    let longterm = pair.longterm();
    arrived(10);
    scraper.kill();
    let scraper = pair.scraper();
    arrived(10);

    // The exporter stops being scraped when the job goes; then both sides hold a fixed set.
    let config = write(
        dir.path(),
        "p.yml",
        &std::fs::read_to_string(dir.path().join("p.yml"))
            .expect("written")
            .replace(&format!("targets: ['127.0.0.1:{}']", exporter.port), "targets: []"),
    );
    assert!(!config.is_empty());
    scraper.signal("HUP");
    eventually("the target is gone", || query(pair.scraper_port, "up").filter(Vec::is_empty));
    // Kept series have the tag on both nodes; the long-term node adds nothing but the external label.
    let (local, remote) = eventually("both nodes hold the same samples", || {
        let local = counts(pair.scraper_port, "{longterm=\"true\"}")?;
        let remote = counts(pair.longterm_port, "{__name__=~\".+\"}")?;
        (local == remote && local.len() == 21).then_some((local, remote))
    });
    assert_eq!(local, remote);
    assert!(local.iter().all(|(_, n)| *n >= 30.0), "{local:?}");
    // No scrape is missing: the counter rises by one with each.
    let missing = "max(max_over_time(scrapes_total[10m])) - max(count_over_time(scrapes_total[10m]))";
    let missing = number(pair.longterm_port, missing).expect("a number");
    // Scrapes that the killed node had begun and not committed were never acknowledged to anyone.
    assert!((0.0..=3.0).contains(&missing), "{missing} scrapes are missing");
    let (code, log) = scraper.terminate();
    assert_eq!(code, 0, "{log}");
    let (code, log) = longterm.terminate();
    assert_eq!(code, 0, "{log}");
}

#[test]
fn the_scraper_node_answers_for_what_only_the_long_term_node_has() {
    let dir = tempfile::tempdir().expect("a folder");
    let exporter = Exporter::start();
    let pair = Pair::new(dir.path(), exporter.port);
    let longterm = pair.longterm();
    let scraper = pair.scraper();
    eventually("samples arrive", || number(pair.longterm_port, "max(scrapes_total)").filter(|v| *v >= 20.0));
    scraper.kill();
    let before = counts(pair.longterm_port, "scrapes_total").expect("an answer");
    // A scraper node that starts with an empty disk still shows the past, under the same labels.
    std::fs::remove_dir_all(dir.path().join("tsdb")).expect("a folder");
    let scraper = pair.scraper();
    eventually("new samples", || number(pair.scraper_port, "max(scrapes_total)").filter(|v| *v > 25.0));
    let rows = query(pair.scraper_port, "count_over_time(scrapes_total[10m])").expect("an answer");
    assert_eq!(rows.len(), 1, "one history, one label set: {rows:?}");
    assert!(rows[0].0.get("cluster").is_none(), "external labels are stripped: {rows:?}");
    assert!(rows[0].1 > before[0].1, "{rows:?} should hold more than {before:?}");
    // Without the long-term node the local part is still answered.
    longterm.kill();
    let rows =
        eventually("local data", || query(pair.scraper_port, "scrapes_total").filter(|r| r.len() == 1));
    assert!(rows[0].1 > 0.0);
    std::thread::sleep(Duration::from_millis(10));
    let (code, log) = scraper.terminate();
    assert_eq!(code, 0, "{log}");
}

/// Runs a command to its end; gives its exit code and what it printed.
fn command(args: &[&str]) -> (i32, String) {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_almanac")).args(args).output().expect("it runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap_or(-1), text)
}

#[test]
fn audit_backfill_and_preview_by_hand() {
    let dir = tempfile::tempdir().expect("a folder");
    let exporter = Exporter::start();
    let mut pair = Pair::new(dir.path(), exporter.port);
    pair.scraper_args.push("--web.enable-admin-api".into());
    let longterm = pair.longterm();
    let scraper = pair.scraper();
    eventually("samples arrive", || number(pair.longterm_port, "max(scrapes_total)").filter(|v| *v >= 60.0));
    let url = format!("http://127.0.0.1:{}", pair.scraper_port);
    let now = number(pair.scraper_port, "vector(time())").expect("a number");
    let end = format!("--end={}", now - 3.0);
    let start = format!("--start={}", now - 3600.0);

    let (code, said) = command(&["longterm", "audit", "--url", &url, &start, &end]);
    assert!(code == 0 && said.starts_with("COMPLETE until"), "{code} {said}");
    // `up` is not tagged, so the long-term node does not have it.
    let (code, said) = command(&["longterm", "audit", "--url", &url, "--match=up", &start, &end]);
    assert!(code == 1 && said.starts_with("INCOMPLETE") && said.contains("up{"), "{code} {said}");
    let (code, said) = command(&["longterm", "backfill", "--url", &url, "--match=up"]);
    assert!(code == 0 && said.contains("is sent"), "{code} {said}");
    let (code, said) = command(&["longterm", "audit", "--url", &url, "--match=up", &start, &end]);
    assert!(code == 0 && said.starts_with("COMPLETE until"), "{code} {said}");
    let (code, said) = command(&["longterm", "preview", "--url", &url, "--match={longterm!=\"\"}"]);
    assert!(code == 0 && said.contains(" series, "), "{code} {said}");
    let (code, said) = command(&["longterm", "preview", "--url", &url, "--match={"]);
    assert!(code == 1 && said.contains("parse error"), "{code} {said}");

    // Another long-term node gets it all from the data directory, which the scraper node goes on using.
    let other_port = free_port();
    let other_dir = dir.path().join("other");
    let other_args = [
        "longterm".to_owned(),
        format!("--storage.longterm.path={}", other_dir.display()),
        format!("--web.listen-address=127.0.0.1:{other_port}"),
    ];
    let other = Pair::start(&other_args, other_port);
    let (data, state) = (dir.path().join("tsdb"), dir.path().join("state"));
    let (code, said) = command(&[
        "longterm",
        "backfill",
        "--match=scrapes_total",
        &format!("--data={}", data.display()),
        &format!("--longterm-url=http://127.0.0.1:{other_port}"),
        &format!("--state-dir={}", state.display()),
        "--external-label=cluster=test",
    ]);
    assert!(code == 0 && said.contains("done: "), "{code} {said}");
    let rows = query(other_port, "scrapes_total").expect("an answer");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].0["cluster"], "test");
    for process in [scraper, longterm, other] {
        let (code, log) = process.terminate();
        assert_eq!(code, 0, "{log}");
    }
}
