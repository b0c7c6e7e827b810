//! Shards: each sends one batch after the other, so that the samples of a series, which always go to the same shard,
//! arrive in order. How many shards there should be is computed in [`planner`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use wire::snappy::Compressor;
use wire::write_v1::WriteRequestEncoder;

use crate::backoff::{Backoff, parse_retry_after};
use crate::http::{Need, Outgoing, Response};
use crate::queue::{Batch, Item, Receipt, Value};
use crate::sender::Shared;
use crate::sender::metrics::Counts;

pub(crate) mod planner;

const VERSION: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
const RETRY_ATTEMPT: HeaderName = HeaderName::from_static("retry-attempt");
/// Longest answer read; only its first line is of use.
const RESPONSE_LIMIT_BYTES: usize = 64 << 10;

/// What a shard reports once a batch needs no more work.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) receipt: Receipt,
    /// Items in it.
    pub(crate) items: usize,
    /// Time spent in requests.
    pub(crate) busy: Duration,
}

/// What to do after an attempt.
enum Outcome {
    Accepted,
    Retry { reason: String, after: Option<Duration> },
    Refused { code: String, reason: String },
}

/// One sequence of requests.
pub(crate) struct Shard {
    shared: Arc<Shared>,
    done: UnboundedSender<Done>,
    encoder: WriteRequestEncoder,
    compressor: Compressor,
    compressed: Vec<u8>,
}

impl Shard {
    pub(crate) fn new(shared: Arc<Shared>, done: UnboundedSender<Done>) -> Self {
        Self {
            shared,
            done,
            encoder: WriteRequestEncoder::new(),
            compressor: Compressor::new(),
            compressed: Vec::new(),
        }
    }

    /// Sends what comes until the queue is closed.
    pub(crate) async fn run(mut self, mut queue: UnboundedReceiver<Batch>) {
        while let Some(batch) = queue.recv().await {
            let counts = Counts::of(&batch.items);
            let items = batch.len();
            let mut busy = Duration::ZERO;
            match self.encode(batch.items) {
                Ok((body, newest_ms)) => self.deliver(body, counts, newest_ms, &mut busy).await,
                Err(e) => self.refused(counts, "encode", &e.to_string()),
            }
            self.shared.metrics.add_pending(counts, -1);
            if self.done.send(Done { receipt: batch.receipt, items, busy }).is_err() {
                return;
            }
        }
    }

    fn encode(&mut self, mut items: Vec<Item>) -> Result<(Bytes, i64), wire::Error> {
        self.encoder.clear();
        let newest_ms = encode(&mut items, &mut self.encoder);
        self.compressor.compress(self.encoder.as_bytes(), &mut self.compressed)?;
        Ok((Bytes::copy_from_slice(&self.compressed), newest_ms))
    }

