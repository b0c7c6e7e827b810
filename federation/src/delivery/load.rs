//! What goes out in one request: items of the live lane, or runs of whole series of the backlog lane; how either is
//! encoded, counted, halved and cleaned of what must not go out.
//!
//! The order of a series' samples is kept: receivers take floats before histograms and samples before exemplars within
//! one series entry, and version 2.0 allows only one kind in it, so an entry ends where the kind changes.

use std::sync::Arc;

use model::HistogramValue;
use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use wire::write_v1::WriteRequestEncoder;
use wire::write_v2::RequestEncoder;

use crate::queue::{Item, Run, Value};
use crate::sender::metrics::Counts;

/// What goes out in one request.
#[derive(Debug)]
pub(crate) enum Load {
    /// Items in the order of the log, of many series.
    Items(Vec<Item>),
    /// Many samples per series.
    Runs(Vec<Run>),
}

impl Load {
    /// How much of each kind it holds.
    pub(crate) fn counts(&self) -> Counts {
        match self {
            Self::Items(items) => Counts::of(items),
            Self::Runs(runs) => runs.iter().fold(Counts::default(), |mut c, run| {
                let histograms = run.samples.histograms.iter().flatten().count() as u64;
                c.histograms += histograms;
                c.samples += run.samples.len() as u64 - histograms;
                c.exemplars += run.exemplars.len() as u64;
                c
            }),
        }
    }

    /// Newest timestamp of a sample; `i64::MIN` when there is none.
    pub(crate) fn newest_ms(&self) -> i64 {
        let newest = match self {
            Self::Items(items) => items
                .iter()
                .filter(|i| matches!(i.value, Value::Float(_) | Value::Histogram(_)))
                .map(|i| i.timestamp_ms)
                .max(),
            Self::Runs(runs) => runs.iter().filter_map(|r| r.samples.timestamps_ms.last().copied()).max(),
        };
        newest.unwrap_or(i64::MIN)
    }

    /// Takes out samples, histograms and exemplars before `oldest_ms`, and says how many.
    pub(crate) fn drop_older(&mut self, oldest_ms: i64) -> Counts {
        let before = self.counts();
        match self {
            Self::Items(items) => {
                items.retain(|i| matches!(i.value, Value::Metadata(_)) || i.timestamp_ms >= oldest_ms);
            }
            Self::Runs(runs) => {
                for run in runs.iter_mut() {
                    run.samples.clip(oldest_ms, i64::MAX);
                    run.exemplars.retain(|e| e.timestamp_ms.is_none_or(|t| t >= oldest_ms));
                }
                runs.retain(|r| !r.samples.is_empty() || !r.exemplars.is_empty());
            }
        }
        before.minus(self.counts())
    }

    /// Takes out histograms with custom buckets, and says how many.
    pub(crate) fn drop_custom_buckets(&mut self) -> u64 {
        let before = self.counts().histograms;
        match self {
            Self::Items(items) => {
                items.retain(|i| !matches!(&i.value, Value::Histogram(h) if has_custom_buckets(h)));
            }
            Self::Runs(runs) => {
                for run in
                    runs.iter_mut().filter(|r| r.samples.histograms.iter().flatten().any(has_custom_buckets))
                {
                    let mut kept = model::Samples::new();
                    for i in 0..run.samples.len() {
                        if !run.samples.histogram(i).is_some_and(has_custom_buckets) {
                            kept.push(run.samples.get(i));
                        }
                    }
                    run.samples = kept;
                }
            }
        }
        before - self.counts().histograms
    }

    /// Two halves, the first one older where it matters; the load itself when it is one sample.
    pub(crate) fn halve(self) -> Result<(Self, Self), Self> {
        match self {
            Self::Items(mut first) => {
                if first.len() < 2 {
                    return Err(Self::Items(first));
                }
                // By series, as they are encoded; stable, so that the order within a series holds.
                sort_by_series(&mut first);
                let second = first.split_off(first.len() / 2);
                Ok((Self::Items(first), Self::Items(second)))
            }
            Self::Runs(mut first) => {
                if first.len() >= 2 {
                    let second = first.split_off(first.len() / 2);
                    return Ok((Self::Runs(first), Self::Runs(second)));
                }
                let [run] = &mut first[..] else { return Err(Self::Runs(first)) };
                let at = run.samples.len() / 2;
                let Some(t) = run.samples.timestamps_ms.get(at).copied().filter(|_| at > 0) else {
                    return Err(Self::Runs(first));
                };
                let mut second = run.clone();
                second.samples.clip(t, i64::MAX);
                run.samples.clip(i64::MIN, t - 1);
                run.exemplars.clear();
                Ok((Self::Runs(first), Self::Runs(vec![second])))
            }
        }
    }

