//! The log on real files: framing, torn tails, flipped bits, checkpoints, followers.

use std::path::Path;
use std::sync::Arc;

use model::{Labels, SeriesRef, StorageError, WalPosition, WalRecord, WalTail};

use super::segment;
use super::tail::Tail;
use super::{Record, Wal, checkpoint, reader, record};
use crate::config::{Config, WalCompression};
use crate::metrics::{LogMetrics, Metrics};

fn metrics() -> LogMetrics {
    Metrics::register(&prometheus::Registry::new(), &model::SystemClock::shared())
        .expect("a new registry takes all")
        .wal()
}

fn config(dir: &Path) -> Config {
    Config { wal_segment_bytes: 64 << 10, ..Config::new(dir) }
}

fn create(dir: &Path, next: u32) -> Arc<Wal> {
    Arc::new(Wal::create(dir, &config(dir), next, metrics()).expect("a writable directory"))
}

/// A record that tells its number: a sample at that time, and as many more as make it `len` bytes long.
fn numbered(n: i64, len: usize) -> Vec<u8> {
    let mut samples = vec![(SeriesRef(1), n, n as f64)];
    let noise = |i: usize| f64::from_bits((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n as u64);
    samples.extend((0..len / 10).map(|i| (SeriesRef(2), n, noise(i))));
    record::encode_samples(&samples)
}

fn number(r: &WalRecord) -> i64 {
    match r {
        WalRecord::Samples(s) => s[0].1,
        other => panic!("unexpected {other:?}"),
    }
}

fn each(dir: &Path, mut f: impl FnMut(Record)) -> Result<reader::Replayed, StorageError> {
    reader::replay(dir, None, &reader::Progress::default(), |_, bytes| {
        f(record::decode(bytes)?);
        Ok(())
    })
}

fn replay(dir: &Path) -> (Vec<i64>, reader::Replayed) {
    let mut out = Vec::new();
    let replayed = each(dir, |r| {
        if let Record::Data(r @ WalRecord::Samples(_)) = r {
            out.push(number(&r));
        }
    });
    (out, replayed.expect("readable"))
}

#[test]
fn what_is_logged_is_replayed_across_pages_and_segments() {
    for compression in [WalCompression::None, WalCompression::Snappy, WalCompression::Zstd] {
        let dir = tempfile::tempdir().expect("tempdir");
        let c = Config { wal_compression: compression, ..config(dir.path()) };
        let wal = Wal::create(dir.path(), &c, 0, metrics()).expect("writable");
        // Lengths that meet every way a page can end, and records longer than a page and than a segment.
        let mut n = 0;
        for len in [0, 50, 32_700, 32_760, 10, 100_000, 0, 7, 20_000, 12_700, 60, 200_000, 30] {
            wal.log(vec![numbered(n, len), numbered(n + 1, len / 2)]).expect("logged");
            n += 2;
        }
        wal.close().expect("synced");
        assert!(wal.log(vec![numbered(0, 0)]).is_err(), "closed");
        let (got, replayed) = replay(dir.path());
        assert_eq!(got, (0..n).collect::<Vec<_>>());
        assert!(replayed.repaired.is_none());
        assert_eq!(replayed.next_segment, wal.end().segment + 1);
    }
}

#[test]
fn a_log_torn_at_any_byte_keeps_what_came_before() {
    let dir = tempfile::tempdir().expect("tempdir");
    let wal = create(dir.path(), 0);
    let mut ends = vec![0];
    wal.log(vec![numbered(0, 32_000)]).expect("logged");
    ends.push(wal.end().offset);
    for n in 1..4 {
        wal.log(vec![numbered(n, 300)]).expect("logged");
        ends.push(wal.end().offset);
    }
    let path = segment::path(dir.path(), 0);
    let whole = std::fs::read(&path).expect("written");
    assert_eq!(whole.len() as u64, *ends.last().expect("four records"));
    for cut in ends[1] as usize - 40..whole.len() {
        let copy = tempfile::tempdir().expect("tempdir");
        let path = segment::path(copy.path(), 0);
        std::fs::write(&path, &whole[..cut]).expect("writable");
        let (got, replayed) = replay(copy.path());
        let expect = ends[1..].iter().filter(|e| **e <= cut as u64).count() as i64;
        assert_eq!(got, (0..expect).collect::<Vec<_>>(), "cut at {cut}");
        // A cut within the zeros that fill a page leaves nothing to repair.
        let kept = std::fs::metadata(&path).expect("there").len();
        assert!(replayed.repaired.is_none() || kept <= cut as u64);
        assert!(replay(copy.path()).1.repaired.is_none(), "repaired once");
    }
}

#[test]
fn a_flipped_bit_is_found_and_cut_off() {
    let dir = tempfile::tempdir().expect("tempdir");
    let wal = create(dir.path(), 0);
    let mut ends = vec![];
    for n in 0..5 {
        wal.log(vec![numbered(n, 100)]).expect("logged");
        ends.push(wal.end().offset);
    }
    wal.next_segment().expect("cut");
    wal.log(vec![numbered(5, 100)]).expect("logged");
    let first = segment::path(dir.path(), 0);
    let whole = std::fs::read(&first).expect("written");
    for at in 0..ends[4] as usize {
        let copy = tempfile::tempdir().expect("tempdir");
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(segment::path(copy.path(), 0), &bytes).expect("writable");
        std::fs::copy(segment::path(dir.path(), 1), segment::path(copy.path(), 1)).expect("copied");
        let (got, replayed) = replay(copy.path());
        let good = ends.iter().filter(|e| **e <= at as u64).count() as i64;
        // The reserved bits of a fragment's first byte mean nothing.
        if replayed.repaired.is_none() {
            assert_eq!(got, (0..6).collect::<Vec<_>>(), "flip at {at}");
            continue;
        }
        assert_eq!(got, (0..good).collect::<Vec<_>>(), "flip at {at}");
        assert_eq!(segment::list(copy.path()).expect("listed"), [0], "later segments go");
        assert_eq!(replayed.next_segment, 1);
    }
}

fn series(n: u64) -> Vec<u8> {
    record::encode_series([(SeriesRef(n), &Labels::from_pairs([("n", n.to_string())]))])
}

/// All records at hand, series and samples apart.
fn drain(tail: &mut Tail) -> (Vec<u64>, Vec<i64>) {
    let (mut refs, mut samples) = (Vec::new(), Vec::new());
    loop {
        let mut out = Vec::new();
        tail.read(3, &mut out).expect("readable");
        if out.is_empty() {
            return (refs, samples);
        }
        for r in out {
            match r {
                WalRecord::Series(s) => refs.extend(s.iter().map(|(r, _)| r.0)),
                other => samples.push(number(&other)),
            }
        }
    }
}

#[test]
fn a_tail_sees_everything_once_across_segments_and_restarts() {
    let dir = tempfile::tempdir().expect("tempdir");
    let wal = create(dir.path(), 0);
    wal.log(vec![series(1)]).expect("logged");
    let mut tail = Tail::open(wal.clone(), Some(WalPosition::default())).expect("opened");
    let mut from_now = Tail::open(wal.clone(), None).expect("opened");
    let mut seen = Vec::new();
    for n in 0..200 {
        wal.log(vec![numbered(n, (n as usize * 37) % 3000)]).expect("logged");
        if n % 7 == 0 {
            seen.extend(drain(&mut tail).1);
        }
    }
    seen.extend(drain(&mut tail).1);
    assert!(wal.end().segment > 2, "segments were cut");
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    let (refs, samples) = drain(&mut from_now);
    assert_eq!((refs, samples.len()), (vec![1], 200));
    assert_eq!(tail.position(), wal.end());
    assert_eq!(tail.gap(), None);

    // A restart begins a new segment; a reader that remembered its position goes on there.
    let position = tail.position();
    let wal = create(dir.path(), wal.end().segment + 1);
    wal.log(vec![numbered(200, 10)]).expect("logged");
    let mut again = Tail::open(wal.clone(), Some(position)).expect("opened");
    assert_eq!(drain(&mut again), (vec![1], vec![200]));
    assert_eq!(again.gap(), None);
}

#[test]
fn checkpoints_keep_what_counts_and_tails_report_gaps() {
    let dir = tempfile::tempdir().expect("tempdir");
    let wal = create(dir.path(), 0);
    let mut old_tail = Tail::open(wal.clone(), None).expect("opened");
    wal.log(vec![series(1), series(2), numbered(5, 0), numbered(50, 0)]).expect("logged");
    let from = wal.end();
    wal.log(vec![numbered(6, 0), numbered(60, 0)]).expect("logged");
    wal.next_segment().expect("cut");
    wal.log(vec![numbered(70, 0)]).expect("logged");
    wal.next_segment().expect("cut");
    wal.log(vec![numbered(80, 0)]).expect("logged");

    assert_eq!(wal.droppable(1).expect("listed"), Some(1));
    wal.hold("r", Some(WalPosition { segment: 1, offset: 0 }));
    assert_eq!(wal.droppable(1).expect("listed"), Some(0), "segment 1 is held");
    wal.hold("r", None);

    checkpoint::write(dir.path(), 1, (50, 50), WalCompression::Snappy, &|r| r.0 == 1).expect("written");
    wal.truncate(1).expect("removed");
    assert_eq!(segment::list(dir.path()).expect("listed"), [2]);
    let (got, replayed) = replay(dir.path());
    assert_eq!(got, [50, 60, 70, 80]);
    assert_eq!(replayed.next_segment, 3);

    let mut tail = Tail::open(wal.clone(), Some(from)).expect("opened");
    assert_eq!(tail.gap(), Some(from));
    assert_eq!(drain(&mut tail), (vec![1], vec![80]));
    // One that was open before reads on in the same way.
    let (refs, samples) = drain(&mut old_tail);
    assert_eq!((refs, samples), (vec![1], vec![80]));
    assert!(old_tail.gap().is_some());
    // A position that the log never had.
    let beyond = WalPosition { segment: 9, offset: 0 };
    assert_eq!(Tail::open(wal, Some(beyond)).expect("opened").gap(), Some(beyond));
}

#[test]
fn holds_end_at_their_limit() {
    let dir = tempfile::tempdir().expect("tempdir");
    let c = Config { wal_hold_max_bytes: 100 << 10, ..config(dir.path()) };
    let wal = Wal::create(dir.path(), &c, 0, metrics()).expect("writable");
    wal.hold("slow", Some(WalPosition::default()));
    for n in 0..8 {
        wal.log(vec![numbered(n, 50_000)]).expect("logged");
        wal.next_segment().expect("cut");
    }
    let droppable = wal.droppable(7).expect("listed").expect("over the limit");
    assert!((4..=6).contains(&droppable), "{droppable}");
}

/// What a log keeps: references with a series record, and times of samples.
fn kept(dir: &Path) -> (Vec<u64>, Vec<(u64, i64)>) {
    let (mut refs, mut samples) = (Vec::new(), Vec::new());
    each(dir, |r| match r {
        Record::Data(WalRecord::Series(s)) => refs.extend(s.iter().map(|(r, _)| r.0)),
        Record::Data(WalRecord::Samples(s)) => samples.extend(s.iter().map(|(r, t, _)| (r.0, *t))),
        _ => {}
    })
    .expect("readable");
    (refs, samples)
}

#[test]
fn a_checkpoint_keeps_the_series_of_every_sample_it_keeps() {
    let same = Labels::from_pairs([("n", "one")]);
    let named = |r| record::encode_series([(SeriesRef(r), &same)]);
    let sample = |r, t| record::encode_samples(&[(SeriesRef(r), t, 1.0)]);
    // The second reference is an alias: the head knows the series by the first one only.
    for (time_of_second, expect_refs) in [(50, vec![1, 2]), (49, vec![1])] {
        let dir = tempfile::tempdir().expect("tempdir");
        let wal = create(dir.path(), 0);
        wal.log(vec![named(1), sample(1, 10), named(2)]).expect("logged");
        wal.next_segment().expect("cut");
        wal.log(vec![sample(2, time_of_second)]).expect("logged");
        wal.next_segment().expect("cut");
        checkpoint::write(dir.path(), 1, (50, 50), WalCompression::Snappy, &|r| r.0 == 1).expect("written");
        wal.truncate(1).expect("removed");
        let (refs, samples) = kept(dir.path());
        assert_eq!(refs, expect_refs, "second reference's sample at {time_of_second}");
        assert!(samples.iter().all(|(r, _)| refs.contains(r)), "{samples:?}");
        assert_eq!(samples.len(), usize::from(time_of_second >= 50));
    }
}
