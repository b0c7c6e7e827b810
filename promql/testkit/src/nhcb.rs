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

impl Classic {
    fn set_bucket(&mut self, le: f64, count: f64) {
        match self.buckets.binary_search_by(|(b, _)| b.total_cmp(&le)) {
            Ok(_) => {}
            Err(i) => self.buckets.insert(i, (le, count)),
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
        let name = labels.metric_name();
        let (base, put): (_, Box<dyn Fn(&mut Classic, f64)>) =
            if let Some(base) = name.strip_suffix("_bucket") {
                let Some(le) =
                    labels.get(BUCKET_LABEL).and_then(|le| le.parse::<f64>().ok()).filter(|le| !le.is_nan())
                else {
                    continue;
                };
                (base, Box::new(move |c, v| c.set_bucket(le, v)))
            } else if let Some(base) = name.strip_suffix("_count") {
                (base, Box::new(|c, v| c.count = Some(v)))
            } else if let Some(base) = name.strip_suffix("_sum") {
                (base, Box::new(|c, v| c.sum = v))
            } else {
                continue;
            };
        let mut builder = LabelsBuilder::from_labels(labels);
        builder.set(METRIC_NAME, base).del(BUCKET_LABEL);
        let at = found.entry(builder.build()).or_default();
        for sample in samples {
            if let SampleValue::Float(v) = sample.value {
                put(at.entry(sample.timestamp_ms).or_default(), v);
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
