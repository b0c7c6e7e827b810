//! A directory that Prometheus 3 and almanac write in turns, each killed with -9 while it does: histograms, also of custom buckets,
//! late samples, exemplars, a log compressed with zstd. What either acknowledged is there, and both make the same of it.
//!
//! The programs are named by `PROMETHEUS_3` and `PROMTOOL_3`; without them the test says "skipped".

#![allow(clippy::disallowed_methods, reason = "writing to real processes takes real time")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::Clock;
use model::clock::SystemClock;
use serde_json::Value;

use crate::kill_loop::{block, put_bytes, put_varint, send};
use crate::support::{Process, free_port, http, percent, ready, write};
use crate::takeover::{Programs, check_same, check_servers, copy};

/// Time between two batches, in the samples' own time.
const STEP_MS: i64 = 15_000;
const KILLS: u32 = 20;

/// Name, number, time.
type Key = (&'static str, u64, i64);

const ARGS: [&str; 3] = [
    "--enable-feature=exemplar-storage",
    "--web.enable-remote-write-receiver",
    "--query.max-samples=500000000",
];
/// Ours compresses with snappy and reads both, so the log has both.
const THEIRS: [&str; 1] = ["--storage.tsdb.wal-compression-type=zstd"];
/// Series of each kind: floats, histograms, of floats, of custom buckets.
const KINDS: [(&str, u64); 4] = [("f", 20), ("h", 4), ("g", 2), ("c", 2)];

fn program(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from).filter(|p| p.is_file());
    if path.is_none() {
        eprintln!("skipped: {variable} names no program");
    }
    path
}

// === What is sent ===

/// A number that the value of a sample is made of.
fn n(i: u64, t: i64) -> u64 {
    (t as u64 / 1000 + i * 7) % 1000
}

fn put_tag(out: &mut Vec<u8>, field: u64, wire: u64) {
    put_varint(out, field << 3 | wire);
}

fn put_uint(out: &mut Vec<u8>, field: u64, v: u64) {
    put_tag(out, field, 0);
    put_varint(out, v);
}

fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

fn put_double(out: &mut Vec<u8>, field: u64, v: f64) {
    put_tag(out, field, 1);
    out.extend_from_slice(&v.to_le_bytes());
}

