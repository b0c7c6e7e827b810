//! The log on real files: framing, torn tails, flipped bits, checkpoints, followers.

use std::path::Path;
use std::sync::Arc;

use model::{Labels, SeriesRef, StorageError, WalPosition, WalRecord, WalTail};

use super::checkpoint::Wanted;
use super::segment;
use super::tail::Tail;
use super::{PAGE_LEN_BYTES, Record, Wal, checkpoint, reader, record};
use crate::config::{Config, WalCompression};
use crate::dir::OutFile;
use crate::metrics::{LogMetrics, Metrics};
use crate::sim::SimDisk;

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
    reader::replay(dir, None, (&reader::Progress::default(), &|_| {}), |_, bytes| {
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
        assert!(replayed.damaged.is_empty());
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
        assert!(replayed.damaged.is_empty() || kept <= cut as u64);
        assert!(replay(copy.path()).1.damaged.is_empty(), "repaired once");
    }
}

/// A log of two segments whose records end there, the second one with one record.
fn two_segments(dir: &Path, lens: &[usize]) -> Vec<u64> {
    let config = Config { wal_segment_bytes: 1 << 20, ..Config::new(dir) };
    let wal = Wal::create(dir, &config, 0, metrics()).expect("writable");
    let mut ends = vec![];
    for (n, len) in lens.iter().enumerate() {
        wal.log(vec![numbered(n as i64, *len)]).expect("logged");
        ends.push(wal.end().offset);
    }
    wal.next_segment().expect("cut");
    wal.log(vec![numbered(lens.len() as i64, 100)]).expect("logged");
    ends
}

/// What a replay and, after it, another one of a log with this first segment give.
fn replay_changed(from: &Path, first: &[u8]) -> (Vec<i64>, usize) {
    let disk = SimDisk::new(1);
    let copy = disk.root();
    let second = std::fs::read(segment::path(from, 1)).expect("read");
    for (n, bytes) in [first, &second].into_iter().enumerate() {
        let mut out = OutFile::create(&segment::path(&copy, n as u32)).expect("created");
        out.write(bytes).and_then(|()| out.flush()).expect("written");
    }
    let (got, replayed) = replay(&copy);
    assert_eq!(replayed.next_segment, 2);
    let mut rest = Vec::new();
    let again = each(&copy, |r| match r {
        Record::Data(d) => rest.push(number(&d)),
        Record::Unknown => {}
        Record::Tombstones(_) => panic!("never written"),
    });
    assert!(again.expect("readable").damaged.is_empty(), "mended once");
    assert_eq!(rest, got);
    (got, replayed.damaged.len())
}

#[test]
fn a_flipped_bit_costs_its_record_and_no_other() {
    let dir = tempfile::tempdir().expect("tempdir");
    let ends = two_segments(dir.path(), &[100; 5]);
    let whole = std::fs::read(segment::path(dir.path(), 0)).expect("written");
    for at in 0..ends[4] as usize {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let (got, damaged) = replay_changed(dir.path(), &bytes);
        let hit = ends.iter().filter(|e| **e <= at as u64).count();
        let begin = if hit == 0 { 0 } else { ends[hit - 1] as usize };
        // The reserved bits of a fragment's first byte mean nothing.
        if damaged == 0 {
            assert_eq!((got.len(), at), (6, begin), "flip at {at}");
            continue;
        }
        // Without its length nobody knows where the next one begins, before the next page.
        let lost = if (begin..begin + 3).contains(&at) { hit..5 } else { hit..hit + 1 };
        let expect: Vec<i64> = (0..6).filter(|n| !lost.contains(&(*n as usize))).collect();
        // A changed type leaves the length right.
        let all_but_one: Vec<i64> = (0..6).filter(|n| *n != hit as i64).collect();
        assert!(got == expect || got == all_but_one, "flip at {at}: {got:?}");
    }
}

