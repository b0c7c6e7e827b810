//! A body scraped again and again with the memory of the scrapes before, and once without.

use std::collections::HashMap;

use model::labels::{TYPE_LABEL, UNIT_LABEL};
use model::{
    AppendError, Appender, Exemplar, Labels, LabelsBuilder, Metadata, Sample, SampleValue, SeriesRef,
    StorageError,
};

use crate::exposition::HistogramOptions;
use crate::exposition::negotiation::BodyFormat;
use crate::sample_labels::{SampleRules, StartRules};
use crate::series_cache::{Appended, SeriesCache};

/// Takes everything, and keeps what one scrape brought.
#[derive(Default)]
struct Recorder {
    refs: HashMap<Labels, u64>,
    labels: Vec<Labels>,
    /// Labels, time and start of a sample, with its value as text, since NaN is not equal to itself.
    samples: Vec<(Labels, i64, i64, String)>,
    exemplars: Vec<(Labels, Exemplar)>,
}

/// A series that is known keeps type and unit of its first scrape, as in Prometheus.
fn untyped(labels: &Labels) -> Labels {
    let mut labels = LabelsBuilder::from_labels(labels);
    labels.del(TYPE_LABEL).del(UNIT_LABEL);
    labels.build()
}

impl Recorder {
    fn record(&mut self, labels: Labels, sample: &Sample) {
        let value = match &sample.value {
            // Series that are no more are the business of the memory.
            v if v.is_stale() => return,
            SampleValue::Float(v) => format!("{:016x}", v.to_bits()),
            SampleValue::Histogram(h) => format!("{h:?}"),
        };
        self.samples.push((untyped(&labels), sample.timestamp_ms, sample.start_timestamp_ms, value));
    }

    fn known(&self, series: SeriesRef) -> Option<Labels> {
        let index = usize::try_from(series.0).ok()?.checked_sub(1)?;
        self.labels.get(index).cloned()
    }
}

impl Appender for Recorder {
    fn append(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        sample: Sample,
    ) -> Result<SeriesRef, AppendError> {
        if let Some(known) = self.known(series) {
            self.record(known, &sample);
            return Ok(series);
        }
        assert!(!labels.is_empty(), "a series has labels");
        let next = self.labels.len() as u64 + 1;
        let r = *self.refs.entry(labels.clone()).or_insert(next);
        if r == next {
            self.labels.push(labels.clone());
        }
        self.record(labels.clone(), &sample);
        Ok(SeriesRef(r))
    }

    fn append_float(&mut self, series: SeriesRef, timestamp_ms: i64, v: f64) -> Result<(), AppendError> {
        let labels = self.known(series).ok_or(AppendError::UnknownRef)?;
        self.record(labels, &Sample::float(timestamp_ms, v));
        Ok(())
    }

    fn append_exemplar(&mut self, series: SeriesRef, exemplar: &Exemplar) -> Result<(), AppendError> {
        let labels = self.known(series).ok_or(AppendError::UnknownRef)?;
        self.exemplars.push((untyped(&labels), exemplar.clone()));
        Ok(())
    }

    fn append_metadata(&mut self, series: SeriesRef, _: &Metadata) -> Result<(), AppendError> {
        self.known(series).map(|_| ()).ok_or(AppendError::UnknownRef)
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        Ok(())
    }

    fn rollback(self: Box<Self>) {}
}

/// How a body is read.
struct Options {
    format: BodyFormat,
    histograms: HistogramOptions,
    rules: SampleRules,
}

/// One scrape: its outcome, and what it brought when it was a good one.
type Brought = (Option<String>, usize, Vec<(Labels, i64, i64, String)>, Vec<(Labels, Exemplar)>);

fn scrape(cache: &mut SeriesCache, body: &[u8], now_ms: i64, how: &Options, app: &mut Recorder) -> Brought {
    app.samples.clear();
    app.exemplars.clear();
    let Appended { counts, result, .. } =
        cache.append(body, how.format, how.histograms, now_ms, &how.rules, app);
    if let Err(e) = result {
        cache.append_stale(now_ms, app).expect("the appender takes everything");
        return (Some(e.to_string()), counts.scraped, Vec::new(), Vec::new());
    }
    (None, counts.scraped, std::mem::take(&mut app.samples), std::mem::take(&mut app.exemplars))
}

/// A line that was seen below a `TYPE` keeps the spelling of its bound when it comes without one, as in Prometheus.
fn bounds_as_numbers(mut brought: Brought) -> Brought {
    for (labels, ..) in &mut brought.2 {
        let number = |(name, value): (&str, &str)| {
            let spelt = matches!(name, "le" | "quantile").then(|| value.parse::<f64>().ok()).flatten();
            (name.to_owned(), spelt.map_or_else(|| value.to_owned(), |v| v.to_string()))
        };
        *labels = Labels::from_pairs(labels.iter().map(number));
    }
    brought
}

/// Scrapes the body, its halves around a byte that does not occur in good ones, and it again.
pub(super) fn check(format: BodyFormat, choice: u8, body: &[u8]) {
    let bit = |n: u8| choice & (1 << n) != 0;
    let how = Options {
        format,
        histograms: HistogramOptions { native: bit(0), keep_classic: bit(1), convert_classic: bit(2) },
        rules: SampleRules {
            starts: StartRules { read: bit(3), as_zeros: false },
            type_and_unit_labels: bit(4),
            append_metadata: bit(5),
            honor_timestamps: !bit(6),
            honor_labels: bit(7),
            target_labels: Labels::from_pairs([("instance", "i"), ("x", "target")]),
            bucket_limit: 10,
            ..SampleRules::default()
        },
    };
    let cut = body.iter().position(|b| *b == 0xff).unwrap_or(body.len() / 2);
    let bodies = [body, body, &body[..cut], body, &body[(cut + 1).min(body.len())..], body];
    let (mut cache, mut app) = (SeriesCache::default(), Recorder::default());
    for (n, body) in bodies.into_iter().enumerate() {
        let now_ms = 1000 * n as i64;
        let remembered = scrape(&mut cache, body, now_ms, &how, &mut app);
        let fresh = scrape(&mut SeriesCache::default(), body, now_ms, &how, &mut Recorder::default());
        assert_eq!(
            bounds_as_numbers(remembered),
            bounds_as_numbers(fresh),
            "scrape {n} as one without memory"
        );
    }
}
