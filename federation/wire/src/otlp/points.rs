//! What becomes of a data point: one sample, or, for classic histograms and summaries, several.

use model::labels::{BUCKET_LABEL, METRIC_NAME, QUANTILE_LABEL};
use model::{Exemplar, HistogramValue, Labels, Metadata, Sample, SampleValue, stale_nan};

use super::Sink;
use super::message::{Kind, Repeated};
use super::native;
use super::point::{ExemplarMessage, Point};
use super::report::{Category, Fault};
use super::translate::{Family, Translator};
use super::value::KeyValue;
use crate::error::Error;

/// Most characters of an exemplar's labels; beyond them it has only its ids.
const EXEMPLAR_CHARS_MAX: usize = 128;
/// Most exemplars of a point.
const EXEMPLARS_MAX: usize = 10_000;

/// The samples of one point.
struct Samples<'p, 'a> {
    point: &'p Point<'a>,
}

impl Samples<'_, '_> {
    /// A float of the point's time, or the end of its series.
    fn float(&self, value: f64) -> Sample {
        let value = if self.point.no_recorded_value() { stale_nan() } else { value };
        self.of(SampleValue::Float(value))
    }

    fn of(&self, value: SampleValue) -> Sample {
        Sample {
            timestamp_ms: self.point.timestamp_ms(),
            start_timestamp_ms: self.point.start_timestamp_ms(),
            value,
        }
    }
}

