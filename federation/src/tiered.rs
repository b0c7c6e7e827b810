//! Local and long-term storage as one: what the local store holds is read there, only what is older is asked for
//! remotely.
//!
//! # The seam
//!
//! The seam is the time of the oldest local sample. The remote store is asked for `[mint, seam - 1]`, and not at all
//! when `mint >= seam`, so that recent queries never wait for it; with an empty local store it is asked for
//! everything. The local querier is opened before the seam is read: when retention drops a block in between, the seam
//! is the later one, the two overlap and nothing is missing. Where both have a sample at one time, they agree, since
//! the remote one was sent from here.
//!
//! # Promoted history
//!
//! A series that got its tag today has its history under the tagged labels in the remote store only; the local store
//! has it without the tag. Up to the end of promoted history ([`Promoted::until`]) the remote store is therefore asked
//! beyond the seam as well, and a local sample without the tag is left out where the remote answer has one at its time
//! under the same labels with the tag: one history, one name, nothing twice.
//!
//! # External labels
//!
//! The sender adds external labels that local series do not have. As in Prometheus's remote read, the remote store is
//! asked for exactly this node's series by one equality matcher per external label, and the label is taken off what
//! comes back. A matcher of the user on such a label means what it means locally: when it passes series without the
//! label (`cluster!="x"`), the above holds; when it does not (`cluster="x"`), it goes to the remote store as it is
//! and the label stays on.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use model::chunk::decode_chunks;
use model::rollup::is_summable;
use model::storage::{VecSeriesSet, joined};
use model::{
    Chunk, Labels, LabelsResult, Matcher, Querier, Queryable, Resolutions, Rollup, RollupRequest, Samples,
    SelectHints, Series, SeriesSet, StorageError,
};

/// What to do when the remote store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnUnavailable {
    /// Answer with local data and a warning.
    #[default]
    WarnLocalOnly,
    /// Fail the query.
    Fail,
}

/// Tells the time of the oldest local sample in milliseconds; `None` while there is none.
pub type LocalMinTime = Arc<dyn Fn() -> Option<i64> + Send + Sync>;

/// What the remote store has under labels that the local one does not know.
#[derive(Clone)]
pub struct Promoted {
    /// Names of the labels that make a series go there; the local history may lack them.
    pub tags: Vec<String>,
    /// End of promoted history in milliseconds; `None` while there is none.
    pub until: LocalMinTime,
}

/// A local and a remote store behind one face.
#[derive(Clone)]
pub struct Tiered {
    /// The local store.
    pub local: Arc<dyn Queryable>,
    /// Time of its oldest sample.
    pub local_min_time: LocalMinTime,
    /// The store for what is older.
    pub remote: Arc<dyn Queryable>,
    /// Labels that the sender adds to what it sends there.
    pub external_labels: Labels,
    /// History under other labels; `None` where there is never any.
    pub promoted: Option<Promoted>,
    /// What to do when the remote store does not answer.
    pub on_unavailable: OnUnavailable,
}

impl fmt::Debug for Tiered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered")
            .field("external_labels", &self.external_labels)
            .field("on_unavailable", &self.on_unavailable)
            .finish_non_exhaustive()
    }
}

impl Queryable for Tiered {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        let local = self.local.querier(mint, maxt)?;
        let remote_maxt = match (self.local_min_time)() {
            None => Some(maxt),
            Some(seam) if mint >= seam => None,
            Some(seam) => Some(maxt.min(seam - 1)), // seam > mint, so this does not overflow
        };
        let promoted = self.promoted.as_ref().and_then(|p| {
            let until = (p.until)()?.min(maxt);
            (until >= mint && remote_maxt.is_none_or(|m| until > m)).then_some((p, until))
        });
        let remote_maxt = promoted.map_or(remote_maxt, |(_, until)| Some(until));
        let mut missing = Vec::new();
        let remote = match remote_maxt.filter(|maxt| mint <= *maxt) {
            None => None,
            Some(maxt) => match self.remote.querier(mint, maxt) {
                Ok(querier) => Some(Remote { querier, maxt }),
                Err(e) => {
                    missing.push(self.on_unavailable.warning(e)?);
                    None
                }
            },
        };
        Ok(Box::new(TieredQuerier {
            mint,
            local,
            remote,
            tags: promoted.map(|(p, _)| p.tags.clone()).unwrap_or_default(),
            missing,
            external_labels: self.external_labels.clone(),
            on_unavailable: self.on_unavailable,
        }))
    }

    fn rollup_grids_ms(&self) -> &'static [i64] {
        self.remote.rollup_grids_ms()
    }
}

