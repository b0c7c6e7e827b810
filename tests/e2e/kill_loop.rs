//! `kill -9` of the real program under ingest, again and again: what was answered with success is there, and nothing that was
//! not sent. `make kill-loop ROUNDS=200` for longer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::Clock;
use model::clock::SystemClock;

use crate::support::{Process, free_port, http, installed, number, percent, ready, write};

const WRITERS: u64 = 3;
const SERIES_PER_WRITER: u64 = 20;
/// Time between two batches, in the samples' own time: many a block is cut in a few seconds.
const STEP_MS: i64 = 500;

/// `(series, timestamp)`; the value is what [`value`] says.
type Keys = BTreeSet<(u64, i64)>;

fn value(series: u64, t: i64) -> f64 {
    (t % 100_000) as f64 + series as f64
}

#[derive(Default)]
struct Known {
    sent: Keys,
    acknowledged: Keys,
}

pub fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

pub fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A remote-write request with one sample for each series.
fn request(series: std::ops::Range<u64>, t: i64) -> Vec<u8> {
    let mut body = Vec::new();
    for s in series {
        let mut entry = Vec::new();
        for (name, value) in [("__name__", "k"), ("i", s.to_string().as_str())] {
            let mut label = Vec::new();
            put_bytes(&mut label, 1, name.as_bytes());
            put_bytes(&mut label, 2, value.as_bytes());
            put_bytes(&mut entry, 1, &label);
        }
        let mut sample = vec![1 << 3 | 1];
        sample.extend_from_slice(&value(s, t).to_le_bytes());
        sample.push(2 << 3);
        put_varint(&mut sample, t as u64);
        put_bytes(&mut entry, 2, &sample);
        put_bytes(&mut body, 1, &entry);
    }
    block(&body)
}

/// A Snappy block that compresses nothing.
pub fn block(body: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    put_varint(&mut block, body.len() as u64);
    for part in body.chunks(60_000) {
        block.push(61 << 2);
        block.extend_from_slice(&(part.len() as u16 - 1).to_le_bytes());
        block.extend_from_slice(part);
    }
    block
}

/// Whether the receiver says that it has the batch.
pub fn send(port: u16, body: &[u8]) -> Option<bool> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.starts_with("HTTP/1.1 2"))
}

/// All samples from `from` on, by the query API.
fn stored(port: u16, from: i64, to: i64) -> Keys {
    let range_s = (to - from) / 1000 + 2;
    let path =
        format!("/api/v1/query?time={}&query={}", to as f64 / 1000.0, percent(&format!("k[{range_s}s]")));
    let (status, body) = http("GET", port, &path, b"").expect("an answer");
    assert_eq!(status, 200, "{body}");
    let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let mut out = Keys::new();
    for row in json["data"]["result"].as_array().expect("a matrix") {
        let series = row["metric"]["i"].as_str().and_then(|s| s.parse().ok()).expect("one of ours");
        for pair in row["values"].as_array().expect("values") {
            let t = (pair[0].as_f64().expect("a time") * 1000.0).round() as i64;
            let v: f64 = pair[1].as_str().and_then(|v| v.parse().ok()).expect("a value");
            assert_eq!(v.to_bits(), value(series, t).to_bits(), "series {series} at {t}");
            assert!(out.insert((series, t)), "series {series} has {t} twice");
        }
    }
    out
}

fn check(known: &Known, stored: &Keys, from: i64, what: &str) {
    let missing: Vec<_> =
        known.acknowledged.iter().filter(|k| k.1 >= from && !stored.contains(k)).take(5).collect();
    assert!(missing.is_empty(), "{what}: acknowledged, but missing: {missing:?}");
    let strange: Vec<_> = stored.iter().filter(|k| !known.sent.contains(k)).take(5).collect();
    assert!(strange.is_empty(), "{what}: never sent: {strange:?}");
}

