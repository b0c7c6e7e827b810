//! Remote read: `prometheus.ReadRequest` and `prometheus.ReadResponse` in samples, to and from the types of the model.
//!
//! A `QueryResult` has the shape of a `WriteRequest`, so [`WriteRequest`] reads and [`WriteRequestEncoder`] writes
//! its series. Answers streamed as chunks are [`crate::chunked`]'s and [`crate::read_chunks`]'s.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/remote_read_api/>.

use std::sync::Arc;

use model::chunk::decode_chunks;
use model::storage::{SeriesSet, joined};
use model::{Chunk, MatchOp, Matcher, RollupRequest, Sample, Samples, SelectHints, Series, StorageError};
use prost::Message;

use crate::error::Error;
use crate::proto::{Cursor, WireType, put_bytes};
use crate::rollup::RequestMessage;
use crate::write_v1::{LabelScratch, TimeSeries, WriteRequest, WriteRequestEncoder, to_labels};

/// Queries beyond this number in one request are refused.
pub const MAX_QUERIES: usize = 1000;
const RESULTS: u32 = 1;

/// A form in which a server can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseType {
    /// One `ReadResponse` with all samples.
    Samples,
    /// A stream of `ChunkedReadResponse`.
    StreamedXorChunks,
    /// A form of a later version.
    Other(i32),
}

/// A remote read request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// Each is answered by one result, in this order.
    pub queries: Vec<ReadQuery>,
    /// Forms the client takes, best first. Empty means samples.
    pub accepted: Vec<ResponseType>,
}

/// One selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadQuery {
    /// First timestamp, inclusive.
    pub mint: i64,
    /// Last timestamp, inclusive.
    pub maxt: i64,
    /// What the series must match.
    pub matchers: Vec<Matcher>,
    /// What the selection is for.
    pub hints: SelectHints,
    /// Rollups that will do in place of samples ([`crate::rollup`]).
    pub rollup: Option<RollupRequest>,
}

impl ReadRequest {
    /// A request for samples.
    #[must_use]
    pub fn samples(queries: Vec<ReadQuery>) -> Self {
        Self { queries, accepted: vec![ResponseType::Samples] }
    }

    /// The form to answer in: the first of those that the client takes and this crate speaks.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when there is none.
    pub fn answer_form(&self) -> Result<ResponseType, Error> {
        if self.accepted.is_empty() {
            return Ok(ResponseType::Samples);
        }
        let known = self.accepted.iter().find(|t| !matches!(t, ResponseType::Other(_)));
        known.copied().ok_or_else(|| {
            Error::Unsupported(format!(
                "server does not support any of the requested response types: {:?}; supported: [Samples, StreamedXorChunks]",
                self.accepted
            ))
        })
    }

    /// A request for streamed chunks, or samples where the server does not have them.
    #[must_use]
    pub fn chunks(queries: Vec<ReadQuery>) -> Self {
        Self { queries, accepted: vec![ResponseType::StreamedXorChunks, ResponseType::Samples] }
    }

    /// Reads a decompressed request.
    ///
    /// # Errors
    /// [`Error::Malformed`]; [`Error::InvalidMatcher`] for an expression that does not compile;
    /// [`Error::Unsupported`] for more than [`MAX_QUERIES`] queries.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let message = messages::ReadRequest::decode(body).map_err(|_| Error::Malformed {
            message: "ReadRequest",
            offset: 0,
            reason: "not a message of this type",
        })?;
        if message.queries.len() > MAX_QUERIES {
            return Err(Error::Unsupported(format!(
                "{} queries in one remote read request, at most {MAX_QUERIES} are taken",
                message.queries.len()
            )));
        }
        let queries = message.queries.into_iter().map(query_of).collect::<Result<_, _>>()?;
        let accepted = message.accepted_response_types.into_iter().map(response_type_of).collect();
        Ok(Self { queries, accepted })
    }

    /// The request as bytes, not yet compressed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = messages::ReadRequest {
            queries: self.queries.iter().map(message_of).collect(),
            accepted_response_types: self.accepted.iter().map(|t| response_type_number(*t)).collect(),
        };
        message.encode_to_vec()
    }
}

fn response_type_of(number: i32) -> ResponseType {
    match number {
        0 => ResponseType::Samples,
        1 => ResponseType::StreamedXorChunks,
        n => ResponseType::Other(n),
    }
}

fn response_type_number(t: ResponseType) -> i32 {
    match t {
        ResponseType::Samples => 0,
        ResponseType::StreamedXorChunks => 1,
        ResponseType::Other(n) => n,
    }
}

