//! Levelled compaction, from the outside: what blocks there are, and that every sample stays.

use super::*;

/// Ranges of the blocks of a directory in hours since the start, sorted.
fn ranges(dir: &Path) -> Vec<(i64, i64)> {
    let mut ranges = Vec::new();
    for name in block_names(dir) {
        let text = std::fs::read(dir.join(name).join("meta.json")).expect("read");
        let meta: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let hours = |key: &str| (meta[key].as_i64().expect("a number") - START).div_euclid(HOUR);
        ranges.push((hours("minTime"), hours("maxTime")));
    }
    ranges.sort();
    ranges
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[test]
fn blocks_become_longer_with_age() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    let mut expected = Expected::new();
    for hour in 0..24 {
        fill(&db, START + hour * HOUR, START + (hour + 1) * HOUR, &mut expected);
        db.maintain().expect("maintained");
    }
    // START is a multiple of two hours, but of six it lies two hours behind one.
    let aligned = START.rem_euclid(6 * HOUR) / HOUR;
    let expect = ranges(dir.path());
    assert!(expect.len() <= 6, "{expect:?}");
    assert!(expect.iter().any(|(a, b)| b - a == 6 && (a + aligned) % 6 == 0), "{expect:?}");
    assert_eq!(read_all(&db), expected);
    let (mint, maxt) = (START + HOUR + 7, START + 15 * HOUR + 100);
    assert_eq!(read(&db, &all(), mint, maxt), clip(&expected, &all(), mint, maxt));
    db.close().expect("closed");
    drop(db);
    let db = open_in(dir.path());
    assert_eq!(read_all(&db), expected, "after a restart");
    promtool::check(&db, dir.path(), &expected);
}

#[test]
fn old_data_in_a_hurry_becomes_long_blocks_at_once() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open(Config { retention_ms: 0, ..config(dir.path()) });
    let mut expected = Expected::new();
    for hour in 0..6 * 24 {
        fill(&db, START + hour * HOUR, START + (hour + 1) * HOUR, &mut expected);
    }
    db.maintain().expect("maintained");
    let found = ranges(dir.path());
    assert!(found.len() < 12, "{found:?}");
    assert!(found.iter().any(|(a, b)| b - a == 54), "{found:?}");
    assert!(db.stats(0).min_time.expect("samples") >= START + (6 * 24 - 4) * HOUR, "memory was given back");
    assert!(std::fs::read_dir(dir.path().join("wal")).expect("listed").count() < 40, "the log was truncated");
    assert_eq!(read_all(&db), expected);
    promtool::check(&db, dir.path(), &expected);
}

#[test]
fn overlapping_blocks_are_merged_and_queries_answer_the_same_before_and_after() {
    let dir = tempfile::tempdir().expect("tempdir");
    let other = tempfile::tempdir().expect("tempdir");
    let mut expected = Expected::new();
    let db = open_in(dir.path());
    fill(&db, START, START + 4 * HOUR, &mut expected);
    db.maintain().expect("maintained");
    // The same time, some of the samples between those that are there, and other values at the same times.
    let second = open_in(other.path());
    let mut t = START;
    while t < START + 4 * HOUR {
        let batch: Vec<_> = (5..15).flat_map(|i| [(labels(i), t, 77.0), (labels(i), t + 7, 78.0)]).collect();
        append(&second, &batch);
        if t < START + 2 * HOUR {
            for (l, t, v) in &batch {
                expected.entry(l.clone()).or_default().entry(*t).or_insert(v.to_bits());
            }
        }
        t += 15_000;
    }
    second.maintain().expect("maintained");
    let name = block_names(other.path()).pop().expect("a block");
    // The block that is there starts first, or has the lower name.
    copy_dir(&other.path().join(&name), &dir.path().join(&name));
    let meta = dir.path().join(&name).join("meta.json");
    let text = std::fs::read_to_string(&meta).expect("read");
    let last = format!("7ZZZ{}", &name[4..]);
    std::fs::write(&meta, text.replace(&name, &last)).expect("written");
    std::fs::rename(dir.path().join(&name), dir.path().join(&last)).expect("renamed");
    drop(db);
    let db = open_in(dir.path());
    assert_eq!(block_names(dir.path()).len(), 2);
    assert!(read_all(&db) == expected, "two blocks");
    db.maintain().expect("maintained");
    assert_eq!(block_names(dir.path()).len(), 1);
    assert!(read_all(&db) == expected, "one block");
}

