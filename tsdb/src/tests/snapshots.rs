//! Snapshots of the head: a start from one gives what a start from the whole log gives, and one that is damaged is not used.

use ::model::Clock;

use super::*;
use crate::dir;
use crate::sim::SimDisk;

fn open_counting(config: &Config) -> (Arc<Db>, u64) {
    let registry = prometheus::Registry::new();
    let db = Db::open(config.clone(), Arc::new(ManualClock::new(START)), &registry).expect("opens");
    (db, super::crash::counted(&registry, "prometheus_tsdb_snapshot_replay_error_total"))
}

fn snapshots(root: &Path) -> Vec<String> {
    let names = dir::list(root).expect("a directory");
    names.into_iter().filter(|n| n.starts_with("chunk_snapshot.")).collect()
}

/// Everything below a directory, as bytes.
fn files(root: &Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for name in dir::list(root).expect("a directory") {
        let path = root.join(name);
        if dir::is_dir(&path) { out.extend(files(&path)) } else { out.push(path) }
    }
    out
}

fn at_end(v: f64) -> Sample {
    Sample::float(START + 400 * 15_000, v)
}

fn copy(from: &Path, to: &Path) {
    dir::copy_all(from, to).expect("copied");
}

fn put(db: &Db, expected: &mut Expected, steps: std::ops::Range<i64>) {
    for step in steps {
        let batch: Vec<_> = (0..40)
            .map(|i| {
                (labels(i + step as u64 / 50), START + step * 15_000, ((step * 7 + i as i64) % 11) as f64)
            })
            .collect();
        append(db, &batch);
        for (l, t, v) in batch {
            expected.entry(l).or_default().insert(t, v.to_bits());
        }
    }
}

/// A database with a snapshot and some more in the log, killed.
fn prepared(root: &Path) -> (Config, Expected) {
    let config = Config { out_of_order_window_ms: HOUR, ..config(root) };
    let mut expected = Expected::new();
    let db = open(config.clone());
    put(&db, &mut expected, 0..200);
    let late = [(labels(3), START + 101 * 15_000 + 1, 5.0), (labels(4), START + 90 * 15_000 + 1, 6.0)];
    append(&db, &late);
    for (l, t, v) in late {
        expected.entry(l).or_default().insert(t, v.to_bits());
    }
    db.delete(&[Matcher::equal("i", "7")], START, START + 20 * 15_000).expect("deleted");
    expected.get_mut(&labels(7)).expect("there").retain(|t, _| *t > START + 20 * 15_000);
    let mut a = db.appender().expect("open");
    let r = a.append(SeriesRef::NONE, &labels(150), Sample::float(START, 1.0)).expect("accepted");
    expected.entry(labels(150)).or_default().insert(START, 1f64.to_bits());
    let metadata = Metadata { metric_type: MetricType::Counter, unit: "s".into(), help: "h".into() };
    a.append_metadata(r, &metadata).expect("accepted");
    let e = Exemplar { labels: Labels::from_pairs([("t", "1")]), value: 1.0, timestamp_ms: Some(START) };
    a.append_exemplar(r, &e).expect("accepted");
    a.commit().expect("committed");
    db.take_snapshot().expect("taken");
    put(&db, &mut expected, 200..240);
    (config, expected)
}

#[test]
fn a_start_from_a_snapshot_gives_everything() {
    let root = tempfile::tempdir().expect("tempdir");
    let (config, mut expected) = prepared(root.path());
    assert_eq!(snapshots(root.path()).len(), 1);
    for round in 0..4 {
        let (db, errors) = open_counting(&config);
        assert_eq!((read_all(&db), errors), (expected.clone(), 0), "round {round}");
        let sets = [vec![Matcher::equal("i", "150")]];
        assert_eq!(db.exemplars(&sets, i64::MIN, i64::MAX).len(), 1);
        let r = db.appender().expect("open").append(SeriesRef::NONE, &labels(150), at_end(2.0));
        let metadata = db.metadata(r.expect("accepted"));
        assert_eq!(metadata.map(|m| m.unit.clone()).as_deref(), Some("s"));
        put(&db, &mut expected, 240 + round * 10..250 + round * 10);
        if round == 1 {
            db.take_snapshot().expect("taken");
            assert_eq!(snapshots(root.path()).len(), 1, "the older one has gone");
        }
    }
    // The log before the snapshot is not looked at; what comes after it is.
    let (db, _) = open_counting(&Config { snapshot_on_close: true, ..config.clone() });
    db.close().expect("closed");
    drop(db);
    let first = std::fs::read_dir(root.path().join("wal")).expect("there").count();
    assert!(first > 1);
    let path = root.path().join("wal").join("00000000");
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let (db, errors) = open_counting(&config);
    assert_eq!((read_all(&db), errors), (expected, 0));
}

