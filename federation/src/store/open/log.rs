//! Samples of one series in the order in which they came: the newest as they are, those before packed in runs of
//! [`RUN_LEN`]. A day of 100,000 series lies here before it is sealed, so a sample may cost one to three bytes, not sixteen.
//!
//! A run is, after the length of its bytes: the first timestamp as difference to that of the run before, the interval, and what each
//! timestamp differs from a steady pace; then an exponent and the values as decimals of it ([`super::super::floats`]), or [`BITS`] and
//! eight bytes each. Deviations and decimals are bit-packed differences of one width. The bytes never leave the process.

use std::ops::ControlFlow;

use crate::store::floats::{decimal, from_decimal, smallest_exponent};
use crate::store::ints::{pack, packed_width, unpack};
use crate::store::varint::{Reader, put_f64, put_varint, put_zigzag};

/// Samples of a run. Longer ones would save a little, but as many wait unpacked in each series.
pub(super) const RUN_LEN: usize = 32;

/// Runs from one entry of the index to the next.
const STRIDE: usize = 16;

/// In the place of an exponent: the values follow bit for bit.
const BITS: u8 = 0xff;
/// Decimals of greater width are stored as they are instead.
const MAX_WIDTH_BITS: u8 = 56;

/// The bytes of a run are what was written here.
const OWN_BYTES: &str = "a run is read as it was written";

#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// All runs, one after the other.
    runs: Vec<u8>,
    runs_len: u32,
    /// First timestamp of the last run.
    last_run_ms: i64,
    /// First timestamp and place of every [`STRIDE`]th run, so that the newest samples are found without walking over all.
    index: Vec<(i64, u32)>,
    /// Never empty when there are runs.
    tail: Vec<(i64, f64)>,
}

/// Where a run lies.
struct Run<'a> {
    first_ms: i64,
    bytes: &'a [u8],
}

impl Log {
    pub(super) fn len(&self) -> usize {
        self.runs_len as usize * RUN_LEN + self.tail.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    /// The newest sample.
    #[inline]
    pub(super) fn last(&self) -> Option<(i64, f64)> {
        self.tail.last().copied()
    }

    /// Memory beside this value itself.
    pub(super) fn bytes(&self) -> usize {
        self.runs.capacity()
            + self.tail.capacity() * size_of::<(i64, f64)>()
            + self.index.capacity() * size_of::<(i64, u32)>()
    }

    #[inline]
    pub(super) fn push(&mut self, timestamp_ms: i64, value: f64) {
        if self.tail.len() == self.tail.capacity() {
            self.make_room();
        }
        self.tail.push((timestamp_ms, value));
    }

    #[cold]
    fn make_room(&mut self) {
        if self.tail.len() == RUN_LEN {
            self.pack_tail();
        } else {
            // Growing by half wastes less than doubling: there are very many of these.
            let more = (self.tail.len() / 2).max(8).min(RUN_LEN - self.tail.len());
            self.tail.reserve_exact(more);
        }
    }

    fn pack_tail(&mut self) {
        let mut run = Vec::with_capacity(RUN_LEN * 8);
        let first_ms = self.tail[0].0;
        put_zigzag(&mut run, first_ms.wrapping_sub(self.last_run_ms));
        put_timestamps(&mut run, &self.tail);
        put_values(&mut run, &self.tail);
        let room = self.runs.len() + run.len() + 2;
        if room > self.runs.capacity() {
            // A quarter more: doubling would waste as much as packing saves.
            self.runs.reserve_exact(room + room / 4 - self.runs.len());
        }
        if (self.runs_len as usize).is_multiple_of(STRIDE) {
            self.index.reserve_exact(1);
            self.index.push((first_ms, self.runs.len() as u32));
        }
        put_varint(&mut self.runs, run.len() as u64);
        self.runs.extend_from_slice(&run);
        self.runs_len += 1;
        self.last_run_ms = first_ms;
        self.tail.clear();
    }

    fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.runs_from(0)
    }