impl OnUnavailable {
    /// The warning for an error of the remote store, or the error itself.
    fn warning(self, e: StorageError) -> Result<String, StorageError> {
        match (self, e) {
            (_, StorageError::Cancelled) => Err(StorageError::Cancelled),
            (Self::Fail, e) => Err(e),
            (Self::WarnLocalOnly, e) => Ok(format!(
                "older samples are missing from this answer, the long-term storage did not give them: {e}"
            )),
        }
    }
}

struct Remote {
    querier: Box<dyn Querier>,
    maxt: i64,
}

struct TieredQuerier {
    mint: i64,
    local: Box<dyn Querier>,
    remote: Option<Remote>,
    /// Not empty when the remote answer may hold promoted history.
    tags: Vec<String>,
    /// Warning when the remote store could not be opened.
    missing: Vec<String>,
    external_labels: Labels,
    on_unavailable: OnUnavailable,
}

/// What the remote store is asked.
struct RemoteQuestion {
    matchers: Vec<Matcher>,
    /// Names of the labels to take off the answer.
    strip: Vec<String>,
}

impl TieredQuerier {
    fn question(&self, matchers: &[Matcher]) -> RemoteQuestion {
        let mut kept: Vec<Matcher> = matchers.to_vec();
        let mut strip = Vec::new();
        for (name, value) in self.external_labels.iter() {
            let passes_without_label = matchers.iter().filter(|m| m.name == name).all(Matcher::matches_empty);
            if passes_without_label {
                kept.retain(|m| m.name != name);
                kept.push(Matcher::equal(name, value));
                strip.push(name.to_owned());
            }
        }
        RemoteQuestion { matchers: kept, strip }
    }

    fn remote_select(
        &self,
        remote: &Remote,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<Box<dyn SeriesSet>, StorageError> {
        let RemoteQuestion { matchers, strip } = self.question(matchers);
        let hints = SelectHints { end_ms: hints.end_ms.min(remote.maxt), ..hints.clone() };
        let set = remote.querier.select(&matchers, &hints)?;
        if strip.is_empty() { Ok(set) } else { stripped(set, &strip) }
    }

    /// Both answers to a question about labels. `ask_remote` is false when only local series can have what is asked
    /// for.
    fn labels(
        &self,
        matchers: &[Matcher],
        limit: usize,
        local: LabelsResult,
        ask: impl FnOnce(&dyn Querier, &RemoteQuestion) -> Result<Option<LabelsResult>, StorageError>,
    ) -> Result<LabelsResult, StorageError> {
        let mut warnings = local.warnings;
        warnings.extend(self.missing.iter().cloned());
        let mut values: BTreeSet<String> = local.values.into_iter().collect();
        if let Some(remote) = &self.remote {
            match ask(&*remote.querier, &self.question(matchers)) {
                Ok(Some(answer)) => {
                    values.extend(answer.values);
                    warnings.extend(answer.warnings);
                }
                Ok(None) => {}
                Err(e) => warnings.push(self.on_unavailable.warning(e)?),
            }
        }
        let take = if limit == 0 { usize::MAX } else { limit };
        Ok(LabelsResult { values: values.into_iter().take(take).collect(), warnings })
    }
}

impl Querier for TieredQuerier {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let local = self.local.select(matchers, hints)?;
        let Some(remote) = &self.remote else {
            if self.missing.is_empty() {
                return Ok(local);
            }
            return Ok(Box::new(MergedSet::new(local, None, self.missing.clone(), self.on_unavailable)));
        };
        let answer = self.remote_select(remote, matchers, hints);
        let answer = if self.tags.is_empty() {
            answer.map(|set| (local, set))
        } else {
            answer.and_then(|set| {
                let (set, renamed) = renamed(set, &self.tags, self.mint, remote.maxt)?;
                Ok((WithoutRenamed::over(local, renamed), set))
            })
        };
        let (local, remote, warnings) = match answer {
            Ok((local, set)) => (local, Some(set), Vec::new()),
            Err(e) => {
                let warning = self.on_unavailable.warning(e)?;
                (self.local.select(matchers, hints)?, None, vec![warning])
            }
        };
        Ok(Box::new(MergedSet::new(local, remote, warnings, self.on_unavailable)))
    }

