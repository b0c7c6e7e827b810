//! `/api/v1/write`: remote write 1.0 and 2.0.
//!
//! A request is one batch of the store. A sample that the store refuses, or a series whose labels are invalid, costs the
//! sender a 400 with the reasons and nothing else: what is valid is kept, so that repeating is neither needed nor harmful.
//! A body that does not decode is refused whole. When the store itself fails nothing is kept and the sender is told to
//! try again (503 with `Retry-After`, or 500).
//!
//! The fast path of a known series is a look-up by the bytes of its labels ([`crate::series_cache`]) and one call per
//! sample; labels are built only for series that are new here. Series are looked up many at a time, since waiting for memory
//! is what looking up takes.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use model::{
    AppendError, Appendable, Appender, Exemplar, Histogram, HistogramValue, Labels, Metadata, Sample,
    SampleValue, SeriesRef, StorageError,
};
use wire::snappy::Decompressor;
use wire::write_v1::{LabelScratch, TimeSeries, WriteRequest, to_labels};
use wire::write_v2;

use crate::app::App;
use crate::body::Body;
use crate::config::RemoteWriteConfig;
use crate::metrics::Metrics;
use crate::series_cache::{Key, Known, SeriesCache};
use crate::small::{empty, plain};

/// Reasons that are told in full; further ones are counted.
const REASONS_MAX: usize = 10;
/// Buffers larger than this are not kept for the next request.
const KEEP_BUFFER_BYTES: usize = 8 << 20;
/// How often the number of cached series is counted, in requests.
const COUNT_CACHE_EVERY: u64 = 64;

/// Series of a request that are looked up together.
const SERIES_AT_A_TIME: usize = 64;
/// What the samples of a request may take until they are committed.
const BATCH_MEMORY_BYTES: usize = 256 << 20;

/// Messages of the protocol's versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    V1,
    V2,
}

/// What the receiver keeps between requests.
pub(crate) struct Receiver {
    cache: SeriesCache,
    scratch: Mutex<Vec<Scratch>>,
    scratch_max: usize,
    metrics: Metrics,
}

#[derive(Default)]
struct Scratch {
    decompressor: Decompressor,
    body: Vec<u8>,
}

impl Receiver {
    /// A receiver that knows nothing yet.
    pub(crate) fn new(config: &RemoteWriteConfig, metrics: Metrics) -> Self {
        Self {
            cache: SeriesCache::new(config.max_cached_series),
            scratch: Mutex::default(),
            scratch_max: config.max_concurrency,
            metrics,
        }
    }

    /// What is known of series, under the bytes of their labels.
    pub(crate) fn cache(&self) -> &SeriesCache {
        &self.cache
    }

    fn take_scratch(&self) -> Scratch {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn keep_scratch(&self, scratch: Scratch) {
        let mut all = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < self.scratch_max && scratch.body.capacity() <= KEEP_BUFFER_BYTES {
            all.push(scratch);
        }
    }
}

/// Looks at the headers: which message it is, or why it is refused.
pub(crate) fn check(app: &App, headers: &HeaderMap) -> Result<Message, Box<Response<Body>>> {
    if let Some(response) = app.not_ready() {
        return Err(Box::new(response));
    }
    if !app.config.enable_remote_write_receiver || app.deps.appendable.is_none() {
        return Err(Box::new(plain(
            StatusCode::NOT_FOUND,
            "remote write receiver needs to be enabled with --web.enable-remote-write-receiver\n",
        )));
    }
    let refuse = |text: String| Err(Box::new(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, text + "\n")));
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or("");
    let encoding = text(CONTENT_ENCODING);
    // Old senders give no header; the protocol knows but one encoding.
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
        return refuse(format!(
            "{encoding} encoding (compression) is not accepted by this server; only snappy is acceptable"
        ));
    }
    let mut parts = text(CONTENT_TYPE).split(';').map(str::trim);
    let kind = parts.next().unwrap_or("");
    if !kind.is_empty() && !kind.eq_ignore_ascii_case("application/x-protobuf") {
        return refuse(format!(
            "expected application/x-protobuf as the first (media) part, got {kind} content-type"
        ));
    }
    let proto = parts.find_map(|p| p.strip_prefix("proto=")).unwrap_or("prometheus.WriteRequest");
    match proto {
        "prometheus.WriteRequest" => Ok(Message::V1),
        "io.prometheus.write.v2.Request" => Ok(Message::V2),
        other => refuse(format!(
            "{other} protobuf message is not accepted by this server; only prometheus.WriteRequest and \
             io.prometheus.write.v2.Request are accepted"
        )),
    }
}

