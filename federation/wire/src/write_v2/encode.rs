//! Writing `io.prometheus.write.v2.Request`.
//!
//! Each string is written once per request, into the table of symbols; a series then costs a few bytes per label. The
//! table and all buffers live from request to request. Symbol 0 is the empty string, as the specification wants.

use hashbrown::HashTable;
use model::histogram::HistogramValue;
use model::{Exemplar, Labels, Metadata};
use xxhash_rust::xxh3::xxh3_64;

use super::field;
use crate::proto::{put_bytes, put_double, put_int64, put_len, put_uint64, put_varint, varint_len};
use crate::write_v1::{histogram, metric_type_number};

/// Where a symbol lies in the encoded table.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    start: usize,
    len: usize,
    reference: u32,
}

/// Builds one request after the other in the same memory.
#[derive(Debug)]
pub struct RequestEncoder {
    /// The symbols as they go out, each with tag and length.
    symbols: Vec<u8>,
    table: HashTable<Symbol>,
    out: Vec<u8>,
    series: Vec<u8>,
    part: Vec<u8>,
    refs: Vec<u32>,
    series_len: usize,
}

impl Default for RequestEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestEncoder {
    /// An encoder at the begin of a request.
    #[must_use]
    pub fn new() -> Self {
        let mut new = Self {
            symbols: Vec::new(),
            table: HashTable::new(),
            out: Vec::new(),
            series: Vec::new(),
            part: Vec::new(),
            refs: Vec::new(),
            series_len: 0,
        };
        new.clear();
        new
    }

    /// Starts a new request.
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.table.clear();
        self.out.clear();
        self.series_len = 0;
        self.symbol("");
    }

    /// Begins a series. It becomes part of the request when the [`SeriesEncoder`] is dropped.
    pub fn series(&mut self, labels: &Labels) -> SeriesEncoder<'_> {
        self.series.clear();
        self.refs(labels);
        put_refs(&mut self.series, field::SERIES_LABELS_REFS, &self.refs);
        SeriesEncoder { request: self }
    }

    /// Number of series in the request.
    #[must_use]
    pub fn series_len(&self) -> usize {
        self.series_len
    }

    /// Bytes of the request as it stands.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.symbols.len() + self.out.len()
    }

    /// Writes the request to `body`, which is cleared first.
    pub fn finish(&self, body: &mut Vec<u8>) {
        body.clear();
        body.reserve(self.len_bytes());
        body.extend_from_slice(&self.symbols);
        body.extend_from_slice(&self.out);
    }

    /// Leaves the references of names and values in `self.refs`.
    fn refs(&mut self, labels: &Labels) {
        let mut refs = std::mem::take(&mut self.refs);
        refs.clear();
        for (name, value) in labels {
            refs.push(self.symbol(name));
            refs.push(self.symbol(value));
        }
        self.refs = refs;
    }

    /// The reference of a string, which is added to the table when it is not there.
    fn symbol(&mut self, text: &str) -> u32 {
        let Self { symbols, table, .. } = self;
        let hash = xxh3_64(text.as_bytes());
        let found = table.find(hash, |s| &symbols[s.start..s.start + s.len] == text.as_bytes());
        if let Some(symbol) = found {
            return symbol.reference;
        }
        let reference = u32::try_from(table.len()).expect("a request has fewer than 2^32 symbols");
        put_bytes(symbols, field::SYMBOLS, text.as_bytes());
        let symbol = Symbol { start: symbols.len() - text.len(), len: text.len(), reference };
        table.insert_unique(hash, symbol, |s| xxh3_64(&symbols[s.start..s.start + s.len]));
        reference
    }
}

fn put_refs(out: &mut Vec<u8>, field: u32, refs: &[u32]) {
    if refs.is_empty() {
        return;
    }
    put_len(out, field, refs.iter().map(|r| varint_len(u64::from(*r))).sum());
    refs.iter().for_each(|r| put_varint(out, u64::from(*r)));
}

/// Adds samples to one series of a request.
#[derive(Debug)]
pub struct SeriesEncoder<'a> {
    request: &'a mut RequestEncoder,
}