    /// Takes out what version 2.0 has no place for: exemplars of series without a sample in this load. Metadata entries
    /// are dropped: version 2.0 has them with the series.
    pub(crate) fn split_off_v1(&mut self) -> Option<Self> {
        let items = match self {
            Self::Items(items) => items,
            Self::Runs(runs) => {
                let (kept, rest) = std::mem::take(runs).into_iter().partition(|r| !r.samples.is_empty());
                *runs = kept;
                let rest: Vec<Run> = rest;
                return (!rest.is_empty()).then_some(Self::Runs(rest));
            }
        };
        items.retain(|i| !matches!(i.value, Value::Metadata(_)));
        sort_by_series(items);
        let lonely = |group: &[Item]| group.iter().all(|i| matches!(i.value, Value::Exemplar(_)));
        if !items.chunk_by(same_series).any(lonely) {
            return None;
        }
        let (mut kept, mut rest) = (Vec::with_capacity(items.len()), Vec::new());
        for group in items.chunk_by(same_series) {
            if lonely(group) { &mut rest } else { &mut kept }.extend_from_slice(group);
        }
        *items = kept;
        Some(Self::Items(rest))
    }

    /// Writes everything as version 1.0.
    pub(crate) fn encode_v1(&mut self, out: &mut WriteRequestEncoder) {
        match self {
            Self::Items(items) => {
                sort_by_series(items);
                items.chunk_by(same_series).for_each(|group| group_v1(group, out));
            }
            Self::Runs(runs) => runs.iter().for_each(|run| {
                let raw = run.series.raw_labels();
                for (from, to) in stretches(run) {
                    let mut series = out.series(raw);
                    for i in from..to {
                        let t = run.samples.timestamps_ms[i];
                        match run.samples.histogram(i) {
                            None => series.float(t, run.samples.values[i]),
                            Some(h) => series.histogram(t, h),
                        };
                    }
                }
                if !run.exemplars.is_empty() {
                    let mut series = out.series(raw);
                    run.exemplars.iter().for_each(|e| {
                        series.exemplar(e);
                    });
                }
            }),
        }
    }

    /// Writes everything as version 2.0.
    pub(crate) fn encode_v2(&mut self, out: &mut RequestEncoder) {
        match self {
            Self::Items(items) => {
                sort_by_series(items);
                items.chunk_by(same_series).for_each(|group| group_v2(group, out));
            }
            Self::Runs(runs) => runs.iter().for_each(|run| {
                let mut exemplars = &run.exemplars[..];
                for (from, to) in stretches(run) {
                    let mut series = out.series(&run.series.labels);
                    for i in from..to {
                        let (t, start) = (run.samples.timestamps_ms[i], run.samples.start_timestamp_ms(i));
                        match run.samples.histogram(i) {
                            None => series.float(t, start, run.samples.values[i]),
                            Some(h) => series.histogram(t, start, h),
                        };
                    }
                    std::mem::take(&mut exemplars).iter().for_each(|e| {
                        series.exemplar(e);
                    });
                    if let Some(m) = run.series.metadata() {
                        series.metadata(&m);
                    }
                }
            }),
        }
    }
}

/// Whether a histogram has custom buckets.
fn has_custom_buckets(value: &HistogramValue) -> bool {
    let schema = match value {
        HistogramValue::Int(h) => h.schema,
        HistogramValue::Float(h) => h.schema,
    };
    schema == CUSTOM_BUCKETS_SCHEMA
}

/// Stable, and by the hash first so that equal hashes of different series stay apart by identity.
fn sort_by_series(items: &mut [Item]) {
    items.sort_by_key(|i| (i.series.hash, Arc::as_ptr(&i.series) as usize));
}

fn same_series(a: &Item, b: &Item) -> bool {
    Arc::ptr_eq(&a.series, &b.series)
}

