//! Questions and answers of remote read of any bytes: requests, answers of samples, streamed chunks and rollups, digests of the
//! audit. The first byte chooses which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::chunk::decode_chunks;
use model::{Chunk, Labels, Matcher, Sample, Samples, SelectHints};
use wire::chunked::FrameEncoder;
use wire::read::{ReadQuery, ReadRequest, decode_response};
use wire::read_chunks::{ChunkLimits, decode_chunked};
use wire::snappy::Decompressor;

const LIMITS: ChunkLimits = ChunkLimits { mint: 0, maxt: i64::MAX, frame_len_bytes: 1 << 20, samples: 100_000 };

fn request() -> Vec<u8> {
    let query = ReadQuery {
        mint: 1,
        maxt: 2,
        matchers: vec![Matcher::equal("__name__", "m"), Matcher::not_equal("i", "")],
        hints: SelectHints::default(),
        rollup: None,
    };
    ReadRequest::chunks(vec![query]).encode()
}

fn stream() -> Vec<u8> {
    let (mut out, mut encoder, mut samples) = (Vec::new(), FrameEncoder::new(1 << 16), Samples::new());
    (0..100).for_each(|i| samples.push(Sample::float(i * 15_000, i as f64 * 0.5)));
    encoder.begin(0, &Labels::from_pairs([("__name__", "m"), ("i", "1")]));
    let chunks: Vec<Chunk> = tsdb::chunk::encode_common(&samples);
    chunks.iter().for_each(|c| encoder.chunk(c, &mut out));
    encoder.end(&mut out);
    out
}

/// Checksums of frames are put right, or little would get past them.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), data);
    while let Some((len, after)) = varint(rest) {
        let Some((message, next)) =
            after.get(4..).and_then(|m| m.split_at_checked(usize::try_from(len).unwrap_or(usize::MAX)))
        else {
            break;
        };
        out.extend_from_slice(&rest[..rest.len() - after.len()]);
        out.extend_from_slice(&crc32c::crc32c(message).to_be_bytes());
        out.extend_from_slice(message);
        rest = next;
    }
    out.extend_from_slice(rest);
    out
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut n = 0_u64;
    for (i, b) in bytes.iter().take(9).enumerate() {
        n |= u64::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return Some((n, &bytes[i + 1..]));
        }
    }
    None
}

fuzz_target!(
    init: {
        if let Some(folder) = std::env::var_os("ALMANAC_FUZZ_SEEDS").map(std::path::PathBuf::from) {
            for (choice, body) in [(0_u8, request()), (2, stream())] {
                let seed = [&[choice][..], &body].concat();
                std::fs::write(folder.join(format!("seed-{choice}")), seed).expect("the folder is there");
            }
        }
    },
    |data: &[u8]| {
        let Some((choice, body)) = data.split_first() else { return };
        match choice % 6 {
            0 => {
                if let Ok(request) = ReadRequest::decode(body) {
                    let again = ReadRequest::decode(&request.encode()).expect("own bytes");
                    assert_eq!(again.queries.len(), request.queries.len());
                }
            }
            1 => drop(decode_response(body)),
            2 => {
                let body = with_checksums(body).into();
                let Ok(list) = decode_chunked(&body, tsdb::chunk::codec, LIMITS) else { return };
                assert!(list.is_sorted_by(|a, b| a.labels < b.labels));
                for series in list {
                    let mut samples = Samples::new();
                    if series.chunks.iter().all(|c| c.as_rollup().is_none()) {
                        decode_chunks(&series.chunks, 0, i64::MAX, &mut samples).expect("decoded before");
                        assert!(samples.timestamps_ms.is_sorted_by(|a, b| a < b));
                    }
                }
            }
            3 => federation::store::fuzz::check_wire_rollup(body),
            4 => drop(wire::digest::decode(body)),
            _ => {
                let mut out = Vec::new();
                if Decompressor::new().decompress(body, 1 << 20, &mut out).is_ok() {
                    assert!(out.len() <= 1 << 20);
                }
            }
        }
    }
);
