//! Starts: batches are taken while the log is replayed, and nothing is lost whenever a process ends.

use super::*;
use crate::dir::{self, OutFile};
use crate::sim::{Loss, Plan, SimDisk, gate};
use crate::wal::segment;

#[test]
fn batches_are_taken_at_once_and_stay() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut expected = Expected::new();
    let mut put = |db: &Db, range: std::ops::Range<i64>| {
        for step in range {
            let batch: Vec<_> = (0..50)
                .map(|i| (labels(i + step as u64 / 20), START + step * 1000, (step * i as i64) as f64))
                .collect();
            append(db, &batch);
            for (l, t, v) in batch {
                expected.entry(l).or_default().insert(t, v.to_bits());
            }
        }
    };
    let mut from = 0;
    for round in 0..8 {
        let clock = Arc::new(ManualClock::new(START));
        let db = Db::start(config(dir.path()), clock, &prometheus::Registry::new()).expect("starts");
        put(&db, from..from + 30);
        from += 30;
        if round % 3 != 2 {
            db.wait_ready().expect("ready");
            put(&db, from..from + 10);
            from += 10;
        }
        if round % 2 == 0 {
            db.close().expect("closed");
        }
    }
    let db = open_in(dir.path());
    assert_eq!(read_all(&db), expected);
    assert!(!dir::exists(&dir.path().join("journal")));
    // One series record per series: a second one would make Prometheus drop what is between.
    let mut seen = BTreeSet::new();
    let mut tail = db.tail(Some(model::WalPosition::default())).expect("tail");
    let mut records = Vec::new();
    loop {
        tail.read(1000, &mut records).expect("read");
        if records.is_empty() {
            break;
        }
        for r in records.drain(..) {
            if let WalRecord::Series(list) = r {
                for (r, l) in list {
                    assert!(seen.insert(l.clone()), "{l} has two series records");
                    assert!(r.0 < 1 << 40, "Prometheus packs references into 40 bits");
                }
            }
        }
    }
}

#[test]
fn a_batch_that_is_collected_while_the_replay_ends_is_whole() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut expected = Expected::new();
    for step in 0..20 {
        let clock = Arc::new(ManualClock::new(START));
        let db = Db::start(config(dir.path()), clock, &prometheus::Registry::new()).expect("starts");
        let t = START + step * 1000;
        let mut appender = db.appender().expect("open");
        for i in 0..100 {
            if i == 50 {
                db.wait_ready().expect("ready");
            }
            let sample = Sample::float(t, i as f64);
            appender.append(SeriesRef::NONE, &labels(i), sample).expect("in order");
            expected.entry(labels(i)).or_default().insert(t, (i as f64).to_bits());
        }
        appender.commit().expect("commits");
        assert_eq!(read_all(&db), expected, "after batch {step}");
    }
}

/// The second segment of a journal names series that only the first one makes known.
#[test]
fn a_journal_of_several_segments_survives_starts_that_do_not_get_through() {
    let dir = tempfile::tempdir().expect("tempdir");
    let config = Config { wal_segment_bytes: 32 << 10, ..config(dir.path()) };
    let mut expected = Expected::new();
    let mut put = |db: &Db, steps: std::ops::Range<i64>| {
        for step in steps {
            let batch: Vec<_> = (0..300)
                .map(|i| {
                    (labels(i + step as u64 / 10), START + step * 1000, (step * 31 + i as i64) as f64 / 7.0)
                })
                .collect();
            append(db, &batch);
            for (l, t, v) in batch {
                expected.entry(l).or_default().insert(t, v.to_bits());
            }
        }
    };
    let db = open(config.clone());
    put(&db, 0..10);
    drop(db);
    for round in 1..4 {
        let start = || {
            let clock = Arc::new(ManualClock::new(START));
            Db::start(config.clone(), clock, &prometheus::Registry::new()).expect("starts")
        };
        let db = gate::held(0, start);
        db.wait_held();
        put(&db, round * 20..round * 20 + 20);
    }
    assert!(dir::list(&dir.path().join("journal")).expect("listed").len() > 4, "several segments each");
    let db = open(config);
    assert_eq!(read_all(&db), expected);
}

/// A database on a simulated disk.
struct Simulated {
    disk: SimDisk,
    config: Config,
    expected: Expected,
}