    /// The remote store's rollups, to which the local samples are added, which are all later.
    fn select_rollup(
        &self,
        matchers: &[Matcher],
        hints: &SelectHints,
        request: &RollupRequest,
    ) -> Result<Box<dyn SeriesSet>, StorageError> {
        let Some(remote) = self.remote.as_ref().filter(|_| self.tags.is_empty()) else {
            // Samples that lie here under other labels cannot be taken out of a sum.
            return self.select(matchers, hints);
        };
        let question = self.question(matchers);
        let remote_hints = SelectHints { end_ms: hints.end_ms.min(remote.maxt), ..hints.clone() };
        let set = remote.querier.select_rollup(&question.matchers, &remote_hints, request);
        let answer = set.and_then(|set| match question.strip.as_slice() {
            [] => Ok(set),
            names => stripped(set, names),
        });
        let set = match answer.and_then(at_most_one_rollup) {
            Ok(Some(set)) => set,
            Ok(None) => return self.select(matchers, hints),
            Err(e) => {
                let warnings = vec![self.on_unavailable.warning(e)?];
                let local = self.local.select(matchers, hints)?;
                return Ok(Box::new(MergedSet::new(local, None, warnings, self.on_unavailable)));
            }
        };
        let local = self.local.select(matchers, hints)?;
        let mut merged = MergedSet::new(local, Some(set), Vec::new(), self.on_unavailable);
        let from = hints.start_ms.max(remote.maxt.saturating_add(1));
        let (mut list, mut samples) = (Vec::new(), Samples::new());
        while let Some(mut series) = merged.next()? {
            if let [first, rest @ ..] = series.chunks.as_slice()
                && let Some(rollup) = first.as_rollup().filter(|_| !rest.is_empty())
            {
                decode_chunks(rest, from, hints.end_ms, &mut samples)?;
                let Some(both) = rolled(rollup, &samples, request) else {
                    return self.select(matchers, hints);
                };
                series.chunks = vec![Chunk::rollup(Arc::new(both), first.mint, hints.end_ms)];
            }
            list.push(series);
        }
        Ok(Box::new(VecSeriesSet::new(list, merged.warnings())))
    }

    fn label_names(&self, matchers: &[Matcher], limit: usize) -> Result<LabelsResult, StorageError> {
        let local = self.local.label_names(matchers, limit)?;
        self.labels(matchers, limit, local, |remote, question| {
            // Names that are taken off must not use up the limit.
            let limit = if limit == 0 { 0 } else { limit.saturating_add(question.strip.len()) };
            let mut answer = remote.label_names(&question.matchers, limit)?;
            answer.values.retain(|name| !question.strip.contains(name));
            Ok(Some(answer))
        })
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<LabelsResult, StorageError> {
        let local = self.local.label_values(name, matchers, limit)?;
        self.labels(matchers, limit, local, |remote, question| {
            // A label that is taken off has no values in the answer.
            if question.strip.iter().any(|s| s == name) {
                return Ok(None);
            }
            remote.label_values(name, &question.matchers, limit).map(Some)
        })
    }
}

/// Takes labels off all series. Without them the order can be another one and two series can become one.
pub(crate) fn stripped(
    mut set: Box<dyn SeriesSet>,
    names: &[String],
) -> Result<Box<dyn SeriesSet>, StorageError> {
    let mut list: Vec<Series> = Vec::new();
    while let Some(series) = set.next()? {
        list.push(Series { labels: series.labels.without(names), chunks: series.chunks });
    }
    Ok(Box::new(VecSeriesSet::new(joined(list), set.warnings())))
}

/// The set, when each of its series has either samples or one rollup and nothing else.
fn at_most_one_rollup(mut set: Box<dyn SeriesSet>) -> Result<Option<Box<dyn SeriesSet>>, StorageError> {
    let mut list = Vec::new();
    while let Some(series) = set.next()? {
        if series.chunks.len() > 1 && series.chunks.iter().any(|c| c.as_rollup().is_some()) {
            return Ok(None);
        }
        list.push(series);
    }
    Ok(Some(Box::new(VecSeriesSet::new(list, set.warnings()))))
}

/// A rollup with later samples added to it; `None` when those cannot be summed up.
fn rolled(rollup: &Rollup, samples: &Samples, request: &RollupRequest) -> Option<Rollup> {
    let mut out = rollup.clone();
    for (i, t) in samples.timestamps_ms.iter().enumerate() {
        let Some(end_ms) = request.cell_of(*t) else { continue };
        let starts = request.starts && samples.start_timestamp_ms(i) != 0;
        if starts || samples.histogram(i).is_some() || !is_summable(samples.values[i]) {
            return None;
        }
        out.push_sample(end_ms, *t, samples.values[i]);
        out.resolutions = out.resolutions.and(Resolutions::RAW);
    }
    Some(out)
}

/// Times at which a series has samples under the labels with the tag, by its labels without.
type Renamed = HashMap<Labels, Vec<i64>>;

/// Reads a set and gives it back with the times of its tagged series.
fn renamed(
    mut set: Box<dyn SeriesSet>,
    tags: &[String],
    mint: i64,
    maxt: i64,
) -> Result<(Box<dyn SeriesSet>, Renamed), StorageError> {
    let (mut list, mut times, mut samples) = (Vec::new(), Renamed::new(), Samples::new());
    while let Some(series) = set.next()? {
        if tags.iter().any(|t| series.labels.contains(t)) {
            decode_chunks(&series.chunks, mint, maxt, &mut samples)?;
            let of = times.entry(series.labels.without(tags)).or_default();
            of.extend_from_slice(&samples.timestamps_ms);
            of.sort_unstable();
        }
        list.push(series);
    }
    let warnings = set.warnings();
    Ok((Box::new(VecSeriesSet::new(list, warnings)), times))
}

/// A set without the samples that another answer has under the labels with the tag.
struct WithoutRenamed {
    set: Box<dyn SeriesSet>,
    renamed: Renamed,
}

impl WithoutRenamed {
    fn over(set: Box<dyn SeriesSet>, renamed: Renamed) -> Box<dyn SeriesSet> {
        if renamed.is_empty() { set } else { Box::new(Self { set, renamed }) }
    }
}

impl SeriesSet for WithoutRenamed {
    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        while let Some(mut series) = self.set.next()? {
            let Some(times) = self.renamed.get(&series.labels) else { return Ok(Some(series)) };
            let (mut samples, mut kept) = (Samples::new(), Samples::new());
            decode_chunks(&series.chunks, i64::MIN, i64::MAX, &mut samples)?;
            samples
                .iter()
                .filter(|s| times.binary_search(&s.timestamp_ms).is_err())
                .for_each(|s| kept.push(s));
            if !kept.is_empty() {
                series.chunks = vec![Chunk::columns(Arc::new(kept))];
                return Ok(Some(series));
            }
        }
        Ok(None)
    }