    /// The runs from that entry of the index on; there is none for the first run of an empty log.
    fn runs_from(&self, entry: usize) -> impl Iterator<Item = Run<'_>> {
        let (begin_ms, place) = self.index.get(entry).copied().unwrap_or_default();
        let mut r = Reader::new("run", &self.runs[place as usize..]);
        let mut last = None;
        (entry * STRIDE..self.runs_len as usize).map(move |_| {
            let mut run = Reader::new("run", r.prefixed().expect(OWN_BYTES));
            let difference = run.zigzag().expect(OWN_BYTES);
            let first_ms = last.map_or(begin_ms, |last: i64| last.wrapping_add(difference));
            last = Some(first_ms);
            Run { first_ms, bytes: run.rest() }
        })
    }

    /// At least as many as there are samples within `[mint, maxt]`, when they are many; the timestamps rise.
    pub(super) fn room_for(&self, mint: i64, maxt: i64) -> usize {
        let at = |ms: i64| self.index.partition_point(|(first, _)| *first <= ms);
        let strides = at(maxt) - at(mint).saturating_sub(1).min(at(maxt));
        if strides > 2 { (strides * STRIDE * RUN_LEN + RUN_LEN).min(self.len()) } else { 0 }
    }

    /// Hands on the first `n` samples, in their order.
    pub(super) fn for_first(&self, n: usize, mut each: impl FnMut(i64, f64)) {
        let mut left = n;
        let mut columns = Columns::default();
        for run in self.runs() {
            if left == 0 {
                return;
            }
            run.read(&mut columns);
            let here = left.min(RUN_LEN);
            left -= here;
            columns.timestamps.iter().zip(&columns.values).take(here).for_each(|(t, v)| each(*t, *v));
        }
        self.tail[..left].iter().for_each(|(t, v)| each(*t, *v));
    }

    /// Hands on those of the first `n` samples that lie within `[mint, maxt]`, some at a time but never none, until that breaks.
    /// The timestamps rise.
    pub(super) fn for_range(
        &self,
        n: usize,
        mint: i64,
        maxt: i64,
        mut each: impl FnMut(&[i64], &[f64]) -> ControlFlow<()>,
    ) {
        let entry = self.index.partition_point(|(first_ms, _)| *first_ms <= mint).saturating_sub(1);
        let Some(mut left) = n.checked_sub(entry * STRIDE * RUN_LEN) else { return };
        let mut columns = Columns::default();
        let mut within = |columns: &Columns, len: usize| {
            let times = &columns.timestamps[..len];
            let (from, to) = (times.partition_point(|t| *t < mint), times.partition_point(|t| *t <= maxt));
            if from >= to {
                return ControlFlow::Continue(());
            }
            each(&times[from..to], &columns.values[from..to])
        };
        let mut runs = self.runs_from(entry).peekable();
        while let Some(run) = runs.next() {
            if left == 0 || run.first_ms > maxt {
                return;
            }
            let next = runs.peek().map_or_else(|| self.tail[0].0, |next| next.first_ms);
            let here = left.min(RUN_LEN);
            left -= here;
            if next <= mint {
                continue;
            }
            run.read(&mut columns);
            if within(&columns, here).is_break() {
                return;
            }
        }
        columns.clear();
        columns.timestamps.extend(self.tail[..left].iter().map(|(t, _)| *t));
        columns.values.extend(self.tail[..left].iter().map(|(_, v)| *v));
        // Nothing comes after it.
        let _ = within(&columns, left);
    }

    /// Whether the timestamps rise strictly.
    pub(super) fn rises(&self) -> bool {
        let (mut rises, mut last) = (true, None);
        self.for_first(self.len(), |t, _| rises &= last.replace(t).is_none_or(|last| last < t));
        rises
    }

    /// Drops the first `n` samples.
    pub(super) fn drop_first(&mut self, n: usize) {
        let mut rest = Self::default();
        let mut i = 0;
        self.for_first(self.len(), |t, v| {
            if i >= n {
                rest.push(t, v);
            }
            i += 1;
        });
        *self = rest;
    }
}

/// Samples of a run.
#[derive(Default)]
struct Columns {
    timestamps: Vec<i64>,
    values: Vec<f64>,
    /// The values as decimals.
    ints: Vec<i64>,
}

impl Columns {
    fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.ints.clear();
    }
}

impl Run<'_> {
    /// Puts the samples in place of what is in the columns.
    fn read(&self, columns: &mut Columns) {
        columns.clear();
        let Columns { timestamps, values, ints } = columns;
        let mut r = Reader::new("run", self.bytes);
        let interval = r.zigzag().expect(OWN_BYTES);
        // How much each is off the pace.
        read_packed(&mut r, 0, timestamps);
        let mut pace = self.first_ms;
        for t in timestamps {
            *t = t.wrapping_add(pace);
            pace = pace.wrapping_add(interval);
        }
        match r.u8().expect(OWN_BYTES) {
            BITS => values.extend((0..RUN_LEN).map(|_| r.f64().expect(OWN_BYTES))),
            e => {
                let first = r.zigzag().expect(OWN_BYTES);
                read_packed(&mut r, first, ints);
                values.extend(ints.iter().map(|m| from_decimal(*m, e as usize)));
            }
        }
    }
}

fn put_timestamps(out: &mut Vec<u8>, samples: &[(i64, f64)]) {
    let interval = samples[1].0.wrapping_sub(samples[0].0);
    put_zigzag(out, interval);
    let mut pace = samples[0].0;
    let mut deviations = [0; RUN_LEN];
    for (deviation, (t, _)) in deviations.iter_mut().zip(samples) {
        *deviation = t.wrapping_sub(pace);
        pace = pace.wrapping_add(interval);
    }
    put_packed(out, &deviations);
}

fn put_values(out: &mut Vec<u8>, samples: &[(i64, f64)]) {
    let before = out.len();
    if let Some((e, ints)) = decimals(samples) {
        out.push(e);
        put_zigzag(out, ints[0]);
        if packed_width(&ints) <= MAX_WIDTH_BITS {
            put_packed(out, &ints);
            return;
        }
        out.truncate(before);
    }
    out.push(BITS);
    samples.iter().for_each(|(_, v)| put_f64(out, *v));
}

