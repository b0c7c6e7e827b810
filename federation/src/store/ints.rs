//! Streams of integers: linear, changes only, bit-packed or pco, whichever is smallest. Spec: docs/formats/longterm.md#sealed-chunk.
//!
//! pco models the values best but spends some twenty bytes and microseconds on each stream, so that short and tame
//! streams are packed instead.

use model::StorageError;
use pco::data_types::Number;
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec};

use super::varint::{Reader, put_varint, put_zigzag, unzigzag, zigzag};

const LINEAR: u8 = 0;
const PACKED: u8 = 1;
const PCO: u8 = 2;
const SPARSE: u8 = 3;

/// Below so many packed bytes pco cannot win: its header and bins take more.
const PCO_MIN_BYTES: usize = 24;

/// Bits of which eight bytes hold one number whole, wherever in the first of them it begins.
const WORD_WIDTH_MAX: u8 = 57;

/// Level of pco. On node_exporter's metrics level 8 saves 1.6 % and takes half as long again; decoding is the same.
const PCO_LEVEL: usize = 4;

/// Writes a stream. `ints` is not empty; its length is not part of the stream.
pub(super) fn put_ints(out: &mut Vec<u8>, ints: &[i64]) {
    let (first, rest) = ints.split_first().expect("a stream has at least one integer");
    let step = rest.first().map_or(0, |x| x.wrapping_sub(*first));
    if ints.windows(2).all(|w| w[1].wrapping_sub(w[0]) == step) {
        out.push(LINEAR);
        put_zigzag(out, *first);
        if !rest.is_empty() {
            put_zigzag(out, step);
        }
        return;
    }
    let changes = ints.windows(2).filter(|w| w[0] != w[1]).count();
    if changes <= rest.len() / 16 {
        put_sparse(out, ints, changes);
        return;
    }
    let width = packed_width(ints);
    let packed_len = (rest.len() * width as usize).div_ceil(8);
    if packed_len > PCO_MIN_BYTES
        && let Some(bytes) = pco_bytes(ints)
        && bytes.len() < packed_len
    {
        out.push(PCO);
        out.extend_from_slice(&bytes);
        return;
    }
    out.push(PACKED);
    put_zigzag(out, *first);
    out.push(width);
    pack(out, ints, width);
}

/// Appends the `n` integers of a stream that takes all of `bytes` to `out`.
pub(super) fn read_ints(bytes: &[u8], n: usize, out: &mut Vec<i64>) -> Result<(), StorageError> {
    let mut r = Reader::new("integer stream", bytes);
    match r.u8()? {
        LINEAR => {
            let first = r.zigzag()?;
            let step = if n > 1 { r.zigzag()? } else { 0 };
            let mut x = first;
            out.extend((0..n).map(|_| {
                let y = x;
                x = x.wrapping_add(step);
                y
            }));
            Ok(())
        }
        PACKED => {
            let first = r.zigzag()?;
            let width = r.u8()?;
            unpack(&r, first, width, n, out)
        }
        PCO => read_pco(r.rest(), n, out),
        SPARSE => read_sparse(&mut r, n, out),
        other => Err(r.error(format!("unknown kind {other}"))),
    }
}

/// Values that seldom change: where and by how much.
fn put_sparse(out: &mut Vec<u8>, ints: &[i64], changes: usize) {
    out.push(SPARSE);
    put_zigzag(out, ints[0]);
    put_varint(out, changes as u64);
    let mut last = 0;
    for (i, w) in ints.windows(2).enumerate().filter(|(_, w)| w[0] != w[1]) {
        put_varint(out, (i + 1 - last) as u64);
        put_zigzag(out, w[1].wrapping_sub(w[0]));
        last = i + 1;
    }
}

fn read_sparse(r: &mut Reader<'_>, n: usize, out: &mut Vec<i64>) -> Result<(), StorageError> {
    let end = out.len() + n;
    let mut x = r.zigzag()?;
    for _ in 0..r.count(2)? {
        let run = r.varint()?;
        if run > (end - out.len()) as u64 {
            return Err(r.error("a change lies outside the stream"));
        }
        out.resize(out.len() + run as usize, x);
        x = x.wrapping_add(r.zigzag()?);
    }
    out.resize(end, x);
    Ok(())
}

/// Bits that the differences between neighbours need, each as zigzag.
pub(super) fn packed_width(ints: &[i64]) -> u8 {
    let all = ints.windows(2).fold(0, |acc, w| acc | zigzag(w[1].wrapping_sub(w[0])));
    (64 - all.leading_zeros()) as u8
}

