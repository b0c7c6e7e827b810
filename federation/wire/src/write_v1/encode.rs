//! Writing `prometheus.WriteRequest`.
//!
//! A sender makes the label section of a series once ([`encode_labels`]) and copies it into each request, so a sample
//! costs a copy of the section and twenty bytes. The encoder's buffers live from request to request.

use model::histogram::HistogramValue;
use model::{Exemplar, Labels, Metadata};

use super::{field, histogram, metric_type_number};
use crate::proto::{put_bytes, put_double, put_int64, put_len, put_str, put_uint64, varint_len};

/// Appends the label section of a series to `out`: what [`super::TimeSeries::raw_labels`] gives back.
pub fn encode_labels(labels: &Labels, out: &mut Vec<u8>) {
    put_labels(out, field::SERIES_LABELS, labels);
}

/// Labels as repeated `Label` messages under `field`.
fn put_labels(out: &mut Vec<u8>, field: u32, labels: &Labels) {
    for (name, value) in labels.iter() {
        // Tags of these field numbers are one byte each; neither string is empty in a label set but the name may be.
        let name_len = if name.is_empty() { 0 } else { 1 + varint_len(name.len() as u64) + name.len() };
        let value_len = 1 + varint_len(value.len() as u64) + value.len();
        put_len(out, field, name_len + value_len);
        put_str(out, field::LABEL_NAME, name);
        put_str(out, field::LABEL_VALUE, value);
    }
}

/// Builds one request after the other in the same memory.
#[derive(Debug, Default)]
pub struct WriteRequestEncoder {
    out: Vec<u8>,
    series: Vec<u8>,
    part: Vec<u8>,
    series_len: usize,
}

impl WriteRequestEncoder {
    /// An encoder without memory of its own yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a new request.
    pub fn clear(&mut self) {
        self.out.clear();
        self.series_len = 0;
    }

    /// Begins a series from its label section. It becomes part of the request when the [`SeriesEncoder`] is dropped.
    pub fn series(&mut self, raw_labels: &[u8]) -> SeriesEncoder<'_> {
        self.series.clear();
        self.series.extend_from_slice(raw_labels);
        SeriesEncoder { request: self }
    }

    /// Begins a series from its labels.
    pub fn series_of(&mut self, labels: &Labels) -> SeriesEncoder<'_> {
        self.series.clear();
        encode_labels(labels, &mut self.series);
        SeriesEncoder { request: self }
    }

    /// Adds what is known of a metric family.
    pub fn metadata(&mut self, family: &str, metadata: &Metadata) {
        self.part.clear();
        put_uint64(&mut self.part, field::METADATA_TYPE, metric_type_number(metadata.metric_type));
        put_str(&mut self.part, field::METADATA_FAMILY, family);
        put_str(&mut self.part, field::METADATA_HELP, &metadata.help);
        put_str(&mut self.part, field::METADATA_UNIT, &metadata.unit);
        put_bytes(&mut self.out, field::METADATA, &self.part);
    }

    /// The request as it stands.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.out
    }

    /// Number of series in it.
    #[must_use]
    pub fn series_len(&self) -> usize {
        self.series_len
    }
}

/// Adds samples to one series of a request.
#[derive(Debug)]
pub struct SeriesEncoder<'a> {
    request: &'a mut WriteRequestEncoder,
}

impl SeriesEncoder<'_> {
    /// A float sample; the value keeps its bits.
    #[inline]
    pub fn float(&mut self, timestamp_ms: i64, value: f64) -> &mut Self {
        let value_len = if value.to_bits() == 0 { 0 } else { 9 };
        let timestamp_len = if timestamp_ms == 0 { 0 } else { 1 + varint_len(timestamp_ms as u64) };
        let out = &mut self.request.series;
        put_len(out, field::SERIES_SAMPLES, value_len + timestamp_len);
        put_double(out, field::SAMPLE_VALUE, value);
        put_int64(out, field::SAMPLE_TIMESTAMP, timestamp_ms);
        self
    }

    /// A histogram sample.
    pub fn histogram(&mut self, timestamp_ms: i64, value: &HistogramValue) -> &mut Self {
        let WriteRequestEncoder { series, part, .. } = &mut *self.request;
        part.clear();
        histogram::write(part, timestamp_ms, value);
        put_bytes(series, field::SERIES_HISTOGRAMS, part);
        self
    }

    /// An exemplar.
    pub fn exemplar(&mut self, exemplar: &Exemplar) -> &mut Self {
        let WriteRequestEncoder { series, part, .. } = &mut *self.request;
        part.clear();
        put_labels(part, field::EXEMPLAR_LABELS, &exemplar.labels);
        put_double(part, field::EXEMPLAR_VALUE, exemplar.value);
        put_int64(part, field::EXEMPLAR_TIMESTAMP, exemplar.timestamp_ms.unwrap_or(0));
        put_bytes(series, field::SERIES_EXEMPLARS, part);
        self
    }
}

impl Drop for SeriesEncoder<'_> {
    fn drop(&mut self) {
        let WriteRequestEncoder { out, series, series_len, .. } = &mut *self.request;
        put_bytes(out, field::TIMESERIES, series);
        *series_len += 1;
    }
}