/// Index ranges of samples of one kind.
fn stretches(run: &Run) -> Vec<(usize, usize)> {
    let is_histogram = |i: usize| run.samples.histogram(i).is_some();
    let mut out: Vec<(usize, usize)> = Vec::new();
    let mut from = 0;
    for i in 1..=run.samples.len() {
        if i == run.samples.len() || is_histogram(i) != is_histogram(from) {
            out.push((from, i));
            from = i;
        }
    }
    out
}

fn group_v1(group: &[Item], out: &mut WriteRequestEncoder) {
    let mut rest = group;
    while let Some(first) = rest.first() {
        if let Value::Metadata(m) = &first.value {
            out.metadata(&m.0, &m.1);
            rest = &rest[1..];
            continue;
        }
        let (run, tail) = rest.split_at(run_len(rest));
        rest = tail;
        let mut series = out.series(first.series.raw_labels());
        for item in run {
            match &item.value {
                Value::Float(v) => series.float(item.timestamp_ms, *v),
                Value::Histogram(h) => series.histogram(item.timestamp_ms, h),
                Value::Exemplar(e) => series.exemplar(e),
                Value::Metadata(_) => continue,
            };
        }
    }
}

fn group_v2(group: &[Item], out: &mut RequestEncoder) {
    let mut rest = group;
    while let Some(first) = rest.first() {
        if matches!(first.value, Value::Metadata(_)) {
            rest = &rest[1..];
            continue;
        }
        let (run, tail) = rest.split_at(run_len(rest));
        rest = tail;
        let mut series = out.series(&first.series.labels);
        for item in run {
            match &item.value {
                Value::Float(v) => series.float(item.timestamp_ms, item.start_timestamp_ms, *v),
                Value::Histogram(h) => series.histogram(item.timestamp_ms, item.start_timestamp_ms, h),
                Value::Exemplar(e) => series.exemplar(e),
                Value::Metadata(_) => continue,
            };
        }
        if let Some(m) = first.series.metadata() {
            series.metadata(&m);
        }
    }
}

