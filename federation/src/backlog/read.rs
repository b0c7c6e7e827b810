//! Reading one window of history from the local store, series in the order of their labels, cut into loads.
//!
//! For a promotion the series *without* the tag are read, and what comes out has the labels of the series with it.
//! Where the tagged series has a sample of its own, that one counts: when a series gets its tag, the one without it
//! ends with a stale marker at the very time of the first tagged sample.

use std::collections::HashMap;
use std::iter::Peekable;
use std::sync::Arc;

use model::chunk::decode_chunks;
use model::{
    Exemplar, Labels, Matcher, Metadata, Querier, Samples, SelectHints, Series, SeriesSet, StorageError,
};

use super::local::LocalStore;
use super::range::Job;
use crate::delivery::Load;
use crate::queue::{Run, SentSeries};
use crate::sender::Naming;

/// The series with the tag, by their labels without it.
pub(super) type Promoted = HashMap<Labels, Labels>;

/// How a window is read.
pub(super) struct WindowReader<'a> {
    pub(super) store: &'a dyn LocalStore,
    pub(super) naming: Naming,
    pub(super) batch_samples: usize,
    pub(super) exemplars: bool,
    pub(super) histograms: bool,
    /// Metadata of the family of a metric name.
    pub(super) metadata: &'a dyn Fn(&str) -> Option<Arc<Metadata>>,
    /// For a promotion.
    pub(super) promoted: Option<&'a Promoted>,
}

/// Some of a window.
pub(super) struct Part {
    pub(super) load: Load,
    pub(super) samples: u64,
    /// The local labels of the last series that is whole in this part and those before.
    pub(super) after: Option<Labels>,
}

impl WindowReader<'_> {
    /// Reads the window of a job from where it stands and gives parts to `emit`, until that says no.
    pub(super) fn read(&mut self, job: &Job, emit: &mut dyn FnMut(Part) -> bool) -> Result<(), StorageError> {
        let querier = self.store.querier(job.mint, job.maxt)?;
        let sets = self.naming.local_sets(&job.selectors);
        let tagged = match self.promoted {
            Some(promoted) => self.tagged_chunks(&*querier, &sets, promoted, job)?,
            None => HashMap::new(),
        };
        let sets = if job.strip.is_empty() { sets } else { without_tag(&sets, &job.strip) };
        let mut exemplars: HashMap<Labels, Vec<Exemplar>> = if self.exemplars {
            self.store.exemplars(&sets, job.mint, job.maxt).into_iter().collect()
        } else {
            HashMap::new()
        };
        let mut union = Union::open(&*querier, &sets, job)?;
        let mut batch = Batch::default();
        let (mut samples, mut own) = (Samples::new(), Samples::new());
        while let Some(series) = union.next()? {
            if job.after.as_ref().is_some_and(|after| series.labels <= *after) {
                continue;
            }
            let name = match self.promoted {
                Some(promoted) => promoted.get(&series.labels).cloned(),
                None => Some(series.labels.clone()),
            };
            let Some(labels) = name.and_then(|l| self.naming.name(&l, &job.selectors)) else { continue };
            decode_chunks(&series.chunks, job.mint, job.maxt, &mut samples)?;
            if let Some(chunks) = tagged.get(&series.labels) {
                decode_chunks(chunks, job.mint, job.maxt, &mut own)?;
                remove_times(&mut samples, &own.timestamps_ms);
            }
            if !self.histograms && !samples.histograms.is_empty() {
                keep_floats(&mut samples);
            }
            let exemplars = exemplars.remove(&series.labels).unwrap_or_default();
            if samples.is_empty() && exemplars.is_empty() {
                continue;
            }
            let sent = Arc::new(SentSeries::new(labels));
            sent.set_metadata((self.metadata)(sent.labels.metric_name()));
            let whole = (sent, std::mem::take(&mut samples), exemplars, series.labels);
            if !batch.push(whole, self.batch_samples, emit) {
                return Ok(());
            }
        }
        batch.flush(emit);
        Ok(())
    }

    /// The chunks of the tagged series in the window, by labels without the tag.
    fn tagged_chunks(
        &self,
        querier: &dyn Querier,
        sets: &[Vec<Matcher>],
        promoted: &Promoted,
        job: &Job,
    ) -> Result<HashMap<Labels, Vec<model::Chunk>>, StorageError> {
        let mut out = HashMap::new();
        let mut union = Union::open(querier, sets, job)?;
        while let Some(series) = union.next()? {
            let bare = series.labels.without(&job.strip);
            if promoted.get(&bare) == Some(&series.labels) {
                out.insert(bare, series.chunks);
            }
        }
        Ok(out)
    }
}

