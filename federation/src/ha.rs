//! High-availability pairs: scrapers that scrape the same targets and send the same series, told apart by a replica label
//! only, become one clean series each.
//!
//! [`HaPairs`] stands in front of a store. A sample whose labels have both the cluster label and the replica label belongs to
//! a pair; the replica label is taken off. The series of one target (cluster, `job`, `instance`) have one *owner*, the replica
//! that was first heard. The owner's samples are stored. Another replica's sample is
//!
//! - dropped as *covered* when its series has a stored sample at its time or later; when that is much later ([`holes::OLD_MS`]),
//!   as in a backfill, only when the store has no hole there,
//! - stored, when the owner has sent the target's samples [`LACKING_MS`] beyond it and none of this series: the owner does not
//!   have it,
//! - else *held*: what can be kept of the batch is, and the batch as a whole fails with [`StorageError::NotYet`], so that the
//!   sender keeps it and sends it again.
//!
//! When the owner has been silent, or is behind the other replica, for longer than the failover time, the other one becomes
//! owner, and what it was held up with fills the time since the owner's last sample. Nothing is ever dropped that is not covered by
//! a stored sample, so no gap comes of it whichever replica dies, as long as senders keep what is not acknowledged; and no time is
//! stored twice. A whole target changes hands at once, so that a histogram's buckets come from one scrape.
//!
//! What is known of series and targets lies in memory and goes when they are silent for [`FORGET_MS`]. When a cluster is first
//! seen (after a restart, too), the store is asked for the newest samples of its series.

use std::sync::Arc;

use model::chunk::decode_chunks;
use model::{
    AppendError, Appendable, Appender, Clock, Exemplar, Labels, LabelsBuilder, Matcher, Metadata, Queryable,
    Sample, Samples, SelectHints, SeriesRef, StorageError,
};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};

pub(crate) mod holes;
mod state;
#[cfg(test)]
mod tests;

use state::{SeriesKey, State, Verdict};

/// How far beyond a sample the owner must have sent its target's samples for the sample's series to count as one that the owner
/// does not have.
pub const LACKING_MS: i64 = 120_000;
/// What is silent for so long is forgotten.
pub const FORGET_MS: i64 = 2 * 3_600_000;
/// How far the store is asked back for newest samples.
const LOOK_BACK_MS: i64 = 3_600_000;

/// Settings of [`HaPairs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaConfig {
    /// Name of the label that both replicas have the same value of.
    pub cluster_label: String,
    /// Name of the label that tells replicas apart. It is not stored.
    pub replica_label: String,
    /// For how long an owner may be silent or behind before another replica takes over.
    pub failover_ms: i64,
}

impl Default for HaConfig {
    fn default() -> Self {
        Self { cluster_label: "cluster".into(), replica_label: "__replica__".into(), failover_ms: 30_000 }
    }
}

/// A store behind which pairs of replicas are one.
pub struct HaPairs {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Appendable>,
    history: Arc<dyn Queryable>,
    clock: Arc<dyn Clock>,
    config: HaConfig,
    state: Mutex<State>,
    samples: IntCounterVec,
    takeovers: IntCounterVec,
}

