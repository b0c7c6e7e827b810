//! The audit: whether the destination really has what the local store has.
//!
//! Both sides digest their samples ([`wire::digest`]); where a series in a window differs, its samples are read from
//! both and compared one by one ([`Auditor::window`]). What the destination lacks is loss, and goes into the backlog;
//! what it has in addition is not; another value at the same time cannot be repaired, since the long-term node keeps the
//! first, and is reported. [`worker`] does this continuously at a low rate; [`remote`] asks another node.
//!
//! Of a pair of replicas the destination keeps one's samples ([`crate::ha`]). A sample of the other one is missing there only when
//! it would fall into a hole ([`Auditor::of_replica`]).
//!
//! Compared are the samples of series that are selected *as they are in the local store*; history that was promoted is
//! under another name there and no part of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::chunk::decode_chunks;
use model::{
    Labels, LabelsBuilder, Matcher, Queryable, Sample, SampleValue, Samples, SelectHints, StorageError,
};
use wire::digest::{SeriesDigest, WindowDigest, digest_window, window_start};

use crate::ha::holes;
use crate::sender::Naming;

pub mod remote;
#[cfg(test)]
mod tests;
pub(crate) mod worker;

pub use remote::RemoteDigests;

/// Series named in a verdict, at most.
const MAX_NAMED: usize = 20;

/// Digests of a node's samples.
pub trait DigestSource: Send + Sync {
    /// Digests of the samples within `[mint, maxt]` of the series that pass one of the sets, under the labels that the
    /// node has for them; windows without samples may be left out. Blocks.
    ///
    /// # Errors
    /// When the node cannot be reached or read.
    fn digests(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64)
    -> Result<Vec<WindowDigest>, StorageError>;
}

/// A store in this process digests itself.
impl<T: Queryable> DigestSource for T {
    fn digests(
        &self,
        sets: &[Vec<Matcher>],
        mint: i64,
        maxt: i64,
    ) -> Result<Vec<WindowDigest>, StorageError> {
        let mut out = Vec::new();
        for (mint, maxt) in windows(mint, maxt) {
            out.push(digest_window(self, sets, mint, maxt, |l| Some(l.clone()))?);
        }
        Ok(out)
    }
}

/// `[mint, maxt]` cut at the bounds of windows.
pub fn windows(mint: i64, maxt: i64) -> impl Iterator<Item = (i64, i64)> {
    let mut next = Some(mint).filter(|t| *t <= maxt);
    std::iter::from_fn(move || {
        let from = next?;
        let end = window_start(from).saturating_add(wire::digest::WINDOW_MS - 1).min(maxt);
        next = end.checked_add(1).filter(|t| *t <= maxt);
        Some((from, end))
    })
}

/// What an audit has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Series in windows that were compared.
    pub series: u64,
    /// Local samples that were compared.
    pub samples: u64,
    /// Local samples that the destination lacks.
    pub missing: u64,
    /// Local samples for which it has another value.
    pub different: u64,
    /// Some of the local series that it lacks samples of, by their local labels; all of them if fewer than
    /// [`Verdict::missing_series`].
    pub affected: Vec<Labels>,
    /// Series in windows of which samples are missing.
    pub missing_series: u64,
}

impl Verdict {
    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        self.series += other.series;
        self.samples += other.samples;
        self.missing += other.missing;
        self.different += other.different;
        self.missing_series += other.missing_series;
        for labels in other.affected {
            if self.affected.len() < MAX_NAMED && !self.affected.contains(&labels) {
                self.affected.push(labels);
            }
        }
    }
}

/// Compares a local store with a destination.
pub struct Auditor {
    /// The local store.
    pub local: Arc<dyn Queryable>,
    /// Digests of the destination.
    pub digests: Arc<dyn DigestSource>,
    /// Its samples, read where digests differ.
    pub remote: Arc<dyn Queryable>,
    /// Digests of the local side, when it is another process; else they are computed.
    pub local_digests: Option<Arc<dyn DigestSource>>,
    sets: Vec<Vec<Matcher>>,
    naming: Naming,
    external_labels: Labels,
    /// The label of local series that the destination takes off, because it tells replicas apart.
    replica_label: Option<String>,
}

