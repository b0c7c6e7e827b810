//! Writes protobuf bodies for tests.

pub(crate) fn varint(mut v: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
    out
}

pub(crate) fn uint(field: u64, v: u64) -> Vec<u8> {
    [varint(field << 3), varint(v)].concat()
}

pub(crate) fn sint(field: u64, v: i64) -> Vec<u8> {
    uint(field, ((v << 1) ^ (v >> 63)) as u64)
}

pub(crate) fn double(field: u64, v: f64) -> Vec<u8> {
    [varint(field << 3 | 1), v.to_le_bytes().to_vec()].concat()
}

pub(crate) fn bytes(field: u64, v: impl AsRef<[u8]>) -> Vec<u8> {
    [varint(field << 3 | 2), varint(v.as_ref().len() as u64), v.as_ref().to_vec()].concat()
}

pub(crate) fn stamp(field: u64, seconds: i64, nanos: i32) -> Vec<u8> {
    bytes(field, [uint(1, seconds as u64), uint(2, nanos as u64)].concat())
}

pub(crate) fn label(name: &str, value: &str) -> Vec<u8> {
    bytes(1, [bytes(1, name), bytes(2, value)].concat())
}

pub(crate) fn span(field: u64, offset: i64, length: u64) -> Vec<u8> {
    bytes(field, [sint(1, offset), uint(2, length)].concat())
}

/// An exemplar with the label `t`, as a field.
pub(crate) fn exemplar(field: u64, trace: &str, value: f64, seconds: Option<i64>) -> Vec<u8> {
    let at = seconds.map(|s| stamp(3, s, 500_000_000)).unwrap_or_default();
    bytes(field, [label("t", trace), double(2, value), at].concat())
}

/// A classic bucket, as a field of a histogram.
pub(crate) fn bucket(count: u64, bound: f64) -> Vec<u8> {
    bytes(3, [uint(1, count), double(2, bound)].concat())
}

/// A metric, as a field of a family.
pub(crate) fn metric(parts: &[Vec<u8>]) -> Vec<u8> {
    bytes(4, parts.concat())
}

/// A family with its length.
pub(crate) fn family(name: &str, kind: u64, parts: &[Vec<u8>]) -> Vec<u8> {
    let message = [bytes(1, name), bytes(2, "help me"), uint(3, kind), parts.concat()].concat();
    [varint(message.len() as u64), message].concat()
}

/// Kinds of families.
pub(crate) const COUNTER: u64 = 0;
pub(crate) const GAUGE: u64 = 1;
pub(crate) const SUMMARY: u64 = 2;
pub(crate) const UNTYPED: u64 = 3;
pub(crate) const HISTOGRAM: u64 = 4;
pub(crate) const GAUGE_HISTOGRAM: u64 = 5;
