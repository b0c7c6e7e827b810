//! `kill -9` of a scraper node, of its long-term node, of both, again and again, while known values are scraped: in the end
//! both hold the same samples, the audit is clean, and a query over both tiers gives each sample once. `make
//! pair-kill-loop ROUNDS=200` for longer, `ALMANAC_SEED=7` for other times.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use model::Clock;
use model::clock::SystemClock;
use model::rng::Rng;
use serde_json::Value;

use crate::support::{Exporter, Process, eventually, free_port, get, http, number, percent, ready, write};

/// Series of each kind of exporter.
const SERIES: u64 = 150;
const HISTOGRAMS: u64 = 20;
/// Metrics of both exporters, and series that the scraper makes.
const METRICS: [&str; 5] = ["f_scrape", "f", "h_scrape", "h", "up"];

/// Samples by labels (as text, without the external one) and time in milliseconds; values as the API writes them.
type Contents = BTreeMap<String, BTreeMap<i64, String>>;

/// Value of a series at the nth scrape.
fn value(n: u64, i: u64) -> f64 {
    (n * 1000 + i) as f64 / 8.0
}

fn floats(n: u64) -> String {
    let mut body = format!("# TYPE f gauge\nf_scrape {n}\n");
    for i in 0..SERIES {
        body.push_str(&format!("f{{i=\"{i}\"}} {}\n", value(n, i)));
    }
    body
}

/// Classic histograms, which the scraper makes native ones with custom buckets of.
fn histograms(n: u64) -> String {
    let mut body = format!("h_scrape {n}\n# TYPE h histogram\n");
    for i in 0..HISTOGRAMS {
        let buckets = [("0.1", n), ("1", 2 * n + i), ("+Inf", 3 * n + i)];
        for (le, count) in buckets {
            body.push_str(&format!("h_bucket{{i=\"{i}\",le=\"{le}\"}} {count}\n"));
        }
        body.push_str(&format!("h_count{{i=\"{i}\"}} {}\nh_sum{{i=\"{i}\"}} {}\n", 3 * n + i, value(n, i)));
    }
    body
}

struct Pair {
    dir: tempfile::TempDir,
    config: String,
    ports: [u16; 2],
}

impl Pair {
    fn new(floats: u16, histograms: u16) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let ports = [free_port(), free_port()];
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, external_labels: {{cluster: c}}}}
scrape_configs:
- job_name: floats
  static_configs: [{{targets: ['127.0.0.1:{floats}'], labels: {{longterm: x}}}}]
- job_name: histograms
  convert_classic_histograms_to_nhcb: true
  static_configs: [{{targets: ['127.0.0.1:{histograms}'], labels: {{longterm: x}}}}]
longterm: {{url: 'http://127.0.0.1:{}'}}
",
            ports[1]
        );
        Self { dir, config, ports }
    }

    fn config(&self, text: &str) -> String {
        write(self.dir.path(), "p.yml", text)
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("tsdb")
    }

    fn scraper(&self) -> Process {
        Process::almanac(&[
            &format!("--config.file={}", self.dir.path().join("p.yml").display()),
            &format!("--storage.tsdb.path={}", self.data().display()),
            &format!("--web.listen-address=127.0.0.1:{}", self.ports[0]),
            "--web.enable-admin-api",
            // Blocks are cut in the short time that this takes.
            "--storage.tsdb.min-block-duration=20s",
            "--storage.tsdb.max-block-duration=3m",
            "--query.max-samples=500000000",
        ])
    }

    fn longterm(&self) -> Process {
        Process::almanac(&[
            "longterm",
            &format!("--storage.longterm.path={}", self.dir.path().join("longterm").display()),
            &format!("--web.listen-address=127.0.0.1:{}", self.ports[1]),
            "--query.max-samples=500000000",
        ])
    }
}

/// Every sample of the metrics, each once, by the query API.
fn contents(port: u16, from_ms: i64) -> Contents {
    let now_ms = SystemClock::new().now_ms();
    let mut out = Contents::new();
    for metric in METRICS {
        let promql = percent(&format!("{metric}[{}ms]", now_ms - from_ms));
        let path = format!("/api/v1/query?time={}&query={promql}", now_ms as f64 / 1000.0);
        let (status, body) = http("GET", port, &path, b"").expect("an answer");
        assert_eq!(status, 200, "{metric}: {body}");
        let json: Value = serde_json::from_str(&body).expect("JSON");
        for row in json["data"]["result"].as_array().expect("a matrix") {
            let mut labels = row["metric"].clone();
            labels.as_object_mut().expect("labels").remove("cluster");
            let samples = ["values", "histograms"].iter().filter_map(|k| row[k].as_array()).flatten();
            let mut all = BTreeMap::new();
            for pair in samples {
                let t = (pair[0].as_f64().expect("a time") * 1000.0).round() as i64;
                let twice = all.insert(t, pair[1].to_string());
                assert!(twice.is_none(), "{labels} has {t} twice");
            }
            let twice = out.insert(labels.to_string(), all);
            assert!(twice.is_none(), "{labels} is there twice");
        }
    }
    out
}