fn put_message(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_tag(out, field, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_doubles(out: &mut Vec<u8>, field: u64, list: &[f64]) {
    put_message(out, field, &list.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
}

fn put_label(out: &mut Vec<u8>, field: u8, name: &str, value: &str) {
    let mut label = Vec::new();
    put_bytes(&mut label, 1, name.as_bytes());
    put_bytes(&mut label, 2, value.as_bytes());
    put_bytes(out, field, &label);
}

fn histogram(kind: &str, i: u64, t: i64) -> Vec<u8> {
    let (mut out, n) = (Vec::new(), n(i, t));
    let spans = |out: &mut Vec<u8>, list: &[(i64, u64)]| {
        for (offset, length) in list {
            let mut span = Vec::new();
            put_uint(&mut span, 1, zigzag(*offset));
            put_uint(&mut span, 2, *length);
            put_message(out, 11, &span);
        }
    };
    let deltas = |out: &mut Vec<u8>, list: &[i64]| {
        let mut packed = Vec::new();
        list.iter().for_each(|d| put_varint(&mut packed, zigzag(*d)));
        put_message(out, 12, &packed);
    };
    match kind {
        "h" => {
            put_uint(&mut out, 1, 3 * n + 5);
            put_double(&mut out, 3, n as f64 / 3.0);
            put_uint(&mut out, 4, zigzag(2));
            put_double(&mut out, 5, 0.001);
            put_uint(&mut out, 6, n);
            spans(&mut out, &[(-1, 1), (3, 1)]);
            deltas(&mut out, &[n as i64, 5]);
        }
        "g" => {
            put_double(&mut out, 2, n as f64 + 0.5);
            put_double(&mut out, 3, -(n as f64));
            put_uint(&mut out, 4, zigzag(0));
            spans(&mut out, &[(0, 2)]);
            put_doubles(&mut out, 13, &[n as f64, 0.5]);
        }
        _ => {
            put_uint(&mut out, 1, 2 * n + 1);
            put_double(&mut out, 3, n as f64);
            put_uint(&mut out, 4, zigzag(-53));
            spans(&mut out, &[(0, 2)]);
            deltas(&mut out, &[n as i64, 1]);
            put_doubles(&mut out, 16, &[0.5, 2.0]);
        }
    }
    put_uint(&mut out, 15, t as u64);
    out
}

/// What a batch has: all series, and some late samples.
fn keys(step: i64, t: i64) -> Vec<Key> {
    let mut keys: Vec<Key> =
        KINDS.iter().flat_map(|(kind, count)| (0..*count).map(|i| (*kind, i, t))).collect();
    if step % 3 == 0 {
        let late = t - 20 * STEP_MS + 7;
        keys.extend((10..15).map(|i| ("f", i, late)));
        keys.push(("h", 2, late));
    }
    keys
}

fn request(keys: &[Key], step: i64) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, i, t) in keys {
        let mut series = Vec::new();
        put_label(&mut series, 1, "__name__", kind);
        put_label(&mut series, 1, "i", &i.to_string());
        if *kind == "f" {
            let mut sample = Vec::new();
            put_double(&mut sample, 1, n(*i, *t) as f64);
            put_uint(&mut sample, 2, *t as u64);
            put_message(&mut series, 2, &sample);
        } else {
            put_message(&mut series, 4, &histogram(kind, *i, *t));
        }
        if step % 5 == 0 && *i == 0 {
            let mut exemplar = Vec::new();
            put_label(&mut exemplar, 1, "trace", &step.to_string());
            put_double(&mut exemplar, 2, step as f64);
            put_uint(&mut exemplar, 3, *t as u64);
            put_message(&mut series, 3, &exemplar);
        }
        put_message(&mut body, 1, &series);
    }
    block(&body)
}

// === What is there ===

/// All samples from `from` to `to`, whose values are what was sent.
fn stored(port: u16, from: i64, to: i64) -> BTreeSet<Key> {
    let range_s = (to - from) / 1000 + 2;
    let query = percent(&format!("{{__name__=~\"f|g|h|c\"}}[{range_s}s]"));
    let path = format!("/api/v1/query?time={}&query={query}", to as f64 / 1000.0);
    let (status, body) = http("GET", port, &path, b"").expect("an answer");
    assert_eq!(status, 200, "{body}");
    let json: Value = serde_json::from_str(&body).expect("JSON");
    let mut out = BTreeSet::new();
    for row in json["data"]["result"].as_array().expect("a matrix") {
        let name = row["metric"]["__name__"].as_str().expect("a name");
        let (kind, _) = *KINDS.iter().find(|(k, _)| *k == name).expect("one of ours");
        let i: u64 = row["metric"]["i"].as_str().and_then(|s| s.parse().ok()).expect("a number");
        let both = [&row["values"], &row["histograms"]];
        for pair in both.into_iter().filter_map(Value::as_array).flatten() {
            let t = (pair[0].as_f64().expect("a time") * 1000.0).round() as i64;
            let n = n(i, t) as f64;
            let (got, expect) = match kind {
                "f" => (&pair[1], n),
                "h" => (&pair[1]["count"], 3.0 * n + 5.0),
                "g" => (&pair[1]["count"], n + 0.5),
                _ => (&pair[1]["count"], 2.0 * n + 1.0),
            };
            let got: f64 = got.as_str().and_then(|v| v.parse().ok()).expect("a number");
            assert_eq!(got, expect, "{kind} {i} at {t}");
            assert!(out.insert((kind, i, t)), "{kind} {i} has {t} twice");
        }
    }
    out
}

/// Exemplars, and, of series without late samples, rates in windows whose ends fall on no sample, where all versions agree.
fn paths(now: f64) -> Vec<String> {
    let mut out = vec![format!("/api/v1/query_exemplars?query={}&start=0&end={now}", percent("{i=\"0\"}"))];
    for q in [
        "rate(f{i=~\".\"}[5m])",
        "increase(f{i=~\".\"}[17m])",
        "rate(h{i!=\"2\"}[10m])",
        "histogram_quantile(0.7, rate(h{i!=\"2\"}[10m]))",
        "histogram_quantile(0.5, c)",
        "histogram_count(c)",
        "histogram_sum(g)",
        "sum(h{i!=\"2\"})",
        "sum by (i) (rate(c[6m]))",
        "count_over_time(h{i!=\"2\"}[30m])",
        "resets(h{i!=\"2\"}[1h])",
    ] {
        let (start, end) = (now - 20.0 * 3600.0 + 3.217, now);
        out.push(format!("/api/v1/query_range?start={start:.3}&end={end:.3}&step=631&query={}", percent(q)));
    }
    out
}

// === The test ===

/// Writes for a while; gives how many batches were acknowledged.
fn write_for(
    port: u16,
    pause: Duration,
    step: &mut i64,
    start: i64,
    known: (&mut BTreeSet<Key>, &mut BTreeSet<Key>),
) -> u32 {
    let (sent, acknowledged) = known;
    let until = Instant::now() + pause;
    let mut count = 0;
    while Instant::now() < until {
        *step += 1;
        let keys = keys(*step, start + *step * STEP_MS);
        sent.extend(&keys);
        if send(port, &request(&keys, *step)) == Some(true) {
            acknowledged.extend(&keys);
            count += 1;
        }
        // A round must not reach into the future.
        std::thread::sleep(pause / 400);
    }
    count
}

/// Cuts the newest segment of late samples within its last record, as a machine that went down would leave it.
fn tear_late(dir: &Path) {
    let mut segments: Vec<PathBuf> = std::fs::read_dir(dir.join("wbl"))
        .expect("there are late samples")
        .map(|e| e.expect("listed").path())
        .collect();
    segments.sort();
    let path = segments.into_iter().rfind(|p| p.metadata().is_ok_and(|m| m.len() > 0)).expect("written");
    let bytes = std::fs::read(&path).expect("read");
    let end = bytes.iter().rposition(|b| *b != 0).expect("a record");
    std::fs::write(path, &bytes[..end - 5]).expect("written");
}

#[test]
fn prometheus_3_and_almanac_take_turns_and_are_killed() {
    let (Some(prometheus), Some(promtool)) = (program("PROMETHEUS_3"), program("PROMTOOL_3")) else { return };
    let programs = Programs { prometheus, promtool, args: &ARGS, theirs: &THEIRS, analyses: true, paths };
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path();
    let dir = root.join("data");
    let file = write(root, "p.yml", "storage: {tsdb: {out_of_order_time_window: 30m}}\n");
    let start = SystemClock::new().now_ms() / STEP_MS * STEP_MS - 40 * 3600 * 1000;
    let (mut sent, mut acknowledged) = (BTreeSet::new(), BTreeSet::new());
    let mut step = 0;
    // Late samples that Prometheus acknowledged; killed while it writes them into blocks it may lose some.
    let mut late_by_theirs: BTreeSet<Key> = BTreeSet::new();
    let mut lost_by_theirs = 0;
    let check = |port: u16, sent: &BTreeSet<Key>, acknowledged: &BTreeSet<Key>, step: i64, what: &str| {
        let stored = stored(port, start - 3_600_000, start + step * STEP_MS);
        let missing: Vec<_> = acknowledged.difference(&stored).take(5).collect();
        assert!(missing.is_empty(), "{what}: acknowledged, but missing: {missing:?}");
        let strange: Vec<_> = stored.difference(sent).take(5).collect();
        assert!(strange.is_empty(), "{what}: never sent: {strange:?}");
    };
    let run = |round: u32| {
        let port = free_port();
        let args = [
            format!("--config.file={file}"),
            format!("--storage.tsdb.path={}", dir.display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let mut args: Vec<&str> = args.iter().map(String::as_str).chain(ARGS).collect();
        // Two rounds of each, so that each comes after itself and after the other.
        let ours = round % 4 > 1;
        if !ours {
            args.extend(THEIRS);
        }
        let process =
            if ours { Process::almanac(&args) } else { Process::start(&programs.prometheus, &args) };
        ready(&process, port);
        (process, port, ours)
    };
    for round in 0..KILLS {
        let (process, port, ours) = run(round);
        let who = if ours { "almanac" } else { "prometheus" };
        if round % 4 == 1 {
            // What it lost of its own, right after itself.
            let stored = stored(port, start - 3_600_000, start + step * STEP_MS);
            let before = acknowledged.len();
            acknowledged.retain(|k| stored.contains(k) || !late_by_theirs.contains(k));
            lost_by_theirs += before - acknowledged.len();
        }
        check(port, &sent, &acknowledged, step, &format!("round {round}, {who}"));
        let acknowledged_before = acknowledged.clone();
        let pause = Duration::from_millis(400 + u64::from(round) * 7919 % 900);
        let known = (&mut sent, &mut acknowledged);
        let killed = std::thread::scope(|scope| {
            let batches = scope.spawn(|| write_for(port, pause, &mut step, start, known));
            std::thread::sleep(pause.mul_f64(0.9));
            // Only at an ordered end does prometheus write chunks of the head so early.
            if round % 5 == 3 {
                drop(process.terminate())
            } else {
                process.kill()
            }
            batches.join().expect("no panic")
        });
        assert!(killed > 3, "round {round}: {killed} batches");
        if !ours {
            let new = acknowledged.difference(&acknowledged_before);
            late_by_theirs.extend(new.filter(|k| k.2 % STEP_MS != 0));
        }
        if round % 4 == 1 || round == KILLS - 1 {
            let samples = check_same(&programs, root, "data", &file);
            assert!(
                samples + 100 >= acknowledged.len() || lost_by_theirs > 0,
                "{samples} of {}",
                acknowledged.len()
            );
        }
        if round == 5 {
            let torn = root.join("torn");
            copy(&dir, &torn);
            tear_late(&torn);
            // Promtool does not read such a log; both servers cut it.
            check_servers(&programs, root, "torn", &file);
        }
    }
    let (process, port, _) = run(0);
    check(port, &sent, &acknowledged, step, "handed back");
    drop(process);
    let (process, port, _) = run(2);
    check(port, &sent, &acknowledged, step, "at the end");
    drop(process);
    let blocks = std::fs::read_dir(&dir).expect("listed").filter_map(Result::ok);
    let blocks = blocks.filter(|e| e.path().join("meta.json").exists()).count();
    eprintln!(
        "{KILLS} rounds, {} of {} samples acknowledged, {lost_by_theirs} lost by prometheus, {blocks} blocks",
        acknowledged.len(),
        sent.len()
    );
    assert!(blocks > 0 && has(&dir, "wbl") && has(&dir, "chunks_head"));
}

fn has(dir: &Path, name: &str) -> bool {
    std::fs::read_dir(dir.join(name)).is_ok_and(|mut d| d.next().is_some())
}
