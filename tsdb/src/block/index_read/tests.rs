//! Version 1 of the index, written here from its format document: symbols by offset, series neither aligned nor divided,
//! the table of postings in any order.

use std::collections::BTreeMap;

use model::{MatchOp, Matcher};

use super::*;
use crate::postings::resolve;
use crate::varint::{put_be32, put_be64, put_str, put_uvarint, put_varint};

/// A section: length, body, checksum.
fn section(out: &mut Vec<u8>, body: &[u8]) -> u64 {
    let at = out.len() as u64;
    put_be32(out, body.len() as u32);
    out.extend_from_slice(body);
    put_be32(out, crc32c::crc32c(body));
    at
}

type Pairs = Vec<(String, String)>;

/// The index of series that are sorted by labels, each with two chunks.
fn version_1(series: &[Pairs]) -> Vec<u8> {
    let mut out = MAGIC.to_be_bytes().to_vec();
    out.push(VERSION_1);
    let mut symbols: Vec<&String> = series.iter().flatten().flat_map(|(n, v)| [n, v]).collect();
    symbols.sort();
    symbols.dedup();
    let (mut body, mut offsets) = (Vec::new(), BTreeMap::new());
    put_be32(&mut body, symbols.len() as u32);
    for s in symbols {
        offsets.insert(s, (out.len() + 4 + body.len()) as u64);
        put_str(&mut body, s);
    }
    let symbols_at = section(&mut out, &body);

    let series_at = out.len() as u64;
    let mut postings: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
    for (i, pairs) in series.iter().enumerate() {
        let id = out.len() as u32;
        postings.entry(("", "")).or_default().push(id);
        body.clear();
        put_uvarint(&mut body, pairs.len() as u64);
        for (n, v) in pairs {
            put_uvarint(&mut body, offsets[n]);
            put_uvarint(&mut body, offsets[v]);
            postings.entry((n, v)).or_default().push(id);
        }
        put_uvarint(&mut body, 2);
        put_varint(&mut body, i as i64);
        [5, 8, 1, 5].into_iter().for_each(|v| put_uvarint(&mut body, v));
        put_varint(&mut body, 100);
        put_uvarint(&mut out, body.len() as u64);
        out.extend_from_slice(&body);
        put_be32(&mut out, crc32c::crc32c(&body));
    }

    let postings_at = out.len() as u64;
    let mut table = Vec::new();
    put_be32(&mut table, postings.len() as u32);
    // From last to first: nobody may rely on an order.
    for ((n, v), ids) in postings.iter().rev() {
        body.clear();
        put_be32(&mut body, ids.len() as u32);
        ids.iter().for_each(|id| put_be32(&mut body, *id));
        let at = section(&mut out, &body);
        put_uvarint(&mut table, 2);
        put_str(&mut table, n);
        put_str(&mut table, v);
        put_uvarint(&mut table, at);
    }
    let table_at = section(&mut out, &table);
    let mut toc = Vec::new();
    [symbols_at, series_at, 0, 0, postings_at, table_at].into_iter().for_each(|at| put_be64(&mut toc, at));
    out.extend_from_slice(&toc);
    put_be32(&mut out, crc32c::crc32c(&toc));
    out
}

fn open(bytes: &[u8]) -> Result<IndexReader, StorageError> {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("index");
    std::fs::write(&path, bytes).expect("written");
    IndexReader::open(&path)
}

fn series() -> Vec<Pairs> {
    let mut all: Vec<Pairs> = (0..200)
        .map(|i| {
            let pair = |n: &str, v: String| (n.to_owned(), v);
            vec![
                pair("__name__", format!("m{}", i % 3)),
                pair("i", format!("{i:03}")),
                pair("j", "x".repeat(1 + i % 5)),
            ]
        })
        .collect();
    all.sort();
    all
}

#[test]
fn version_1_reads_as_version_2_does() {
    let all = series();
    let index = open(&version_1(&all)).expect("whole");
    assert_eq!(index.label_names().collect::<Vec<_>>(), ["__name__", "i", "j"]);
    assert_eq!(index.value_count("i"), 200);
    let ids = resolve(&index, &[]).expect("read");
    assert_eq!(ids.len(), all.len());
    let (mut raw, mut writer) = (RawSeries::default(), LabelsWriter::default());
    for (i, (id, pairs)) in ids.iter().zip(&all).enumerate() {
        index.series(*id, i64::MIN, i64::MAX, &mut raw).expect("read");
        index.write_labels(&raw.labels, &mut writer).expect("known symbols");
        let expect = model::Labels::from_pairs(pairs.iter().map(|(n, v)| (n, v)));
        assert_eq!(writer.build(), expect);
        let (i, reference) = (i as i64, 8);
        let first = ChunkMeta { mint: i, maxt: i + 5, reference };
        let second = ChunkMeta { mint: i + 6, maxt: i + 11, reference: reference + 100 };
        assert_eq!(raw.chunks, [first, second]);
    }
    for (op, name, value) in [
        (MatchOp::Equal, "i", "007"),
        (MatchOp::Equal, "i", "none"),
        (MatchOp::NotEqual, "j", "x"),
        (MatchOp::Regexp, "i", "01.|199"),
        (MatchOp::Regexp, "i", "1.*"),
        (MatchOp::NotRegexp, "__name__", "m[01]"),
    ] {
        let matcher = Matcher::new(op, name, value).expect("valid");
        let expect = all.iter().zip(&ids).filter(|(pairs, _)| {
            let value = pairs.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v);
            matcher.matches(value)
        });
        let expect: Vec<u64> = expect.map(|(_, id)| *id).collect();
        assert_eq!(resolve(&index, std::slice::from_ref(&matcher)).expect("read"), expect, "{matcher}");
    }
}

#[test]
fn a_damaged_version_1_is_told_and_not_believed() {
    let whole = version_1(&series()[..20]);
    let ids = resolve(&open(&whole).expect("whole"), &[]).expect("read");
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        let Ok(index) = open(&bytes) else { continue };
        let (mut raw, mut writer) = (RawSeries::default(), LabelsWriter::default());
        let found = resolve(&index, &[Matcher::new(MatchOp::Regexp, "i", ".+").expect("valid")]);
        let mut damaged = found.is_err();
        for id in &ids {
            let read = index.series(*id, i64::MIN, i64::MAX, &mut raw);
            damaged |= read.and_then(|()| index.write_labels(&raw.labels, &mut writer)).is_err();
        }
        // What is left are lists of other labels, and offsets that nobody reads.
        assert!(damaged || found.is_ok_and(|f| f == ids), "byte {at}");
    }
}