    fn warnings(&self) -> Vec<String> {
        self.set.warnings()
    }
}

/// Two sorted sets as one; series that both have get the chunks of both.
struct MergedSet {
    local: Side,
    remote: Side,
    warnings: Vec<String>,
    on_unavailable: OnUnavailable,
}

/// One set and its next series.
struct Side {
    set: Option<Box<dyn SeriesSet>>,
    head: Option<Series>,
}

impl Side {
    /// Makes sure that the next series is known.
    fn fill(&mut self) -> Result<(), StorageError> {
        if self.head.is_none()
            && let Some(set) = &mut self.set
        {
            self.head = set.next()?;
        }
        Ok(())
    }
}

impl MergedSet {
    fn new(
        local: Box<dyn SeriesSet>,
        remote: Option<Box<dyn SeriesSet>>,
        warnings: Vec<String>,
        on_unavailable: OnUnavailable,
    ) -> Self {
        let local = Side { set: Some(local), head: None };
        Self { local, remote: Side { set: remote, head: None }, warnings, on_unavailable }
    }
}

impl SeriesSet for MergedSet {
    fn next(&mut self) -> Result<Option<Series>, StorageError> {
        self.local.fill()?;
        if let Err(e) = self.remote.fill() {
            self.warnings.push(self.on_unavailable.warning(e)?);
            self.remote.set = None;
        }
        match (self.local.head.take(), self.remote.head.take()) {
            (Some(l), Some(mut r)) => match l.labels.cmp(&r.labels) {
                std::cmp::Ordering::Less => {
                    self.remote.head = Some(r);
                    Ok(Some(l))
                }
                std::cmp::Ordering::Greater => {
                    self.local.head = Some(l);
                    Ok(Some(r))
                }
                std::cmp::Ordering::Equal => {
                    // The remote ones are older but for an overlap at the seam.
                    r.chunks.extend(l.chunks);
                    r.chunks.sort_by_key(|c| c.mint);
                    Ok(Some(r))
                }
            },
            (one, other) => Ok(one.or(other)),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut all = self.local.set.as_ref().map(|s| s.warnings()).unwrap_or_default();
        all.extend(self.remote.set.as_ref().map(|s| s.warnings()).unwrap_or_default());
        all.extend(self.warnings.iter().cloned());
        all
    }
}

#[cfg(test)]
mod tests;