/// How many items from the first on fit one series entry: samples of one kind, and exemplars anywhere among them.
fn run_len(items: &[Item]) -> usize {
    let mut kind = None;
    for (i, item) in items.iter().enumerate() {
        let is_float = match item.value {
            Value::Float(_) => true,
            Value::Histogram(_) => false,
            Value::Exemplar(_) => continue,
            Value::Metadata(_) => return i,
        };
        if *kind.get_or_insert(is_float) != is_float {
            return i;
        }
    }
    items.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::SentSeries;
    use model::{Exemplar, Histogram, Labels, Metadata, Sample, Samples};
    use wire::write_v1::{LabelScratch, WriteRequest, to_labels};
    use wire::write_v2;

    fn series(name: &str) -> Arc<SentSeries> {
        Arc::new(SentSeries::new(Labels::from_pairs([("__name__", name)])))
    }

    fn item(series: &Arc<SentSeries>, timestamp_ms: i64, value: Value) -> Item {
        Item { series: series.clone(), timestamp_ms, start_timestamp_ms: 0, value }
    }

    fn exemplar() -> Value {
        Value::Exemplar(Box::new(Exemplar { labels: Labels::empty(), value: 1.0, timestamp_ms: Some(2) }))
    }

    fn mixed() -> Load {
        let (a, b, c) = (series("a"), series("b"), series("c"));
        let histogram = Value::Histogram(Histogram::default().into());
        Load::Items(vec![
            item(&a, 1, Value::Float(1.0)),
            item(&b, 1, Value::Float(9.0)),
            item(&a, 2, exemplar()),
            item(&a, 3, Value::Float(2.0)),
            item(&a, 0, Value::Metadata(Box::new(("a".into(), Metadata::default())))),
            item(&a, 4, histogram),
            item(&b, 5, Value::Float(8.0)),
            item(&a, 6, Value::Float(3.0)),
            item(&c, 6, exemplar()),
        ])
    }

    type Found = Vec<(String, Vec<i64>, usize)>;

    fn v1(load: &mut Load) -> (Found, usize) {
        let mut out = WriteRequestEncoder::new();
        load.encode_v1(&mut out);
        let mut request = WriteRequest::new(out.as_bytes());
        let (mut found, mut scratch) = (Vec::new(), LabelScratch::default());
        while let Some(s) = request.next_series().expect("valid") {
            let name = to_labels(s.labels(&mut scratch).expect("valid")).expect("valid").to_string();
            let floats = s.samples().map(|s| s.expect("valid").0);
            let times = floats.chain(s.histograms().map(|s| s.expect("valid").timestamp_ms)).collect();
            found.push((name, times, s.exemplars_len()));
        }
        found.sort_by(|x, y| x.0.cmp(&y.0));
        (found, request.metadata().count())
    }

    fn v2(load: &mut Load) -> Found {
        let (mut out, mut body) = (RequestEncoder::new(), Vec::new());
        load.encode_v2(&mut out);
        out.finish(&mut body);
        let mut request = write_v2::Request::new(&body).expect("valid");
        let (mut found, mut s) = (Vec::new(), write_v2::TimeSeries::new());
        while request.next_series(&mut s).expect("valid") {
            let name = to_labels(s.labels()).expect("valid").to_string();
            found.push((name, s.samples().iter().map(|s| s.timestamp_ms).collect(), s.exemplars().len()));
        }
        found.sort_by(|x, y| x.0.cmp(&y.0));
        found
    }

    fn rows(list: &[(&str, &[i64], usize)]) -> Found {
        list.iter().map(|(n, t, e)| ((*n).to_owned(), t.to_vec(), *e)).collect()
    }

    #[test]
    fn items_of_a_series_go_together_in_order() {
        let mut load = mixed();
        assert_eq!(load.newest_ms(), 6);
        let whole =
            rows(&[("a", &[1, 3], 1), ("a", &[4], 0), ("a", &[6], 0), ("b", &[1, 5], 0), ("c", &[], 1)]);
        assert_eq!(v1(&mut load), (whole.clone(), 1));
        let mut rest = load.split_off_v1().expect("an exemplar without sample");
        assert_eq!(v2(&mut load), whole[..4]);
        assert_eq!(v1(&mut rest), (whole[4..].to_vec(), 0));
    }

    #[test]
    fn runs_end_where_the_kind_changes() {
        let mut samples = Samples::new();
        samples.push_float(1, 1.0);
        samples.push_float(2, 1.0);
        samples.push(Sample::histogram(3, Histogram::default()));
        samples.push_float(4, 1.0);
        let exemplars = vec![Exemplar { labels: Labels::empty(), value: 1.0, timestamp_ms: Some(2) }];
        let mut load = Load::Runs(vec![Run { series: series("a"), samples, exemplars }]);
        assert_eq!(v2(&mut load), rows(&[("a", &[1, 2], 1), ("a", &[3], 0), ("a", &[4], 0)]));
        assert_eq!(
            v1(&mut load).0,
            rows(&[("a", &[1, 2], 0), ("a", &[3], 0), ("a", &[4], 0), ("a", &[], 1)])
        );
        assert_eq!(load.counts(), Counts { samples: 3, histograms: 1, exemplars: 1, metadata: 0 });
    }

    #[test]
    fn halves_hold_everything_in_order() {
        for load in [mixed(), {
            let mut samples = Samples::new();
            (0..7).for_each(|t| samples.push_float(t, 1.0));
            Load::Runs(vec![Run { series: series("a"), samples, exemplars: Vec::new() }])
        }] {
            let whole = load.counts();
            let mut parts = vec![load];
            let mut ones = Counts::default();
            let mut last: std::collections::BTreeMap<String, i64> = Default::default();
            while let Some(part) = parts.pop() {
                match part.halve() {
                    Ok((first, second)) => parts.extend([second, first]),
                    Err(mut one) => {
                        ones = ones.plus(one.counts());
                        for (name, times, _) in v1(&mut one).0 {
                            for t in times {
                                assert!(last.insert(name.clone(), t).is_none_or(|before| before < t));
                            }
                        }
                    }
                }
            }
            assert_eq!(ones, whole);
        }
    }

    #[test]
    fn what_is_too_old_goes() {
        let mut load = mixed();
        let dropped = load.drop_older(4);
        assert_eq!(dropped, Counts { samples: 3, exemplars: 1, ..Counts::default() });
        assert_eq!(load.counts(), Counts { samples: 2, histograms: 1, exemplars: 1, metadata: 1 });
    }
}
