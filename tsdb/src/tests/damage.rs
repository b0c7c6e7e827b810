//! Files that are damaged under a running database: what else has their samples gives them back, and maintenance goes on.

use super::*;
use crate::dir;
use crate::sim::{Plan, SimDisk};

/// A database on a simulated disk, and the counters of its last start.
struct Damaged {
    disk: SimDisk,
    config: Config,
    registry: prometheus::Registry,
    db: Option<Arc<Db>>,
    expected: Expected,
}

impl Damaged {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let config = Config {
            wal_segment_bytes: 32 << 10,
            snapshot_on_close: true,
            retention_ms: 0,
            ..Config::new(disk.root().join("data"))
        };
        let mut new =
            Self { disk, config, registry: prometheus::Registry::new(), db: None, expected: Expected::new() };
        new.start();
        new
    }

    fn start(&mut self) {
        self.db = None;
        self.registry = prometheus::Registry::new();
        let clock = Arc::new(ManualClock::new(START));
        self.db = Some(Db::open(self.config.clone(), clock, &self.registry).expect("opens"));
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    fn fill(&mut self, from: i64, to: i64) {
        let db = self.db.clone().expect("open");
        fill(&db, START + from, START + to, &mut self.expected);
    }

    fn close(&mut self) {
        self.db().close().expect("closed");
        self.db = None;
    }

    /// Flips a bit in the middle of the first file below a directory.
    fn flip(&self, dir: &str) -> std::path::PathBuf {
        let dir = self.config.dir.join(dir);
        let (path, len) = self.disk.files().into_iter().find(|(p, _)| p.starts_with(&dir)).expect("a file");
        self.disk.flip(&path, len * 4);
        path
    }

    fn count(&self, metric: &str) -> u64 {
        super::crash::counted(&self.registry, metric)
    }

    fn check(&self, when: &str) {
        assert_eq!(read_all(self.db()), self.expected, "{when}");
    }
}

/// A start from a snapshot of the head does not look at the log before it.
#[test]
fn a_damaged_segment_that_a_snapshot_covers_costs_nothing() {
    let mut d = Damaged::new();
    d.fill(0, 2 * HOUR);
    d.close();
    d.flip("wal");
    d.start();
    assert_eq!(d.count("prometheus_tsdb_wal_corruptions_total"), 0, "nobody has looked there");
    d.fill(2 * HOUR, 4 * HOUR);
    d.db().maintain().expect("the checkpoint gets from memory what the segment had");
    assert_eq!(d.count("prometheus_tsdb_wal_corruptions_total"), 1);
    assert_eq!(d.count("prometheus_tsdb_checkpoint_creations_failed_total"), 0);
    d.check("while it runs");
    d.db().maintain().expect("maintained");
    assert_eq!(d.count("prometheus_tsdb_wal_corruptions_total"), 1);
    // Without snapshot and head chunks only the log has the head: none of it is missing there.
    d.db = None;
    for name in dir::list(&d.config.dir).expect("listed") {
        if name.starts_with("chunk_snapshot.") || name == "chunks_head" {
            dir::remove_all(&d.config.dir.join(name)).expect("removed");
        }
    }
    d.start();
    d.check("from the log alone");
    assert_eq!(d.count("prometheus_tsdb_wal_corruptions_total"), 0);
}

#[test]
fn a_damaged_head_chunk_is_written_anew_from_the_log() {
    let mut d = Damaged::new();
    d.fill(0, 2 * HOUR + HOUR / 2);
    d.db().maintain().expect("head chunks are written");
    let path = d.flip("chunks_head");
    // A simulated file is mapped as it is when it is opened; the start repairs it in its own way.
    d.db().head.files.remap(&path);
    let q = d.db().querier(i64::MIN, i64::MAX).expect("open");
    let mut set = q.select(&all(), &SelectHints::default()).expect("selected");
    let failed = (0..20).find_map(|_| set.next().err()).expect("what is damaged is not served").to_string();
    assert!(failed.contains("chunks_head/000001") && failed.contains("offset"), "{failed}");
    drop((set, q));
    d.db().maintain().expect("maintained");
    assert_eq!(d.count("prometheus_tsdb_mmap_chunk_corruptions_total"), 1);
    d.check("after maintenance");
    d.fill(2 * HOUR + HOUR / 2, 4 * HOUR);
    d.db().maintain().expect("a block is cut");
    d.check("after a block was cut");
    d.start();
    d.check("after a restart");
}

/// A start that repairs head chunks is interrupted at any change: the next one does not take what is left for all there was.
#[test]
fn a_repair_of_head_chunks_may_be_interrupted() {
    for off_at in 1..12 {
        let mut d = Damaged::new();
        d.config.snapshot_on_close = false;
        for hour in 0..4 {
            d.fill(hour * HOUR / 2, (hour + 1) * HOUR / 2);
            d.db().maintain().expect("head chunks are written");
        }
        d.close();
        let files = dir::list(&d.config.dir.join("chunks_head")).expect("listed");
        assert!(files.len() > 1, "{files:?}");
        d.flip("chunks_head");
        d.disk.plan(Plan { off_at: Some(off_at), ..Plan::default() });
        let clock = Arc::new(ManualClock::new(START));
        drop(Db::open(d.config.clone(), clock, &prometheus::Registry::new()));
        d.disk.restart(off_at % 2 == 0);
        d.start();
        d.check(&format!("interrupted at change {off_at}"));
    }
}

/// No checksum covers it; it says how the record is packed and where it begins.
#[test]
fn whatever_bit_of_a_records_first_byte_flips_what_is_missing_is_told() {
    let mut told = 0;
    for bit in 0..8 {
        let mut d = Damaged::new();
        d.close();
        d.config.snapshot_on_close = false;
        d.start();
        d.fill(0, HOUR / 2);
        d.close();
        let wal = d.config.dir.join("wal");
        let is_written = |(p, len): &(std::path::PathBuf, u64)| p.starts_with(&wal) && *len > 0;
        let (path, _) = d.disk.files().into_iter().find(is_written).expect("a segment");
        d.disk.flip(&path, bit);
        d.start();
        let is_told = d.count("prometheus_tsdb_wal_corruptions_total") > 0;
        assert!(is_told || read_all(d.db()) == d.expected, "bit {bit}");
        told += usize::from(is_told);
    }
    assert!(told >= 4, "{told}");
}
