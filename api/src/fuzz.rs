//! For `fuzz/` and tests: requests of remote write through all that the receiver does with them, into a store in memory.

use model::memory::MemoryStorage;
use model::{Labels, Queryable, SelectHints};
use wire::snappy::{Compressor, Decompressor};
use wire::write_v1::WriteRequestEncoder;
use wire::write_v2::RequestEncoder;

use crate::config::RemoteWriteConfig;
use crate::metrics::Metrics;
use crate::remote_write::{Message, Received, Receiver};

/// What the clock shows.
const NOW_MS: i64 = 1_704_067_200_000;
/// Most bytes of a request once decompressed.
const MAX_DECODED_BYTES: usize = 1 << 20;

/// Good requests, not compressed; `is_v2` says of which version.
#[must_use]
pub fn seeds(is_v2: bool) -> Vec<Vec<u8>> {
    let labels = [
        Labels::from_pairs([("__name__", "a"), ("i", "1")]),
        Labels::from_pairs([("__name__", "b"), ("é", "\u{7f}\"")]),
    ];
    let exemplar = model::Exemplar {
        labels: Labels::from_pairs([("trace_id", "x")]),
        value: 1.0,
        timestamp_ms: Some(NOW_MS),
    };
    let histogram = model::HistogramValue::from(model::Histogram {
        schema: 1,
        count: 5,
        sum: 2.5,
        positive_spans: vec![model::histogram::Span { offset: -1, length: 2 }],
        positive_buckets: vec![2, 1],
        ..model::Histogram::default()
    });
    if is_v2 {
        let mut encoder = RequestEncoder::new();
        for l in &labels {
            encoder
                .series(l)
                .float(NOW_MS, NOW_MS - 1, f64::from_bits(0x7ff0_0000_0000_0002))
                .histogram(NOW_MS + 1, 0, &histogram)
                .exemplar(&exemplar);
        }
        let mut body = Vec::new();
        encoder.finish(&mut body);
        return vec![body];
    }
    let mut encoder = WriteRequestEncoder::new();
    for l in &labels {
        encoder.series_of(l).float(NOW_MS, 1.5).histogram(NOW_MS + 1, &histogram).exemplar(&exemplar);
    }
    vec![encoder.as_bytes().to_vec()]
}

/// Takes in a body twice, as a sender that heard no answer would have it, and looks at the answers and at what is stored. The
/// body is compressed first, unless it is said to be so already.
pub fn remote_write(is_v2: bool, is_compressed: bool, body: &[u8]) {
    let mut compressed = Vec::new();
    let body = if is_compressed {
        body
    } else {
        Compressor::new().compress(body, &mut compressed).expect("short enough");
        &compressed
    };
    let config = RemoteWriteConfig { max_decoded_bytes: MAX_DECODED_BYTES, ..RemoteWriteConfig::default() };
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("an empty registry takes all names");
    let receiver = Receiver::new(&config, metrics);
    let store = MemoryStorage::new();
    let message = if is_v2 { Message::V2 } else { Message::V1 };
    let take = || match receiver.receive(&store, &config, NOW_MS, message, body) {
        Received::Done(response) => response.status().as_u16(),
        Received::NotYet(_) => unreachable!("a store in memory never waits"),
    };
    let status = take();
    let stored = check_stored(&store, &config);
    assert!([204, 400, 413].contains(&status), "{status}");
    assert!(status == 204 || status == 400 || stored == 0, "what is refused whole leaves nothing");
    if Decompressor::new().decompress(body, MAX_DECODED_BYTES, &mut Vec::new()).is_err() {
        assert!(status != 204 && stored == 0, "a body that does not decompress");
    }
    assert_eq!((take(), check_stored(&store, &config)), (status, stored), "twice is as once");
}

/// How many samples there are, each of a series that may be and at a time that may be.
fn check_stored(store: &MemoryStorage, config: &RemoteWriteConfig) -> usize {
    let querier = store.querier(i64::MIN, i64::MAX).expect("in memory");
    let mut set = querier.select(&[], &SelectHints::default()).expect("in memory");
    let (mut samples, mut all) = (model::Samples::new(), 0);
    while let Some(series) = set.next().expect("in memory") {
        assert!(!series.labels.metric_name().is_empty(), "{}", series.labels);
        assert!(Labels::from_packed(series.labels.as_packed()).is_some(), "sorted, none empty, none twice");
        samples.clear();
        model::chunk::decode_chunks(&series.chunks, i64::MIN, i64::MAX, &mut samples).expect("in memory");
        let newest = samples.timestamps_ms.last().copied().unwrap_or(i64::MIN);
        assert!(newest <= NOW_MS + config.max_ahead_ms, "{} at {newest}", series.labels);
        all += samples.len();
    }
    all
}

#[cfg(test)]
mod tests {
    use model::rng::Rng;

    use super::*;

    fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
        if bytes.is_empty() {
            return bytes.push(rng.index(256) as u8);
        }
        let at = rng.index(bytes.len());
        match rng.index(5) {
            0 => bytes[at] ^= 1 << rng.index(8),
            1 => bytes[at] = [0, 0xff, 0x7f, 0x80][rng.index(4)],
            2 => bytes.truncate(at),
            3 => {
                let part = bytes[at..at + rng.index(16).min(bytes.len() - at)].to_vec();
                drop(bytes.splice(at..at, part));
            }
            _ => bytes[at] = rng.index(256) as u8,
        }
    }

    /// Mutations of good requests, from a fixed seed; `fuzz/` goes on.
    #[test]
    fn mutated_requests_are_taken_or_refused() {
        for (is_v2, is_compressed) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut good = seeds(is_v2).remove(0);
            if is_compressed {
                let mut block = Vec::new();
                Compressor::new().compress(&good, &mut block).expect("short enough");
                good = block;
            }
            remote_write(is_v2, is_compressed, &good);
            let mut rng = Rng::new(7);
            for round in 0..1000 {
                let mut bytes = good.clone();
                (0..1 + rng.index(4)).for_each(|_| mutate(&mut bytes, &mut rng));
                let run = || remote_write(is_v2, is_compressed, &bytes);
                let what = format!("version 2: {is_v2}, compressed: {is_compressed}, round {round}");
                assert!(std::panic::catch_unwind(run).is_ok(), "{what}: {bytes:02x?}");
            }
        }
    }
}
