//! For `fuzz/` and tests: foreign bytes in place of what the long-term store reads back, checksums taken for right. They are read
//! or refused; what a chunk gives has the shape that queries count on.

use model::{Labels, Metadata, MetricType, RollupColumns, Sample, Samples};
use roaring::RoaringTreemap;

use super::chunk::{decode_stored, encode, open_chunk};
use super::journal;
use super::keys::{index_key, month_of, parse_index_key, parse_sample_key, prefix_successor, sample_key};
use super::postings;
use super::rollup::{HOURS, MINUTES, Row};
use super::rows::{
    decode_counters, decode_exemplar, decode_series, encode_counters, encode_exemplar, encode_series,
};
use super::varint::put_crc;

/// What is read: the names that [`seeds`] and [`check`] know.
pub const TARGETS: [&str; 9] =
    ["chunk", "journal", "series", "exemplar", "counters", "postings", "minutes", "hours", "keys"];

/// Begin of a month.
const BEGIN_MS: i64 = 1_788_220_800_000;

fn samples(n: i64, kind: i64) -> Samples {
    let mut out = Samples::new();
    for i in 0..n {
        let t = BEGIN_MS + i * 15_000 + if kind == 1 { (i * 7919) % 1000 } else { 0 };
        let noise = (i * 4 + kind).wrapping_mul(2_654_435_761);
        out.push(match kind {
            0 => Sample::float(t, (i * 3 % 50) as f64),
            1 => Sample::float(t, noise as f64 * 1e-7),
            2 => Sample::float(t, f64::from_bits(noise as u64)),
            3 => Sample::float(t, 1.0),
            _ => {
                let h = model::Histogram {
                    schema: 2,
                    count: 2 * i as u64,
                    sum: i as f64,
                    positive_spans: vec![model::histogram::Span { offset: 1, length: 1 }],
                    positive_buckets: vec![2 * i],
                    ..model::Histogram::default()
                };
                Sample { start_timestamp_ms: t - 1, ..Sample::histogram(t, h) }
            }
        });
    }
    out
}

/// Good bytes, without the checksum at their end.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let labels = Labels::from_pairs([("__name__", "m"), ("i", "1")]);
    let mut out: Vec<Vec<u8>> = match target {
        "chunk" => {
            let all = (0..5).flat_map(|kind| [1, 2, 200].map(|n| samples(n, kind)));
            all.map(|s| encode(&s, 0, s.len()).inline()).collect()
        }
        "journal" => {
            let other = samples(3, 4);
            let others: Vec<Sample> = (0..other.len()).map(|i| other.get(i)).collect();
            let floats = (0..5_u32).map(|i| (u64::from(i), BEGIN_MS + i64::from(i), f64::from(i)));
            vec![journal::encode(floats, others.iter().map(|s| (9, s)))]
        }
        "series" => {
            let m = Metadata { metric_type: MetricType::Gauge, unit: "s".into(), help: "Helps.".into() };
            vec![encode_series(&labels, None), encode_series(&labels, Some(&m))]
        }
        "exemplar" => {
            vec![encode_exemplar(&model::Exemplar { labels, value: 1.5, timestamp_ms: Some(BEGIN_MS) })]
        }
        "counters" => vec![encode_counters(7, 9)],
        "minutes" | "hours" => {
            let family = if target == "minutes" { &MINUTES } else { &HOURS };
            let part = family.part_of(month_of(BEGIN_MS), BEGIN_MS);
            return (0..4)
                .map(|kind| unchecked(&Row::of(family, part, &samples(500, kind)).encode()))
                .collect();
        }
        "postings" => {
            let sets = [(0..3).collect(), (0..500_u64).map(|i| i * i).collect::<RoaringTreemap>()];
            return sets.iter().map(postings::encode).collect();
        }
        "keys" => {
            return vec![
                sample_key(month_of(BEGIN_MS), 5, BEGIN_MS).to_vec(),
                index_key(month_of(BEGIN_MS), "instance", "a:1"),
            ];
        }
        other => panic!("{other}: no such target"),
    };
    out.iter_mut().for_each(|bytes| bytes.truncate(bytes.len() - 4));
    out
}

/// Lengths of a row's head and blocks are told by the head, so only these are cut from and joined to their checksums.
fn unchecked(row: &[u8]) -> Vec<u8> {
    let head = 2 + row[1] as usize;
    [&row[..head], &row[head + 4..]].concat()
}