impl Auditor {
    /// Compares the series that one of `sets` selects, external labels included; none: all.
    #[must_use]
    pub fn new(
        local: Arc<dyn Queryable>,
        digests: Arc<dyn DigestSource>,
        remote: Arc<dyn Queryable>,
        sets: Vec<Vec<Matcher>>,
        external_labels: Labels,
    ) -> Self {
        let sets = if sets.is_empty() { vec![Vec::new()] } else { sets };
        let naming = Naming::new(Vec::new(), external_labels.clone());
        Self {
            local,
            digests,
            remote,
            local_digests: None,
            sets,
            naming,
            external_labels,
            replica_label: None,
        }
    }

    /// The local side is one of several replicas, told apart by a label that the destination takes off, and of which it keeps one
    /// replica's samples at a time: what is there at about the same times is complete.
    #[must_use]
    pub fn of_replica(mut self, label: &str) -> Self {
        let mut builder = LabelsBuilder::from_labels(&self.external_labels);
        self.external_labels = builder.del(label).build();
        self.naming = Naming::new(Vec::new(), self.external_labels.clone());
        self.replica_label = Some(label.to_owned());
        self
    }

    /// The labels that the destination has for a local series, when it is selected.
    fn name(&self, naming: &mut Naming, labels: &Labels) -> Option<Labels> {
        let named = naming.name(labels, &self.sets)?;
        match &self.replica_label {
            Some(label) if named.contains(label) => {
                Some(LabelsBuilder::from_labels(&named).del(label).build())
            }
            _ => Some(named),
        }
    }

    /// Compares one window or a part of it.
    ///
    /// # Errors
    /// When a side cannot be read.
    pub fn window(&self, mint: i64, maxt: i64) -> Result<Verdict, StorageError> {
        let ours = self.ours(mint, maxt)?;
        let mut verdict = Verdict {
            series: ours.series.len() as u64,
            samples: ours.series.iter().map(|s| s.samples).sum(),
            ..Verdict::default()
        };
        if ours.series.is_empty() {
            return Ok(verdict);
        }
        let there = self.remote_sets(mint, maxt)?;
        let theirs = self.digests.digests(&there, mint, maxt)?;
        let theirs = theirs.into_iter().find(|w| w.start_ms == ours.start_ms).unwrap_or_default();
        let mut differing = differing(&ours.series, &theirs.series);
        if self.replica_label.is_some() {
            // As many samples, give or take the one at the edge, leave no hole.
            let there = |hash: u64| differing.get(&hash).copied().unwrap_or(0);
            let complete: HashSet<u64> =
                ours.series.iter().filter(|s| there(s.series) + 1 >= s.samples).map(|s| s.series).collect();
            differing.retain(|hash, _| !complete.contains(hash));
        }
        if !differing.is_empty() {
            self.compare_samples(&differing, &there, mint, maxt, &mut verdict)?;
        }
        Ok(verdict)
    }

    /// Digests of the local side, under the labels with which it sends.
    fn ours(&self, mint: i64, maxt: i64) -> Result<WindowDigest, StorageError> {
        let start_ms = window_start(mint);
        if let Some(source) = &self.local_digests {
            let found = source.digests(&self.sets, mint, maxt)?;
            let empty = || WindowDigest { start_ms, series: Vec::new() };
            return Ok(found.into_iter().find(|w| w.start_ms == start_ms).unwrap_or_else(empty));
        }
        let mut naming = self.naming.clone();
        let sets = naming.local_sets(&self.sets);
        digest_window(&*self.local, &sets, mint, maxt, |labels| self.name(&mut naming, labels))
    }

    /// What the destination is asked: external labels are asked for where no local series has such a label itself, so
    /// that it does not digest other nodes' series.
    fn remote_sets(&self, mint: i64, maxt: i64) -> Result<Vec<Vec<Matcher>>, StorageError> {
        let querier = self.local.querier(mint, maxt)?;
        let mut extra = Vec::new();
        for (name, value) in &self.external_labels {
            if querier.label_values(name, &[], 1)?.values.is_empty() {
                extra.push(Matcher::equal(name, value));
            }
        }
        Ok(self.sets.iter().map(|set| set.iter().chain(&extra).cloned().collect()).collect())
    }