/// All values as integers with one exponent.
fn decimals(samples: &[(i64, f64)]) -> Option<(u8, [i64; RUN_LEN])> {
    let mut e = 0;
    for (_, v) in samples {
        e = smallest_exponent(*v, e)?;
    }
    let mut ints = [0; RUN_LEN];
    for (m, (_, v)) in ints.iter_mut().zip(samples) {
        // A value that fits a small exponent need not fit a larger one.
        *m = decimal(*v, e)?;
    }
    Some((e as u8, ints))
}

/// The width of the differences, and these.
fn put_packed(out: &mut Vec<u8>, ints: &[i64; RUN_LEN]) {
    let width = packed_width(ints);
    out.push(width);
    pack(out, ints, width);
}

fn read_packed(r: &mut Reader<'_>, first: i64, out: &mut Vec<i64>) {
    let width = r.u8().expect(OWN_BYTES);
    let bytes = r.bytes(((RUN_LEN - 1) * width as usize).div_ceil(8)).expect(OWN_BYTES);
    unpack(&Reader::new("run", bytes), first, width, RUN_LEN, out).expect(OWN_BYTES);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(samples: &[(i64, f64)]) -> Log {
        let mut log = Log::default();
        samples.iter().for_each(|(t, v)| log.push(*t, *v));
        log
    }

    fn bits(samples: &[(i64, f64)]) -> Vec<(i64, u64)> {
        samples.iter().map(|(t, v)| (*t, v.to_bits())).collect()
    }

    fn first(log: &Log, n: usize) -> Vec<(i64, u64)> {
        let mut out = Vec::new();
        log.for_first(n, |t, v| out.push((t, v.to_bits())));
        out
    }

    #[test]
    fn samples_of_usual_series_take_little() {
        let bytes = |value: fn(i64) -> f64| {
            let samples: Vec<_> = (0..5760).map(|i| (1_790_000_000_000 + 15_000 * i, value(i))).collect();
            let log = log(&samples);
            assert_eq!(first(&log, samples.len()), bits(&samples));
            log.bytes()
        };
        assert!(bytes(|_| 1.0) < 5760 / 2);
        assert!(bytes(|i| (i * 1000 + i * 7919 % 131) as f64) < 3 * 5760);
        assert!(bytes(|i| (i % 97) as f64 / 100.0) < 3 * 5760);
        assert!(bytes(|i| (i as f64).sin()) < 11 * 5760);
    }

    fn values() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-1000..100_000_i64).prop_map(|m| m as f64 / 100.0),
            2 => Just(7.0),
            1 => any::<u64>().prop_map(f64::from_bits),
            1 => Just(-0.0),
            1 => Just(model::stale_nan()),
        ]
    }

    proptest! {
        #[test]
        fn what_comes_in_comes_out(
            steps in proptest::collection::vec((prop_oneof![6 => Just(15_000_i64), 2 => 14_990..15_010_i64, 1 => any::<i64>()], values()), 1..1500),
            n in 0..1500_usize,
        ) {
            let mut t = 1_790_000_000_000_i64;
            let samples: Vec<_> = steps.into_iter().map(|(d, v)| { t = t.wrapping_add(d); (t, v) }).collect();
            let mut l = log(&samples);
            prop_assert_eq!(l.len(), samples.len());
            prop_assert_eq!(l.last().map(|s| s.1.to_bits()), samples.last().map(|s| s.1.to_bits()));
            let n = n.min(samples.len());
            prop_assert_eq!(first(&l, n), bits(&samples[..n]));
            prop_assert_eq!(l.rises(), samples.is_sorted_by(|a, b| a.0 < b.0));
            l.drop_first(n);
            prop_assert_eq!(first(&l, l.len()), bits(&samples[n..]));
        }

        #[test]
        fn ranges_are_cut_to_the_sample(
            steps in proptest::collection::vec((1..30_000_i64, values()), 1..2000),
            n in 0..2000_usize, from in 0..2200_usize, len in 0..2200_usize, shift in -1..2_i64,
        ) {
            let mut t = 0_i64;
            let samples: Vec<_> = steps.into_iter().map(|(d, v)| { t += d; (t, v) }).collect();
            let at = |i: usize| samples[i.min(samples.len() - 1)].0 + shift;
            let (mint, maxt) = (at(from), at(from + len));
            let n = n.min(samples.len());
            let mut got = Vec::new();
            log(&samples).for_range(n, mint, maxt, |times, values| {
                assert!(!times.is_empty());
                got.extend(times.iter().zip(values).map(|(t, v)| (*t, v.to_bits())));
                ControlFlow::Continue(())
            });
            let want: Vec<_> = samples[..n].iter().copied().filter(|(t, _)| *t >= mint && *t <= maxt).collect();
            let room = log(&samples).room_for(mint, maxt);
            prop_assert!(room == 0 || room >= want.len().min(n), "{} {}", room, want.len());
            prop_assert_eq!(got, bits(&want));
        }
    }
}