fn checked(row: &[u8]) -> Vec<u8> {
    let head = (2 + row.get(1).copied().unwrap_or(0) as usize).min(row.len());
    let mut out = row[..head].to_vec();
    put_crc(&mut out);
    // The last block's checksum covers whatever is there; those of others are as they are.
    let mut rest = row[head..].to_vec();
    let levels = levels(&out);
    let mut at = 0_usize;
    for len in levels {
        let Some(end) = at.checked_add(len).filter(|end| *end <= rest.len() && len >= 4) else { break };
        let crc = crc32c::crc32c(&rest[at..end - 4]);
        rest[end - 4..end].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
    out.extend_from_slice(&rest);
    out
}

/// Lengths of the blocks that a head names.
fn levels(head: &[u8]) -> Vec<usize> {
    let mut r = super::varint::Reader::new("rollup", head.get(2..head.len() - 4).unwrap_or_default());
    let mut numbers = Vec::new();
    while let Ok(n) = r.varint() {
        numbers.push(usize::try_from(n).unwrap_or(usize::MAX));
    }
    numbers.iter().skip(3).step_by(2).copied().collect()
}

/// Reads bytes as what `target` names.
///
/// # Panics
/// When they are taken for something that cannot be.
pub fn check(target: &str, data: &[u8]) {
    let with_crc = || {
        let mut bytes = data.to_vec();
        put_crc(&mut bytes);
        bytes
    };
    match target {
        "chunk" => check_chunk(&with_crc()),
        "journal" => drop(journal::Record::default().decode(&with_crc())),
        "series" => {
            if let Ok((labels, metadata)) = decode_series(&with_crc()) {
                let again = encode_series(&labels, metadata.as_ref());
                assert_eq!(decode_series(&again).expect("own bytes").0, labels);
            }
        }
        "exemplar" => drop(decode_exemplar(&with_crc(), 0)),
        "counters" => drop(decode_counters(&with_crc())),
        "postings" => {
            let mut ids = RoaringTreemap::new();
            if postings::decode(data, &mut ids).is_ok() {
                let mut again = RoaringTreemap::new();
                postings::decode(&postings::encode(&ids), &mut again).expect("own bytes");
                assert_eq!(ids, again);
            }
        }
        "minutes" | "hours" => {
            let family = if target == "minutes" { &MINUTES } else { &HOURS };
            let part = family.part_of(month_of(BEGIN_MS), BEGIN_MS);
            if let Ok(row) = Row::decode(family, part, &checked(data)) {
                drop(row.encode());
            }
        }
        "keys" => {
            if let Some((month, series, t)) = parse_sample_key(data) {
                assert_eq!(sample_key(month, series, t), data);
            }
            if let Some((month, name, value)) = parse_index_key(data) {
                assert_eq!(index_key(month, name, value), data);
            }
            assert!(prefix_successor(data).is_none_or(|next| next.as_slice() > data));
        }
        other => panic!("{other}: no such target"),
    }
}

fn check_chunk(stored: &[u8]) {
    let mut all = Samples::new();
    let Ok(head) = decode_stored(stored, &mut all) else { return };
    assert_eq!((all.len(), all.values.len()), (head.samples, head.samples));
    assert!(all.timestamps_ms.is_sorted_by(|a, b| a < b));
    assert_eq!((all.timestamps_ms[0], all.timestamps_ms[all.len() - 1]), (head.mint, head.maxt));
    // A part is what the whole has there.
    let (mint, maxt) = (all.timestamps_ms[all.len() / 3], all.timestamps_ms[all.len() / 2]);
    let (_, chunk) = open_chunk(stored).expect("it was just read");
    let mut part = Samples::new();
    model::chunk::decode_chunks(&[chunk], mint, maxt, &mut part).expect("it was just read");
    let within = all.timestamps_ms.iter().filter(|t| (mint..=maxt).contains(*t));
    assert!(part.timestamps_ms.iter().eq(within));
}

/// Foreign bytes as the answer to a question for rollups.
pub fn check_wire_rollup(data: &[u8]) {
    const MOST_CELLS: usize = 10_000;
    if let Ok(rollup) = wire::rollup::decode(data, MOST_CELLS) {
        assert!(rollup.cells.len() <= MOST_CELLS && rollup.cells.len() == rollup.ends_ms.len());
        assert!(rollup.ends_ms.is_sorted_by(|a, b| a < b));
        assert!(rollup.resets.iter().all(|r| r.cell < rollup.cells.len()));
        let mut again = Vec::new();
        wire::rollup::encode(&rollup, RollupColumns::ALL, &mut again);
        wire::rollup::decode(&again, MOST_CELLS).expect("own bytes");
    }
}

#[cfg(test)]
mod tests {
    use model::rng::Rng;

    use super::*;

    fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
        if bytes.is_empty() {
            return bytes.push(rng.index(256) as u8);
        }
        // The head of most of these is short and means most.
        let reach = if rng.index(2) == 0 { bytes.len().min(24) } else { bytes.len() };
        let at = rng.index(reach);
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

    /// Mutations of good bytes, from a fixed seed; `fuzz/` goes on.
    #[test]
    fn mutated_bytes_are_read_or_refused() {
        for target in TARGETS {
            let seeds = seeds(target);
            seeds.iter().for_each(|s| check(target, s));
            let mut rng = Rng::new(7);
            for round in 0..4000 {
                let mut bytes = seeds[rng.index(seeds.len())].clone();
                (0..1 + rng.index(3)).for_each(|_| mutate(&mut bytes, &mut rng));
                let run = || check(target, &bytes);
                assert!(std::panic::catch_unwind(run).is_ok(), "{target}, round {round}: {bytes:02x?}");
            }
        }
    }

    #[test]
    fn good_rows_stay_good_on_the_way_through() {
        for (target, family) in [("minutes", &MINUTES), ("hours", &HOURS)] {
            let part = family.part_of(month_of(BEGIN_MS), BEGIN_MS);
            for seed in seeds(target) {
                Row::decode(family, part, &checked(&seed)).expect("a good row");
            }
        }
    }
}
