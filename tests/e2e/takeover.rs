//! A directory of the real `prometheus` is taken over, gone on with, and handed back; each time both answer the same.

use std::path::{Path, PathBuf};
use std::process::Command;

use model::Clock;
use model::clock::SystemClock;
use serde_json::Value;

use crate::support::{
    Exporter, Process, eventually, free_port, http, installed, number, percent, ready, write,
};

/// Counters, gauges, a classic histogram; a series that comes and goes.
fn app() -> Exporter {
    Exporter::serving(|n| {
        let mut body = format!(
            "# TYPE app_total counter\napp_total{{path=\"/a\"}} {n}\napp_total{{path=\"/b\"}} {}\n",
            n / 3
        );
        body.push_str(&format!("# TYPE temperature gauge\ntemperature {}\n", (n as f64 / 7.0).sin() * 20.0));
        body.push_str("# TYPE latency_seconds histogram\n");
        for (i, le) in ["0.1", "0.5", "1", "+Inf"].iter().enumerate() {
            body.push_str(&format!("latency_seconds_bucket{{le=\"{le}\"}} {}\n", n * (i as u64 + 1)));
        }
        body.push_str(&format!("latency_seconds_sum {}\nlatency_seconds_count {}\n", n as f64 * 0.3, n * 4));
        if n / 20 % 2 == 0 {
            body.push_str(&format!("sometimes{{era=\"{}\"}} {n}\n", n / 40));
        }
        Some(body)
    })
}

/// Breaks for good after a while: its series end with stale markers.
fn fleeting() -> Exporter {
    Exporter::serving(|n| (n < 60).then(|| format!("fleeting_total {n}\n")))
}

/// Copies a directory, in place of an earlier copy.
pub fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success(), "cp {} {}", from.display(), to.display());
    // Of the process that was killed.
    let _ = std::fs::remove_file(to.join("lock"));
}

/// Lines of a dump, sorted.
fn dump(program: &Path, dir: &Path) -> Vec<String> {
    let output = Command::new(program).args(["tsdb", "dump"]).arg(dir).output().expect("it runs");
    assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn almanac() -> PathBuf {
    env!("CARGO_BIN_EXE_almanac").into()
}

/// The answer's data, lists sorted by their text.
fn data(port: u16, path: &str) -> Value {
    let (status, body) = http("GET", port, path, b"").expect("an answer");
    assert_eq!(status, 200, "{path}: {body}");
    let mut data = serde_json::from_str::<Value>(&body).expect("JSON")["data"].take();
    let list = if data.is_array() { &mut data } else { &mut data["result"] };
    if let Some(list) = list.as_array_mut() {
        for exemplars in
            list.iter_mut().filter_map(|s| s.get_mut("exemplars")).filter_map(Value::as_array_mut)
        {
            // A restart of prometheus forgets those that are older than the newest block.
            exemplars.drain(..exemplars.len().saturating_sub(3));
        }
        list.sort_by_key(ToString::to_string);
    }
    data
}

/// Samples that come late have times that end so. A prometheus that is killed may lose some that the files still have, so
/// that ours shows more.
pub const LATE_ENDS_WITH: &str = ".007";

/// Leaves late samples out of a matrix of raw samples.
fn drop_late(data: &mut Value) {
    let series = data.get_mut("result").and_then(Value::as_array_mut).into_iter().flatten();
    for s in series {
        for list in ["values", "histograms"] {
            if let Some(list) = s.get_mut(list).and_then(Value::as_array_mut) {
                list.retain(|pair| !pair[0].to_string().ends_with(LATE_ENDS_WITH));
            }
        }
    }
}

/// Whether both are numbers that differ as two libraries' logarithms and powers do.
fn is_near(a: &Value, b: &Value) -> bool {
    let number = |v: &Value| v.as_str().and_then(|text| text.parse::<f64>().ok());
    number(a).zip(number(b)).is_some_and(|(a, b)| (a - b).abs() <= 1e-12 * a.abs())
}

/// Where two values differ first, and how.
fn difference(a: &Value, b: &Value) -> Option<String> {
    let at = |key: &str, found: Option<String>| found.map(|text| format!("{key}/{text}"));
    match (a, b) {
        (Value::Object(x), Value::Object(y)) if x.keys().eq(y.keys()) => {
            let found = x.iter().find_map(|(k, v)| at(k, difference(v, &y[k])));
            found.map(|text| format!("{} {text}", x.get("metric").unwrap_or(&Value::Null)))
        }
        (Value::Array(x), Value::Array(y)) => {
            let found =
                x.iter().zip(y).enumerate().find_map(|(i, (v, w))| at(&i.to_string(), difference(v, w)));
            found.or_else(|| (x.len() != y.len()).then(|| format!("{} and {} entries", x.len(), y.len())))
        }
        _ => (a != b && !is_near(a, b)).then(|| format!("{a} and {b}")),
    }
}

/// Asks both everything.
fn check_answers(theirs: u16, ours: u16, now: f64, further: Vec<String>) {
    let all = percent("{__name__=~\".+\"}");
    let mut paths = vec![
        format!("/api/v1/series?match[]={all}&start=0&end={now}"),
        format!("/api/v1/labels?start=0&end={now}"),
        format!("/api/v1/label/__name__/values?start=0&end={now}"),
        format!("/api/v1/query?time={now}&query={}", percent("{__name__=~\".+\"}[2d]")),
    ];
    for q in [
        "count({__name__=~\".+\"})",
        "delta(temperature[1h])",
        "histogram_quantile(0.9, latency_seconds_bucket)",
        "sum by (job) (count_over_time(app_total[1d]))",
        "changes(sometimes[1d])",
        "max_over_time(old_total[2d])",
        "sum_over_time(up[1h])",
    ] {
        paths.push(format!("/api/v1/query?time={now}&query={}", percent(q)));
    }
    // Off the milliseconds that scrapes are aligned to.
    let (start, end) = (now - 60.0003, now + 5.0003);
    for q in ["app_total", "temperature", "sometimes", "fleeting_total", "up"] {
        paths.push(format!("/api/v1/query_range?start={start}&end={end}&step=0.737&query={}", percent(q)));
    }
    paths.extend(further);
    for path in paths {
        let (mut a, mut b) = (data(theirs, &path), data(ours, &path));
        drop_late(&mut a);
        drop_late(&mut b);
        assert_eq!(difference(&a, &b), None, "{path}");
    }
}

pub struct Programs {
    pub prometheus: PathBuf,
    pub promtool: PathBuf,
    /// Arguments of both servers.
    pub args: &'static [&'static str],
    /// Arguments that only the other program knows.
    pub theirs: &'static [&'static str],
    /// Whether promtool is of the version whose analysis ours prints.
    pub analyses: bool,
    /// Further paths that both are asked.
    pub paths: fn(now: f64) -> Vec<String>,
}

