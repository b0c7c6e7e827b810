//! A sink that keeps what it gets as text, and requests in JSON.

use model::labels::LabelsWriter;
use model::{AppendError, Exemplar, HistogramValue, Metadata, Sample, SampleValue};
use wire::otlp::{Report, Settings, Sink, Stop, json_to_protobuf, translate};

/// Now, and no sample may be later.
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

/// What was appended: labels, time and value.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) rows: Vec<String>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) exemplars: Vec<Vec<Exemplar>>,
    pub(crate) metadata: Vec<Metadata>,
    /// Answers, beginning with the first sample; then all is well.
    pub(crate) answers: Vec<Option<AppendError>>,
}

impl Sink for Kept {
    fn append(
        &mut self,
        labels: &LabelsWriter,
        sample: Sample,
        exemplars: &[Exemplar],
        metadata: &Metadata,
    ) -> Result<(), AppendError> {
        if !self.answers.is_empty()
            && let Some(e) = self.answers.remove(0)
        {
            return Err(e);
        }
        let value = match &sample.value {
            _ if sample.value.is_stale() => "stale".to_owned(),
            SampleValue::Float(f) => f.to_string(),
            SampleValue::Histogram(HistogramValue::Int(h)) => format!("histogram of {}", h.count),
            SampleValue::Histogram(HistogramValue::Float(_)) => panic!("OTLP has no floats for counts"),
        };
        self.rows.push(format!("{} {} {value}", labels.build(), sample.timestamp_ms));
        self.samples.push(sample);
        self.exemplars.push(exemplars.to_vec());
        self.metadata.push(metadata.clone());
        Ok(())
    }
}

/// Translates a request in JSON.
pub(crate) fn run(settings: &Settings, json: &str, kept: &mut Kept) -> Result<Report, Stop> {
    let body = json_to_protobuf(json.as_bytes(), 1 << 20).expect("a request");
    translate(&body, settings, NOW_MS, kept)
}

/// Translates a request that nothing is wrong with.
#[track_caller]
pub(crate) fn good(settings: &Settings, json: &str) -> Kept {
    let mut kept = Kept::default();
    let report = run(settings, json, &mut kept).expect("a good request");
    assert!(report.refused.is_empty(), "{}", report.refused.text());
    kept
}

/// Why a request is refused.
#[track_caller]
pub(crate) fn refused(settings: &Settings, json: &str) -> String {
    let report = run(settings, json, &mut Kept::default()).expect("a request");
    assert!(!report.refused.is_empty(), "nothing is refused");
    report.refused.text()
}

/// A request with these metrics of a resource and a scope without anything.
pub(crate) fn request(metrics: &str) -> String {
    format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{metrics}]}}]}}]}}"#)
}

/// A request with a gauge `g` of 1 at 1000 ms with these attributes, of this resource.
pub(crate) fn gauge(resource: &str, attributes: &str) -> String {
    let point = format!(r#"{{"asInt":"1","timeUnixNano":"1000000000","attributes":[{attributes}]}}"#);
    let metric = format!(r#"{{"name":"g","gauge":{{"dataPoints":[{point}]}}}}"#);
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{resource}]}},"scopeMetrics":[{{"metrics":[{metric}]}}]}}]}}"#
    )
}

/// An attribute with a text.
pub(crate) fn text(key: &str, value: &str) -> String {
    format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
}
