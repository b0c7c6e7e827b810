//! Builds the head when a database opens: from a snapshot (`snapshot`) if there is one, from the chunks in files, from the
//! write-ahead log, and then from the log of late samples.
//!
//! Records come in order from a thread that reads ahead (`wal/reader`); series are made here; samples are added by several threads
//! (`shards`). Passed over are samples before `min_valid`, which a block has already, and those up to the end of a series'
//! chunks in files. A series that was removed and made again has several references in the log; the first one met stands for all.

mod shards;
mod snapshot;

use std::path::Path;
use std::sync::Arc;

use model::{Exemplar, HistogramValue, Labels, Metadata, SampleValue, SeriesRef, StorageError, WalRecord};

use super::exemplars::ExemplarRing;
use super::expiring::Expiring;
use super::head_chunks::{FoundChunks, HeadChunks};
use super::late::{ReplayedLate, WBL_DIR};
use super::series::{ChunkForm, MemSeries};
use super::series_map::{RefMap, SeriesMap};
use super::snapshot::SnapshotDir;
use crate::block::tombstones::Tombstones;
use crate::config::Config;
use crate::dir;
use crate::metrics::Metrics;
use crate::wal::reader::{self, Progress, Replayed};
use crate::wal::{Record, record, segment};
use shards::{Restored, Shards, Terms};

/// A head being built.
pub(crate) struct Replay {
    pub(crate) series: SeriesMap,
    pub(crate) exemplars: ExemplarRing,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    pub(crate) expiring: Expiring,
    pub(crate) tombstones: Tombstones,
    pub(crate) late: ReplayedLate,
    /// References of the log that are not their series' own.
    pub(crate) aliases: RefMap<SeriesRef>,
    /// The snapshot that was used, and its length.
    pub(crate) snapshot: Option<(SnapshotDir, u64)>,
    /// A reference stands for one series in the snapshot, and for another one in the log.
    conflict: Option<SeriesRef>,
    form: ChunkForm,
    min_valid: i64,
    unknown: Unknown,
    invalid_histograms: u64,
    floats: Vec<(u64, i64, f64)>,
}

/// References are below: Prometheus packs them into so many bits.
const REF_END: u64 = 1 << 40;

/// Why a replay did not get through.
enum Failed {
    Storage(StorageError),
    /// The snapshot cannot be used.
    Snapshot(StorageError),
}

impl Failed {
    fn of_snapshot(e: StorageError) -> Self {
        if matches!(e, StorageError::Closed) { Self::Storage(e) } else { Self::Snapshot(e) }
    }
}

impl From<StorageError> for Failed {
    fn from(e: StorageError) -> Self {
        Self::Storage(e)
    }
}

/// Whether a tombstone says that Prometheus took a series that had gone stale out of the head, into a block. Later samples of a series
/// with its labels are not meant.
fn is_eviction((_, mint, maxt): &(SeriesRef, i64, i64)) -> bool {
    (*mint, *maxt) == (i64::MIN, i64::MAX)
}

/// Records that say nothing to us: of a type that is not known, or with a reference that no series record names.
#[derive(Default)]
struct Unknown {
    records: u64,
    samples: u64,
    histograms: u64,
    exemplars: u64,
    metadata: u64,
}

impl Replay {
    fn new(config: &Config, min_valid: i64) -> Self {
        Self {
            series: SeriesMap::new(),
            exemplars: ExemplarRing::new(config.exemplars_max),
            min_time: i64::MAX,
            max_time: i64::MIN,
            expiring: Expiring::default(),
            tombstones: Tombstones::default(),
            late: ReplayedLate::default(),
            aliases: RefMap::default(),
            snapshot: None,
            conflict: None,
            form: config.chunk_form(),
            min_valid,
            unknown: Unknown::default(),
            invalid_histograms: 0,
            floats: Vec::new(),
        }
    }

    /// Replays the log in `dir`, repairing it where needed; from where the newest snapshot was taken, if there is one and it can be
    /// used.
    pub(crate) fn run(
        dir: &Path,
        config: &Config,
        min_valid: i64,
        (metrics, progress): (&Metrics, &Progress),
    ) -> Result<(Self, HeadChunks, Replayed), StorageError> {
        let attempt = |snapshot: Option<&SnapshotDir>| {
            Self::attempt(dir, config, min_valid, (metrics, progress), snapshot)
        };
        if let Some(snapshot) = SnapshotDir::newest(&config.dir, dir)? {
            match attempt(Some(&snapshot)) {
                Ok(done) => return Ok(done),
                Err(Failed::Storage(e)) => return Err(e),
                Err(Failed::Snapshot(e)) => {
                    metrics.snapshot_errors.inc();
                    tracing::error!(error = %e, path = %snapshot.path.display(),
                        "the snapshot of the head is removed: the whole write-ahead log is replayed instead");
                    snapshot.remove()?;
                }
            }
        }
        attempt(None).map_err(|(Failed::Storage(e) | Failed::Snapshot(e))| e)
    }