/// What came of a request.
pub(crate) enum Received {
    /// It is answered.
    Done(Response<Body>),
    /// Part of it has to wait for samples of someone else; the answer when they do not come.
    NotYet(Response<Body>),
}

/// Takes in one request, whose body is still compressed. May be called again for the same request.
pub(crate) fn receive(app: &Arc<App>, message: Message, body: &[u8]) -> Received {
    let Some(appendable) = &app.deps.appendable else {
        return Received::Done(plain(StatusCode::NOT_FOUND, "remote write is not enabled\n"));
    };
    let now_ms = app.deps.clock.now_ms();
    app.receiver.receive(&**appendable, &app.config.remote_write, now_ms, message, body)
}

impl Receiver {
    /// [`receive`] into a store, at a time.
    pub(crate) fn receive(
        &self,
        appendable: &dyn Appendable,
        config: &RemoteWriteConfig,
        now_ms: i64,
        message: Message,
        body: &[u8],
    ) -> Received {
        let mut scratch = self.take_scratch();
        let decompressed = scratch.decompressor.decompress(body, config.max_decoded_bytes, &mut scratch.body);
        let response = match decompressed {
            Ok(()) => self.store(appendable, config, now_ms, message, &scratch.body),
            Err(e) => Received::Done(not_decoded(&e)),
        };
        self.keep_scratch(scratch);
        response
    }

    fn store(
        &self,
        appendable: &dyn Appendable,
        config: &RemoteWriteConfig,
        now_ms: i64,
        message: Message,
        body: &[u8],
    ) -> Received {
        let appender = match appendable.appender() {
            Ok(appender) => appender,
            Err(e) => return Received::Done(not_taken(config, &e)),
        };
        let mut batch = Batch {
            appender,
            cache: &self.cache,
            metrics: &self.metrics,
            max_ms: now_ms.saturating_add(config.max_ahead_ms),
            memory_left: BATCH_MEMORY_BYTES,
            written: Written::default(),
            refused: Refused::default(),
        };
        let read = match message {
            Message::V1 => batch.v1(body),
            Message::V2 => batch.v2(body),
        };
        let Batch { appender, written, refused, .. } = batch;
        let response = match read {
            Err(Stop::Decode(e)) => {
                appender.rollback();
                return Received::Done(not_decoded(&e));
            }
            Err(Stop::Storage(e)) => {
                appender.rollback();
                return Received::Done(not_taken(config, &e));
            }
            Ok(()) => match appender.commit() {
                Err(e @ StorageError::NotYet(_)) => return Received::NotYet(try_again(config, &e)),
                Err(e) => return Received::Done(not_taken(config, &e)),
                Ok(()) if refused.count == 0 => empty(StatusCode::NO_CONTENT),
                Ok(()) => plain(StatusCode::BAD_REQUEST, refused.text()),
            },
        };
        self.count(&written);
        Received::Done(match message {
            Message::V1 => response,
            Message::V2 => written.headers(response),
        })
    }

