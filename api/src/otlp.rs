//! `/api/v1/otlp/v1/metrics`: metrics of OpenTelemetry exporters.
//!
//! A request is one batch of the store, taken as a whole or not at all, as in Prometheus: what one metric does wrong refuses the
//! request, with 400 when samples come too late or too early, so that the sender does not repeat them, and with 500 else. When the
//! store itself fails, the sender is told to try again. What becomes of names and types is [`wire::otlp`]'s.
//!
//! As in remote write, a series that is known is looked up by the bytes of its labels.

use std::io::Read as _;
use std::sync::{Arc, PoisonError, RwLock};

use flate2::bufread::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use model::labels::LabelsWriter;
use model::{AppendError, Appender, Exemplar, Labels, Metadata, MetricType, Sample, SampleValue, SeriesRef};
use wire::otlp::{Category, Report, Settings, Sink, Stop, json_to_protobuf, translate};

use crate::app::App;
use crate::body::Body;
use crate::remote_write::{metadata_hash, unavailable};
use crate::series_cache::{Key, Known, SeriesCache};
use crate::small::{empty, plain};

/// How OTLP metrics are translated, from the next request on. Clones share the settings.
#[derive(Clone, Debug, Default)]
pub struct OtlpSettings(Arc<RwLock<Arc<Settings>>>);