impl<'a, S: Sink> Translator<'a, '_, S> {
    pub(crate) fn point(&mut self, family: &Family, point: &Point<'a>) -> Result<(), Fault> {
        let samples = Samples { point };
        let metadata = &family.metadata;
        match family.kind {
            Kind::Empty => Ok(()),
            Kind::Gauge => {
                self.set_point_labels(point.attributes)?;
                self.append(samples.float(point.value), &[], metadata)
            }
            Kind::Sum => {
                self.set_point_labels(point.attributes)?;
                let exemplars = self.exemplars(point.exemplars)?;
                self.append(samples.float(point.value), &exemplars, metadata)
            }
            Kind::Summary => self.summary(family, &samples),
            Kind::Histogram if !self.settings.convert_histograms_to_nhcb => self.classic(family, &samples),
            Kind::Histogram | Kind::ExponentialHistogram => self.native(family, &samples),
        }
    }

    fn native(&mut self, family: &Family, samples: &Samples<'_, 'a>) -> Result<(), Fault> {
        let point = samples.point;
        let (histogram, what) = if family.kind == Kind::Histogram {
            (native::custom(point, family.temporality), "a histogram")
        } else {
            (native::exponential(point, family.temporality)?, "an exponential histogram")
        };
        if native::sum_of_nothing(&histogram) {
            let sum = histogram.sum;
            self.warn(Category::HistogramZeroCountNonZeroSum, || {
                format!("a point of {what} counts nothing and has a sum of {sum}")
            });
        }
        self.set_point_labels(point.attributes)?;
        let exemplars = self.exemplars(point.exemplars)?;
        let value = SampleValue::Histogram(HistogramValue::from(histogram));
        self.append(samples.of(value), &exemplars, &family.metadata)
    }

    /// `_sum`, `_count` and the cumulated `_bucket`s, each of which has the exemplars up to its bound.
    fn classic(&mut self, family: &Family, samples: &Samples<'_, 'a>) -> Result<(), Fault> {
        let (point, metadata) = (samples.point, &family.metadata);
        self.set_point_labels(point.attributes)?;
        if let Some(sum) = point.sum {
            let name = format!("{}_sum", family.name);
            self.append_with(&[(METRIC_NAME, &name)], samples.float(sum), &[], metadata)?;
        }
        let count = samples.float(point.count as f64);
        let name = format!("{}_count", family.name);
        self.append_with(&[(METRIC_NAME, &name)], count.clone(), &[], metadata)?;
        let exemplars = self.exemplars(point.exemplars)?;
        let mut exemplars = exemplars.as_slice();
        let name = format!("{}_bucket", family.name);
        let (mut cumulated, mut bound_text) = (0_u64, String::new());
        for (bound, n) in point.bounds.iter().zip(&point.bucket_counts) {
            cumulated = cumulated.wrapping_add(*n);
            // An exemplar of no number belongs to the bucket that is looked at.
            let here = exemplars.iter().position(|e| e.value > *bound).unwrap_or(exemplars.len());
            let (these, rest) = exemplars.split_at(here);
            exemplars = rest;
            write_float(&mut bound_text, *bound);
            let labels = [(METRIC_NAME, name.as_str()), (BUCKET_LABEL, &bound_text)];
            self.append_with(&labels, samples.float(cumulated as f64), these, metadata)?;
        }
        let labels = [(METRIC_NAME, name.as_str()), (BUCKET_LABEL, "+Inf")];
        self.append_with(&labels, count, exemplars, metadata)
    }

    fn summary(&mut self, family: &Family, samples: &Samples<'_, 'a>) -> Result<(), Fault> {
        let (point, metadata): (_, &Metadata) = (samples.point, &family.metadata);
        self.set_point_labels(point.attributes)?;
        for (suffix, value) in [("_sum", point.sum.unwrap_or(0.0)), ("_count", point.count as f64)] {
            let name = format!("{}{suffix}", family.name);
            self.append_with(&[(METRIC_NAME, &name)], samples.float(value), &[], metadata)?;
        }
        let mut text = String::new();
        for (quantile, value) in &point.quantiles {
            write_float(&mut text, *quantile);
            let labels = [(METRIC_NAME, family.name.as_str()), (QUANTILE_LABEL, &text)];
            self.append_with(&labels, samples.float(*value), &[], metadata)?;
        }
        Ok(())
    }

    /// The exemplars of a point. Filtered attributes are dropped when all labels together would be too long.
    fn exemplars(&mut self, mut messages: Repeated<'a>) -> Result<Vec<Exemplar>, Fault> {
        let mut out = Vec::new();
        while let Some(message) = messages.next()? {
            if out.len() == EXEMPLARS_MAX {
                let text = format!("more than {EXEMPLARS_MAX} exemplars of one data point");
                return Err(Fault::from(Error::Limit(text)));
            }
            let message = ExemplarMessage::read(message)?;
            let Some(value) = message.value else {
                return Err(Fault::from("unsupported exemplar value type: Empty".to_owned()));
            };
            // Nanoseconds before the epoch belong to the millisecond before.
            let timestamp_ms = (message.time_nanos as i64).div_euclid(1_000_000);
            let labels = exemplar_labels(&message)?;
            out.push(Exemplar { labels, value, timestamp_ms: Some(timestamp_ms) });
        }
        Ok(out)
    }
}

fn exemplar_labels(message: &ExemplarMessage<'_>) -> Result<Labels, Error> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for (name, id) in [("trace_id", message.trace_id), ("span_id", message.span_id)] {
        if id.iter().any(|b| *b != 0) {
            pairs.push((name, id.iter().map(|b| format!("{b:02x}")).collect()));
        }
    }
    let ids = pairs.len();
    let mut attributes = message.attributes;
    let chars = |name: &str, value: &str| name.chars().count() + value.chars().count();
    let mut total: usize = pairs.iter().map(|(name, value)| chars(name, value)).sum();
    while let Some(attribute) = attributes.next()? {
        let KeyValue { key, value } = KeyValue::read(attribute)?;
        let mut text = String::new();
        value.write_text(&mut text)?;
        total += chars(key, &text);
        if total > EXEMPLAR_CHARS_MAX {
            pairs.truncate(ids);
            break;
        }
        pairs.push((key, text));
    }
    Ok(Labels::from_pairs(pairs))
}

/// A bound or quantile: digits without an exponent.
fn write_float(out: &mut String, f: f64) {
    use std::fmt::Write as _;
    out.clear();
    let written = if f.is_infinite() {
        out.write_str(if f > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        write!(out, "{f}")
    };
    debug_assert!(written.is_ok(), "writing into a string does not fail");
}