/// Appends the differences between neighbours.
pub(super) fn pack(out: &mut Vec<u8>, ints: &[i64], width: u8) {
    let (mut acc, mut bits) = (0_u128, 0_u32);
    for w in ints.windows(2) {
        acc |= u128::from(zigzag(w[1].wrapping_sub(w[0]))) << bits;
        bits += u32::from(width);
        while bits >= 8 {
            out.push(acc as u8);
            acc >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(acc as u8);
    }
}

/// Appends the `n` integers that begin with `first`; the reader holds the bytes of [`pack`] and no more.
pub(super) fn unpack(
    r: &Reader<'_>,
    first: i64,
    width: u8,
    n: usize,
    out: &mut Vec<i64>,
) -> Result<(), StorageError> {
    let bytes = r.rest();
    if width > 64 || n == 0 || bytes.len() != ((n - 1) * width as usize).div_ceil(8) {
        return Err(r.error("packed bits do not fit the number of samples"));
    }
    if width == 0 {
        out.resize(out.len() + n, first);
        return Ok(());
    }
    let mask = if width == 64 { u64::MAX } else { (1_u64 << width) - 1 };
    let mut x = first;
    out.reserve(n);
    out.push(x);
    if width <= WORD_WIDTH_MAX {
        let width = usize::from(width);
        let mut few = [0; 8];
        let bytes = match bytes.len() {
            0..8 => {
                few[..bytes.len()].copy_from_slice(bytes);
                &few
            }
            _ => bytes,
        };
        // The numbers at the end are taken out of the last eight bytes.
        let last = bytes.len() - 8;
        out.extend((0..n - 1).map(|i| {
            let bit = i * width;
            let at = (bit / 8).min(last);
            let word = u64::from_le_bytes(*bytes[at..].first_chunk().expect("eight bytes from there"));
            x = x.wrapping_add(unzigzag(word >> (bit - 8 * at) & mask));
            x
        }));
        return Ok(());
    }
    let (mut acc, mut bits, mut at) = (0_u128, 0_u32, 0);
    for _ in 1..n {
        while bits < u32::from(width) {
            acc |= u128::from(bytes[at]) << bits;
            at += 1;
            bits += 8;
        }
        x = x.wrapping_add(unzigzag(acc as u64 & mask));
        acc >>= width;
        bits -= u32::from(width);
        out.push(x);
    }
    Ok(())
}

/// pco's wrapped form of one page; `None` when pco refuses.
pub(super) fn pco_bytes<T: Number>(numbers: &[T]) -> Option<Vec<u8>> {
    let config = ChunkConfig::default()
        .with_compression_level(PCO_LEVEL)
        .with_mode_spec(ModeSpec::Auto)
        .with_delta_spec(DeltaSpec::Auto);
    let file = FileCompressor::default();
    let mut chunk = file.chunk_compressor(numbers, &config).ok()?;
    let out = Vec::with_capacity(8 + chunk.meta_size_hint() + chunk.page_size_hint(0));
    let out = file.write_header(out).ok()?;
    let out = chunk.write_meta(out).ok()?;
    chunk.write_page(0, out).ok()
}

/// Appends the `n` numbers of [`pco_bytes`] to `out`.
pub(super) fn read_pco<T: Number>(bytes: &[u8], n: usize, out: &mut Vec<T>) -> Result<(), StorageError> {
    let error = |e: &dyn std::fmt::Display| StorageError::decode("pco page", e.to_string());
    let at = out.len();
    out.resize(at + n, T::default());
    let (file, rest) = FileDecompressor::new(bytes).map_err(|e| error(&e))?;
    let (mut chunk, rest) = file.chunk_decompressor::<T, _>(rest).map_err(|e| error(&e))?;
    let mut page = chunk.page_decompressor(rest, n).map_err(|e| error(&e))?;
    let progress = page.read(&mut out[at..]).map_err(|e| error(&e))?;
    if progress.n_processed != n {
        return Err(error(&"fewer numbers than stated"));
    }
    Ok(())
}

/// Writes a stream preceded by its length.
pub(super) fn put_prefixed_ints(out: &mut Vec<u8>, ints: &[i64]) {
    let mut stream = Vec::with_capacity(64);
    put_ints(&mut stream, ints);
    put_varint(out, stream.len() as u64);
    out.extend_from_slice(&stream);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(ints: &[i64]) -> usize {
        let mut b = Vec::new();
        put_ints(&mut b, ints);
        let mut back = vec![7];
        read_ints(&b, ints.len(), &mut back).expect("own bytes");
        assert_eq!(&back[1..], ints);
        b.len()
    }

    #[test]
    fn small_streams_are_small() {
        assert!(check(&[5]) <= 2);
        assert!(check(&(0..1000).map(|i| 7 + 15 * i).collect::<Vec<_>>()) <= 3);
        assert!(check(&[1, 2, 1, 2, 2, 2, 1]) <= 5);
        check(&[i64::MIN, i64::MAX, 0, -1, i64::MAX]);
        let noisy: Vec<i64> = (0..1000).map(|i| i * 1000 + (i * 7919) % 13).collect();
        assert!(check(&noisy) < 700);
    }

    proptest! {
        #[test]
        fn any_stream_round_trips(ints in proptest::collection::vec(any::<i64>(), 1..80)) {
            check(&ints);
        }

        #[test]
        fn foreign_bytes_never_panic(b in proptest::collection::vec(any::<u8>(), 0..60), n in 1_usize..300) {
            let _ = read_ints(&b, n, &mut Vec::new());
        }
    }
}