    fn attempt(
        dir: &Path,
        config: &Config,
        min_valid: i64,
        (metrics, progress): (&Metrics, &Progress),
        snapshot: Option<&SnapshotDir>,
    ) -> Result<(Self, HeadChunks, Replayed), Failed> {
        let (files, found) = HeadChunks::open(&config.dir, min_valid)?;
        metrics.head_chunk_corruptions.inc_by(u64::from(found.damaged));
        let mut replay = Self::new(config, min_valid);
        replay.series.reserve_ref(SeriesRef(found.last_ref));
        if let Some(s) = snapshot {
            replay.snapshot = Some((s.clone(), dir::len_all(&s.path)?));
        }
        let terms = Terms { form: replay.form, min_valid, files: &files };
        let (replayed, totals) = std::thread::scope(|scope| {
            let mut shards = Shards::start(scope, terms);
            let loaded = snapshot.map_or(Ok(()), |s| {
                replay.load_snapshot(s, &mut shards, (&found, &files), progress).map_err(Failed::of_snapshot)
            });
            let replayed = loaded.and_then(|()| {
                let from = snapshot.map(|s| s.position);
                let apply = |segment, bytes: &[u8]| replay.apply(&mut shards, &found, (segment, bytes));
                let tell = |e: &StorageError| {
                    metrics.wal_corruptions.inc();
                    tracing::error!(error = %e, "write-ahead log damaged: this record is lost, all others are kept");
                };
                reader::replay(dir, from, (progress, &tell), apply).map_err(Failed::from)
            });
            (replayed, shards.finish())
        });
        let replayed = replayed?;
        (replay.min_time, replay.max_time) = (totals.min_time, totals.max_time);
        replay.unknown.samples += totals.unknown_floats;
        replay.unknown.histograms += totals.unknown_histograms;
        if totals.last_unknown < REF_END {
            // A series that got it now would get these samples too, where the logs are read apart.
            replay.series.reserve_ref(SeriesRef(totals.last_unknown));
        }
        if let Some(e) = totals.contradiction {
            if snapshot.is_some() {
                return Err(Failed::Snapshot(e));
            }
            // As far as they contradict each other they were not used: the log has the samples.
            tracing::warn!(error = %e, "head chunks contradict each other");
        }
        for (r, chunk) in &found.late {
            if let Some(s) = replay.get(SeriesRef(*r)) {
                replay.late.min_time = replay.late.min_time.min(chunk.mint);
                replay.late.max_time = replay.late.max_time.max(chunk.maxt);
                s.state.lock().restore_late(chunk.clone());
            }
        }
        replay.replay_late(config, (metrics, progress))?;
        // What a damaged record made known is not the snapshot's to have.
        if snapshot.is_some() && replayed.damaged.is_empty() {
            replay.check_references().map_err(Failed::Snapshot)?;
        }
        // What is deleted of late samples counts even where a block has all others.
        replay.tombstones = replay.tombstones.from(min_valid.min(replay.late.min_time));
        replay.report_unknown(metrics);
        Ok((replay, files, replayed))
    }

    /// Replays the log of late samples.
    fn replay_late(
        &mut self,
        config: &Config,
        (metrics, progress): (&Metrics, &Progress),
    ) -> Result<(), StorageError> {
        let wbl_dir = config.dir.join(WBL_DIR);
        if !dir::exists(&wbl_dir) {
            return Ok(());
        }
        segment::remove_before_hole(&wbl_dir)?;
        let apply = |_, bytes: &[u8]| {
            self.apply_late(record::decode(bytes)?);
            Ok(())
        };
        let tell = |e: &StorageError| {
            metrics.wal_corruptions.inc();
            tracing::error!(error = %e, "log of late samples damaged: this record is lost, all others are kept");
        };
        let log = reader::replay(&wbl_dir, None, (progress, &tell), apply)?;
        self.late.next_segment = log.next_segment;
        self.late.contents = log.contents;
        Ok(())
    }