impl HaPairs {
    /// Stands in front of `store`, whose samples `history` reads.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn new(
        config: HaConfig,
        store: Arc<dyn Appendable>,
        history: Arc<dyn Queryable>,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let samples = IntCounterVec::new(
            Opts::new(
                "almanac_longterm_ha_samples_total",
                "Samples of replicas of a pair, by what became of them: stored, covered by the other replica, held for it.",
            ),
            &["outcome"],
        )?;
        let takeovers = IntCounterVec::new(
            Opts::new("almanac_longterm_ha_takeovers_total", "Targets that went over to another replica."),
            &["cluster"],
        )?;
        registry.register(Box::new(samples.clone()))?;
        registry.register(Box::new(takeovers.clone()))?;
        let state = Mutex::new(State::new(config.failover_ms));
        let inner = Inner { store, history, clock, config, state, samples, takeovers };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Appendable for HaPairs {
    fn appender(&self) -> Result<Box<dyn Appender>, StorageError> {
        Ok(Box::new(HaAppender {
            store: self.inner.store.appender()?,
            pairs: self.inner.clone(),
            at_ms: self.inner.clock.monotonic().as_millis() as i64,
            taken: Vec::new(),
            covered: 0,
            held: 0,
            old: Vec::new(),
            held_for: String::new(),
            builder: LabelsBuilder::new(),
        }))
    }
}

/// One batch on its way through.
struct HaAppender {
    store: Box<dyn Appender>,
    pairs: Arc<Inner>,
    /// When the batch began, by the clock that nobody sets.
    at_ms: i64,
    /// Samples in the batch, to be noted once they are stored.
    taken: Vec<(SeriesKey, i64)>,
    covered: u64,
    held: u64,
    /// Samples much older than what is stored: of a backfill.
    old: Vec<(SeriesKey, Sample)>,
    /// The replica that is awaited, of one of the held samples.
    held_for: String,
    builder: LabelsBuilder,
}

impl HaAppender {
    /// The name of the series of a pair, with what its labels are without the replica; `None` for any other series.
    fn key_of(&mut self, labels: &Labels) -> Result<Option<SeriesKey>, StorageError> {
        let config = &self.pairs.config;
        let (Some(cluster), Some(replica)) =
            (labels.get(&config.cluster_label), labels.get(&config.replica_label))
        else {
            return Ok(None);
        };
        if !self.pairs.state.lock().knows_cluster(cluster) {
            self.pairs.remember(cluster, self.at_ms)?;
        }
        self.builder.reset(labels);
        self.builder.del(&config.replica_label);
        let stored = self.builder.build();
        let target = [cluster, labels.get("job").unwrap_or(""), labels.get("instance").unwrap_or("")];
        let mut state = self.pairs.state.lock();
        let Some(key) = state.key(&stored, target, replica, self.at_ms) else {
            return Err(StorageError::Limit(format!(
                "more than {} values of the label {}: it should tell the replicas of a cluster apart",
                state::REPLICAS_MAX,
                config.replica_label
            )));
        };
        Ok(Some(key))
    }

    /// Takes, drops or holds a sample of a pair.
    fn take(&mut self, key: SeriesKey, sample: Sample) -> Result<(), AppendError> {
        let timestamp_ms = sample.timestamp_ms;
        let mut state = self.pairs.state.lock();
        match state.decide(key, timestamp_ms, self.at_ms).ok_or(AppendError::UnknownRef)? {
            Verdict::Store { took_over } => {
                if let Some(cluster) = took_over {
                    self.pairs.takeovers.with_label_values(&[&*cluster]).inc();
                }
                drop(state);
                self.store(key, sample)
            }
            Verdict::Covered { behind_ms } if behind_ms > holes::OLD_MS => {
                self.old.push((key, sample));
                Ok(())
            }
            Verdict::Covered { .. } => {
                self.covered += 1;
                Ok(())
            }
            Verdict::Held { owner } => {
                self.held_for = owner;
                self.held += 1;
                Ok(())
            }
        }
    }

    fn store(&mut self, key: SeriesKey, sample: Sample) -> Result<(), AppendError> {
        let (stored, labels) = {
            let state = self.pairs.state.lock();
            let series = state.series(key).ok_or(AppendError::UnknownRef)?;
            (series.stored, series.labels.clone())
        };
        let timestamp_ms = sample.timestamp_ms;
        let found = self.store.append(stored, &labels, sample)?;
        self.taken.push((key, timestamp_ms));
        if found != stored {
            self.pairs.state.lock().found(key, found);
        }
        Ok(())
    }