impl Simulated {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let config = Config { out_of_order_window_ms: HOUR, ..config(&disk.root().join("data")) };
        Self { disk, config, expected: Expected::new() }
    }

    /// Starts; the replay is held up at its beginning.
    fn start_held(&self) -> Arc<Db> {
        let clock = Arc::new(ManualClock::new(START));
        let start = || Db::start(self.config.clone(), clock, &prometheus::Registry::new()).expect("starts");
        let db = gate::held(0, start);
        db.wait_held();
        db
    }

    fn put(&mut self, db: &Db, seconds: impl Iterator<Item = i64>) {
        for s in seconds {
            let batch: Vec<_> = (0..5).map(|i| (labels(i), START + s * 1000, s as f64)).collect();
            append(db, &batch);
            for (l, t, v) in batch {
                self.expected.entry(l).or_default().insert(t, v.to_bits());
            }
        }
    }

    /// What the next process has is all that was put.
    fn check(&self) {
        assert_eq!(read_all(&open(self.config.clone())), self.expected);
    }
}

#[test]
fn what_an_fsync_lost_of_the_journal_is_written_anew_from_memory() {
    for fsync_on_commit in [false, true] {
        for ends in [false, true] {
            let mut sim = Simulated::new(1);
            sim.config.fsync_on_commit = fsync_on_commit;
            let db = sim.start_held();
            sim.put(&db, 0..10);
            sim.disk.plan(Plan { bad_sync: Some((0, Loss::Evicted)), ..Plan::default() });
            sim.put(&db, 10..20);
            db.flush().expect("it is in memory");
            sim.put(&db, 20..30);
            if ends {
                db.flush().expect("synced");
                drop(db);
                sim.disk.restart(true);
            } else {
                db.let_go();
                db.wait_ready().expect("ready");
                assert_eq!(read_all(&db), sim.expected);
                drop(db);
            }
            sim.check();
        }
    }
}

/// Also what is late, and what was in the journal of the start before.
#[test]
fn a_flush_during_a_replay_covers_what_killed_processes_left() {
    for seed in 0..20 {
        for is_closed in [false, true] {
            let mut sim = Simulated::new(seed);
            let db = open(sim.config.clone());
            sim.put(&db, (0..20).chain(0..5).map(|s| if s < 5 { s } else { s + 100 }));
            drop(db);
            let db = sim.start_held();
            sim.put(&db, 200..220);
            drop(db);
            let db = sim.start_held();
            if is_closed { db.close() } else { db.flush() }.expect("synced");
            drop(db);
            sim.disk.restart(true);
            sim.check();
        }
    }
}

/// The replay reads on, and what could not be synced is written anew afterwards.
#[test]
fn a_flush_during_a_replay_that_fails_is_made_good() {
    for seed in 0..20 {
        let mut sim = Simulated::new(seed);
        let db = open(sim.config.clone());
        sim.put(&db, 0..20);
        drop(db);
        let db = sim.start_held();
        sim.disk.plan(Plan { bad_sync: Some((0, Loss::Cached)), ..Plan::default() });
        db.flush().expect_err("an fsync fails");
        let again = db.flush().expect_err("nothing was mended").to_string();
        assert!(again.contains("00000000") && again.contains("anew"), "{again}");
        db.let_go();
        db.wait_ready().expect("ready");
        db.flush().expect("synced");
        drop(db);
        sim.disk.restart(true);
        sim.check();
    }
}

/// What the replay read is not in the log any more: series that later samples need would be missing.
#[test]
fn a_start_does_not_go_on_with_a_log_that_an_fsync_lost() {
    for seed in 0..10 {
        let mut sim = Simulated::new(seed);
        let db = open(sim.config.clone());
        sim.put(&db, 0..20);
        drop(db);
        sim.disk.plan(Plan { bad_sync: Some((0, Loss::Evicted)), ..Plan::default() });
        let clock = Arc::new(ManualClock::new(START));
        let opened = Db::open(sim.config.clone(), clock, &prometheus::Registry::new());
        let e = opened.err().expect("samples are lost").to_string();
        assert!(e.contains("wal/00000000") && e.contains("fsync"), "{e}");
        sim.config.fsync_on_commit = true;
        let db = open(sim.config.clone());
        sim.expected = read_all(&db);
        sim.put(&db, 20..40);
        drop(db);
        sim.disk.restart(true);
        sim.check();
    }
}

/// The machine went down while the journal was removed.
#[test]
fn a_journal_with_holes_is_one_that_was_committed() {
    let mut sim = Simulated::new(1);
    let db = open(sim.config.clone());
    sim.put(&db, 0..5);
    drop(db);
    let journal = sim.config.dir.join("journal");
    dir::create_all(&journal).expect("made");
    for s in [0, 3] {
        OutFile::create(&segment::path(&journal, s)).expect("made");
    }
    let db = sim.start_held();
    sim.put(&db, 5..10);
    db.let_go();
    db.wait_ready().expect("ready");
    assert_eq!(read_all(&db), sim.expected);
    drop(db);
    sim.check();
}