    /// Whether what the logs name fits the snapshot: a series that it should have had may be in the log before it.
    fn check_references(&self) -> Result<(), StorageError> {
        let wrong = |reason: String| Err(StorageError::decode("snapshot of the head", reason));
        if let Some(r) = self.conflict {
            return wrong(format!("the write-ahead log has another series with reference {}", r.0));
        }
        match self.unknown.samples + self.unknown.histograms {
            0 => Ok(()),
            n => wrong(format!("it has not got the series of {n} samples in the logs")),
        }
    }

    /// The series that a reference of the log stands for.
    fn get(&self, r: SeriesRef) -> Option<Arc<MemSeries>> {
        self.series.get(self.aliases.get(&r.0).copied().unwrap_or(r))
    }

    /// The series' own reference for one that a sample is logged with.
    #[inline]
    fn canonical(&mut self, segment: u32, r: u64) -> u64 {
        if self.aliases.is_empty() {
            return r;
        }
        match self.aliases.get(&r) {
            Some(own) => {
                self.expiring.add([SeriesRef(r)], segment);
                own.0
            }
            None => r,
        }
    }

    fn report_unknown(&self, metrics: &Metrics) {
        if self.invalid_histograms > 0 {
            tracing::warn!(
                count = self.invalid_histograms,
                "write-ahead log has histograms that contradict themselves"
            );
        }
        let u = &self.unknown;
        if u.records > 0 {
            // No checksum covers the byte that says how a record is packed: damage to it looks like this.
            metrics.wal_corruptions.inc_by(u.records);
            tracing::error!(
                count = u.records,
                "write-ahead log has records of unknown types: a newer version wrote them, or they are damaged"
            );
        }
        for (kind, n) in [
            ("samples", u.samples),
            ("histograms", u.histograms),
            ("exemplars", u.exemplars),
            ("metadata", u.metadata),
        ] {
            if n > 0 {
                metrics.wal_unknown_refs.with_label_values(&[kind]).inc_by(n);
                tracing::warn!(kind, count = n, "write-ahead log has records of unknown series");
            }
        }
    }

    /// A record of the log of late samples. Markers of chunks that Prometheus has in `chunks_head` are passed over: the log has
    /// the samples of these chunks too.
    fn apply_late(&mut self, record: Record) {
        let Record::Data(record) = record else { return };
        match record {
            WalRecord::Samples(list) => {
                list.into_iter().for_each(|(r, t, v)| self.late_sample(r, (t, 0, SampleValue::Float(v))));
            }
            WalRecord::StartedSamples(list) => {
                list.into_iter().for_each(|(r, t, s, v)| self.late_sample(r, (t, s, SampleValue::Float(v))));
            }
            WalRecord::Histograms(list) => {
                list.into_iter().for_each(|(r, t, h)| self.late_histogram(r, (t, 0, h)));
            }
            WalRecord::StartedHistograms(list) => {
                list.into_iter().for_each(|(r, t, s, h)| self.late_histogram(r, (t, s, h)));
            }
            WalRecord::Series(_) | WalRecord::Exemplars(_) | WalRecord::Metadata(_) => {}
        }
    }

    fn late_histogram(&mut self, r: SeriesRef, (t, start, h): (i64, i64, HistogramValue)) {
        if crate::chunk::validate(&h).is_ok() {
            self.late_sample(r, (t, start, SampleValue::Histogram(h)));
        } else {
            self.invalid_histograms += 1;
        }
    }

    fn late_sample(&mut self, r: SeriesRef, (t, start, value): (i64, i64, SampleValue)) {
        let Some(series) = self.get(r) else {
            // Both logs are synced apart. A new series with this reference would get these samples after the next start.
            self.series.reserve_ref(r);
            self.unknown.samples += 1;
            return;
        };
        series.state.lock().insert((t, start, value), self.form);
        self.late.min_time = self.late.min_time.min(t);
        self.late.max_time = self.late.max_time.max(t);
    }