fn query_of(q: messages::Query) -> Result<ReadQuery, Error> {
    let matchers = q.matchers.into_iter().map(matcher_of).collect::<Result<_, _>>()?;
    let hints = q.hints.map(hints_of).unwrap_or_default();
    let rollup = q.rollup.and_then(|r| r.request());
    Ok(ReadQuery { mint: q.start_timestamp_ms, maxt: q.end_timestamp_ms, matchers, hints, rollup })
}

fn matcher_of(m: messages::LabelMatcher) -> Result<Matcher, Error> {
    let op = match m.r#type {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Regexp,
        3 => MatchOp::NotRegexp,
        n => return Err(Error::InvalidMatcher(format!("unknown matcher type {n}"))),
    };
    Matcher::new(op, m.name, m.value).map_err(|e| Error::InvalidMatcher(e.to_string()))
}

fn hints_of(h: messages::ReadHints) -> SelectHints {
    SelectHints {
        start_ms: h.start_ms,
        end_ms: h.end_ms,
        step_ms: h.step_ms,
        range_ms: h.range_ms,
        func: h.func,
        grouping: h.grouping,
        by: h.by,
        ..SelectHints::default()
    }
}

fn message_of(q: &ReadQuery) -> messages::Query {
    let matcher = |m: &Matcher| messages::LabelMatcher {
        r#type: match m.op {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regexp => 2,
            MatchOp::NotRegexp => 3,
        },
        name: m.name.clone(),
        value: m.value.clone(),
    };
    messages::Query {
        start_timestamp_ms: q.mint,
        end_timestamp_ms: q.maxt,
        matchers: q.matchers.iter().map(matcher).collect(),
        hints: Some(messages::ReadHints {
            step_ms: q.hints.step_ms,
            func: q.hints.func.clone(),
            start_ms: q.hints.start_ms,
            end_ms: q.hints.end_ms,
            grouping: q.hints.grouping.clone(),
            by: q.hints.by,
            range_ms: q.hints.range_ms,
        }),
        rollup: q.rollup.as_ref().map(RequestMessage::of),
    }
}

// === Responses ===

/// Builds a `ReadResponse`.
#[derive(Debug, Default)]
pub struct ReadResponseEncoder {
    out: Vec<u8>,
    result: WriteRequestEncoder,
}

impl ReadResponseEncoder {
    /// A response without results.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the result of the next query: all samples of `set` within `[mint, maxt]`. `samples_left` is counted down.
    ///
    /// # Errors
    /// What `set` reports, and [`StorageError::Limit`] when `samples_left` does not suffice.
    pub fn result(
        &mut self,
        set: &mut dyn SeriesSet,
        mint: i64,
        maxt: i64,
        samples_left: &mut usize,
    ) -> Result<(), StorageError> {
        self.result.clear();
        let mut samples = Samples::new();
        while let Some(series) = set.next()? {
            decode_chunks(&series.chunks, mint, maxt, &mut samples)?;
            let Some(left) = samples_left.checked_sub(samples.len()) else {
                return Err(StorageError::Limit(
                    "the answer exceeds the sample limit of remote read (storage.remote.read-sample-limit)"
                        .into(),
                ));
            };
            *samples_left = left;
            if samples.is_empty() {
                continue;
            }
            let mut out = self.result.series_of(&series.labels);
            for i in 0..samples.len() {
                let timestamp_ms = samples.timestamps_ms[i];
                match samples.histogram(i) {
                    None => out.float(timestamp_ms, samples.values[i]),
                    Some(h) => out.histogram(timestamp_ms, h),
                };
            }
        }
        put_bytes(&mut self.out, RESULTS, self.result.as_bytes());
        Ok(())
    }