/// Fails with the first differences.
fn assert_same(found: &Contents, expected: &Contents, what: &str) {
    let mut differences = Vec::new();
    for labels in found.keys().chain(expected.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (f, e) = (found.get(labels), expected.get(labels));
        let times: std::collections::BTreeSet<_> = f.into_iter().chain(e).flat_map(|m| m.keys()).collect();
        for t in times {
            let (f, e) = (f.and_then(|m| m.get(t)), e.and_then(|m| m.get(t)));
            if f != e {
                differences.push(format!("{labels} at {t}: found {f:?}, expected {e:?}"));
            }
        }
    }
    let n = differences.len();
    assert!(n == 0, "{what}: {n} differences, first: {:#?}", &differences[..n.min(10)]);
}

/// Every value is what the exporter said at the scrape of that time, and no scrape is there twice.
fn assert_true(found: &Contents) {
    let of = |metric: &str| {
        let name = format!("\"__name__\":\"{metric}\"");
        found.iter().filter(move |(labels, _)| labels.contains(&name))
    };
    for (metric, number) in [("f", "f_scrape"), ("h", "h_scrape")] {
        let (_, scrapes) = of(number).next().expect("the number of the scrape");
        let numbers: Vec<u64> =
            scrapes.values().map(|v| v.trim_matches('"').parse().expect("a number")).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{number} does not rise: {numbers:?}");
        for (labels, samples) in of(metric) {
            let i = labels.split("\"i\":\"").nth(1).and_then(|l| l.split('"').next()).expect("a label");
            let i: u64 = i.parse().expect("a number");
            assert_eq!(samples.len(), scrapes.len(), "{labels}");
            for (t, found) in samples {
                let n = scrapes.get(t).unwrap_or_else(|| panic!("{labels} at {t} was never scraped"));
                let n: u64 = n.trim_matches('"').parse().expect("a number");
                let json: Value = serde_json::from_str(found).expect("JSON");
                let value_of = |v: &Value| v.as_str().and_then(|v| v.parse::<f64>().ok()).expect("a number");
                let found = if metric == "f" { &json } else { &json["sum"] };
                assert_eq!(value_of(found), value(n, i), "{labels} at {t}");
                if metric == "h" {
                    assert_eq!(value_of(&json["count"]), (3 * n + i) as f64, "{labels} at {t}");
                }
            }
        }
    }
    assert_eq!(of("f").count() as u64, SERIES);
    assert_eq!(of("h").count() as u64, HISTOGRAMS);
}

/// Takes away blocks that end early, as retention does; gives how many there are left.
fn drop_old_blocks(dir: &Path) -> usize {
    let mut blocks: Vec<(i64, std::path::PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder").filter_map(Result::ok) {
        let Ok(meta) = std::fs::read(entry.path().join("meta.json")) else { continue };
        let meta: Value = serde_json::from_slice(&meta).expect("JSON");
        blocks.push((meta["maxTime"].as_i64().expect("a time"), entry.path()));
    }
    blocks.sort();
    let old = blocks.len().div_ceil(2);
    blocks.iter().take(old).for_each(|(_, path)| std::fs::remove_dir_all(path).expect("removed"));
    old
}

/// Rounds of kills; gives the processes that run in the end.
fn rounds(pair: &Pair, rng: &mut Rng, rounds: u64) -> (Process, Process) {
    let (mut scraper, mut longterm) = (pair.scraper(), pair.longterm());
    let stored = |port| number(port, "max(count_over_time(f_scrape[6h]))").unwrap_or_default();
    ready(&scraper, pair.ports[0]);
    ready(&longterm, pair.ports[1]);
    for _ in 0..rounds {
        // Some kills come before a start is over.
        let pause = rng.below(1500);
        std::thread::sleep(Duration::from_millis(pause));
        match rng.below(5) {
            0 | 1 => {
                scraper.kill();
                scraper = pair.scraper();
            }
            2 => {
                let before = stored(pair.ports[1]);
                longterm.kill();
                longterm = pair.longterm();
                ready(&longterm, pair.ports[1]);
                let after = stored(pair.ports[1]);
                assert!(after >= before, "{before} scrapes were there, now {after}");
            }
            3 => {
                longterm.kill();
                scraper.kill();
                if rng.below(2) == 0 {
                    (longterm, scraper) = (pair.longterm(), pair.scraper());
                } else {
                    scraper = pair.scraper();
                    longterm = pair.longterm();
                }
            }
            _ => {
                // The long-term node is away for longer, and the scraper node may die beside.
                longterm.kill();
                std::thread::sleep(Duration::from_millis(1000 + rng.below(3000)));
                if rng.below(2) == 0 {
                    scraper.kill();
                    scraper = pair.scraper();
                    std::thread::sleep(Duration::from_millis(rng.below(2000)));
                }
                longterm = pair.longterm();
            }
        }
    }
    ready(&scraper, pair.ports[0]);
    ready(&longterm, pair.ports[1]);
    (scraper, longterm)
}