#[test]
fn a_damaged_snapshot_is_not_used() {
    let root = tempfile::tempdir().expect("tempdir");
    let whole = root.path().join("whole");
    let (config, expected) = prepared(&whole);
    let name = snapshots(&whole).remove(0);
    let mut counted = 0;
    let mut cases = Vec::new();
    for path in files(&whole.join(&name)).into_iter().chain(files(&whole.join("chunks_head"))) {
        let len = std::fs::metadata(&path).expect("there").len() as usize;
        let path = path.strip_prefix(&whole).expect("below").to_owned();
        // A flipped bit, a torn end, no file at all.
        cases.extend((0..6).map(|i| (path.clone(), Some(i * len / 6), true)));
        cases.extend((0..4).map(|i| (path.clone(), Some(i * len / 4), false)));
        cases.push((path, None, false));
    }
    for (i, (path, at, flip)) in cases.iter().enumerate() {
        let case = root.path().join(i.to_string());
        copy(&whole, &case);
        let path = case.join(path);
        match at {
            Some(at) => {
                let mut bytes = std::fs::read(&path).expect("read");
                if *flip && *at < bytes.len() {
                    bytes[*at] ^= 4;
                } else {
                    bytes.truncate(*at);
                }
                std::fs::write(&path, bytes).expect("written");
            }
            None => std::fs::remove_file(&path).expect("removed"),
        }
        let (db, errors) = open_counting(&Config { dir: case.clone(), ..config.clone() });
        assert_eq!(read_all(&db), expected, "{} {at:?} {flip}", path.display());
        assert!(errors == 0 || snapshots(&case).is_empty());
        counted += errors;
        drop(db);
        dir::remove_all(&case).expect("removed");
    }
    // Metadata cut at a record's end is whole as far as can be seen, and an empty file stays empty.
    assert!(counted as usize >= cases.len() - 6, "{counted} of {}", cases.len());
}

/// Prometheus writes no folder of ours.
#[test]
fn a_snapshot_of_prometheus_is_read() {
    let root = tempfile::tempdir().expect("tempdir");
    let (config, expected) = prepared(root.path());
    let name = snapshots(root.path()).remove(0);
    dir::remove_all(&root.path().join(name).join("almanac")).expect("removed");
    let (db, errors) = open_counting(&config);
    assert_eq!((read_all(&db), errors), (expected, 0));
    assert_eq!(snapshots(root.path()).len(), 1);
}

#[test]
fn a_snapshot_goes_with_its_part_of_the_log() {
    let disk = SimDisk::new(1);
    let root = disk.root().join("data");
    let config = Config { wal_segment_bytes: 32 << 10, ..config(&root) };
    let mut expected = Expected::new();
    let db = open(config.clone());
    put(&db, &mut expected, 0..100);
    db.take_snapshot().expect("taken");
    let old = snapshots(&root);
    put(&db, &mut expected, 100..1500);
    db.maintain().expect("maintained");
    assert_ne!(snapshots(&root), old);
    assert!(!db.blocks.load().is_empty());
    drop(db);
    disk.restart(false);
    let (db, errors) = open_counting(&config);
    assert_eq!((read_all(&db), errors), (expected.clone(), 0));
    // One whose segment has gone is nobody's.
    drop(db);
    let kept = snapshots(&root);
    dir::create_all(&root.join("chunk_snapshot.000000.0000000000")).expect("made");
    dir::create_all(&root.join("chunk_snapshot.000000.0000000001.tmp")).expect("made");
    let (db, errors) = open_counting(&config);
    assert_eq!((read_all(&db), errors, snapshots(&root)), (expected.clone(), 0, kept));
    drop(db);
    dir::create_all(&root.join("chunk_snapshot.900000.0000000000")).expect("made");
    let (db, errors) = open_counting(&config);
    assert_eq!((read_all(&db), errors, snapshots(&root)), (expected, 0, Vec::new()));
}