/// Compares what both make of a directory, each on a copy of its own.
pub fn check_same(programs: &Programs, root: &Path, name: &str, idle: &str) -> usize {
    let dumped = root.join(format!("{name}-dumped"));
    copy(&root.join(name), &dumped);
    let (a, b) = (dump(&programs.promtool, &dumped), dump(&almanac(), &dumped));
    let missing = a.iter().find(|l| b.binary_search(l).is_err());
    let is_late = |l: &&String| l.ends_with(&LATE_ENDS_WITH[1..]);
    let extra = b.iter().filter(|l| !is_late(l)).find(|l| a.binary_search(l).is_err());
    // Promtool takes a block of late samples for one that has all of its time, and passes over what the log has of it.
    if has_late_block(&dumped) {
        assert_eq!(missing, None, "{name}: promtool's dump has more");
    } else {
        assert_eq!((missing, extra), (None, None), "{name}: dumps of {} and {}", a.len(), b.len());
    }
    let printed = |program: &Path, command: &[&str]| {
        let output = Command::new(program).arg("tsdb").args(command).arg(&dumped).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lists = [&programs.promtool, &almanac()].map(|p| words(printed(p, &["list"])));
    assert_eq!(lists[0], lists[1], "{name}: lists differ");
    let has_blocks = lists[0].iter().any(|word| word.len() == 26);
    if programs.analyses && has_blocks {
        // Promtool leaves entries of equal count in no order.
        let analyzed = [&programs.promtool, &almanac()].map(|p| {
            let text = printed(p, &["analyze", "--limit=1000"]);
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        });
        assert_eq!(analyzed[0], analyzed[1], "{name}: analyses differ");
    }
    check_servers(programs, root, name, idle);
    b.len()
}

/// Compares what both servers answer over a directory, each on a copy of its own.
pub fn check_servers(programs: &Programs, root: &Path, name: &str, idle: &str) {
    let [theirs, ours] = ["theirs", "ours"].map(|who| root.join(format!("{name}-{who}")));
    for to in [&theirs, &ours] {
        copy(&root.join(name), to);
    }
    let ports = [free_port(), free_port()];
    let args = |dir: &Path, port: u16, further: &[&str]| {
        let own = [
            format!("--config.file={idle}"),
            format!("--storage.tsdb.path={}", dir.display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let further = programs.args.iter().chain(further).map(|a| (*a).to_owned());
        own.into_iter().chain(further).collect::<Vec<_>>()
    };
    let start = |program: &Path, args: Vec<String>| {
        Process::start(program, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let theirs = start(&programs.prometheus, args(&theirs, ports[0], programs.theirs));
    let ours = start(&almanac(), args(&ours, ports[1], &[]));
    ready(&theirs, ports[0]);
    ready(&ours, ports[1]);
    let now = SystemClock::new().now_ms() as f64 / 1000.0;
    check_answers(ports[0], ports[1], now, (programs.paths)(now));
}

fn has_late_block(dir: &Path) -> bool {
    let metas =
        std::fs::read_dir(dir).expect("listed").filter_map(Result::ok).map(|e| e.path().join("meta.json"));
    metas.filter_map(|m| std::fs::read_to_string(m).ok()).any(|text| text.contains("from-out-of-order"))
}

fn has_files(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some())
}

#[test]
fn a_directory_is_taken_over_and_handed_back() {
    let (Some(prometheus), Some(promtool)) = (installed("prometheus"), installed("promtool")) else { return };
    let programs =
        Programs { prometheus, promtool, args: &[], theirs: &[], analyses: false, paths: |_| Vec::new() };
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path();
    let dir = root.join("data");

    // Blocks of old samples.
    let now = SystemClock::new().now_ms() / 1000;
    let mut text = "# TYPE old counter\n".to_owned();
    for i in 0..2000 {
        text.push_str(&format!("old_total{{i=\"{}\"}} {i} {}\n", i % 5, now - 20 * 3600 + i * 15 / 5));
    }
    text.push_str("# EOF\n");
    let old = write(root, "old.om", &text);
    let made = Command::new(&programs.promtool)
        .args(["tsdb", "create-blocks-from", "openmetrics", &old])
        .arg(&dir)
        .output()
        .expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    // A log, and chunks on disk.
    let (app, fleeting) = (app(), fleeting());
    let config = format!(
        "global: {{scrape_interval: 25ms, scrape_timeout: 25ms, external_labels: {{replica: a}}}}
scrape_configs:
- {{job_name: app, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}
- {{job_name: fleeting, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}
",
        app.port, fleeting.port
    );
    let (busy, idle) = (write(root, "busy.yml", &config), write(root, "idle.yml", "global: {}\n"));
    let port = free_port();
    let args = [
        format!("--config.file={busy}"),
        format!("--storage.tsdb.path={}", dir.display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    let theirs = Process::start(&programs.prometheus, &args.each_ref().map(String::as_str));
    ready(&theirs, port);
    eventually("enough scrapes", || (app.scrapes() > 200 && fleeting.scrapes() > 100).then_some(()));
    theirs.kill();
    assert!(has_files(&dir.join("wal")) && has_files(&dir.join("chunks_head")));
    let before = check_same(&programs, root, "data", &idle);
    assert!(before > 2000 + 200 * 10, "{before} samples");

    // Ours goes on with it, cuts blocks, and is killed.
    let port = free_port();
    let args = [
        format!("--config.file={busy}"),
        format!("--storage.tsdb.path={}", dir.display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--storage.tsdb.min-block-duration=2s".to_owned(),
        "--storage.tsdb.max-block-duration=2s".to_owned(),
    ];
    let ours = Process::almanac(&args.each_ref().map(String::as_str));
    ready(&ours, port);
    let blocks = || {
        let names = std::fs::read_dir(&dir).expect("listed").filter_map(Result::ok);
        names.filter(|e| e.path().join("meta.json").exists()).count()
    };
    let first = blocks();
    eventually("blocks are cut", || (blocks() > first + 1).then_some(()));
    let scrapes = app.scrapes();
    eventually("scraping goes on", || (app.scrapes() > scrapes + 20).then_some(()));
    let n = number(port, "count_over_time(app_total{path=\"/a\"}[1h])");
    assert!(n.is_some_and(|n| n > 100.0), "{n:?}");
    ours.kill();
    let after = check_same(&programs, root, "data", &idle);
    assert!(after > before + 100, "{after} samples after {before}");
}