/// The tagged series that the local store has, by their labels without the tag. Where several differ in nothing but the
/// tag, the first in the order of labels counts.
pub(super) fn promoted(store: &dyn LocalStore, naming: &Naming, job: &Job) -> Result<Promoted, StorageError> {
    let mut out = Promoted::new();
    let mint = store.min_time().unwrap_or(i64::MIN);
    let querier = store.querier(mint, i64::MAX)?;
    for matchers in naming.local_sets(&job.selectors) {
        let hints = SelectHints {
            start_ms: mint,
            end_ms: i64::MAX,
            func: "series".into(),
            labels_only: true,
            ..SelectHints::default()
        };
        let mut set = querier.select(&matchers, &hints)?;
        while let Some(series) = set.next()? {
            if job.strip.iter().all(|name| series.labels.contains(name)) {
                out.entry(series.labels.without(&job.strip)).or_insert(series.labels);
            }
        }
    }
    Ok(out)
}

/// What selects the series that lack the tag.
pub(super) fn without_tag(sets: &[Vec<Matcher>], strip: &[String]) -> Vec<Vec<Matcher>> {
    let bare = |set: &Vec<Matcher>| {
        let kept = set.iter().filter(|m| !strip.contains(&m.name)).cloned();
        kept.chain(strip.iter().map(|name| Matcher::equal(name, ""))).collect()
    };
    sets.iter().map(bare).collect()
}

/// Takes out the samples at these times, which are sorted.
fn remove_times(samples: &mut Samples, times: &[i64]) {
    if !samples.timestamps_ms.iter().any(|t| times.binary_search(t).is_ok()) {
        return;
    }
    let mut kept = Samples::new();
    samples.iter().filter(|s| times.binary_search(&s.timestamp_ms).is_err()).for_each(|s| kept.push(s));
    *samples = kept;
}

fn keep_floats(samples: &mut Samples) {
    let mut kept = Samples::new();
    (0..samples.len()).filter(|i| samples.histogram(*i).is_none()).for_each(|i| kept.push(samples.get(i)));
    *samples = kept;
}

/// Gathers runs until they are a load.
#[derive(Default)]
struct Batch {
    runs: Vec<Run>,
    samples: usize,
    after: Option<Labels>,
}

impl Batch {
    /// Adds a series, in pieces when it is long. `false` when nobody wants more.
    fn push(
        &mut self,
        (sent, mut samples, exemplars, local): (Arc<SentSeries>, Samples, Vec<Exemplar>, Labels),
        batch_samples: usize,
        emit: &mut dyn FnMut(Part) -> bool,
    ) -> bool {
        while samples.len() > batch_samples {
            let cut = samples.timestamps_ms[batch_samples];
            let mut head = samples.clone();
            head.clip(i64::MIN, cut - 1);
            samples.clip(cut, i64::MAX);
            self.samples += head.len();
            self.runs.push(Run { series: sent.clone(), samples: head, exemplars: Vec::new() });
            if !self.flush(emit) {
                return false;
            }
        }
        self.samples += samples.len() + exemplars.len();
        self.runs.push(Run { series: sent, samples, exemplars });
        self.after = Some(local);
        self.samples < batch_samples || self.flush(emit)
    }

    fn flush(&mut self, emit: &mut dyn FnMut(Part) -> bool) -> bool {
        if self.runs.is_empty() {
            return true;
        }
        let load = Load::Runs(std::mem::take(&mut self.runs));
        let counts = load.counts();
        self.samples = 0;
        emit(Part { samples: counts.samples + counts.histograms, load, after: self.after.clone() })
    }
}

/// The series of several selections in the order of their labels, each once.
struct Union {
    sets: Vec<Peekable<Stream>>,
}

/// A series set as an iterator.
struct Stream(Box<dyn SeriesSet>);

impl Iterator for Stream {
    type Item = Result<Series, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().transpose()
    }
}

impl Union {
    fn open(querier: &dyn Querier, sets: &[Vec<Matcher>], job: &Job) -> Result<Self, StorageError> {
        let hints = SelectHints { start_ms: job.mint, end_ms: job.maxt, ..SelectHints::default() };
        let sets = sets.iter().map(|m| Ok(Stream(querier.select(m, &hints)?).peekable()));
        Ok(Self { sets: sets.collect::<Result<_, StorageError>>()? })
    }

    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        let mut first: Option<Labels> = None;
        for set in &mut self.sets {
            match set.peek() {
                Some(Ok(s)) if first.as_ref().is_none_or(|l| s.labels < *l) => first = Some(s.labels.clone()),
                Some(Err(e)) => return Err(e.clone()),
                _ => {}
            }
        }
        let Some(labels) = first else { return Ok(None) };
        let mut found = None;
        for set in &mut self.sets {
            if let Some(Ok(s)) = set.next_if(|s| s.as_ref().is_ok_and(|s| s.labels == labels)) {
                found.get_or_insert(s);
            }
        }
        Ok(found)
    }
}