/// Commits beside a snapshot are in it or in the log after it.
#[test]
fn appends_go_on_beside() {
    let root = tempfile::tempdir().expect("tempdir");
    let config = config(root.path());
    let mut expected = Expected::new();
    for round in 0..3_i64 {
        let (db, errors) = open_counting(&config);
        assert_eq!((read_all(&db), errors), (expected.clone(), 0));
        let parts: Vec<Expected> = std::thread::scope(|scope| {
            let write = |thread: u64| {
                let db = &db;
                scope.spawn(move || {
                    let mut mine = Expected::new();
                    for step in 0..150_i64 {
                        let t = START + (round * 1000 + step) * 1000;
                        let names = (0..10).map(|i| labels(thread * 1000 + i + step as u64 / 30));
                        let batch: Vec<_> = names.map(|l| (l, t, (step * 3) as f64)).collect();
                        append(db, &batch);
                        for (l, t, v) in batch {
                            mine.entry(l).or_default().insert(t, v.to_bits());
                        }
                    }
                    mine
                })
            };
            let threads: Vec<_> = (0..3).map(write).collect();
            while !threads.iter().all(|t| t.is_finished()) {
                db.take_snapshot().expect("taken");
            }
            threads.into_iter().map(|t| t.join().expect("no panic")).collect()
        });
        for (l, samples) in parts.into_iter().flatten() {
            expected.entry(l).or_default().extend(samples);
        }
    }
    let (db, errors) = open_counting(&config);
    assert_eq!((read_all(&db), errors), (expected, 0));
}

/// Prometheus starts from a snapshot of ours, and we from the one that it writes when it ends.
#[test]
fn prometheus_and_we_read_each_others() {
    use std::process::{Command, Stdio};
    if Command::new("prometheus").arg("--version").output().is_err() {
        eprintln!("skipped: there is no prometheus");
        return;
    }
    let root = tempfile::tempdir().expect("tempdir");
    let data = root.path().join("data");
    let config = Config { snapshot_on_close: true, ..Config::new(&data) };
    let db = open(config.clone());
    let start = model::clock::SystemClock::new().now_ms() - 1_800_000;
    let mut count = 0;
    for step in 0..150_i64 {
        let mut a = db.appender().expect("open");
        for i in 0..20_u64 {
            let (t, n) = (start + step * 5000, step as u64 * 3 + i);
            a.append(SeriesRef::NONE, &labels(i), Sample::float(t, n as f64)).expect("accepted");
            count += 1;
        }
        a.commit().expect("committed");
    }
    db.delete(&[Matcher::equal("i", "4")], start, start + 10 * 5000).expect("deleted");
    count -= 11;
    db.close().expect("closed");
    drop(db);
    let ours = snapshots(&data);
    assert_eq!(ours.len(), 1);
    let yaml = root.path().join("prometheus.yml");
    std::fs::write(&yaml, "global: {}\n").expect("written");
    let log = root.path().join("log");
    let mut child = Command::new("prometheus")
        .arg(format!("--config.file={}", yaml.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .args(["--web.listen-address=127.0.0.1:0", "--enable-feature=memory-snapshot-on-shutdown"])
        .stderr(std::fs::File::create(&log).expect("created"))
        .stdout(Stdio::null())
        .spawn()
        .expect("it is there");
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    for _ in 0..600 {
        if text().contains("Server is ready") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Command::new("kill").arg(child.id().to_string()).status().expect("killed");
    child.wait().expect("ended");
    let text = text();
    assert!(text.contains("hunk snapshot loaded") && text.contains("num_series=20"), "{text}");
    assert!(!text.contains("level=error") && !text.contains("nknown series"), "{text}");
    let theirs = snapshots(&data);
    assert!(theirs.len() == 1 && theirs != ours, "{theirs:?} after {ours:?}: {text}");
    assert!(!data.join(&theirs[0]).join("almanac").exists());
    let (db, errors) = open_counting(&config);
    let q = db.querier(i64::MIN, i64::MAX).expect("open");
    let all = [Matcher::equal("__name__", "m")];
    let mut set = q.select(&all, &SelectHints::default()).expect("selected");
    let mut samples = model::Samples::new();
    let mut got = 0;
    while let Some(s) = set.next().expect("read") {
        let i: u64 = s.labels.get("i").and_then(|i| i.parse().ok()).expect("one of ours");
        decode_chunks(&s.chunks, i64::MIN, i64::MAX, &mut samples).expect("whole");
        for (t, v) in samples.timestamps_ms.iter().zip(&samples.values) {
            assert_eq!(*v, (((t - start) / 5000) as u64 * 3 + i) as f64, "series {i}");
            got += 1;
        }
    }
    assert_eq!((got, errors, snapshots(&data)), (count, 0, theirs));
}