    fn apply(
        &mut self,
        shards: &mut Shards<'_>,
        found: &FoundChunks,
        (segment, bytes): (u32, &[u8]),
    ) -> Result<(), &'static str> {
        let mut floats = std::mem::take(&mut self.floats);
        floats.clear();
        let decoded = record::decode_floats(bytes, &mut floats);
        if let Ok(true) = decoded {
            // The fast path: nearly everything is here.
            for (r, t, v) in &floats {
                if *t >= self.min_valid {
                    shards.float(self.canonical(segment, *r), *t, *v);
                }
            }
        }
        self.floats = floats;
        if decoded? {
            return Ok(());
        }
        match record::decode(bytes)? {
            Record::Data(record) => self.apply_data(shards, found, segment, record),
            Record::Tombstones(list) => {
                for (r, ..) in list.iter().filter(|s| is_eviction(s)) {
                    match self.get(*r) {
                        Some(s) => shards.evict(s.reference.0),
                        None => self.series.reserve_ref(*r),
                    }
                }
                self.delete(&list);
            }
            Record::Unknown if bytes.first() == Some(&reader::FILLER_TYPE) => {}
            Record::Unknown => self.unknown.records += 1,
        }
        Ok(())
    }

    fn apply_data(&mut self, shards: &mut Shards<'_>, found: &FoundChunks, segment: u32, record: WalRecord) {
        match record {
            WalRecord::Series(list) => {
                let made = list.into_iter().map(|(r, labels)| self.make(found, segment, r, &labels));
                let made: Vec<_> = made.collect();
                shards.series(made);
            }
            WalRecord::Samples(list) => {
                let list = list.into_iter().map(|(r, t, v)| (r, t, 0, SampleValue::Float(v)));
                self.others(shards, segment, list);
            }
            WalRecord::StartedSamples(list) => {
                let list = list.into_iter().map(|(r, t, start, v)| (r, t, start, SampleValue::Float(v)));
                self.others(shards, segment, list);
            }
            WalRecord::Histograms(list) => {
                let list = list.into_iter().map(|(r, t, h)| (r, t, 0, SampleValue::Histogram(h)));
                self.others(shards, segment, list);
            }
            WalRecord::StartedHistograms(list) => {
                let list = list.into_iter().map(|(r, t, start, h)| (r, t, start, SampleValue::Histogram(h)));
                self.others(shards, segment, list);
            }
            WalRecord::Exemplars(list) => self.add_exemplars(list),
            WalRecord::Metadata(list) => self.set_metadata(list),
        }
    }

    fn add_exemplars(&mut self, list: Vec<(SeriesRef, Exemplar)>) {
        for (r, e) in list {
            match self.get(r) {
                Some(s) => {
                    self.exemplars.add(s.reference, || self.series.labels(&s), e);
                }
                None => self.unknown.exemplars += 1,
            }
        }
    }

    fn set_metadata(&mut self, list: Vec<(SeriesRef, Metadata)>) {
        for (r, m) in list {
            match self.get(r) {
                Some(s) => s.state.lock().set_metadata(m),
                None => self.unknown.metadata += 1,
            }
        }
    }

    /// Makes the series that a record of the log names, or finds the one that is there.
    fn make(&mut self, found: &FoundChunks, segment: u32, r: SeriesRef, labels: &Labels) -> Restored {
        let known = self.snapshot.as_ref().and_then(|_| self.series.get(r));
        let (series, created) = self.series.get_or_create(labels, Some(r));
        if known.is_some_and(|k| !Arc::ptr_eq(&k, &series)) {
            self.conflict = Some(r);
        }
        if created {
            series.state.lock().set_logged();
        } else if series.reference != r {
            self.series.reserve_ref(r);
            self.expiring.add([r], segment);
            self.aliases.insert(r.0, series.reference);
        }
        Restored { reference: series.reference.0, series, stored: found.of(r).collect(), open: None }
    }

    /// Samples that are not plain floats. What cannot be stored would have been refused when it was appended.
    fn others(
        &mut self,
        shards: &mut Shards<'_>,
        segment: u32,
        list: impl Iterator<Item = (SeriesRef, i64, i64, SampleValue)>,
    ) {
        let mut good = Vec::new();
        for (r, t, start, value) in list.filter(|s| s.1 >= self.min_valid).collect::<Vec<_>>() {
            if let SampleValue::Histogram(h) = &value
                && crate::chunk::validate(h).is_err()
            {
                self.invalid_histograms += 1;
                continue;
            }
            good.push((self.canonical(segment, r.0), t, start, value));
        }
        shards.others(good);
    }

    fn delete(&mut self, list: &[(SeriesRef, i64, i64)]) {
        for (r, mint, maxt) in list.iter().filter(|s| !is_eviction(s)) {
            if let Some(s) = self.get(*r) {
                self.tombstones.add(s.reference.0, *mint, *maxt);
            }
        }
    }
}