impl OtlpSettings {
    /// These settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(settings))))
    }

    /// Puts other settings in force.
    pub fn set(&self, settings: Settings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    fn get(&self) -> Arc<Settings> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a body is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    json: bool,
    gzip: bool,
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// Looks at the headers: what the body is, or why it is refused.
pub(crate) fn check(app: &App, headers: &HeaderMap) -> Result<Form, Box<Response<Body>>> {
    if !app.config.enable_otlp_receiver || app.deps.appendable.is_none() {
        return Err(Box::new(plain(
            StatusCode::NOT_FOUND,
            "otlp write receiver needs to be enabled with --web.enable-otlp-receiver\n",
        )));
    }
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let refuse = |text: String| Err(Box::new(plain(StatusCode::BAD_REQUEST, text + "\n")));
    let json = match text(CONTENT_TYPE) {
        PROTOBUF => false,
        JSON => true,
        other => {
            return refuse(format!("unsupported content type: {other}, supported: [{JSON}, {PROTOBUF}]"));
        }
    };
    let gzip = match text(CONTENT_ENCODING) {
        "" => false,
        "gzip" => true,
        other => {
            return refuse(format!(
                "unsupported compression: {other}. Only \"gzip\" or no compression supported"
            ));
        }
    };
    Ok(Form { json, gzip })
}

/// Takes in one request.
pub(crate) fn receive(app: &Arc<App>, form: Form, body: &[u8]) -> Response<Body> {
    let limit = app.config.remote_write.max_decoded_bytes;
    let mut decompressed = Vec::new();
    let mut body = body;
    if form.gzip {
        // One byte more, which tells that there is more.
        let read = MultiGzDecoder::new(body).take(limit as u64 + 1).read_to_end(&mut decompressed);
        match read {
            Err(e) => return plain(StatusCode::BAD_REQUEST, format!("gzip: {e}\n")),
            Ok(len) if len > limit => {
                let text = format!("body when decompressed exceeds the limit of {limit} bytes\n");
                return plain(StatusCode::PAYLOAD_TOO_LARGE, text);
            }
            Ok(_) => body = &decompressed,
        }
    }
    if !form.json {
        return store(app, body);
    }
    match json_to_protobuf(body, limit) {
        Ok(protobuf) => {
            drop(decompressed);
            store(app, &protobuf)
        }
        Err(e) => undecodable(&e),
    }
}

fn undecodable(e: &wire::Error) -> Response<Body> {
    let status = match e {
        wire::Error::TooLarge { .. } | wire::Error::Limit(_) => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    plain(status, format!("{e}\n"))
}

fn store(app: &Arc<App>, body: &[u8]) -> Response<Body> {
    let Some(appendable) = &app.deps.appendable else {
        return plain(StatusCode::NOT_FOUND, "the OTLP receiver is not enabled\n");
    };
    let appender = match appendable.appender() {
        Ok(appender) => appender,
        Err(e) => return unavailable(app, &e),
    };
    let max_ms = app.deps.clock.now_ms().saturating_add(app.config.remote_write.max_ahead_ms);
    let settings = app.deps.otlp.get();
    let mut batch = Batch {
        app,
        appender,
        cache: app.receiver.cache(),
        bytes: Vec::new(),
        key: Key::of(&[]),
        told: Vec::new(),
    };
    let report = translate(body, &settings, max_ms, &mut batch);
    let Batch { appender, told, .. } = batch;
    let report = match report {
        Ok(report) => report,
        Err(stop) => {
            appender.rollback();
            return match stop {
                Stop::Decode(e) => undecodable(&e),
                Stop::Storage(e) => unavailable(app, &e),
            };
        }
    };
    warn(app, &report);
    if report.refused.is_empty() {
        return match appender.commit() {
            Ok(()) => {
                told.iter().for_each(|(key, known)| app.receiver.cache().put(*key, *known));
                empty(StatusCode::OK)
            }
            Err(e) => unavailable(app, &e),
        };
    }
    appender.rollback();
    let text = report.refused.text();
    let status = if report.refused.by_time() {
        StatusCode::BAD_REQUEST
    } else {
        tracing::warn!("OTLP metrics refused: {text}");
        StatusCode::INTERNAL_SERVER_ERROR
    };
    plain(status, text + "\n")
}

fn warn(app: &App, report: &Report) {
    let warnings = &report.warnings;
    if warnings.texts.is_empty() {
        return;
    }
    for category in Category::ALL {
        let count = warnings.count(category);
        if count > 0 {
            app.metrics.otlp_warnings.with_label_values(&[category.as_str()]).inc_by(count);
        }
    }
    tracing::warn!(warnings = ?warnings.texts, "OTLP metrics that their sender should look at");
}

struct Batch<'s> {
    app: &'s App,
    appender: Box<dyn Appender>,
    cache: &'s SeriesCache,
    /// What the key is made of.
    bytes: Vec<u8>,
    /// Of the series whose sample is taken in.
    key: Key,
    /// Series whose metadata is new, to be remembered once it is stored.
    told: Vec<(Key, Known)>,
}

impl Batch<'_> {
    /// Appends to a series that is known; `false` when the store does not know it any more.
    fn append_known(&mut self, series: SeriesRef, sample: &Sample) -> Result<bool, AppendError> {
        let result = match sample.value {
            SampleValue::Float(value) if sample.start_timestamp_ms == 0 => {
                self.appender.append_float(series, sample.timestamp_ms, value)
            }
            _ => self.appender.append(series, &Labels::empty(), sample.clone()).map(drop),
        };
        match result {
            Ok(()) => Ok(true),
            // Without labels a store can only complain about them when it does not know the reference.
            Err(AppendError::UnknownRef | AppendError::InvalidLabels(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn append_sample(&mut self, labels: &LabelsWriter, sample: &Sample) -> Result<Known, AppendError> {
        let as_zero = self.app.config.otlp.starts_as_zeros && sample.start_timestamp_ms != 0;
        let known = self.cache.get(self.key);
        if !as_zero && let Some(known) = known {
            if self.append_known(known.series, sample)? {
                return Ok(known);
            }
            self.cache.forget(self.key);
        }
        let labels = labels.build();
        if as_zero {
            self.appender.append_start_as_zero(SeriesRef::NONE, &labels, sample)?;
        }
        let series = self.appender.append(SeriesRef::NONE, &labels, sample.clone())?;
        let metadata_hash =
            known.filter(|known| known.series == series).map_or(0, |known| known.metadata_hash);
        let known = Known { series, metadata_hash };
        self.cache.put(self.key, known);
        Ok(known)
    }

    fn append_metadata(&mut self, known: Known, metadata: &Metadata) {
        let hash = metadata_hash(metadata);
        if known.metadata_hash == hash {
            return;
        }
        match self.appender.append_metadata(known.series, metadata) {
            Ok(()) => self.told.push((self.key, Known { metadata_hash: hash, ..known })),
            Err(e) => tracing::debug!("OTLP: metadata not taken: {e}"),
        }
    }
}

impl Sink for Batch<'_> {
    fn append(
        &mut self,
        labels: &LabelsWriter,
        sample: Sample,
        exemplars: &[Exemplar],
        metadata: &Metadata,
    ) -> Result<(), AppendError> {
        // No other receiver's keys begin with 1: those of remote write begin with a tag, or 0.
        self.bytes.clear();
        self.bytes.push(1);
        self.bytes.extend_from_slice(labels.iter().as_packed().as_bytes());
        self.key = Key::of(&self.bytes);
        let known = self.append_sample(labels, &sample)?;
        let metrics = &self.app.metrics;
        let unknown = metadata.metric_type == MetricType::Unknown;
        let nothing_said = unknown && metadata.unit.is_empty() && metadata.help.is_empty();
        if nothing_said {
            metrics.otlp_without_metadata.inc();
        }
        for exemplar in exemplars {
            match self.appender.append_exemplar(known.series, exemplar) {
                Ok(()) => {}
                Err(AppendError::Storage(e)) => return Err(AppendError::Storage(e)),
                Err(_) => metrics.otlp_out_of_order_exemplars.inc(),
            }
        }
        // The end of a series says nothing of its metric.
        if self.app.config.otlp.append_metadata && !nothing_said && !sample.value.is_stale() {
            self.append_metadata(known, metadata);
        }
        Ok(())
    }
}
