//! Deletes, and snapshots, from the outside.

use super::compaction::copy_dir;
use super::*;

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
