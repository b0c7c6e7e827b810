//! From samples to acknowledged requests: encodes, sends, tries again, and counts what is refused.
//!
//! Used by the shards of the live lane and by the backlog lane. What is handed in is in the end acknowledged with a
//! 2xx, refused for good (answers in the 400s but 429) or too old to be sent; the last two are counted by reason. A
//! body that is too large for the destination (413) is halved. A destination that does not know version 2.0 (415, or a
//! 2xx that does not say what was written, as receivers of 1.0 give it to a message that they do not understand) gets
//! version 1.0 from then on.
//!
//! Specs: <https://prometheus.io/docs/specs/prw/remote_write_spec/>,
//! <https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use model::trace::{self, Span, SpanKind};
use wire::snappy::Compressor;
use wire::write_v1::WriteRequestEncoder;
use wire::write_v2::RequestEncoder;

use crate::backoff::{Backoff, parse_retry_after};
use crate::config::Protocol;
use crate::http::{Need, Outgoing, Response};
use crate::sender::Shared;
use crate::sender::metrics::Counts;

mod load;

pub(crate) use load::Load;

const VERSION: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
const RETRY_ATTEMPT: HeaderName = HeaderName::from_static("retry-attempt");
const WRITTEN: [&str; 3] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
    "x-prometheus-remote-write-exemplars-written",
];
/// Longest answer read; only its first line is of use.
const RESPONSE_LIMIT_BYTES: usize = 64 << 10;

/// What to do after an attempt.
#[derive(Debug)]
enum Outcome {
    /// Taken; what was written, when the answer says so.
    Accepted(Option<Counts>),
    Retry {
        reason: String,
        after: Option<Duration>,
    },
    /// For good; what was written all the same, when the answer says so.
    Refused {
        code: String,
        reason: String,
        written: Option<Counts>,
    },
    /// Smaller pieces may pass.
    TooLarge(String),
    /// The destination does not know this version.
    OtherVersion(String),
}

impl Outcome {
    /// Why it was not taken.
    fn failure(&self) -> Option<&str> {
        match self {
            Self::Accepted(_) => None,
            Self::Retry { reason, .. }
            | Self::Refused { reason, .. }
            | Self::TooLarge(reason)
            | Self::OtherVersion(reason) => Some(reason),
        }
    }
}

/// What became of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Samples and histograms that the destination has.
    pub(crate) accepted: u64,
    /// Samples and histograms that it refused for good or that were too old.
    pub(crate) not_sent: u64,
    /// Time spent in requests.
    pub(crate) busy: Duration,
}

/// Sends one load after the other, in the same memory.
pub(crate) struct Delivery {
    shared: Arc<Shared>,
    v1: WriteRequestEncoder,
    v2: RequestEncoder,
    body: Vec<u8>,
    compressor: Compressor,
    compressed: Vec<u8>,
}

