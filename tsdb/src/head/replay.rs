//! Builds the head from the write-ahead log, and then from that of late samples, when a database opens.
//!
//! Samples before `min_valid`, which a block has already, are passed over. A series that was removed and made again has
//! several references in the log; the first one met stands for all.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use model::{HistogramValue, SampleValue, SeriesRef, StorageError, WalRecord};

use super::exemplars::ExemplarRing;
use super::late::{ReplayedLate, WBL_DIR};
use super::out_of_order::Bounds;
use super::series::{ChunkForm, MemSeries, Outcome};
use super::series_map::{RefMap, SeriesMap};
use crate::block::tombstones::Tombstones;
use crate::config::Config;
use crate::dir;
use crate::metrics::Metrics;
use crate::wal::reader::{self, Progress, Replayed};
use crate::wal::{Record, segment};

/// A head being built.
pub(crate) struct Replay {
    pub(crate) series: SeriesMap,
    pub(crate) exemplars: ExemplarRing,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    pub(crate) expiring: HashMap<SeriesRef, u32>,
    pub(crate) tombstones: Tombstones,
    pub(crate) late: ReplayedLate,
    /// Every reference of the log, aliases included.
    by_ref: RefMap<Arc<MemSeries>>,
    form: ChunkForm,
    min_valid: i64,
    unknown: Unknown,
    invalid_histograms: u64,
}

/// Records whose reference no series record names.
#[derive(Default)]
struct Unknown {
    samples: u64,
    histograms: u64,
    exemplars: u64,
    metadata: u64,
}

impl Replay {
    /// Replays the log in `dir`, repairing it where needed.
    pub(crate) fn run(
        dir: &Path,
        config: &Config,
        min_valid: i64,
        (metrics, progress): (&Metrics, &Progress),
    ) -> Result<(Self, Replayed), StorageError> {
        let mut replay = Self {
            series: SeriesMap::new(),
            exemplars: ExemplarRing::new(config.exemplars_max),
            min_time: i64::MAX,
            max_time: i64::MIN,
            expiring: HashMap::new(),
            tombstones: Tombstones::default(),
            late: ReplayedLate::default(),
            by_ref: RefMap::default(),
            form: config.chunk_form(),
            min_valid,
            unknown: Unknown::default(),
            invalid_histograms: 0,
        };
        let replayed = reader::replay(dir, progress, |segment, record| replay.apply(segment, record))?;
        let wbl_dir = config.dir.join(WBL_DIR);
        if dir::exists(&wbl_dir) {
            segment::remove_before_hole(&wbl_dir)?;
            let log = reader::replay(&wbl_dir, progress, |_, record| replay.apply_late(record))?;
            // It is begun anew with the first late sample only; a sync before that would not know what is there.
            segment::sync_all(&wbl_dir)?;
            replay.late.next_segment = log.next_segment;
            if let Some(e) = &log.repaired {
                metrics.wal_corruptions.inc();
                tracing::error!(error = %e, "log of late samples repaired: what came after the last good record is lost");
            }
        }
        for e in replayed.repaired.iter().chain(&replayed.checkpoint_corruption) {
            metrics.wal_corruptions.inc();
            tracing::error!(error = %e, "write-ahead log repaired: what came after the last good record is lost");
        }
        // What is deleted of late samples counts even where a block has all others.
        replay.tombstones = replay.tombstones.from(min_valid.min(replay.late.min_time));
        replay.report_unknown(metrics);
        replay.by_ref = RefMap::default();
        Ok((replay, replayed))
    }

    fn report_unknown(&self, metrics: &Metrics) {
        if self.invalid_histograms > 0 {
            tracing::warn!(
                count = self.invalid_histograms,
                "write-ahead log has histograms that contradict themselves"
            );
        }
        let u = &self.unknown;
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
        let Some(series) = self.by_ref.get(&r.0) else {
            // Both logs are synced apart. A new series with this reference would get these samples after the next start.
            self.series.reserve_ref(r);
            self.unknown.samples += 1;
            return;
        };
        series.state.lock().insert((t, start, value), self.form);
        self.late.min_time = self.late.min_time.min(t);
        self.late.max_time = self.late.max_time.max(t);
    }

    fn apply(&mut self, segment: u32, record: Record) {
        let record = match record {
            Record::Data(record) => record,
            Record::Tombstones(list) => return self.delete(&list),
            Record::Unknown => return,
        };
        match record {
            WalRecord::Series(list) => {
                for (r, labels) in list {
                    let (series, created) = self.series.get_or_create(&labels, Some(r));
                    if created {
                        series.state.lock().set_logged();
                    } else if series.reference != r {
                        self.series.reserve_ref(r);
                        self.expiring.insert(r, segment);
                    }
                    self.by_ref.insert(r.0, series);
                }
            }
            WalRecord::Samples(list) => {
                for (r, t, v) in list {
                    self.sample(segment, r, (t, 0, SampleValue::Float(v)));
                }
            }
            WalRecord::StartedSamples(list) => {
                for (r, t, start, v) in list {
                    self.sample(segment, r, (t, start, SampleValue::Float(v)));
                }
            }
            WalRecord::Histograms(list) => {
                list.into_iter().for_each(|(r, t, h)| self.histogram(segment, r, (t, 0, h)));
            }
            WalRecord::StartedHistograms(list) => {
                list.into_iter().for_each(|(r, t, start, h)| self.histogram(segment, r, (t, start, h)));
            }
            WalRecord::Exemplars(list) => {
                for (r, e) in list {
                    match self.by_ref.get(&r.0) {
                        Some(s) => {
                            self.exemplars.add(s.reference, || self.series.labels(s), e);
                        }
                        None => self.unknown.exemplars += 1,
                    }
                }
            }
            WalRecord::Metadata(list) => {
                for (r, m) in list {
                    match self.by_ref.get(&r.0) {
                        Some(s) => s.state.lock().set_metadata(m),
                        None => self.unknown.metadata += 1,
                    }
                }
            }
        }
    }

    fn delete(&mut self, list: &[(SeriesRef, i64, i64)]) {
        for (r, mint, maxt) in list {
            if let Some(s) = self.by_ref.get(&r.0) {
                self.tombstones.add(s.reference.0, *mint, *maxt);
            }
        }
    }

    /// What cannot be stored would have been refused when it was appended.
    fn histogram(&mut self, segment: u32, r: SeriesRef, (t, start, h): (i64, i64, HistogramValue)) {
        if crate::chunk::validate(&h).is_ok() {
            self.sample(segment, r, (t, start, SampleValue::Histogram(h)));
        } else {
            self.invalid_histograms += 1;
        }
    }

    fn sample(&mut self, segment: u32, r: SeriesRef, (t, start, value): (i64, i64, SampleValue)) {
        if t < self.min_valid {
            return;
        }
        let Some(series) = self.by_ref.get(&r.0) else {
            match value {
                SampleValue::Float(_) => self.unknown.samples += 1,
                SampleValue::Histogram(_) => self.unknown.histograms += 1,
            }
            return;
        };
        if series.reference != r {
            self.expiring.insert(r, segment);
        }
        let outcome = series.state.lock().append((t, start, value), self.form, &Bounds::NONE, (0, 0));
        if matches!(outcome, Outcome::Stored | Outcome::StoredInNewChunk) {
            self.min_time = self.min_time.min(t);
            self.max_time = self.max_time.max(t);
        }
    }
}