impl SeriesEncoder<'_> {
    /// A float sample; the value keeps its bits. `start_timestamp_ms` is 0 when unknown.
    #[inline]
    pub fn float(&mut self, timestamp_ms: i64, start_timestamp_ms: i64, value: f64) -> &mut Self {
        let RequestEncoder { series, part, .. } = &mut *self.request;
        part.clear();
        put_double(part, field::SAMPLE_VALUE, value);
        put_int64(part, field::SAMPLE_TIMESTAMP, timestamp_ms);
        put_int64(part, field::SAMPLE_START_TIMESTAMP, start_timestamp_ms);
        put_bytes(series, field::SERIES_SAMPLES, part);
        self
    }

    /// A histogram sample. `start_timestamp_ms` is 0 when unknown.
    pub fn histogram(
        &mut self,
        timestamp_ms: i64,
        start_timestamp_ms: i64,
        value: &HistogramValue,
    ) -> &mut Self {
        let RequestEncoder { series, part, .. } = &mut *self.request;
        part.clear();
        histogram::write(part, timestamp_ms, value);
        histogram::write_start(part, start_timestamp_ms);
        put_bytes(series, field::SERIES_HISTOGRAMS, part);
        self
    }

    /// An exemplar.
    pub fn exemplar(&mut self, exemplar: &Exemplar) -> &mut Self {
        self.request.refs(&exemplar.labels);
        let RequestEncoder { series, part, refs, .. } = &mut *self.request;
        part.clear();
        put_refs(part, field::EXEMPLAR_LABELS_REFS, refs);
        put_double(part, field::EXEMPLAR_VALUE, exemplar.value);
        put_int64(part, field::EXEMPLAR_TIMESTAMP, exemplar.timestamp_ms.unwrap_or(0));
        put_bytes(series, field::SERIES_EXEMPLARS, part);
        self
    }

    /// Type, unit and help; at most once per series.
    pub fn metadata(&mut self, metadata: &Metadata) -> &mut Self {
        let help = self.request.symbol(&metadata.help);
        let unit = self.request.symbol(&metadata.unit);
        let RequestEncoder { series, part, .. } = &mut *self.request;
        part.clear();
        put_uint64(part, field::METADATA_TYPE, metric_type_number(metadata.metric_type));
        put_uint64(part, field::METADATA_HELP_REF, u64::from(help));
        put_uint64(part, field::METADATA_UNIT_REF, u64::from(unit));
        put_bytes(series, field::SERIES_METADATA, part);
        self
    }
}

impl Drop for SeriesEncoder<'_> {
    fn drop(&mut self) {
        let RequestEncoder { out, series, series_len, .. } = &mut *self.request;
        put_bytes(out, field::TIMESERIES, series);
        *series_len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_v1::to_labels;
    use crate::write_v2::{Request, TimeSeries};
    use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
    use model::{Histogram, MetricType, Sample, SampleValue, stale_nan};

    #[test]
    fn what_is_written_reads_back() {
        let mut encoder = RequestEncoder::new();
        let mut body = Vec::new();
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "x"), ("up", "job")]);
        let histogram = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 3,
            custom_values: vec![0.5, 1.0],
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1, 1],
            ..Histogram::default()
        };
        let trace = Labels::from_pairs([("trace_id", "x")]);
        let exemplar = Exemplar { labels: trace, value: 2.0, timestamp_ms: Some(9) };
        let metadata =
            Metadata { metric_type: MetricType::Counter, unit: "seconds".into(), help: "Whether.".into() };
        for round in 0..3 {
            encoder.clear();
            encoder
                .series(&labels)
                .float(10, 3, 1.5)
                .float(-11, 0, stale_nan())
                .histogram(12, 4, &histogram.clone().into())
                .exemplar(&exemplar)
                .metadata(&metadata);
            encoder.series(&Labels::from_pairs([("a", "up")])).float(1, 0, -0.0);
            assert_eq!(encoder.series_len(), 2);
            encoder.finish(&mut body);
            assert_eq!(body.len(), encoder.len_bytes(), "round {round}");

            let mut request = Request::new(&body).expect("valid");
            let mut s = TimeSeries::new();
            assert!(request.next_series(&mut s).expect("valid"));
            assert_eq!(to_labels(s.labels()).expect("valid"), labels);
            let first = Sample { start_timestamp_ms: 3, ..Sample::float(10, 1.5) };
            let third = Sample { start_timestamp_ms: 4, ..Sample::histogram(12, histogram.clone()) };
            assert_eq!(s.samples(), [first, Sample::float(-11, stale_nan()), third]);
            assert_eq!(s.exemplars(), std::slice::from_ref(&exemplar));
            assert_eq!(s.metadata(), Some(&metadata));
            assert!(request.next_series(&mut s).expect("valid"));
            assert_eq!(s.samples()[0].value, SampleValue::Float(-0.0));
            assert!(!request.next_series(&mut s).expect("valid"));
        }
    }
}