    fn count(&self, written: &Written) {
        let m = &self.metrics;
        for (kind, n) in [("float", written.floats), ("histogram", written.histograms)] {
            if n > 0 {
                m.remote_write_samples.with_label_values(&[kind]).inc_by(n);
            }
        }
        let requests = m.remote_write_requests.get();
        m.remote_write_requests.inc();
        if requests.is_multiple_of(COUNT_CACHE_EVERY) {
            m.remote_write_cached_series.set(self.cache.len() as i64);
        }
    }
}

/// A body that is none, or stands for too much; of the latter a sender may try a part.
fn not_decoded(e: &wire::Error) -> Response<Body> {
    let status = match e {
        wire::Error::TooLarge { .. } | wire::Error::Limit(_) => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    plain(status, format!("{e}\n"))
}

/// The store cannot take samples: the sender keeps them and tries again.
pub(crate) fn unavailable(app: &App, e: &StorageError) -> Response<Body> {
    not_taken(&app.config.remote_write, e)
}

fn not_taken(config: &RemoteWriteConfig, e: &StorageError) -> Response<Body> {
    tracing::warn!("samples cannot be taken: {e}");
    let status = match e {
        StorageError::Corruption { .. } | StorageError::Decode { .. } | StorageError::Unsupported(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    match status {
        StatusCode::SERVICE_UNAVAILABLE => try_again(config, e),
        _ => plain(status, format!("{e}\n")),
    }
}

fn try_again(config: &RemoteWriteConfig, e: &StorageError) -> Response<Body> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, format!("{e}\n"));
    let seconds = config.retry_after.as_secs().max(1);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Why a request is not taken at all.
enum Stop {
    Decode(wire::Error),
    Storage(StorageError),
}

impl From<wire::Error> for Stop {
    fn from(e: wire::Error) -> Self {
        Self::Decode(e)
    }
}

/// What was written.
#[derive(Default)]
struct Written {
    floats: u64,
    histograms: u64,
    exemplars: u64,
}

impl Written {
    fn headers(&self, mut response: Response<Body>) -> Response<Body> {
        for (name, n) in [
            ("X-Prometheus-Remote-Write-Samples-Written", self.floats),
            ("X-Prometheus-Remote-Write-Histograms-Written", self.histograms),
            ("X-Prometheus-Remote-Write-Exemplars-Written", self.exemplars),
        ] {
            response.headers_mut().insert(name, HeaderValue::from(n));
        }
        response
    }
}

/// What was refused, and why.
#[derive(Default)]
struct Refused {
    count: u64,
    reasons: Vec<String>,
}

impl Refused {
    fn add(&mut self, reason: impl FnOnce() -> String) {
        self.count += 1;
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(reason());
        }
    }

    fn text(&self) -> String {
        let mut text = self.reasons.join("\n");
        let rest = self.count - self.reasons.len() as u64;
        if rest > 0 {
            // Writing into a string does not fail.
            let _ = write!(text, "\nand {rest} more");
        }
        text.push('\n');
        text
    }
}

/// What a histogram takes, about.
fn histogram_bytes(h: &HistogramValue) -> usize {
    let (spans, numbers) = match h {
        HistogramValue::Int(h) => (
            h.positive_spans.len() + h.negative_spans.len(),
            h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len(),
        ),
        HistogramValue::Float(h) => (
            h.positive_spans.len() + h.negative_spans.len(),
            h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len(),
        ),
    };
    size_of::<Histogram>() + size_of::<u64>() * (spans + numbers)
}

struct Batch<'s> {
    appender: Box<dyn Appender>,
    cache: &'s SeriesCache,
    metrics: &'s Metrics,
    max_ms: i64,
    memory_left: usize,
    written: Written,
    refused: Refused,
}

/// Series that are looked up together.
#[derive(Default)]
struct Found {
    keys: Vec<Key>,
    known: Vec<Option<Known>>,
}

impl Found {
    fn look_up(&mut self, cache: &SeriesCache) -> impl Iterator<Item = (Key, Option<Known>)> {
        cache.get_all(&self.keys, &mut self.known);
        self.keys.iter().copied().zip(self.known.iter().copied())
    }
}

