//! Reads chunks of histograms.

use model::histogram::CounterResetHint;
use model::{ChunkCodec, ChunkEncoding, Sample, Samples, StorageError, is_stale_nan};

use super::super::bits::{BitReader, XorColumn};
use super::super::start::StartColumn;
use super::kind::{FloatHistograms, IntHistograms, Kind, Numbers};
use super::layout::{Layout, LayoutRef};
use super::{FLAG_GAUGE, FLAG_MASK, FLAGS_AT, HEADER_LEN_BYTES, STARTED_COUNT_MASK};

pub(crate) static HISTOGRAM_CODEC: &dyn ChunkCodec = &Plain::<IntHistograms>(std::marker::PhantomData);
pub(crate) static FLOAT_HISTOGRAM_CODEC: &dyn ChunkCodec =
    &Plain::<FloatHistograms>(std::marker::PhantomData);
pub(crate) static HISTOGRAM_ST_CODEC: &dyn ChunkCodec = &Started::<IntHistograms>(std::marker::PhantomData);
pub(crate) static FLOAT_HISTOGRAM_ST_CODEC: &dyn ChunkCodec =
    &Started::<FloatHistograms>(std::marker::PhantomData);

/// Without start timestamps.
struct Plain<K>(std::marker::PhantomData<K>);
/// With start timestamps.
struct Started<K>(std::marker::PhantomData<K>);

impl<K: Kind + Send + Sync> ChunkCodec for Plain<K> {
    fn encoding(&self) -> ChunkEncoding {
        K::ENCODING
    }

    fn decode(&self, bytes: &[u8], mint: i64, maxt: i64, out: &mut Samples) -> Result<(), StorageError> {
        decode::<K>(bytes, mint, maxt, false, out)
    }
}

impl<K: Kind + Send + Sync> ChunkCodec for Started<K> {
    fn encoding(&self) -> ChunkEncoding {
        K::STARTED_ENCODING
    }

    fn decode(&self, bytes: &[u8], mint: i64, maxt: i64, out: &mut Samples) -> Result<(), StorageError> {
        decode::<K>(bytes, mint, maxt, true, out)
    }
}

/// What the header of a chunk says.
struct Header {
    count: u16,
    is_gauge: bool,
    starts: Option<StartColumn>,
}

pub(super) fn decode<K: Kind>(
    bytes: &[u8],
    mint: i64,
    maxt: i64,
    with_starts: bool,
    out: &mut Samples,
) -> Result<(), StorageError> {
    let err = |reason: &str| StorageError::decode(K::WHAT, reason);
    let Some((header, data)) = bytes.split_at_checked(HEADER_LEN_BYTES) else {
        return Err(err("shorter than its header"));
    };
    let count = u16::from_be_bytes([header[0], header[1]]);
    let header = if with_starts {
        Header {
            count: count & STARTED_COUNT_MASK,
            is_gauge: header[0] & FLAG_MASK == FLAG_GAUGE,
            starts: Some(StartColumn::of_header(header[FLAGS_AT])),
        }
    } else {
        Header { count, is_gauge: header[FLAGS_AT] & FLAG_MASK == FLAG_GAUGE, starts: None }
    };
    let mut short = [0; 8];
    let r = BitReader::of(data, &mut short);
    decode_samples::<K>(r, header, mint, maxt, out).ok_or_else(|| err("ends within a sample"))
}

fn decode_samples<K: Kind>(
    mut r: BitReader<'_>,
    mut header: Header,
    mint: i64,
    maxt: i64,
    out: &mut Samples,
) -> Option<()> {
    if header.count == 0 {
        return Some(());
    }
    let r = &mut r;
    let layout = Layout::get(r)?;
    let (mut time, mut t) = IntHistograms::get_first(r, true)?;
    let (mut count_column, mut total) = K::get_first(r, false)?;
    let (mut zero_column, mut zero_count) = K::get_first(r, false)?;
    let mut sum = r.f64()?;
    let mut sum_column = XorColumn::new(sum);
    let mut columns = Vec::new();
    let mut buckets = Vec::new();
    for _ in 0..layout.buckets() {
        let (column, v) = K::get_first(r, true)?;
        columns.push(column);
        buckets.push(v);
    }
    for i in 0..header.count {
        let previous = t;
        if i > 0 {
            t = IntHistograms::get(r, &mut time)?;
            total = K::get(r, &mut count_column)?;
            zero_count = K::get(r, &mut zero_column)?;
            sum = sum_column.get(r)?;
            if !is_stale_nan(sum) {
                for (b, column) in buckets.iter_mut().zip(&mut columns) {
                    *b = K::get(r, column)?;
                }
            }
        }
        let start = match &mut header.starts {
            Some(column) => column.get(r, i, previous, t)?,
            None => 0,
        };
        if t > maxt {
            break;
        }
        if t < mint {
            continue;
        }
        let hint = match (header.is_gauge, i) {
            (true, _) => CounterResetHint::Gauge,
            // The chunk before may be gone, so its end cannot be known.
            (false, 0) => CounterResetHint::Unknown,
            (false, _) => CounterResetHint::NotCounterReset,
        };
        let value = if is_stale_nan(sum) {
            let (count, zero_count) = Default::default();
            let numbers = Numbers { count, zero_count, sum, buckets: [&[], &[]] };
            K::build(LayoutRef::default(), CounterResetHint::Unknown, numbers)
        } else {
            let (positive, negative) = buckets.split_at(layout.positive_buckets());
            let numbers = Numbers { count: total, zero_count, sum, buckets: [positive, negative] };
            K::build(layout.as_ref(), hint, numbers)
        };
        out.push(Sample { start_timestamp_ms: start, ..Sample::histogram(t, value) });
    }
    Some(())
}
