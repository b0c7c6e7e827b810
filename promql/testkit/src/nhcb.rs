//! Classic histograms of a load as native ones with custom buckets.

use std::collections::BTreeMap;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use model::labels::{BUCKET_LABEL, METRIC_NAME};
use model::{FloatHistogram, Labels, LabelsBuilder, Sample, SampleValue};

/// What the rows of one histogram say of one timestamp.
#[derive(Default)]
struct Classic {
    /// Cumulative counts by upper bound, sorted.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// What a series of a classic histogram stands for.
#[derive(Clone, Copy)]
enum Part {
    /// The bucket with this upper bound.
    Bucket(f64),
    Count,
    Sum,
}

/// The name of the histogram that a series belongs to, and its part in it.
fn part_of(labels: &Labels) -> Option<(&str, Part)> {
    let name = labels.metric_name();
    if let Some(base) = name.strip_suffix("_bucket") {
        let le: f64 = labels.get(BUCKET_LABEL)?.parse().ok()?;
        return (!le.is_nan()).then_some((base, Part::Bucket(le)));
    }
    let count = name.strip_suffix("_count").map(|base| (base, Part::Count));
    count.or_else(|| name.strip_suffix("_sum").map(|base| (base, Part::Sum)))
}

impl Classic {
    /// Of two buckets with one bound the first counts.
    fn set(&mut self, part: Part, value: f64) {
        match part {
            Part::Count => self.count = Some(value),
            Part::Sum => self.sum = value,
            Part::Bucket(le) => {
                if let Err(i) = self.buckets.binary_search_by(|(b, _)| b.total_cmp(&le)) {
                    self.buckets.insert(i, (le, value));
                }
            }
        }
    }

    fn to_native(&self) -> Result<FloatHistogram, String> {
        let mut buckets = self.buckets.clone();
        let last = buckets.last().copied();
        let count = self.count.or(last.map(|(_, c)| c)).unwrap_or(0.0);
        if last.is_none_or(|(le, _)| le != f64::INFINITY) {
            buckets.push((f64::INFINITY, count));
        }
        let mut before = 0.0;
        let mut counts = Vec::with_capacity(buckets.len());
        for (le, cumulative) in &buckets {
            if *cumulative < before {
                return Err(format!("count of bucket {le} is not cumulative"));
            }
            counts.push(cumulative - before);
            before = *cumulative;
        }
        if before != count {
            return Err(format!("count {count} is not that of the last bucket, {before}"));
        }
        let mut h = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_spans: vec![Span { offset: 0, length: counts.len() as u32 }],
            positive_buckets: counts,
            custom_values: buckets.iter().map(|(le, _)| *le).filter(|le| le.is_finite()).collect(),
            ..FloatHistogram::default()
        };
        h.compact(0);
        h.validate().map_err(|e| e.to_string())?;
        Ok(h)
    }
}

/// The native histograms of the classic ones among `series`.
///
/// # Errors
/// When buckets of one timestamp contradict each other.
pub(crate) fn native_histograms(
    series: &BTreeMap<Labels, Vec<Sample>>,
) -> Result<Vec<(Labels, Vec<Sample>)>, String> {
    let mut found: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for (labels, samples) in series {
        let Some((base, part)) = part_of(labels) else {
            continue;
        };
        let mut builder = LabelsBuilder::from_labels(labels);
        builder.set(METRIC_NAME, base).del(BUCKET_LABEL);
        let at = found.entry(builder.build()).or_default();
        for sample in samples {
            if let SampleValue::Float(v) = sample.value {
                at.entry(sample.timestamp_ms).or_default().set(part, v);
            }
        }
    }
    found
        .into_iter()
        .map(|(labels, at)| {
            let samples: Result<Vec<Sample>, String> =
                at.iter().map(|(ts, c)| Ok(Sample::histogram(*ts, c.to_native()?))).collect();
            Ok((labels, samples?))
        })
        .collect()
}