    /// Tries until the destination has taken the batch or refused it for good.
    async fn deliver(&self, body: Bytes, counts: Counts, newest_ms: i64, busy: &mut Duration) {
        let Shared { config, metrics, clock, .. } = &*self.shared;
        let mut backoff = Backoff::new(config.queue.min_backoff, config.queue.max_backoff);
        let mut attempt = 0_u32;
        loop {
            let start = clock.monotonic();
            let outcome = self.attempt(body.clone(), attempt).await;
            let took = clock.monotonic().saturating_sub(start);
            *busy += took;
            metrics.sent_batch_duration.observe(took.as_secs_f64());
            metrics.bytes.inc_by(body.len() as u64);
            match outcome {
                Outcome::Accepted => {
                    metrics.add(counts, |kind| &kind.total);
                    self.shared.note_sent(newest_ms);
                    return;
                }
                Outcome::Refused { code, reason } => return self.refused(counts, &code, &reason),
                Outcome::Retry { reason, after } => {
                    attempt = attempt.saturating_add(1);
                    metrics.add(counts, |kind| &kind.retried);
                    let pause = backoff.pause(after);
                    self.retry_logged(attempt, &reason, pause);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Logs the first failures and then each power of two of them, so that an outage of days does not fill the log.
    fn retry_logged(&self, attempt: u32, reason: &str, pause: Duration) {
        if attempt.is_power_of_two() {
            let destination = &self.shared.config.name;
            tracing::warn!(
                destination,
                attempt,
                reason,
                pause_ms = pause.as_millis() as u64,
                "sending failed, trying again"
            );
        }
    }

    async fn attempt(&self, body: Bytes, attempt: u32) -> Outcome {
        let mut headers = vec![
            (CONTENT_ENCODING, HeaderValue::from_static("snappy")),
            (CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf")),
            (VERSION, HeaderValue::from_static("0.1.0")),
        ];
        if attempt > 0 {
            headers.push((RETRY_ATTEMPT, HeaderValue::from(attempt)));
        }
        let request = Outgoing {
            method: Method::POST,
            uri: &self.shared.uri,
            headers: &headers,
            body,
            timeout: self.shared.config.remote_timeout,
            response_limit_bytes: RESPONSE_LIMIT_BYTES,
            need: Need::Status,
        };
        match self.shared.client.send(request).await {
            Ok(response) => classify(&response, self.shared.clock.now_ms()),
            Err(e) => Outcome::Retry { reason: e.to_string(), after: None },
        }
    }

    fn refused(&self, counts: Counts, code: &str, reason: &str) {
        let metrics = &self.shared.metrics;
        metrics.add(counts, |kind| &kind.failed);
        let items = counts.samples + counts.histograms + counts.exemplars;
        metrics.failed_by_reason.with_label_values(&[code]).inc_by(items as f64);
        tracing::error!(
            destination = self.shared.config.name,
            code,
            reason,
            samples = counts.samples,
            histograms = counts.histograms,
            exemplars = counts.exemplars,
            "the destination refused a batch for good; it is not sent again"
        );
    }
}

/// Server errors and rate limits pass, other answers in the 400s do not. A redirect is a mistake in the configuration
/// which an operator can mend, so nothing is given up for it.
fn classify(response: &Response, now_ms: i64) -> Outcome {
    let status = response.status;
    if status.is_success() {
        return Outcome::Accepted;
    }
    let reason = format!("server returned HTTP status {status}: {}", response.first_line());
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        return Outcome::Refused { code: status.as_str().to_owned(), reason };
    }
    if status.is_redirection() {
        let to = response.header("location");
        let reason = format!("{reason}: redirects are not followed, set url to {to:?}");
        return Outcome::Retry { reason, after: None };
    }
    let after = parse_retry_after(response.header(RETRY_AFTER.as_str()), now_ms);
    Outcome::Retry { reason, after }
}

/// Writes the items of a batch, those of one series together, and returns the newest timestamp of a sample.
///
/// The order of a series' items is kept: receivers take floats before histograms and samples before exemplars within
/// one series entry, so an entry ends where that would change the order of samples.
fn encode(items: &mut [Item], out: &mut WriteRequestEncoder) -> i64 {
    // Stable, and by the hash first so that equal hashes of different series stay apart by identity.
    items.sort_by_key(|i| (i.series.hash, Arc::as_ptr(&i.series) as usize));
    let mut newest_ms = i64::MIN;
    for group in items.chunk_by(|a, b| Arc::ptr_eq(&a.series, &b.series)) {
        let mut rest = group;
        while let Some(first) = rest.first() {
            if let Value::Metadata(m) = &first.value {
                out.metadata(&m.0, &m.1);
                rest = &rest[1..];
                continue;
            }
            let len = run_len(rest);
            let (run, tail) = rest.split_at(len);
            rest = tail;
            let mut series = out.series(&first.series.raw_labels);
            for item in run {
                match &item.value {
                    Value::Float(v) => series.float(item.timestamp_ms, *v),
                    Value::Histogram(h) => series.histogram(item.timestamp_ms, h),
                    Value::Exemplar(e) => {
                        series.exemplar(e);
                        continue;
                    }
                    Value::Metadata(_) => continue,
                };
                newest_ms = newest_ms.max(item.timestamp_ms);
            }
        }
    }
    newest_ms
}

/// How many items from the first on fit one series entry: samples of one kind, and exemplars anywhere among them.
fn run_len(items: &[Item]) -> usize {
    let mut kind = None;
    for (i, item) in items.iter().enumerate() {
        let is_float = match item.value {
            Value::Float(_) => true,
            Value::Histogram(_) => false,
            Value::Exemplar(_) => continue,
            Value::Metadata(_) => return i,
        };
        if *kind.get_or_insert(is_float) != is_float {
            return i;
        }
    }
    items.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::SentSeries;
    use model::{Exemplar, Histogram, Labels, Metadata};
    use wire::write_v1::{LabelScratch, WriteRequest, encode::encode_labels, to_labels};

    fn series(name: &str) -> Arc<SentSeries> {
        let labels = Labels::from_pairs([("__name__", name)]);
        let mut raw_labels = Vec::new();
        encode_labels(&labels, &mut raw_labels);
        Arc::new(SentSeries {
            raw_labels: raw_labels.into(),
            hash: labels.hash64(),
            metric_name: name.into(),
        })
    }

    fn item(series: &Arc<SentSeries>, timestamp_ms: i64, value: Value) -> Item {
        Item { series: series.clone(), timestamp_ms, value }
    }

    #[test]
    fn items_of_a_series_go_together_in_order() {
        let (a, b) = (series("a"), series("b"));
        let exemplar = Exemplar { labels: Labels::empty(), value: 1.0, timestamp_ms: Some(2) };
        let histogram = Value::Histogram(Histogram::default().into());
        let mut items = vec![
            item(&a, 1, Value::Float(1.0)),
            item(&b, 1, Value::Float(9.0)),
            item(&a, 2, Value::Exemplar(Box::new(exemplar))),
            item(&a, 3, Value::Float(2.0)),
            item(&a, 0, Value::Metadata(Box::new(("a".into(), Metadata::default())))),
            item(&a, 4, histogram.clone()),
            item(&b, 5, Value::Float(8.0)),
            item(&a, 6, Value::Float(3.0)),
        ];
        let mut out = WriteRequestEncoder::new();
        assert_eq!(encode(&mut items, &mut out), 6);
        let mut request = WriteRequest::new(out.as_bytes());
        let mut found = Vec::new();
        let mut scratch = LabelScratch::default();
        while let Some(s) = request.next_series().expect("valid") {
            let name = to_labels(s.labels(&mut scratch).expect("valid")).expect("valid").to_string();
            let floats: Vec<i64> = s.samples().map(|s| s.expect("valid").0).collect();
            found.push((name, floats, s.histograms_len(), s.exemplars_len()));
        }
        found.sort_by(|x, y| x.0.cmp(&y.0));
        let expect =
            [("a", vec![1, 3], 0, 1), ("a", vec![], 1, 0), ("a", vec![6], 0, 0), ("b", vec![1, 5], 0, 0)]
                .map(|(n, f, h, e)| (n.to_owned(), f, h, e));
        assert_eq!(found, expect);
        assert_eq!(request.metadata().count(), 1);
    }

    #[test]
    fn answers_are_classified_as_prometheus_does() {
        let check = |status: u16, retry_after: Option<&'static str>, expect: &str| {
            let mut headers = http::HeaderMap::new();
            if let Some(v) = retry_after {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(v));
            }
            let status = StatusCode::from_u16(status).expect("a status");
            let got = match classify(&Response { status, headers, body: Bytes::from("why\nmore") }, 0) {
                Outcome::Accepted => "accepted".to_owned(),
                Outcome::Retry { after, .. } => format!("retry {after:?}"),
                Outcome::Refused { code, reason } => {
                    assert!(reason.ends_with(": why"), "{reason}");
                    format!("refused {code}")
                }
            };
            assert_eq!(got, expect);
        };
        check(200, None, "accepted");
        check(204, None, "accepted");
        check(400, None, "refused 400");
        check(404, None, "refused 404");
        check(413, None, "refused 413");
        check(429, Some("3"), "retry Some(3s)");
        check(429, None, "retry None");
        check(503, Some("1"), "retry Some(1s)");
        check(500, None, "retry None");
        check(301, None, "retry None");
    }
}