#[test]
fn damage_in_records_of_many_pages_ends_with_them() {
    let dir = tempfile::tempdir().expect("tempdir");
    let lens = [100, 70_000, 300, 40_000, 10, 10, 32_000, 5];
    let ends = two_segments(dir.path(), &lens);
    let whole = std::fs::read(segment::path(dir.path(), 0)).expect("written");
    let mut lost_most = 0;
    for at in (0..ends[lens.len() - 1] as usize).step_by(97) {
        for (n, width) in [(0, 1), (1, 1), (2, 40_000)] {
            let mut bytes = whole.clone();
            let end = (at + width).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|b| *b = if n == 2 { 0 } else { *b ^ (1 << n) });
            let (got, _) = replay_changed(dir.path(), &bytes);
            assert!(got.is_sorted() && got.last() == Some(&(lens.len() as i64)), "{at}: {got:?}");
            // What ends before the damage, and what begins in a page after it, is there.
            let page_after = (end as u64).next_multiple_of(PAGE_LEN_BYTES as u64);
            for (i, end_of) in ends.iter().enumerate() {
                let begin = if i == 0 { 0 } else { ends[i - 1] };
                if *end_of <= at as u64 || begin >= page_after {
                    assert!(got.contains(&(i as i64)), "{at}: record {i} of {got:?}");
                }
            }
            if n < 2 {
                lost_most = lost_most.max(lens.len() + 1 - got.len());
            }
        }
    }
    assert!(lost_most <= 5, "{lost_most}");
}

#[test]
fn a_tail_passes_over_damage_and_says_so() {
    let dir = tempfile::tempdir().expect("tempdir");
    let wal = create(dir.path(), 0);
    wal.log(vec![series(1)]).expect("logged");
    let mut damaged_at = WalPosition::default();
    for n in 0..40 {
        if n == 7 {
            damaged_at = wal.end();
        }
        wal.log(vec![numbered(n, 100)]).expect("logged");
    }
    let path = segment::path(dir.path(), 0);
    let mut bytes = std::fs::read(&path).expect("written");
    bytes[damaged_at.offset as usize + 30] ^= 4;
    std::fs::write(&path, &bytes).expect("writable");
    let mut tail = Tail::open(wal.clone(), Some(WalPosition { segment: 0, offset: 0 })).expect("opened");
    let (refs, samples) = drain(&mut tail);
    assert_eq!((refs, samples), (vec![1], (0..40).filter(|n| *n != 7).collect()));
    assert_eq!(tail.gap(), Some(damaged_at));
    // The newest record is damaged, and others come after it.
    let last = wal.end();
    wal.log(vec![numbered(40, 100)]).expect("logged");
    let mut bytes = std::fs::read(&path).expect("written");
    bytes[last.offset as usize + 30] ^= 4;
    std::fs::write(&path, &bytes).expect("writable");
    assert!(drain(&mut tail).1.is_empty());
    wal.log(vec![numbered(41, 100)]).expect("logged");
    assert_eq!(drain(&mut tail).1, [41]);
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

    write_checkpoint(dir.path());
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

/// Up to segment 1, from 50 on, of series 1.
fn write_checkpoint(dir: &Path) {
    let wanted = Wanted {
        last: 1,
        mint: 50,
        deleted_from: 50,
        keep: &|r| r.0 == 1,
        from_memory: &|_, _| panic!("the log is whole"),
    };
    let damaged = checkpoint::write(dir, WalCompression::Snappy, &wanted).expect("written");
    assert!(damaged.is_empty());
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
        write_checkpoint(dir.path());
        wal.truncate(1).expect("removed");
        let (refs, samples) = kept(dir.path());
        assert_eq!(refs, expect_refs, "second reference's sample at {time_of_second}");
        assert!(samples.iter().all(|(r, _)| refs.contains(r)), "{samples:?}");
        assert_eq!(samples.len(), usize::from(time_of_second >= 50));
    }
}