    /// Takes those of the old samples that fall into holes of what is stored.
    fn fill_holes(&mut self) -> Result<(), StorageError> {
        let mut old = std::mem::take(&mut self.old);
        // Stable: samples of a series stay in order.
        old.sort_by_key(|(key, _)| key.to_series_ref());
        for of_series in old.chunk_by(|a, b| a.0 == b.0) {
            let key = of_series[0].0;
            let Some(labels) = self.pairs.state.lock().series(key).map(|s| s.labels.clone()) else {
                continue;
            };
            let times: Vec<i64> = of_series.iter().map(|(_, s)| s.timestamp_ms).collect();
            let fits = holes::which_fit(&*self.pairs.history, &labels, &times)?;
            for ((_, sample), fits) in of_series.iter().zip(fits) {
                if !fits {
                    self.covered += 1;
                    continue;
                }
                // A sample that is refused, being too old for the store for example, would be so in any case.
                if let Err(AppendError::Storage(e)) = self.store(key, sample.clone()) {
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}

impl Appender for HaAppender {
    fn append(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        sample: Sample,
    ) -> Result<SeriesRef, AppendError> {
        let key = match SeriesKey::from_series_ref(series) {
            Some(key) if self.pairs.state.lock().series(key).is_some() => Some(key),
            // The store of what is no pair's never gave this reference.
            Some(_) if labels.is_empty() => return Err(AppendError::UnknownRef),
            Some(_) => self.key_of(labels)?,
            None => self.key_of(labels)?,
        };
        match key {
            Some(key) => self.take(key, sample).map(|()| key.to_series_ref()),
            None => {
                let series =
                    if SeriesKey::from_series_ref(series).is_some() { SeriesRef::NONE } else { series };
                self.store.append(series, labels, sample)
            }
        }
    }

    fn append_float(&mut self, series: SeriesRef, timestamp_ms: i64, value: f64) -> Result<(), AppendError> {
        match SeriesKey::from_series_ref(series) {
            Some(key) => self.take(key, Sample::float(timestamp_ms, value)),
            None => self.store.append_float(series, timestamp_ms, value),
        }
    }

    fn append_exemplar(&mut self, series: SeriesRef, exemplar: &Exemplar) -> Result<(), AppendError> {
        let Some(key) = SeriesKey::from_series_ref(series) else {
            return self.store.append_exemplar(series, exemplar);
        };
        match self.pairs.state.lock().of_owner(key) {
            Some(stored) => self.store.append_exemplar(stored, exemplar),
            None => Ok(()),
        }
    }

    fn append_metadata(&mut self, series: SeriesRef, metadata: &Metadata) -> Result<(), AppendError> {
        let Some(key) = SeriesKey::from_series_ref(series) else {
            return self.store.append_metadata(series, metadata);
        };
        match self.pairs.state.lock().of_owner(key) {
            Some(stored) => self.store.append_metadata(stored, metadata),
            None => Ok(()),
        }
    }

    /// As [`Appender::commit`]; when samples were held, everything else is durable and the error is [`StorageError::NotYet`].
    fn commit(mut self: Box<Self>) -> Result<(), StorageError> {
        self.fill_holes()?;
        let Self { store, pairs, at_ms, taken, covered, held, held_for, .. } = *self;
        store.commit()?;
        pairs.state.lock().stored(&taken, at_ms);
        for (outcome, n) in [("stored", taken.len() as u64), ("covered", covered), ("held", held)] {
            if n > 0 {
                pairs.samples.with_label_values(&[outcome]).inc_by(n);
            }
        }
        if held > 0 {
            return Err(StorageError::NotYet(format!(
                "{held} samples wait for replica {held_for:?} of the same cluster, which has not sent that far yet"
            )));
        }
        Ok(())
    }

    fn rollback(self: Box<Self>) {
        self.store.rollback();
    }
}

impl Inner {
    /// Notes what the store has of a cluster that was not heard of since the start.
    fn remember(&self, cluster: &str, at_ms: i64) -> Result<(), StorageError> {
        let mint = self.clock.now_ms().saturating_sub(LOOK_BACK_MS);
        let matchers = [Matcher::equal(self.config.cluster_label.clone(), cluster)];
        let hints = SelectHints { start_ms: mint, end_ms: i64::MAX, ..SelectHints::default() };
        let querier = self.history.querier(mint, i64::MAX)?;
        let mut set = querier.select(&matchers, &hints)?;
        let mut samples = Samples::new();
        let mut newest = Vec::new();
        while let Some(series) = set.next()? {
            // Chunks tell no more than bounds of their times.
            decode_chunks(&series.chunks, mint, i64::MAX, &mut samples)?;
            if let Some(t) = samples.timestamps_ms.last() {
                newest.push((series.labels, *t));
            }
        }
        let mut state = self.state.lock();
        for (labels, t) in newest {
            let target = [cluster, labels.get("job").unwrap_or(""), labels.get("instance").unwrap_or("")];
            state.remember(&labels, target, t, at_ms);
        }
        state.learn_cluster(cluster);
        Ok(())
    }
}
