//! The soft limit of series on the real program: over reloads, at a restart, and what the API says.

#![allow(clippy::disallowed_methods, reason = "waiting for real processes takes real time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::scrape::{Server, TEXT, almanac, reply};
use crate::support::{eventually, get, number, write};

fn status(port: u16) -> Option<serde_json::Value> {
    let text = get(port, "/api/v1/status/cardinality")?;
    let answer: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(answer["data"].clone())
}

#[test]
fn new_series_are_refused_while_the_scrape_succeeds() {
    let dir = tempfile::tempdir().expect("a folder");
    let exposed = Arc::new(AtomicUsize::new(3));
    let n = exposed.clone();
    let server = Server::start(move |_, _, out| {
        let lines = (0..n.load(Ordering::Relaxed)).map(|i| format!("grows{{path=\"/{i}\"}} 1\n"));
        let body: String = lines.chain(["kept{longterm=\"true\"} 1\n".to_owned()]).collect();
        reply(out, TEXT, body.as_bytes())
    });
    let config = |limit: usize| {
        format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n\
             - {{job_name: j, series_soft_limit: {limit}, series_soft_limit_reserve: 2, extra_scrape_metrics: true, \
             static_configs: [{{targets: ['127.0.0.1:{}']}}]}}\n",
            server.port
        )
    };
    let file = write(dir.path(), "p.yml", &config(5));
    let (process, port) = almanac(dir.path(), &file);
    eventually("the first series are there", || number(port, "count(grows)").filter(|n| *n == 3.0));
    exposed.store(40, Ordering::Relaxed);
    eventually("the limit is reached", || number(port, "scrape_series_refused").filter(|n| *n == 36.0));
    assert_eq!(number(port, "count(grows)"), Some(4.0));
    assert_eq!(number(port, "scrape_samples_post_metric_relabeling"), Some(41.0));
    let job = status(port).expect("an answer")["jobs"][0].clone();
    let numbers = ["softLimit", "reserve", "current", "refused"].map(|key| job[key].as_u64());
    assert_eq!(numbers, [Some(5), Some(2), Some(5), Some(36)], "{job}");
    assert_eq!(job["metricNames"][0]["name"], "grows", "{job}");
    assert_eq!(job["labelNames"][0]["name"], "path", "{job}");
    let metrics = get(port, "/metrics").expect("metrics");
    let refused = "almanac_scrape_series_refused_total{reason=\"job_limit\",scrape_job=\"j\"} 36";
    assert!(metrics.contains(refused), "{metrics}");

    write(dir.path(), "p.yml", &config(30));
    process.signal("HUP");
    eventually("a reload raises the limit", || number(port, "count(grows)").filter(|n| *n == 29.0));
    write(dir.path(), "p.yml", &config(10));
    process.signal("HUP");
    eventually("the new limit is in force", || {
        (status(port)?["jobs"][0]["softLimit"].as_u64() == Some(10)).then_some(())
    });
    exposed.store(35, Ordering::Relaxed);
    eventually("fewer are refused", || number(port, "scrape_series_refused").filter(|n| *n == 6.0));
    assert_eq!(number(port, "count(grows)"), Some(29.0), "what is there goes on under a lower limit");
    assert_eq!(number(port, "min_over_time(up[1h])"), Some(1.0));

    process.terminate();
    let (_process, port) = almanac(dir.path(), &file);
    eventually("the limit counts anew after a restart", || {
        number(port, "scrape_series_refused").filter(|n| *n == 25.0)
    });
    assert_eq!(number(port, "count(grows) + count(kept)"), Some(11.0), "the tagged one uses the reserve");
    assert_eq!(status(port).expect("an answer")["jobs"][0]["current"].as_u64(), Some(11));
}