fn audit(pair: &Pair, from_ms: i64, end_s: f64) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_almanac"))
        .args(["longterm", "audit", "--url", &format!("http://127.0.0.1:{}", pair.ports[0])])
        .args([format!("--start={}", from_ms as f64 / 1000.0), format!("--end={end_s}")])
        .output()
        .expect("it runs");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success() && said.starts_with("COMPLETE until"), said)
}

#[test]
fn a_pair_that_is_killed_at_random_holds_the_same_in_the_end() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|r| r.parse::<u64>().ok());
    let (count, seed) = (setting("ALMANAC_KILL_ROUNDS").unwrap_or(3), setting("ALMANAC_SEED").unwrap_or(1));
    eprintln!("ALMANAC_SEED={seed}, {count} rounds");
    let (f, h) = (Exporter::serving(|n| Some(floats(n))), Exporter::serving(|n| Some(histograms(n))));
    let pair = Pair::new(f.port, h.port);
    pair.config(&pair.config);
    let from_ms = SystemClock::new().now_ms() - 60_000;
    let (scraper, longterm) = rounds(&pair, &mut Rng::new(seed), count);
    let arrived = f.scrapes() + 10;
    let newest = || number(pair.ports[1], "max(f_scrape)").filter(|n| *n >= arrived as f64);
    eventually("new samples arrive", newest);

    // No more targets: both sides come to hold a fixed set.
    let idle = pair.config.split("scrape_configs").next().expect("the part before").to_owned();
    let idle = idle + &format!("longterm: {{url: 'http://127.0.0.1:{}'}}\n", pair.ports[1]);
    pair.config(&idle);
    scraper.signal("HUP");
    eventually("the targets are gone", || {
        get(pair.ports[0], "/api/v1/targets").filter(|t| t.contains("\"activeTargets\":[]"))
    });
    let end_s = SystemClock::new().now_ms() as f64 / 1000.0;
    let mut said = String::new();
    for attempt in 0.. {
        let (clean, text) = audit(&pair, from_ms, end_s);
        said = text;
        if clean {
            break;
        }
        assert!(attempt < 60, "{said}");
        std::thread::sleep(Duration::from_secs(1));
    }
    let (both, remote) = (contents(pair.ports[0], from_ms), contents(pair.ports[1], from_ms));
    let (code, log) = longterm.terminate();
    assert_eq!(code, 0, "{log}");
    // The scraper node alone answers with what it holds.
    let local = contents(pair.ports[0], from_ms);
    let (code, log) = scraper.terminate();
    assert_eq!(code, 0, "{log}");
    assert_same(&remote, &local, "the long-term node, beside the scraper node");
    assert_same(&both, &local, "both tiers, beside the scraper node");
    assert_true(&remote);

    // With half of the blocks gone, the seam is in the middle of the history; the answer stays.
    let dropped = drop_old_blocks(&pair.data());
    let (scraper, longterm) = (pair.scraper(), pair.longterm());
    ready(&longterm, pair.ports[1]);
    ready(&scraper, pair.ports[0]);
    let seam = contents(pair.ports[0], from_ms);
    assert_same(&seam, &remote, "both tiers, when the scraper node has less");
    longterm.kill();
    let samples = |c: &Contents| c.values().map(BTreeMap::len).sum::<usize>();
    let left = samples(&contents(pair.ports[0], from_ms));
    assert_eq!(scraper.terminate().0, 0);
    eprintln!(
        "{} samples in both nodes; without {dropped} blocks the scraper node holds {left}; {}",
        samples(&remote),
        said.lines().next().unwrap_or_default()
    );
    assert!(samples(&remote) > 1000 && (dropped == 0 || left < samples(&remote)));
}