impl Delivery {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            v1: WriteRequestEncoder::new(),
            v2: RequestEncoder::new(),
            body: Vec::new(),
            compressor: Compressor::new(),
            compressed: Vec::new(),
        }
    }

    /// Tries until the destination has taken everything or refused it for good.
    pub(crate) async fn deliver(&mut self, load: Load) -> Delivered {
        let mut delivered = Delivered::default();
        // Parts that are still to be sent, the next one last; some can only go as version 1.0.
        let mut parts = vec![(load, false)];
        while let Some((part, only_v1)) = parts.pop() {
            self.part(part, only_v1, &mut parts, &mut delivered).await;
        }
        delivered
    }

    /// Sends one part, or leaves smaller ones in `parts`.
    async fn part(
        &mut self,
        mut load: Load,
        only_v1: bool,
        parts: &mut Vec<(Load, bool)>,
        delivered: &mut Delivered,
    ) {
        let queue = &self.shared.config.queue;
        let mut backoff = Backoff::new(queue.min_backoff, queue.max_backoff);
        let mut attempt = 0_u32;
        let mut protocol = None;
        let mut body = Bytes::new();
        loop {
            let dropped = self.drop_old(&mut load);
            delivered.not_sent += dropped.samples + dropped.histograms;
            let wanted = if only_v1 { Protocol::V1 } else { self.shared.protocol() };
            // Encoded once, and again only when what is to be sent has changed.
            if protocol != Some(wanted) || !dropped.is_zero() {
                protocol = Some(wanted);
                match self.encode(&mut load, wanted) {
                    Ok((bytes, rest, unsent)) => {
                        body = bytes;
                        delivered.not_sent += unsent;
                        if let Some(rest) = rest {
                            parts.push((rest, true));
                        }
                    }
                    Err(e) => {
                        let counts = load.counts();
                        delivered.not_sent += counts.samples + counts.histograms;
                        return self.refused(counts, "encode", &e.to_string());
                    }
                }
            }
            let counts = load.counts();
            if counts.is_zero() {
                return;
            }
            let start = self.shared.clock.monotonic();
            let outcome = self.attempt(body.clone(), wanted, counts, attempt).await;
            let took = self.shared.clock.monotonic().saturating_sub(start);
            delivered.busy += took;
            let metrics = &self.shared.metrics;
            metrics.sent_batch_duration.observe(took.as_secs_f64());
            metrics.bytes.inc_by(body.len() as u64);
            match outcome {
                Outcome::Accepted(written) => {
                    let missing = written.map_or(Counts::default(), |w| counts.minus(w));
                    if !missing.is_zero() {
                        self.refused(missing, "not_written", "the destination took less than it was sent");
                    }
                    let taken = counts.minus(missing);
                    metrics.add(taken, |kind| &kind.total);
                    delivered.accepted += taken.samples + taken.histograms;
                    delivered.not_sent += missing.samples + missing.histograms;
                    self.shared.note_sent(load.newest_ms());
                    return;
                }
                Outcome::Refused { code, reason, written } => {
                    let taken = written.map_or(Counts::default(), |w| counts.minus(counts.minus(w)));
                    let lost = counts.minus(taken);
                    metrics.add(taken, |kind| &kind.total);
                    delivered.accepted += taken.samples + taken.histograms;
                    delivered.not_sent += lost.samples + lost.histograms;
                    return self.refused(lost, &code, &reason);
                }
                Outcome::TooLarge(reason) => match load.halve() {
                    Ok((first, second)) => {
                        metrics.split.inc();
                        parts.push((second, only_v1));
                        parts.push((first, only_v1));
                        return;
                    }
                    Err(one) => {
                        let counts = one.counts();
                        delivered.not_sent += counts.samples + counts.histograms;
                        return self.refused(counts, "413", &reason);
                    }
                },
                Outcome::OtherVersion(reason) => self.fall_back(&reason),
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

    /// Takes out what is older than the limit, and counts it.
    fn drop_old(&self, load: &mut Load) -> Counts {
        let Some(limit) = self.shared.config.sample_age_limit else { return Counts::default() };
        let oldest_ms = self.shared.clock.now_ms().saturating_sub_unsigned(limit.as_millis() as u64);
        let dropped = load.drop_older(oldest_ms);
        self.shared.metrics.dropped(dropped, "too_old");
        dropped
    }

    /// The compressed body; what version 2.0 cannot carry, to be sent as 1.0; and the number of histograms that 1.0 does
    /// not carry, which are taken out and counted.
    fn encode(
        &mut self,
        load: &mut Load,
        protocol: Protocol,
    ) -> Result<(Bytes, Option<Load>, u64), wire::Error> {
        let mut rest = None;
        let mut unsent = 0;
        match protocol {
            Protocol::V1 => {
                if !self.shared.config.send_custom_buckets {
                    unsent = load.drop_custom_buckets();
                    let dropped = Counts { histograms: unsent, ..Counts::default() };
                    self.shared.metrics.dropped(dropped, "nhcb_in_rw1_not_supported");
                }
                self.v1.clear();
                load.encode_v1(&mut self.v1);
                self.compressor.compress(self.v1.as_bytes(), &mut self.compressed)?;
            }
            Protocol::V2 => {
                rest = load.split_off_v1();
                self.v2.clear();
                load.encode_v2(&mut self.v2);
                self.v2.finish(&mut self.body);
                self.compressor.compress(&self.body, &mut self.compressed)?;
            }
        }
        Ok((Bytes::copy_from_slice(&self.compressed), rest, unsent))
    }

    async fn attempt(&self, body: Bytes, protocol: Protocol, counts: Counts, attempt: u32) -> Outcome {
        let (kind, version) = match protocol {
            Protocol::V1 => ("application/x-protobuf", "0.1.0"),
            Protocol::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        let mut headers = vec![
            (CONTENT_ENCODING, HeaderValue::from_static("snappy")),
            (CONTENT_TYPE, HeaderValue::from_static(kind)),
            (VERSION, HeaderValue::from_static(version)),
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
        let mut span = self.span(request.body.len(), counts, attempt);
        let store = span.link().child("Remote Store", SpanKind::Client);
        // The limit holds whatever carries the request.
        let sending = trace::within(store.link(), self.shared.transport.send(request));
        let answer = tokio::time::timeout(self.shared.config.remote_timeout, sending).await;
        drop(store);
        let outcome = match answer {
            Ok(Ok(response)) => classify(&response, protocol, counts, self.shared.clock.now_ms()),
            Ok(Err(e)) => Outcome::Retry { reason: e.to_string(), after: None },
            Err(_) => Outcome::Retry { reason: "no answer in time".into(), after: None },
        };
        if let Some(reason) = outcome.failure() {
            span.note_error(&reason);
        }
        outcome
    }

    /// The span of an attempt, as Prometheus's queues have it.
    fn span(&self, len_bytes: usize, counts: Counts, attempt: u32) -> Span {
        let mut span = self.shared.tracer.start("Remote Send Batch");
        if span.is_recording() {
            span.set("request_size", len_bytes as i64);
            span.set("samples", counts.samples as i64);
            span.set("try", i64::from(attempt));
            span.set("remote_name", self.shared.config.name.clone());
            span.set("remote_url", self.shared.uri.to_string());
            for (key, count) in [("exemplars", counts.exemplars), ("histograms", counts.histograms)] {
                if count > 0 {
                    span.set(key, count as i64);
                }
            }
            if attempt > 0 {
                span.set("http.request.resend_count", i64::from(attempt));
            }
        }
        span
    }

    fn fall_back(&self, reason: &str) {
        if !self.shared.only_v1.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                destination = self.shared.config.name,
                reason,
                "the destination does not take remote write 2.0; going on with 1.0, which has no start timestamps"
            );
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
fn classify(response: &Response, protocol: Protocol, counts: Counts, now_ms: i64) -> Outcome {
    let status = response.status;
    let written = written(response);
    if status.is_success() {
        let samples = counts.samples + counts.histograms + counts.exemplars;
        if protocol == Protocol::V2 && written.is_none() && samples > 0 {
            return Outcome::OtherVersion("its answer does not say what was written".into());
        }
        return Outcome::Accepted(written);
    }
    let reason = format!("server returned HTTP status {status}: {}", response.first_line());
    match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE if protocol == Protocol::V2 => Outcome::OtherVersion(reason),
        StatusCode::PAYLOAD_TOO_LARGE => Outcome::TooLarge(reason),
        StatusCode::TOO_MANY_REQUESTS => retry(response, reason, now_ms),
        s if s.is_client_error() => {
            // Only version 2.0 says what it wrote; of 1.0 nothing is known, so all counts as refused.
            let written = written.filter(|_| protocol == Protocol::V2);
            Outcome::Refused { code: status.as_str().to_owned(), reason, written }
        }
        s if s.is_redirection() => {
            let to = response.header("location");
            let reason = format!("{reason}: redirects are not followed, set url to {to:?}");
            Outcome::Retry { reason, after: None }
        }
        _ => retry(response, reason, now_ms),
    }
}

fn retry(response: &Response, reason: String, now_ms: i64) -> Outcome {
    Outcome::Retry { reason, after: parse_retry_after(response.header(RETRY_AFTER.as_str()), now_ms) }
}

/// What the answer says was written; `None` when it has none of the headers. A header that is missing beside others
/// means 0.
fn written(response: &Response) -> Option<Counts> {
    if WRITTEN.iter().all(|name| response.header(name).is_empty()) {
        return None;
    }
    let [samples, histograms, exemplars] = WRITTEN.map(|name| response.header(name).parse().unwrap_or(0));
    // Metadata is not told.
    Some(Counts { samples, histograms, exemplars, metadata: u64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_classified_as_the_specification_says() {
        let counts = Counts { samples: 3, exemplars: 1, ..Counts::default() };
        let check = |protocol, status: u16, header: Option<(&'static str, &'static str)>, expect: &str| {
            let mut headers = http::HeaderMap::new();
            if let Some((n, v)) = header {
                headers.insert(n, HeaderValue::from_static(v));
            }
            let status = StatusCode::from_u16(status).expect("a status");
            let response = Response { status, headers, body: Bytes::from("why\nmore") };
            let got = match classify(&response, protocol, counts, 0) {
                Outcome::Accepted(written) => format!("accepted {:?}", written.map(|w| w.samples)),
                Outcome::Retry { after, .. } => format!("retry {after:?}"),
                Outcome::Refused { code, reason, written } => {
                    assert!(reason.ends_with(": why"), "{reason}");
                    format!("refused {code} {:?}", written.map(|w| w.samples))
                }
                Outcome::TooLarge(_) => "too large".to_owned(),
                Outcome::OtherVersion(_) => "other version".to_owned(),
            };
            assert_eq!(got, expect);
        };
        use Protocol::{V1, V2};
        let said = Some((WRITTEN[0], "2"));
        check(V1, 200, None, "accepted None");
        check(V1, 204, None, "accepted None");
        check(V2, 204, said, "accepted Some(2)");
        check(V2, 204, None, "other version");
        check(V1, 400, said, "refused 400 None");
        check(V2, 400, said, "refused 400 Some(2)");
        check(V1, 404, None, "refused 404 None");
        check(V1, 413, None, "too large");
        check(V1, 415, None, "refused 415 None");
        check(V2, 415, None, "other version");
        check(V1, 429, Some(("retry-after", "3")), "retry Some(3s)");
        check(V1, 429, None, "retry None");
        check(V1, 503, Some(("retry-after", "1")), "retry Some(1s)");
        check(V2, 500, None, "retry None");
        check(V1, 301, None, "retry None");
    }
}