/// A series while its samples are taken in.
struct Current<L> {
    key: Key,
    /// What the cache knew, or what the store said meanwhile.
    known: Option<Known>,
    /// Reads the labels; only called for a series that is not known.
    read: L,
    labels: Option<Labels>,
}

/// What became of a sample, or of everything after it.
enum Outcome {
    Taken,
    Refused,
    /// The whole series is refused and counted.
    SeriesRefused,
}

// === impl Batch ===

impl Batch<'_> {
    fn v1(&mut self, body: &[u8]) -> Result<(), Stop> {
        let mut request = WriteRequest::new(body);
        let mut scratch = LabelScratch::default();
        let (mut some, mut found) = (Vec::with_capacity(SERIES_AT_A_TIME), Found::default());
        loop {
            some.clear();
            found.keys.clear();
            while some.len() < SERIES_AT_A_TIME
                && let Some(series) = request.next_series()?
            {
                found.keys.push(Key::of(series.raw_labels()));
                some.push(series);
            }
            if some.is_empty() {
                return Ok(());
            }
            for (series, (key, known)) in some.iter().zip(found.look_up(self.cache)) {
                self.series_v1(series, key, known, &mut scratch)?;
            }
        }
    }

    fn series_v1<'a>(
        &mut self,
        series: &TimeSeries<'a>,
        key: Key,
        known: Option<Known>,
        scratch: &mut LabelScratch<'a>,
    ) -> Result<(), Stop> {
        let total = series.samples_len() + series.histograms_len();
        let mut current = Current { key, known, read: || to_labels(series.labels(scratch)?), labels: None };
        let mut done = 0;
        for sample in series.samples() {
            let (timestamp_ms, value) = sample?;
            if let Outcome::SeriesRefused = self.float(&mut current, timestamp_ms, value, total - done)? {
                return Ok(());
            }
            done += 1;
        }
        for sample in series.histograms() {
            if let Outcome::SeriesRefused = self.sample(&mut current, sample?, total - done)? {
                return Ok(());
            }
            done += 1;
        }
        for exemplar in series.exemplars() {
            self.exemplar(&current, &exemplar?);
        }
        Ok(())
    }

    fn v2(&mut self, body: &[u8]) -> Result<(), Stop> {
        let mut request = write_v2::Request::new(body)?;
        let mut some = Vec::new();
        some.resize_with(SERIES_AT_A_TIME, write_v2::TimeSeries::new);
        let (mut bytes, mut found) = (Vec::new(), Found::default());
        loop {
            found.keys.clear();
            for series in &mut some {
                if !request.next_series(series)? {
                    break;
                }
                write_key(&mut bytes, series.labels());
                found.keys.push(Key::of(&bytes));
            }
            if found.keys.is_empty() {
                return Ok(());
            }
            for (series, (key, known)) in some.iter_mut().zip(found.look_up(self.cache)) {
                self.series_v2(series, key, known)?;
            }
        }
    }

    fn series_v2(
        &mut self,
        series: &mut write_v2::TimeSeries<'_>,
        key: Key,
        known: Option<Known>,
    ) -> Result<(), Stop> {
        if let Some(reason) = series.invalid() {
            let (reason, samples) = (reason.to_owned(), series.samples().len());
            self.refuse_series(reason, samples)?;
            return Ok(());
        }
        let mut pairs = series.labels().to_vec();
        let total = series.samples().len();
        if total == 0 {
            self.refused.add(|| {
                format!("TimeSeries must contain at least one sample or histogram for series {pairs:?}")
            });
            return Ok(());
        }
        let mut current = Current { key, known, read: || to_labels(&mut pairs), labels: None };
        for (done, sample) in series.samples().iter().enumerate() {
            if let Outcome::SeriesRefused = self.sample(&mut current, sample.clone(), total - done)? {
                return Ok(());
            }
        }
        for exemplar in series.exemplars() {
            self.exemplar(&current, exemplar);
        }
        for reason in series.invalid_exemplars() {
            let labels = self.labels(&mut current).map_or_else(|e| e, |l| l.to_string());
            self.refused.add(|| format!("parsing exemplar for series {labels}: {reason}"));
        }
        if let Some(metadata) = series.metadata() {
            self.metadata(&mut current, metadata);
        }
        Ok(())
    }

    #[inline]
    fn float<L: FnMut() -> Result<Labels, wire::Error>>(
        &mut self,
        current: &mut Current<L>,
        timestamp_ms: i64,
        value: f64,
        left: usize,
    ) -> Result<Outcome, Stop> {
        // Fast path: the store knows the series.
        if let Some(known) = current.known
            && timestamp_ms <= self.max_ms
        {
            match self.appender.append_float(known.series, timestamp_ms, value) {
                Ok(()) => {
                    self.written.floats += 1;
                    return Ok(Outcome::Taken);
                }
                Err(AppendError::UnknownRef) => self.unknown(current),
                Err(e) => return self.refuse_sample(current, e),
            }
        }
        self.sample(current, Sample::float(timestamp_ms, value), left)
    }

    fn sample<L: FnMut() -> Result<Labels, wire::Error>>(
        &mut self,
        current: &mut Current<L>,
        sample: Sample,
        left: usize,
    ) -> Result<Outcome, Stop> {
        if sample.timestamp_ms > self.max_ms {
            return self.refuse_sample(current, AppendError::OutOfBounds);
        }
        let valid = match &sample.value {
            SampleValue::Float(_) => Ok(()),
            SampleValue::Histogram(HistogramValue::Int(h)) => h.validate(),
            SampleValue::Histogram(HistogramValue::Float(h)) => h.validate(),
        };
        if let Err(e) = valid {
            return self.refuse_sample(current, AppendError::InvalidHistogram(e.to_string()));
        }
        self.hold(&sample)?;
        let float = matches!(sample.value, SampleValue::Float(_));
        if let Some(known) = current.known {
            match self.appender.append(known.series, &Labels::empty(), sample.clone()) {
                Ok(_) => {
                    self.took(float);
                    return Ok(Outcome::Taken);
                }
                // Without labels a store can only complain about them when it does not know the reference.
                Err(AppendError::UnknownRef | AppendError::InvalidLabels(_)) => self.unknown(current),
                Err(e) => return self.refuse_sample(current, e),
            }
        }
        let labels = match self.labels(current) {
            Ok(labels) => labels,
            Err(reason) => return self.refuse_series(reason, left),
        };
        match self.appender.append(SeriesRef::NONE, &labels, sample) {
            Ok(series) => {
                let known = Known { series, metadata_hash: 0 };
                current.known = (series != SeriesRef::NONE).then_some(known);
                self.cache.put(current.key, known);
                self.took(float);
                Ok(Outcome::Taken)
            }
            Err(AppendError::InvalidLabels(e)) => self.refuse_series(format!("invalid labels: {e}"), left),
            Err(e) => self.refuse_sample(current, e),
        }
    }

    /// Counts what a histogram takes: one of two bytes takes hundreds.
    fn hold(&mut self, sample: &Sample) -> Result<(), Stop> {
        let SampleValue::Histogram(h) = &sample.value else { return Ok(()) };
        match self.memory_left.checked_sub(size_of::<Sample>() + histogram_bytes(h)) {
            Some(left) => self.memory_left = left,
            None => {
                let text = format!("the histograms of a request take more than {BATCH_MEMORY_BYTES} bytes");
                return Err(Stop::Decode(wire::Error::Limit(text + ", send fewer at once")));
            }
        }
        Ok(())
    }

    fn took(&mut self, float: bool) {
        if float {
            self.written.floats += 1;
        } else {
            self.written.histograms += 1;
        }
    }

    #[cold]
    fn unknown<L>(&mut self, current: &mut Current<L>) {
        self.cache.forget(current.key);
        current.known = None;
    }

    fn labels<L: FnMut() -> Result<Labels, wire::Error>>(
        &self,
        current: &mut Current<L>,
    ) -> Result<Labels, String> {
        if let Some(labels) = &current.labels {
            return Ok(labels.clone());
        }
        let labels = (current.read)().map_err(|e| e.to_string())?;
        if labels.metric_name().is_empty() {
            return Err(format!("invalid metric name or labels, got {labels}"));
        }
        current.labels = Some(labels.clone());
        Ok(labels)
    }

    /// Counts a refused sample; an error of the store itself ends the request.
    #[cold]
    fn refuse_sample<L: FnMut() -> Result<Labels, wire::Error>>(
        &mut self,
        current: &mut Current<L>,
        e: AppendError,
    ) -> Result<Outcome, Stop> {
        let reason = match e {
            AppendError::Storage(e) => return Err(Stop::Storage(e)),
            AppendError::OutOfOrder => "out_of_order",
            AppendError::OutOfBounds => "out_of_bounds",
            AppendError::TooOld => "too_old",
            AppendError::DuplicateTimestamp => "duplicate_timestamp",
            AppendError::UnknownRef => "unknown_ref",
            AppendError::InvalidLabels(_) => "invalid_labels",
            AppendError::InvalidHistogram(_) => "invalid_histogram",
        };
        self.metrics.remote_write_rejected.with_label_values(&[reason]).inc();
        let labels = self.labels(current).map_or_else(|e| e, |l| l.to_string());
        self.refused.add(|| format!("{e} for series {labels}"));
        Ok(Outcome::Refused)
    }

    #[cold]
    fn refuse_series(&mut self, reason: String, samples: usize) -> Result<Outcome, Stop> {
        let samples = samples as u64;
        self.metrics.remote_write_rejected.with_label_values(&["invalid_labels"]).inc_by(samples);
        self.metrics.remote_write_invalid_labels.inc_by(samples);
        self.refused.add(|| reason);
        Ok(Outcome::SeriesRefused)
    }

    /// Exemplars are extras: one that is not taken fails nothing.
    fn exemplar<L>(&mut self, current: &Current<L>, exemplar: &Exemplar) {
        let Some(known) = current.known else { return };
        match self.appender.append_exemplar(known.series, exemplar) {
            Ok(()) => self.written.exemplars += 1,
            Err(e) => tracing::debug!("remote write: exemplar not taken: {e}"),
        }
    }

    /// Tells the store what the sender says of the metric, when it is new.
    fn metadata<L>(&mut self, current: &mut Current<L>, metadata: &Metadata) {
        let Some(known) = current.known else { return };
        let hash = metadata_hash(metadata);
        if known.metadata_hash == hash {
            return;
        }
        match self.appender.append_metadata(known.series, metadata) {
            Ok(()) => self.cache.put(current.key, Known { metadata_hash: hash, ..known }),
            Err(e) => tracing::debug!("remote write: metadata not taken: {e}"),
        }
    }
}

/// A number that changes with what is said of a metric; never 0.
pub(crate) fn metadata_hash(m: &Metadata) -> u64 {
    let text = format!("{}\0{}\0{}", m.metric_type, m.unit, m.help);
    xxhash_rust::xxh3::xxh3_64(text.as_bytes()).max(1)
}

/// A key of label pairs that no label bytes of version 1 can equal: those begin with a tag, this with 0.
fn write_key(key: &mut Vec<u8>, pairs: &[(&str, &str)]) {
    key.clear();
    key.push(0);
    for s in pairs.iter().flat_map(|(n, v)| [n, v]) {
        key.extend_from_slice(&(s.len() as u32).to_le_bytes());
        key.extend_from_slice(s.as_bytes());
    }
}