    /// Reads the samples of differing series from both sides.
    fn compare_samples(
        &self,
        differing: &HashMap<u64, u64>,
        there: &[Vec<Matcher>],
        mint: i64,
        maxt: i64,
        verdict: &mut Verdict,
    ) -> Result<(), StorageError> {
        let mut theirs: HashMap<u64, Samples> = HashMap::new();
        // Of a series that is not there at all nothing needs to be read.
        if differing.values().any(|samples| *samples > 0) {
            // What is around the edges tells whether there are holes at them.
            let around = if self.replica_label.is_some() { holes::AROUND_MS } else { 0 };
            let (mint, maxt) = (mint.saturating_sub(around), maxt.saturating_add(around));
            each_series(&*self.remote, there, mint, maxt, |labels, samples| {
                let hash = labels.hash64();
                if differing.contains_key(&hash) {
                    theirs.insert(hash, std::mem::take(samples));
                }
            })?;
        }
        let mut naming = self.naming.clone();
        let sets = naming.local_sets(&self.sets);
        let mut seen: Vec<u64> = Vec::new();
        each_series(&*self.local, &sets, mint, maxt, |labels, samples| {
            let Some(hash) = self.name(&mut naming, labels).map(|l| l.hash64()) else { return };
            if !differing.contains_key(&hash) || seen.contains(&hash) {
                return;
            }
            seen.push(hash);
            let none = Samples::new();
            let there = theirs.get(&hash).unwrap_or(&none);
            let (missing, different) = match self.replica_label {
                Some(_) => (holes::fitting(&there.timestamps_ms, &samples.timestamps_ms), 0),
                None => compare(samples, there),
            };
            let found = Verdict {
                missing,
                different,
                missing_series: u64::from(missing > 0),
                affected: if missing > 0 { vec![labels.clone()] } else { Vec::new() },
                ..Verdict::default()
            };
            verdict.add(found);
        })
    }
}

/// Reads all series of some selections with their samples.
fn each_series(
    store: &dyn Queryable,
    sets: &[Vec<Matcher>],
    mint: i64,
    maxt: i64,
    mut visit: impl FnMut(&Labels, &mut Samples),
) -> Result<(), StorageError> {
    let querier = store.querier(mint, maxt)?;
    let hints = SelectHints { start_ms: mint, end_ms: maxt, ..SelectHints::default() };
    let mut samples = Samples::new();
    for matchers in sets {
        let mut set = querier.select(matchers, &hints)?;
        while let Some(series) = set.next()? {
            decode_chunks(&series.chunks, mint, maxt, &mut samples)?;
            visit(&series.labels, &mut samples);
        }
    }
    Ok(())
}

/// The series of ours whose digests are not theirs, with the number of samples that they have.
fn differing(ours: &[SeriesDigest], theirs: &[SeriesDigest]) -> HashMap<u64, u64> {
    let find =
        |s: &SeriesDigest| theirs.binary_search_by_key(&s.series, |t| t.series).ok().map(|i| theirs[i]);
    let differs = |s: &SeriesDigest| match find(s) {
        Some(t) if t == *s => None,
        Some(t) => Some((s.series, t.samples)),
        None => Some((s.series, 0)),
    };
    ours.iter().filter_map(differs).collect()
}

/// How many of our samples they lack, and how many have another value there.
fn compare(ours: &Samples, theirs: &Samples) -> (u64, u64) {
    let (mut missing, mut different) = (0, 0);
    for i in 0..ours.len() {
        match theirs.timestamps_ms.binary_search(&ours.timestamps_ms[i]) {
            Err(_) => missing += 1,
            Ok(j) => different += u64::from(!same_value(&ours.get(i), &theirs.get(j))),
        }
    }
    (missing, different)
}

fn same_value(a: &Sample, b: &Sample) -> bool {
    match (&a.value, &b.value) {
        (SampleValue::Float(a), SampleValue::Float(b)) => a.to_bits() == b.to_bits(),
        _ => {
            let digest = |s: &Sample| {
                let mut one = Samples::new();
                one.push(s.clone());
                wire::digest::digest_samples(0, &one, &mut Vec::new())
            };
            digest(a) == digest(b)
        }
    }
}
