//! OTLP metrics: a request of an OpenTelemetry exporter becomes samples of series, as Prometheus 3.14 makes them.
//!
//! Pure functions over bytes: [`json_to_protobuf`] makes one form of the two, [`translate()`] walks over it and hands each sample,
//! with its labels, exemplars and metadata, to a [`Sink`]. The message is read in place; no tree of it is built, so that memory
//! does not grow with what a sender nests. A request that is refused in any part ([`Report::refused`]) is to be rolled back as a
//! whole.
//!
//! Read in this order: `message`, `point` and `value` (what is sent), `naming`, `layer` and `labels` (what it is called), `translate`,
//! `points`, `native` and `target_info` (what becomes of it), `report` (what is told), `json` (the other form).

mod base64;
mod json;
mod labels;
mod layer;
mod message;
mod naming;
mod native;
mod point;
mod points;
mod report;
mod schema;
mod settings;
mod target_info;
mod translate;
mod value;

use model::labels::LabelsWriter;
use model::{AppendError, Exemplar, Metadata, Sample};

pub use json::json_to_protobuf;
pub use report::{Category, Refused, Report, Stop, Warnings};
pub use settings::{Promote, Settings};

/// What takes the samples of a request.
pub trait Sink {
    /// Takes one sample of the series with these labels.
    ///
    /// # Errors
    /// Why it is not taken. The rest of its metric is not given any more; after [`AppendError::Storage`] nothing is.
    fn append(
        &mut self,
        labels: &LabelsWriter,
        sample: Sample,
        exemplars: &[Exemplar],
        metadata: &Metadata,
    ) -> Result<(), AppendError>;
}

/// Translates the protobuf form of a request. Samples after `max_ms` are refused.
///
/// # Errors
/// [`Stop::Decode`] when the bytes are no request, or one beyond a limit; [`Stop::Storage`] when the sink's store failed.
pub fn translate(
    body: &[u8],
    settings: &Settings,
    max_ms: i64,
    sink: &mut impl Sink,
) -> Result<Report, Stop> {
    translate::Translator::new(settings, max_ms, sink).request(body)
}