/// The same by promtool, from the files alone.
fn check_files(known: &Known, dir: &Path) {
    let Some(promtool) = installed("promtool") else { return };
    let output = Command::new(promtool).args(["tsdb", "dump"]).arg(dir).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found = Keys::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut words = line.rsplitn(3, ' ');
        let mut word = || words.next().expect("labels, value, timestamp");
        let (t, v, labels) = (word(), word(), word());
        let series =
            labels.split("i=\"").nth(1).and_then(|l| l.split('"').next()).and_then(|i| i.parse().ok());
        let (t, v): (i64, f64) = (t.parse().expect("a time"), v.parse().expect("a value"));
        let series = series.unwrap_or_else(|| panic!("{line}"));
        assert_eq!(v.to_bits(), value(series, t).to_bits(), "{line}");
        found.insert((series, t));
    }
    check(known, &found, i64::MIN, "promtool");
}

#[test]
fn what_was_answered_survives_kill_nine() {
    let rounds: u64 = std::env::var("ALMANAC_KILL_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(5);
    let root = tempfile::tempdir().expect("a folder");
    let dir = root.path().join("data");
    let file = write(root.path(), "p.yml", "global: {}\n");
    let known = Arc::new(Mutex::new(Known::default()));
    let start = SystemClock::new().now_ms() / 1000 * 1000 - 3600 * 1000;
    let now = Arc::new(AtomicI64::new(start));
    let mut pauses = BTreeMap::new();
    let mut since = start;
    for round in 0..=rounds {
        let port = free_port();
        let process = Process::almanac(&[
            &format!("--config.file={file}"),
            &format!("--storage.tsdb.path={}", dir.display()),
            &format!("--web.listen-address=127.0.0.1:{port}"),
            "--web.enable-remote-write-receiver",
            "--storage.tsdb.min-block-duration=1m",
            "--storage.tsdb.max-block-duration=9m",
            "--query.max-samples=500000000",
        ]);
        ready(&process, port);
        {
            let known = known.lock().expect("no panic while it is held");
            let from = if round == rounds { start } else { since };
            let what = format!("round {round}");
            check(&known, &stored(port, from, now.load(Ordering::SeqCst)), from, &what);
        }
        if round == rounds {
            assert_eq!(process.terminate().0, 0);
            break;
        }
        since = now.load(Ordering::SeqCst);
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for w in 0..WRITERS {
            let (known, now, stop) = (known.clone(), now.clone(), stop.clone());
            threads.push(std::thread::spawn(move || {
                let series = w * SERIES_PER_WRITER..(w + 1) * SERIES_PER_WRITER;
                while !stop.load(Ordering::SeqCst) {
                    let t = now.fetch_add(STEP_MS, Ordering::SeqCst);
                    let keys: Vec<_> = series.clone().map(|s| (s, t)).collect();
                    known.lock().expect("no panic while it is held").sent.extend(&keys);
                    if send(port, &request(series.clone(), t)) == Some(true) {
                        known.lock().expect("no panic while it is held").acknowledged.extend(&keys);
                    }
                }
            }));
        }
        let asked = stop.clone();
        threads.push(std::thread::spawn(move || {
            while !asked.load(Ordering::SeqCst) {
                number(port, "sum(count_over_time(k[10m]))");
            }
        }));
        // Different every time, the same in every run.
        let pause_ms = 100 + round * 7919 % 900;
        std::thread::sleep(Duration::from_millis(pause_ms));
        process.kill();
        stop.store(true, Ordering::SeqCst);
        threads.into_iter().for_each(|t| t.join().expect("no panic"));
        let acknowledged = known.lock().expect("no panic while it is held").acknowledged.len();
        pauses.insert(round, (pause_ms, acknowledged));
    }
    let known = known.lock().expect("no panic while it is held");
    check_files(&known, &dir);
    let blocks = std::fs::read_dir(&dir).expect("listed").filter_map(Result::ok);
    let blocks = blocks.filter(|e| e.path().join("meta.json").exists()).count();
    eprintln!(
        "{rounds} rounds, {} of {} samples acknowledged, {blocks} blocks",
        known.acknowledged.len(),
        known.sent.len()
    );
    assert!(known.acknowledged.len() > 1000 && blocks > 0, "{pauses:?}, {blocks} blocks");
}
