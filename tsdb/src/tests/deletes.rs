//! Deletes, and snapshots, from the outside.

use super::compaction::copy_dir;
use super::*;
use crate::wal::record;

/// Takes out what a delete takes out.
fn delete(expected: &mut Expected, matchers: &[Matcher], mint: i64, maxt: i64) {
    for (_, samples) in expected.iter_mut().filter(|(l, _)| Matcher::all_match(matchers, l)) {
        samples.retain(|t, _| !(mint..=maxt).contains(t));
    }
    expected.retain(|_, s| !s.is_empty());
}

fn odd() -> Vec<Matcher> {
    vec![Matcher::equal("__name__", "m"), Matcher::not_equal("parity", "even")]
}

fn names_in(db: &Db) -> Vec<Labels> {
    let q = db.querier(i64::MIN, i64::MAX).expect("open");
    let hints = SelectHints { labels_only: true, ..SelectHints::default() };
    let mut set = q.select(&all(), &hints).expect("selected");
    let mut out = Vec::new();
    while let Some(s) = set.next().expect("read") {
        out.push(s.labels);
    }
    out
}

#[test]
fn what_is_deleted_is_gone_in_head_and_blocks_and_stays_so() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    let mut expected = Expected::new();
    fill(&db, START, START + 9 * HOUR, &mut expected);
    db.maintain().expect("maintained");
    let one = [Matcher::equal("i", "4")];
    for (m, mint, maxt) in [
        (odd(), START + HOUR, START + 3 * HOUR + 7),
        (odd(), START + 3 * HOUR, START + 4 * HOUR),
        (all(), START + 8 * HOUR, START + 8 * HOUR + 100_000),
        (one.to_vec(), i64::MIN, i64::MAX),
    ] {
        db.delete(&m, mint, maxt).expect("deleted");
        delete(&mut expected, &m, mint, maxt);
        assert!(read_all(&db) == expected, "{m:?}");
    }
    assert_eq!(names_in(&db), expected.keys().cloned().collect::<Vec<_>>());
    promtool::check_blocks(&db, dir.path(), &clip(&expected, &all(), i64::MIN, START + 6 * HOUR - 1));
    drop(db);
    let db = open_in(dir.path());
    assert!(read_all(&db) == expected, "after a restart");
    // Samples to come are not meant.
    fill(&db, START + 9 * HOUR, START + 13 * HOUR, &mut expected);
    assert!(read_all(&db) == expected, "with new ones");
    db.maintain().expect("maintained");
    assert!(read_all(&db) == expected, "in blocks");
    db.clean_tombstones().expect("cleaned");
    assert!(read_all(&db) == expected, "without tombstones");
    for name in block_names(dir.path()) {
        assert_eq!(std::fs::read(dir.path().join(name).join("tombstones")).expect("read").len(), 9);
    }
    drop(db);
    let db = open_in(dir.path());
    assert!(read_all(&db) == expected, "after another restart");
    promtool::check(&db, dir.path(), &expected);
}

#[test]
fn a_block_of_which_nothing_is_left_goes() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    let mut expected = Expected::new();
    fill(&db, START, START + 9 * HOUR, &mut expected);
    db.maintain().expect("maintained");
    assert_eq!(block_names(dir.path()).len(), 3);
    db.delete(&all(), START + 2 * HOUR, START + 4 * HOUR - 1).expect("deleted");
    delete(&mut expected, &all(), START + 2 * HOUR, START + 4 * HOUR - 1);
    db.maintain().expect("maintained");
    assert_eq!(block_names(dir.path()).len(), 2);
    assert!(read_all(&db) == expected);
}

