//! Starting, reloading, stopping.

use crate::support::{Exporter, Process, eventually, free_port, get, http, number, query, ready, write};

#[test]
fn standalone_scrapes_both_tiers_and_ends_with_zero() {
    let dir = tempfile::tempdir().expect("a folder");
    let (scraper, longterm) = (free_port(), free_port());
    let config = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
- job_name: almanac
  static_configs: [{{targets: ['127.0.0.1:{scraper}', '127.0.0.1:{longterm}'], labels: {{longterm: 'true'}}}}]
"
    );
    let file = write(dir.path(), "p.yml", &config);
    let process = Process::almanac(&[
        "standalone",
        &format!("--config.file={file}"),
        &format!("--storage.path={}", dir.path().join("data").display()),
        &format!("--web.listen-address=127.0.0.1:{scraper}"),
        &format!("--web.longterm-listen-address=127.0.0.1:{longterm}"),
    ]);
    ready(&process, scraper);
    for port in [scraper, longterm] {
        eventually("both targets are up on both nodes", || {
            number(port, "count(up{job=\"almanac\"} == 1)").filter(|n| *n == 2.0)
        });
    }
    let (code, log) = process.terminate();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn a_bad_reload_keeps_the_configuration_and_says_why() {
    let dir = tempfile::tempdir().expect("a folder");
    let exporter = Exporter::start();
    let port = free_port();
    let job = |name: &str| {
        format!(
            "global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}
scrape_configs: [{{job_name: {name}, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}]
",
            exporter.port
        )
    };
    let file = write(dir.path(), "p.yml", &job("one"));
    let process = Process::almanac(&[
        &format!("--config.file={file}"),
        &format!("--storage.tsdb.path={}", dir.path().join("data").display()),
        &format!("--web.listen-address=127.0.0.1:{port}"),
        "--web.enable-lifecycle",
    ]);
    ready(&process, port);
    eventually("job one is up", || number(port, "up{job=\"one\"}").filter(|v| *v == 1.0));

    // Quotes as people type them into curl.
    let typed = get(port, "/api/v1/query?query=up{job=\"one\"}").expect("an answer");
    assert!(typed.contains("\"job\":\"one\""), "{typed}");

    write(dir.path(), "p.yml", "global: {nonsense: 1}\n");
    let (status, body) = http("POST", port, "/-/reload", b"").expect("an answer");
    assert_eq!(status, 500);
    assert!(body.contains("p.yml:1:10") && body.contains("nonsense"), "{body}");
    assert!(get(port, "/api/v1/status/config").expect("an answer").contains("job_name: one"));
    let before = exporter.scrapes();
    eventually("the old job goes on", || (exporter.scrapes() > before + 2).then_some(()));
    assert_eq!(number(port, "prometheus_config_last_reload_successful").unwrap_or(0.0), 0.0);

    write(dir.path(), "p.yml", &job("two"));
    process.signal("HUP");
    eventually("job two is up, job one is gone", || {
        let rows = query(port, "up")?;
        (rows.len() == 1 && rows[0].0["job"] == "two" && rows[0].1 == 1.0).then_some(())
    });
    assert_eq!(http("POST", port, "/-/quit", b"").map(|(status, _)| status), Some(200));
    let (code, log) = process.wait();
    assert_eq!(code, 0, "{log}");
}

#[test]
fn lifecycle_is_off_by_default() {
    let dir = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let file = write(dir.path(), "p.yml", "");
    let process = Process::almanac(&[
        &format!("--config.file={file}"),
        &format!("--storage.tsdb.path={}", dir.path().join("data").display()),
        &format!("--web.listen-address=127.0.0.1:{port}"),
    ]);
    ready(&process, port);
    let (status, body) = http("POST", port, "/-/reload", b"").expect("an answer");
    assert_eq!((status, body.trim()), (403, "Lifecycle API is not enabled."));
}

#[test]
fn a_changed_file_is_loaded_without_being_asked_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let exporter = Exporter::start();
    let port = free_port();
    let file = |name: &str| {
        let job = format!(
            "scrape_configs: [{{job_name: {name}, scrape_interval: 100ms, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}]\n",
            exporter.port
        );
        write(dir.path(), "jobs.yml", &job)
    };
    file("one");
    let main = write(dir.path(), "p.yml", "scrape_config_files: [jobs.yml]\n");
    let process = Process::almanac(&[
        &format!("--config.file={main}"),
        &format!("--storage.tsdb.path={}", dir.path().join("data").display()),
        &format!("--web.listen-address=127.0.0.1:{port}"),
        "--config.auto-reload",
        "--config.auto-reload-interval=1s",
    ]);
    ready(&process, port);
    eventually("job one is up", || number(port, "up{job=\"one\"}").filter(|v| *v == 1.0));
    file("two");
    eventually("job two is up", || number(port, "up{job=\"two\"}").filter(|v| *v == 1.0));
}