    /// The response, not yet compressed.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

/// The results of a decompressed `ReadResponse`, one list of series per query, each sorted by labels and without
/// duplicates; of several series with the same labels the chunks are put together. Series without samples are left out.
///
/// # Errors
/// [`Error::Malformed`], [`Error::InvalidLabels`].
pub fn decode_response(body: &[u8]) -> Result<Vec<Vec<Series>>, Error> {
    let mut results = Vec::new();
    let mut cursor = Cursor::new(body, "ReadResponse");
    while let Some(tag) = cursor.tag()? {
        if tag.field == RESULTS {
            cursor.expect(tag, WireType::Bytes)?;
            results.push(decode_result(cursor.bytes()?)?);
        } else {
            cursor.skip(tag.wire_type)?;
        }
    }
    Ok(results)
}

fn decode_result(bytes: &[u8]) -> Result<Vec<Series>, Error> {
    let mut scratch = LabelScratch::default();
    let mut list = Vec::new();
    let mut reader = WriteRequest::new(bytes);
    while let Some(series) = reader.next_series()? {
        let labels = to_labels(series.labels(&mut scratch)?)?;
        let samples = samples_of(&series)?;
        if !samples.is_empty() {
            list.push(Series { labels, chunks: vec![Chunk::columns(Arc::new(samples))] });
        }
    }
    Ok(joined(list))
}

/// The samples of a series, floats and histograms in one sequence that strictly rises; of several at one time the
/// first counts.
fn samples_of(series: &TimeSeries<'_>) -> Result<Samples, Error> {
    let mut out = Samples::new();
    let mut ordered = series.histograms_len() == 0;
    for s in series.samples() {
        let (t, v) = s?;
        ordered &= out.timestamps_ms.last().is_none_or(|last| *last < t);
        out.push_float(t, v);
    }
    if ordered {
        return Ok(out);
    }
    let mut all: Vec<Sample> = out.iter().collect();
    for h in series.histograms() {
        all.push(h?);
    }
    all.sort_by_key(|s| s.timestamp_ms);
    all.dedup_by_key(|s| s.timestamp_ms);
    out.clear();
    all.into_iter().for_each(|s| out.push(s));
    Ok(out)
}

/// Messages as the specification declares them.
mod messages {
    use crate::rollup::RequestMessage;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ReadRequest {
        #[prost(message, repeated, tag = "1")]
        pub(super) queries: Vec<Query>,
        #[prost(int32, repeated, tag = "2")]
        pub(super) accepted_response_types: Vec<i32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Query {
        #[prost(int64, tag = "1")]
        pub(super) start_timestamp_ms: i64,
        #[prost(int64, tag = "2")]
        pub(super) end_timestamp_ms: i64,
        #[prost(message, repeated, tag = "3")]
        pub(super) matchers: Vec<LabelMatcher>,
        #[prost(message, optional, tag = "4")]
        pub(super) hints: Option<ReadHints>,
        #[prost(message, optional, tag = "1000")]
        pub(super) rollup: Option<RequestMessage>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct LabelMatcher {
        #[prost(int32, tag = "1")]
        pub(super) r#type: i32,
        #[prost(string, tag = "2")]
        pub(super) name: String,
        #[prost(string, tag = "3")]
        pub(super) value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ReadHints {
        #[prost(int64, tag = "1")]
        pub(super) step_ms: i64,
        #[prost(string, tag = "2")]
        pub(super) func: String,
        #[prost(int64, tag = "3")]
        pub(super) start_ms: i64,
        #[prost(int64, tag = "4")]
        pub(super) end_ms: i64,
        #[prost(string, repeated, tag = "5")]
        pub(super) grouping: Vec<String>,
        #[prost(bool, tag = "6")]
        pub(super) by: bool,
        #[prost(int64, tag = "7")]
        pub(super) range_ms: i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::storage::VecSeriesSet;
    use model::{Histogram, Labels};
    use proptest::prelude::*;

    fn series(name: &str, samples: Vec<Sample>) -> Series {
        let mut columns = Samples::new();
        samples.into_iter().for_each(|s| columns.push(s));
        Series {
            labels: Labels::from_pairs([("__name__", name)]),
            chunks: vec![Chunk::columns(Arc::new(columns))],
        }
    }

    fn flat(series: &[Series]) -> Vec<(String, Vec<Sample>)> {
        let mut samples = Samples::new();
        let one = |s: &Series| {
            decode_chunks(&s.chunks, i64::MIN, i64::MAX, &mut samples).expect("columns");
            (s.labels.to_string(), samples.iter().collect())
        };
        series.iter().map(one).collect()
    }

    #[test]
    fn requests_round_trip() {
        let request = ReadRequest {
            queries: vec![ReadQuery {
                mint: -5,
                maxt: 10,
                matchers: vec![
                    Matcher::equal("a", "1"),
                    Matcher::not_equal("b", ""),
                    Matcher::new(MatchOp::Regexp, "c", "x.*").expect("valid"),
                    Matcher::new(MatchOp::NotRegexp, "d", "y").expect("valid"),
                ],
                hints: SelectHints {
                    start_ms: 1,
                    end_ms: 2,
                    step_ms: 3,
                    range_ms: 4,
                    func: "rate".into(),
                    grouping: vec!["a".into()],
                    by: true,
                    ..SelectHints::default()
                },
                rollup: RollupRequest::for_windows(7, 5, 2, 5, model::RollupColumns::SUM, true),
            }],
            accepted: vec![ResponseType::StreamedXorChunks, ResponseType::Samples],
        };
        assert_eq!(ReadRequest::decode(&request.encode()), Ok(request.clone()));
        assert_eq!(request.answer_form(), Ok(ResponseType::StreamedXorChunks), "the client's first choice");
        let form = |accepted: &[ResponseType]| {
            ReadRequest { queries: vec![], accepted: accepted.to_vec() }.answer_form()
        };
        assert_eq!(form(&[]), Ok(ResponseType::Samples));
        assert_eq!(form(&[ResponseType::Other(7), ResponseType::Samples]), Ok(ResponseType::Samples));
        assert!(matches!(form(&[ResponseType::Other(7)]), Err(Error::Unsupported(_))));
    }

    #[test]
    fn bad_requests_are_errors() {
        assert!(matches!(ReadRequest::decode(&[0xff; 20]), Err(Error::Malformed { .. })));
        let mut message = messages::ReadRequest {
            queries: vec![messages::Query {
                matchers: vec![messages::LabelMatcher { r#type: 2, name: "a".into(), value: "(".into() }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let e = ReadRequest::decode(&message.encode_to_vec()).expect_err("does not compile");
        assert!(matches!(e, Error::InvalidMatcher(_)), "{e}");
        message.queries = vec![messages::Query::default(); MAX_QUERIES + 1];
        let e = ReadRequest::decode(&message.encode_to_vec()).expect_err("too many");
        assert!(matches!(e, Error::Unsupported(_)), "{e}");
    }

    #[test]
    fn responses_round_trip_within_the_range() {
        let histogram = Histogram { count: 1, ..Histogram::default() };
        let a =
            series("a", vec![Sample::float(1, 1.0), Sample::float(2, 2.0), Sample::histogram(3, histogram)]);
        let b = series("b", vec![Sample::float(9, 1.0)]);
        let mut left = 10;
        let mut out = ReadResponseEncoder::new();
        out.result(&mut VecSeriesSet::new(vec![a.clone(), b.clone()], vec![]), 2, 5, &mut left)
            .expect("fits");
        out.result(&mut VecSeriesSet::new(vec![b.clone()], vec![]), 0, 10, &mut left).expect("fits");
        assert_eq!(left, 7);
        let bytes = out.into_bytes();
        let results = decode_response(&bytes).expect("valid");
        let mut expect = flat(&[a]);
        expect[0].1.remove(0);
        assert_eq!(results.len(), 2);
        assert_eq!(flat(&results[0]), expect);
        assert_eq!(flat(&results[1]), flat(&[b]));
        for len in 0..bytes.len() {
            let _ = decode_response(&bytes[..len]);
        }
    }

    #[test]
    fn the_sample_limit_holds() {
        let mut left = 1;
        let a = series("a", vec![Sample::float(1, 1.0), Sample::float(2, 2.0)]);
        let e = ReadResponseEncoder::new().result(&mut VecSeriesSet::new(vec![a], vec![]), 0, 9, &mut left);
        assert!(matches!(e, Err(StorageError::Limit(_))));
    }

    #[test]
    fn unordered_answers_are_put_in_order() {
        let mut result = WriteRequestEncoder::new();
        let (a, b) = (Labels::from_pairs([("l", "a")]), Labels::from_pairs([("l", "b")]));
        result.series_of(&b).float(5, 1.0).float(3, 2.0).float(5, 9.0);
        result.series_of(&a).float(1, 1.0);
        result.series_of(&b).float(4, 4.0);
        let mut body = Vec::new();
        put_bytes(&mut body, RESULTS, result.as_bytes());
        let results = decode_response(&body).expect("valid");
        let floats = |l: &[(i64, f64)]| l.iter().map(|(t, v)| Sample::float(*t, *v)).collect::<Vec<_>>();
        let expect = [
            ("{l=\"a\"}".to_owned(), floats(&[(1, 1.0)])),
            ("{l=\"b\"}".to_owned(), floats(&[(3, 2.0), (4, 4.0), (5, 1.0)])),
        ];
        assert_eq!(flat(&results[0]), expect);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_response(&bytes);
            let _ = ReadRequest::decode(&bytes);
        }
    }
}