#[test]
fn snapshots_are_whole_databases() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    let mut expected = Expected::new();
    fill(&db, START, START + 9 * HOUR, &mut expected);
    db.maintain().expect("maintained");
    db.delete(&odd(), START + HOUR, START + 7 * HOUR).expect("deleted");
    delete(&mut expected, &odd(), START + HOUR, START + 7 * HOUR);
    let with_head = db.snapshot(false).expect("made");
    let without = db.snapshot(true).expect("made");
    assert!(with_head.len() == 16 + 1 + 16 && with_head != without, "{with_head}");
    let path = |name: &str| dir.path().join("snapshots").join(name);
    assert_eq!((block_names(&path(&with_head)).len(), block_names(&path(&without)).len()), (4, 3));
    // What happens to the database does not reach its snapshots.
    db.delete(&all(), i64::MIN, i64::MAX).expect("deleted");
    db.clean_tombstones().expect("cleaned");
    assert_eq!(read_all(&db), Expected::new());
    for (name, expect) in
        [(&with_head, expected.clone()), (&without, clip(&expected, &all(), i64::MIN, START + 6 * HOUR - 1))]
    {
        let copy = tempfile::tempdir().expect("tempdir");
        copy_dir(&path(name), copy.path());
        let snapshot = open_in(copy.path());
        assert!(read_all(&snapshot) == expect);
        promtool::check_blocks(&snapshot, copy.path(), &expect);
    }
}

/// As Prometheus writes it when it takes stale series out of the head: what came before is in a block.
#[test]
fn a_series_that_was_evicted_begins_anew() {
    let dir = tempfile::tempdir().expect("tempdir");
    let clock: Arc<dyn ::model::Clock> = Arc::new(ManualClock::new(START));
    let metrics = crate::metrics::Metrics::register(&prometheus::Registry::new(), &clock).expect("new");
    let wal_dir = dir.path().join("wal");
    std::fs::create_dir_all(&wal_dir).expect("made");
    let wal = crate::wal::Wal::create(&wal_dir, &config(dir.path()), 0, metrics.wal()).expect("writable");
    let series = |r, i| record::encode_series([(SeriesRef(r), &labels(i))]);
    let sample = |r, t, v| record::encode_samples(&[(SeriesRef(r), START + t, v)]);
    let evicted = |r| record::encode_tombstones(&[(SeriesRef(r), i64::MIN, i64::MAX)]);
    wal.log(vec![series(1, 1), series(2, 2), sample(1, 0, 1.0), sample(2, 0, 2.0)]).expect("logged");
    wal.log(vec![sample(1, 1, 3.0), evicted(1), evicted(77)]).expect("logged");
    wal.log(vec![series(3, 1), sample(3, 1, 5.0), sample(3, 2, 6.0), sample(2, 2, 7.0)]).expect("logged");
    wal.close().expect("synced");
    for _ in 0..2 {
        let db = open_in(dir.path());
        let read = read_all(&db);
        let values =
            |i| read[&labels(i)].iter().map(|(t, v)| (t - START, f64::from_bits(*v))).collect::<Vec<_>>();
        assert_eq!((values(1), values(2)), (vec![(1, 5.0), (2, 6.0)], vec![(0, 2.0), (2, 7.0)]));
        let new = db.appender().expect("open").append(SeriesRef::NONE, &labels(9), Sample::float(START, 0.0));
        assert!(new.expect("accepted").0 > 77, "a reference is not given twice");
    }
}

/// A start takes the chunks in files that no block stands for.
#[test]
fn what_is_deleted_before_its_block_is_cut_stays_so_when_nothing_is_left_for_the_block() {
    let dir = tempfile::tempdir().expect("tempdir");
    let db = open_in(dir.path());
    let mut expected = Expected::new();
    fill(&db, START, START + 2 * HOUR, &mut expected);
    db.take_snapshot().expect("chunks are in files");
    db.delete(&all(), START, START + 2 * HOUR - 1).expect("deleted");
    delete(&mut expected, &all(), START, START + 2 * HOUR - 1);
    fill(&db, START + 2 * HOUR, START + 3 * HOUR + HOUR / 2, &mut expected);
    db.maintain().expect("maintained");
    assert_eq!(block_names(dir.path()), Vec::<String>::new(), "nothing was left");
    db.take_snapshot().expect("it has what is deleted");
    assert!(read_all(&db) == expected, "before the restart");
    drop(db);
    assert!(read_all(&open_in(dir.path())) == expected, "after it");
}