#[test]
fn what_an_interruption_left_is_removed_at_the_start() {
    let dir = tempfile::tempdir().expect("tempdir");
    let kept = tempfile::tempdir().expect("tempdir");
    let db = open(Config { retention_ms: 0, ..config(dir.path()) });
    let mut expected = Expected::new();
    for hour in 0..10 {
        fill(&db, START + hour * HOUR, START + (hour + 1) * HOUR, &mut expected);
        db.maintain().expect("maintained");
        copy_dir(dir.path(), kept.path());
    }
    fill(&db, START + 10 * HOUR, START + 20 * HOUR, &mut expected);
    db.maintain().expect("maintained");
    drop(db);
    let after = block_names(dir.path());
    let parents: Vec<_> = block_names(kept.path()).into_iter().filter(|n| !after.contains(n)).collect();
    assert!(!parents.is_empty());
    for (i, name) in parents.iter().enumerate() {
        copy_dir(&kept.path().join(name), &dir.path().join(name));
        if i == 0 {
            std::fs::remove_file(dir.path().join(name).join("index")).expect("removed");
        }
    }
    copy_dir(&kept.path().join(&parents[0]), &dir.path().join(format!("{}.tmp-for-creation", parents[0])));
    copy_dir(&kept.path().join(&parents[0]), &dir.path().join(format!("{}.tmp-for-deletion", parents[0])));
    let db = open(Config { retention_ms: 0, ..config(dir.path()) });
    assert_eq!(block_names(dir.path()), after);
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .expect("listed")
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .collect();
    assert!(!names.iter().any(|n| n.contains("tmp") || n.contains("quarantined")), "{names:?}");
    assert_eq!(read_all(&db), expected);
}

#[test]
fn a_damaged_chunk_stops_merging_of_its_block_only() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open(Config { retention_ms: 0, ..config(dir.path()) });
    for hour in 0..6 {
        fill(&db, START + hour * HOUR, START + (hour + 1) * HOUR, &mut Expected::new());
        db.maintain().expect("maintained");
    }
    let name = block_names(dir.path()).remove(0);
    drop(db);
    let chunks = dir.path().join(&name).join("chunks/000001");
    let mut bytes = std::fs::read(&chunks).expect("read");
    bytes[20] ^= 1;
    std::fs::write(&chunks, bytes).expect("written");
    let db = open(Config { retention_ms: 0, ..config(dir.path()) });
    fill(&db, START + 6 * HOUR, START + 30 * HOUR, &mut Expected::new());
    let e = db.maintain().expect_err("damaged");
    assert!(e.to_string().contains(&format!("{name}/chunks/000001")), "{e}");
    db.maintain().expect("the others go on");
    let found = ranges(dir.path());
    assert!(found.iter().any(|(a, b)| b - a == 2) && found.iter().any(|(a, b)| b - a >= 6), "{found:?}");
    assert!(
        !std::fs::read_dir(dir.path())
            .expect("listed")
            .any(|e| { e.expect("entry").file_name().to_string_lossy().contains("tmp") })
    );
}

#[test]
fn blocks_that_are_not_uploaded_yet_wait() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("shipper.json");
    let with =
        || open(Config { retention_ms: 0, delay_compact_file: Some(file.clone()), ..config(dir.path()) });
    std::fs::write(&file, r#"{"version":1,"uploaded":[]}"#).expect("written");
    let db = with();
    fill(&db, START, START + 24 * HOUR, &mut Expected::new());
    db.maintain().expect("maintained");
    let names = block_names(dir.path());
    assert_eq!(names.len(), 11);
    let text = serde_json::json!({"version": 1, "uploaded": names});
    std::fs::write(&file, text.to_string()).expect("written");
    db.maintain().expect("maintained");
    assert!(block_names(dir.path()).len() < 8);
}

#[test]
fn a_thread_of_its_own_cuts_and_merges() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open(Config { retention_ms: 0, ..config(dir.path()) });
    db.start_maintenance(std::time::Duration::from_secs(3600)).expect("started");
    let mut expected = Expected::new();
    for hour in 0..48 {
        fill(&db, START + hour * HOUR, START + (hour + 1) * HOUR, &mut expected);
    }
    // An appender is enough to wake it.
    for _ in 0..2000 {
        drop(db.appender().expect("open"));
        let (head, blocks) = (db.stats(0).min_time.unwrap_or(0), block_names(dir.path()).len());
        if head >= START + 44 * HOUR && blocks < 8 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(db.stats(0).min_time.expect("samples") >= START + 44 * HOUR);
    assert!(block_names(dir.path()).len() < 8, "{:?}", ranges(dir.path()));
    assert_eq!(read_all(&db), expected);
    db.close().expect("closed");
}
