//! Foreign bytes in every place where this crate reads some from a disk: whatever they are, there is an answer or an error, no
//! panic, in bounded time and memory. For `fuzz/` and for mutations in `cargo test`; checksums are taken for right, so that the
//! bytes get to the decoders.
//!
//! Reading order: [`TARGETS`], [`seeds`] (good bytes to begin with), [`check`].

#![allow(clippy::missing_panics_doc, reason = "a panic is what is looked for")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use model::clock::ManualClock;
use model::histogram::Span;
use model::storage::{Appendable, Queryable};
use model::{
    Chunk, Clock, Exemplar, Histogram, Labels, Matcher, Metadata, MetricType, Sample, Samples, SelectHints,
    SeriesRef, chunk::decode_chunks,
};

use crate::dir::{self, OutFile};
use crate::head::head_chunks::{HeadChunks, Place, StoredChunk};
use crate::head::replay::Replay;
use crate::metrics::Metrics;
use crate::sim::SimDisk;
use crate::wal::reader::{Progress, SegmentReader};
use crate::wal::record;
use crate::{Config, Db, FloatEncoding, chunk};

/// What is read.
pub const TARGETS: [&str; 11] = [
    "record",
    "chunk",
    "head_chunks",
    "segment",
    "late_segment",
    "checkpoint",
    "journal",
    "index",
    "chunk_file",
    "tombstones",
    "meta",
];

const BLOCK_MS: i64 = 100_000;
const START: i64 = 1_000_000 * BLOCK_MS;

/// Where the bytes of a target lie in a directory; none for those that are decoded alone.
fn place(target: &str, block: &str) -> Option<String> {
    Some(match target {
        "segment" => "wal/00000001".into(),
        "late_segment" => "wbl/00000000".into(),
        "checkpoint" => "wal/checkpoint.00000000/00000000".into(),
        "journal" => "journal/00000000".into(),
        "index" => format!("{block}/index"),
        "chunk_file" => format!("{block}/chunks/000001"),
        "tombstones" => format!("{block}/tombstones"),
        "meta" => format!("{block}/meta.json"),
        _ => return None,
    })
}

/// Files of a good directory by their path, and the name of its block.
struct Template {
    files: BTreeMap<String, Vec<u8>>,
    block: String,
}

fn open(root: &Path) -> Option<Arc<Db>> {
    let config = Config {
        min_block_ms: BLOCK_MS,
        out_of_order_window_ms: BLOCK_MS,
        float_encoding: FloatEncoding::Xor2,
        histogram_start_encoding: true,
        store_start_timestamps: true,
        ..Config::new(root)
    };
    Db::open(config, Arc::new(ManualClock::new(START)), &prometheus::Registry::new()).ok()
}

fn labels(i: u64) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("i", i.to_string().as_str())])
}

fn fill(db: &Db, from: i64, to: i64, late_ms: i64) {
    let mut a = db.appender().expect("open");
    for t in (from..to).step_by(5000) {
        for i in 0..4 {
            let n = (t / 5000 % 100) as u64;
            let histogram = Histogram {
                schema: 2,
                zero_threshold: 0.01,
                zero_count: n,
                count: 3 * n + 5,
                sum: n as f64,
                positive_spans: vec![Span { offset: 1, length: 2 }],
                positive_buckets: vec![n as i64, 5],
                ..Histogram::default()
            };
            let mut sample = match i {
                2 => Sample::histogram(t, histogram),
                3 => Sample::histogram(t, histogram.to_float()),
                _ => Sample::float(t, n as f64 / 8.0),
            };
            sample.timestamp_ms -= late_ms;
            if let Ok(r) = a.append(SeriesRef::NONE, &labels(i), sample) {
                let exemplar = Exemplar { labels: labels(n), value: 1.0, timestamp_ms: Some(t) };
                let _ = a.append_exemplar(r, &exemplar);
                let metadata =
                    Metadata { metric_type: MetricType::Counter, unit: "s".into(), help: "h".into() };
                let _ = a.append_metadata(r, &metadata);
            }
        }
    }
    a.commit().expect("a good disk");
}

fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let disk = SimDisk::new(1);
        let root = disk.root().join("data");
        let db = open(&root).expect("a good disk");
        fill(&db, START, START + 160_000, 0);
        db.maintain().expect("a good disk");
        fill(&db, START + 160_000, START + 200_000, 0);
        fill(&db, START + 160_000, START + 200_000, 2500);
        db.delete(&[Matcher::equal("i", "1")], START + 20_000, START + 180_000).expect("a good disk");
        let read = |path: &str| dir::read(&root.join(path)).expect("read").unwrap_or_default();
        let names = dir::list(&root).expect("listed");
        let block = names.into_iter().find(|n| n.len() == 26).expect("a block was cut");
        let mut files = BTreeMap::new();
        for target in ["late_segment", "index", "chunk_file", "tombstones", "meta"] {
            let path = place(target, &block).expect("a file");
            files.insert(path.clone(), read(&path));
        }
        let segment = dir::list(&root.join("wal"))
            .expect("listed")
            .iter()
            .flat_map(|n| read(&format!("wal/{n}")))
            .collect::<Vec<_>>();
        for target in ["segment", "checkpoint", "journal"] {
            files.insert(place(target, &block).expect("a file"), segment.clone());
        }
        Template { files, block }
    })
}

/// Good bytes.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let template = template();
    if let Some(path) = place(target, &template.block) {
        return vec![template.files[&path].clone()];
    }
    let disk = SimDisk::new(1);
    let mut out = Vec::new();
    match target {
        "record" => {
            for path in ["wal/00000001", "wbl/00000000"] {
                let copy = disk.root().join("s");
                write(&copy, &template.files[path]);
                let mut reader = SegmentReader::open(&copy).expect("opens").expect("there");
                while let Ok(Some((_, bytes))) = reader.next() {
                    out.push(bytes.to_vec());
                }
            }
        }
        _ => {
            let mut samples = [Samples::new(), Samples::new(), Samples::new()];
            for t in 0..50 {
                samples[0].push_float(t * 1000, (t % 7) as f64);
                let h =
                    Histogram { schema: 1, count: t as u64, zero_count: t as u64, ..Histogram::default() };
                samples[1].push(Sample::histogram(t * 1000, h.clone()));
                samples[2].push(Sample::histogram(t * 1000, h.to_float()));
            }
            for (xor2, histogram_starts) in [(false, false), (true, true)] {
                for s in &samples {
                    let encodings = chunk::Encodings { xor2, histogram_starts, starts: false };
                    for (_, _, encoding, bytes) in chunk::encode(s, encodings) {
                        out.push([&[encoding], &bytes[..]].concat());
                    }
                }
            }
            if target == "head_chunks" {
                out.iter_mut().for_each(|c| {
                    let mut file = vec![0; 8 + 24];
                    file.push(c[0]);
                    file.push((c.len() - 1).min(127) as u8);
                    file.extend_from_slice(&c[1..]);
                    file.extend_from_slice(&[0; 4]);
                    *c = file;
                });
            }
        }
    }
    out
}

fn write(path: &Path, bytes: &[u8]) {
    let written = OutFile::create(path).and_then(|mut out| {
        out.write(bytes)?;
        out.flush()
    });
    written.expect("a good disk");
}

/// Reads the bytes as a target does.
pub fn check(target: &str, data: &[u8]) {
    crate::checksum::set_blind(true);
    match target {
        "record" => drop(record::decode(data)),
        "chunk" => {
            if let Some((encoding, bytes)) = data.split_first() {
                check_chunk(*encoding, bytes.to_vec().into());
            }
        }
        "head_chunks" => {
            let files = HeadChunks::of_bytes(data.to_vec().into());
            let stored = StoredChunk { mint: 0, maxt: 0, place: Place::in_first(8) };
            if let Ok(c) = files.get(&stored) {
                check_chunk(c.encoding, c.bytes);
            }
        }
        _ => check_directory(target, data),
    }
    crate::checksum::set_blind(false);
}

fn check_chunk(encoding: u8, bytes: bytes::Bytes) {
    let Some(codec) = chunk::codec(encoding) else { return };
    let mut samples = Samples::new();
    if Chunk::encoded(codec, bytes, i64::MIN, i64::MAX).decode(i64::MIN, i64::MAX, &mut samples).is_ok() {
        assert!(samples.len() <= usize::from(u16::MAX), "a chunk counts in two bytes");
    }
}

fn check_directory(target: &str, data: &[u8]) {
    let template = template();
    let disk = SimDisk::new(1);
    let root = disk.root().join("data");
    let mine = place(target, &template.block).expect("a file of a directory");
    let of_block = mine.starts_with(&template.block);
    for (path, bytes) in &template.files {
        // A block with its log is too much for bytes that are in one of them.
        if path.starts_with(&template.block) == of_block
            && path != &mine
            && (of_block || path.starts_with("wal/0"))
        {
            dir::create_all(root.join(path).parent().expect("in a folder")).expect("a good disk");
            write(&root.join(path), bytes);
        }
    }
    dir::create_all(root.join(&mine).parent().expect("in a folder")).expect("a good disk");
    write(&root.join(&mine), data);
    if !of_block {
        // On this thread, which takes checksums for right.
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(START));
        let metrics = Metrics::register(&prometheus::Registry::new(), &clock).expect("a new registry");
        let (wal, config) = (root.join("wal"), Config::new(&root));
        let _ = dir::create_all(&wal)
            .and_then(|()| Replay::run(&wal, &config, i64::MIN, (&metrics, &Progress::default())));
        write(&root.join(&mine), data);
    }
    let Some(db) = open(&root) else { return };
    let Ok(q) = db.querier(i64::MIN, i64::MAX) else { return };
    let hints = SelectHints::default();
    let mut samples = Samples::new();
    if let Ok(mut set) = q.select(&[Matcher::equal("__name__", "m")], &hints) {
        while let Ok(Some(s)) = set.next() {
            let _ = decode_chunks(&s.chunks, i64::MIN, i64::MAX, &mut samples);
        }
    }
    let _ = (db.min_time(), db.max_time(), db.maintain(), db.clean_tombstones(), db.close());
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::rng::Rng;

    /// Mutations of good bytes, from a fixed seed; `fuzz/` goes on.
    #[test]
    fn mutated_bytes_are_read_or_refused() {
        for target in TARGETS {
            let seeds = seeds(target);
            assert!(seeds.iter().any(|s| !s.is_empty()), "{target}");
            seeds.iter().for_each(|s| check(target, s));
            let mut rng = Rng::new(7);
            let rounds = if place(target, "").is_some() { 150 } else { 3000 };
            for round in 0..rounds {
                let mut bytes = seeds[rng.below(seeds.len() as u64) as usize].clone();
                for _ in 0..1 + rng.below(4) {
                    mutate(&mut bytes, &mut rng);
                }
                let run = std::panic::AssertUnwindSafe(|| check(target, &bytes));
                assert!(std::panic::catch_unwind(run).is_ok(), "{target}, round {round}: {bytes:02x?}");
            }
        }
    }

    /// A block's chunk with samples that go back in time, of which one is deleted.
    const BACKWARDS: &str = "85bd40dd01000000340400140080a0b787e90500000001000000008827c223feac1d603aa0fd683ac0b8d587eb81d685c6b0 \
        3f0c70d09dfffd783ae0b8804567501e340400140080a0b787e90500000000000000008827c223fcac1d603aa0fd683ac0b8 \
        d587eb81d685c7b0c30c70d09dfffd783ae0b8804567501e4f05001400fc3f847ae147ae147b946517f00000ba43b7400540 \
        000000000000000c2fc09c44e388affe2184bffe0d80c1ac2c1b418328000000000000000da160906c0f822098220d627837 \
        8306e0b0480dc75298d30106001400ff3f847ae147ae147b946517f00000ba43d4400200a000000000000000000000000000 \
        000000000000000000000000000000000200a0000000000007c09c46a137115ffe22bffc457ffb02db42f097fff097fff097 \
        ffe5b03bb01ec07b01ea13dac5eeb0bd617ac2f70345da0f683da0f685a1ec0bd817b02e536667607d1f509fa84fd427c5a4 \
        7fbb81ee07b81cdbc2f685ed0bda1716e0eccceb13db44fd81fd81f481fde0d2c631dc168e739cb60bd8c63b43e8fac4fd62 \
        7eb13e29bbc1ef07bc1cd0f705ee0bdc17145999d82780414be26d";

    #[test]
    fn chunks_that_go_back_in_time_are_refused_by_merging() {
        let digits: Vec<u8> = BACKWARDS.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits");
        check("chunk_file", &digits.chunks(2).map(byte).collect::<Vec<_>>());
    }

    fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
        let len = bytes.len() as u64;
        let at = rng.below(len) as usize;
        match rng.below(5) {
            _ if len == 0 => bytes.push(rng.next() as u8),
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = [0, 0xff, 0x7f, 0x80][rng.below(4) as usize],
            2 => bytes.truncate(at),
            3 => {
                let n = rng.below(16).min(len - at as u64) as usize;
                let part = bytes[at..at + n].to_vec();
                bytes.splice(at..at, part);
            }
            _ => bytes[at] = rng.next() as u8,
        }
    }
}
