//! Open samples: those in the journal that are not sealed yet, in memory, per series in order of arrival.
//!
//! Arrival order is the order of commits, so that a reader who came at a given sequence sees a prefix of each series.
//! [`OpenSeries::marks`] remember where later commits begin, as long as a reader might ask. Spec of who wins a timestamp:
//! docs/formats/longterm.md#who-wins.

mod log;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::ControlFlow;

use model::{Labels, Sample, SampleValue, Samples};
use parking_lot::Mutex;

use super::registry::HashedKey;
use log::Log;

/// No reader is active.
pub(super) const NO_READER: u64 = u64::MAX;

/// Open samples of one series. Indexed by slot.
#[derive(Default)]
pub(super) struct OpenSeries {
    /// Series id; 0 for a slot not in use.
    pub(super) id: u64,
    pub(super) labels: Labels,
    /// In order of arrival. A sample that is more than a float has a 0 here and itself in `extras`.
    log: Log,
    /// Place in `log` and the sample.
    #[allow(
        clippy::box_collection,
        reason = "one word instead of three in very many series, nearly all without"
    )]
    extras: Option<Box<Vec<(u32, Sample)>>>,
    /// Sequence and length of `log` before it, rising, for sequences that some reader must not see.
    marks: Vec<(u64, u32)>,
    /// Sequence of the first sample in `log`.
    first_seq: u64,
    /// When the first sample of `log` arrived.
    opened_ms: i64,
    /// Whether the timestamps of `log` rise strictly.
    sorted: bool,
}

impl OpenSeries {
    pub(super) fn len(&self) -> usize {
        self.log.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    pub(super) fn opened_ms(&self) -> i64 {
        self.opened_ms
    }

    pub(super) fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// Adds a float. Returns by how much memory changed, and whether the sample was kept.
    #[inline]
    fn push_float(&mut self, at: &Apply, timestamp_ms: i64, value: f64) -> (isize, bool) {
        if let Some((last, v)) = self.log.last() {
            if timestamp_ms <= last {
                if timestamp_ms == last && v.to_bits() == value.to_bits() && self.extras.is_none() {
                    return (0, false);
                }
                self.sorted = false;
            }
            self.mark(at);
        } else {
            self.begin(at);
        }
        let before = self.log.bytes();
        self.log.push(timestamp_ms, value);
        (self.log.bytes() as isize - before as isize, true)
    }

    fn push(&mut self, at: &Apply, sample: Sample) -> (isize, bool) {
        if let (SampleValue::Float(v), 0) = (&sample.value, sample.start_timestamp_ms) {
            return self.push_float(at, sample.timestamp_ms, *v);
        }
        match self.log.last() {
            Some((last, _)) => {
                self.sorted &= sample.timestamp_ms > last;
                self.mark(at);
            }
            None => self.begin(at),
        }
        let before = self.log.bytes();
        let bytes = sample_bytes(&sample) as isize;
        let place = self.log.len() as u32;
        self.log.push(sample.timestamp_ms, 0.0);
        self.extras.get_or_insert_default().push((place, sample));
        (bytes + self.log.bytes() as isize - before as isize, true)
    }

    fn begin(&mut self, at: &Apply) {
        self.first_seq = at.seq;
        self.opened_ms = at.now_ms;
        self.sorted = true;
        self.marks.clear();
        self.mark(at);
    }

    #[inline]
    fn mark(&mut self, at: &Apply) {
        if at.oldest_reader == NO_READER && self.marks.is_empty() {
            return;
        }
        if self.marks.first().is_some_and(|(seq, _)| *seq <= at.oldest_reader) {
            self.marks.retain(|(seq, _)| *seq > at.oldest_reader && at.oldest_reader != NO_READER);
        }
        if at.oldest_reader != NO_READER && self.marks.last().is_none_or(|(seq, _)| *seq != at.seq) {
            self.marks.push((at.seq, self.log.len() as u32));
        }
    }

    /// How many samples a reader of sequence `seq` sees.
    pub(super) fn visible_len(&self, seq: u64) -> usize {
        let later = self.marks.iter().find(|(s, _)| *s > seq);
        later.map_or(self.log.len(), |(_, len)| (*len as usize).min(self.log.len()))
    }

    /// The first `n` samples within `[mint, maxt]`: rising, one per timestamp, the one that came first; histograms with
    /// the hints of one chunk.
    pub(super) fn copy(&self, n: usize, mint: i64, maxt: i64) -> Samples {
        let mut out = Samples::new();
        if self.sorted && self.extras.is_none() {
            let room = self.log.room_for(mint, maxt);
            out.timestamps_ms.reserve_exact(room);
            out.values.reserve_exact(room);
            self.log.for_range(n, mint, maxt, |times, values| {
                out.timestamps_ms.extend_from_slice(times);
                out.values.extend_from_slice(values);
                ControlFlow::Continue(())
            });
            return out;
        }
        let mut order: Vec<(i64, u32, f64)> = Vec::new();
        let mut place = 0;
        self.log.for_first(n, |t, v| {
            if t <= maxt {
                order.push((t, place, v));
            }
            place += 1;
        });
        order.sort_by_key(|(t, ..)| *t);
        order.dedup_by_key(|(t, ..)| *t);
        // The sample before the range tells whether the first histogram in it follows a reset.
        let first = order.partition_point(|(t, ..)| *t < mint);
        let from = if self.extras.is_some() { first.saturating_sub(1) } else { first };
        for (t, place, v) in order.drain(from..) {
            match self.extra(place) {
                Some(sample) => out.push(sample.clone()),
                None => out.push_float(t, v),
            }
        }
        model::histogram::settle_hints(&mut out, 0);
        out.clip(mint, maxt);
        out
    }

    /// Whether one of the first `n` samples lies within `[mint, maxt]`.
    pub(super) fn has(&self, n: usize, mint: i64, maxt: i64) -> bool {
        if !self.sorted {
            return !self.copy(n, mint, maxt).is_empty();
        }
        let mut has = false;
        self.log.for_range(n, mint, maxt, |_, _| {
            has = true;
            ControlFlow::Break(())
        });
        has
    }

    fn extra(&self, i: u32) -> Option<&Sample> {
        let extras = self.extras.as_ref()?;
        extras.binary_search_by_key(&i, |(place, _)| *place).ok().map(|at| &extras[at].1)
    }

    /// Drops the first `n` samples, all of sequences up to `watermark`. Returns by how much memory changed: what stays is packed anew, and may take
    /// more than all did.
    fn drain(&mut self, n: usize, watermark: u64, now_ms: i64) -> isize {
        let before = self.bytes() as isize;
        if n == self.log.len() {
            self.log = Log::default();
            self.extras = None;
            self.marks = Vec::new();
            return -before;
        }
        self.log.drop_first(n);
        if let Some(extras) = &mut self.extras {
            extras.retain(|(place, _)| *place as usize >= n);
            extras.iter_mut().for_each(|(place, _)| *place -= n as u32);
            if extras.is_empty() {
                self.extras = None;
            }
        }
        self.marks.retain(|(seq, _)| *seq > watermark);
        self.marks.iter_mut().for_each(|(_, len)| *len = len.saturating_sub(n as u32));
        // A rest exists only where a reader holds the watermark back, and then there is a mark at its begin.
        self.first_seq = self.marks.first().map_or(watermark + 1, |(seq, _)| *seq);
        self.opened_ms = now_ms;
        self.sorted = self.log.rises();
        self.bytes() as isize - before
    }

    fn bytes(&self) -> usize {
        let extras = self.extras.iter().flat_map(|e| e.iter());
        let others: usize = extras.map(|(_, s)| sample_bytes(s)).sum();
        self.log.bytes() + others
    }
}

/// Rough size of a sample with a histogram.
fn sample_bytes(s: &Sample) -> usize {
    use model::HistogramValue::{Float, Int};
    let buckets = match &s.value {
        SampleValue::Float(_) => 0,
        SampleValue::Histogram(Int(h)) => {
            h.positive_buckets.len()
                + h.negative_buckets.len()
                + h.positive_spans.len()
                + h.negative_spans.len()
        }
        SampleValue::Histogram(Float(h)) => {
            h.positive_buckets.len()
                + h.negative_buckets.len()
                + h.positive_spans.len()
                + h.negative_spans.len()
        }
    };
    size_of::<(u32, Sample)>() + 250 + 8 * buckets
}

/// One batch on its way into [`Open`].
pub(super) struct Apply {
    pub(super) seq: u64,
    pub(super) now_ms: i64,
    pub(super) oldest_reader: u64,
}

/// All open samples.
#[derive(Default)]
pub(super) struct Open {
    series: Vec<OpenSeries>,
    by_id: HashMap<u64, u32, BuildHasherDefault<HashedKey>>,
    /// Sequence of the last batch that readers see.
    pub(super) published: u64,
    pub(super) samples: u64,
    pub(super) bytes: u64,
    /// Series with samples.
    pub(super) filled: u64,
}

impl Open {
    /// Makes a slot known.
    pub(super) fn insert(&mut self, slot: u32, id: u64, labels: Labels) {
        if self.series.len() <= slot as usize {
            self.series.resize_with(slot as usize + 1, OpenSeries::default);
        }
        let s = &mut self.series[slot as usize];
        debug_assert!(s.is_empty() && id != 0);
        (s.id, s.labels) = (id, labels);
        self.by_id.insert(id, slot);
    }

    /// Forgets a slot without open samples; `false` when it has some.
    pub(super) fn remove(&mut self, slot: u32) -> bool {
        let Some(s) = self.series.get_mut(slot as usize) else { return true };
        if !s.is_empty() {
            return false;
        }
        self.by_id.remove(&s.id);
        *s = OpenSeries::default();
        true
    }

    #[inline]
    pub(super) fn push_float(&mut self, at: &Apply, slot: u32, timestamp_ms: i64, value: f64) {
        let series = &mut self.series[slot as usize];
        self.filled += u64::from(series.is_empty());
        let (bytes, kept) = series.push_float(at, timestamp_ms, value);
        self.bytes = self.bytes.saturating_add_signed(bytes as i64);
        self.samples += u64::from(kept);
    }

    pub(super) fn push(&mut self, at: &Apply, slot: u32, sample: Sample) {
        let series = &mut self.series[slot as usize];
        self.filled += u64::from(series.is_empty());
        let (bytes, kept) = series.push(at, sample);
        self.bytes = self.bytes.saturating_add_signed(bytes as i64);
        self.samples += u64::from(kept);
    }

    pub(super) fn drain(&mut self, slot: u32, n: usize, watermark: u64, now_ms: i64) {
        let series = &mut self.series[slot as usize];
        let was_filled = !series.is_empty();
        let change = series.drain(n, watermark, now_ms);
        self.filled -= u64::from(was_filled && series.is_empty());
        self.bytes = self.bytes.saturating_add_signed(change as i64);
        self.samples -= n as u64;
    }

    pub(super) fn get(&self, slot: u32) -> Option<&OpenSeries> {
        self.series.get(slot as usize)
    }

    /// The slot of a series in memory.
    pub(super) fn slot_of(&self, id: u64) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn by_id(&self, id: u64) -> Option<&OpenSeries> {
        self.by_id.get(&id).map(|slot| &self.series[*slot as usize])
    }

    /// Slots with open samples.
    pub(super) fn slots(&self) -> impl Iterator<Item = (u32, &OpenSeries)> {
        self.series.iter().enumerate().filter(|(_, s)| !s.is_empty()).map(|(i, s)| (i as u32, s))
    }
}

/// Who is reading: the sequence each reader sees up to, and from which time on.
#[derive(Default)]
pub(super) struct Readers {
    active: Mutex<Vec<Reader>>,
}

struct Reader {
    token: u64,
    seq: u64,
    mint: i64,
    since_ms: i64,
}

impl Readers {
    /// Registers a reader. Called while the open samples are locked for reading, so that no commit comes between.
    pub(super) fn enter(&self, seq: u64, mint: i64, since_ms: i64) -> u64 {
        let mut active = self.active.lock();
        let token = active.iter().map(|r| r.token).max().map_or(0, |t| t + 1);
        active.push(Reader { token, seq, mint, since_ms });
        token
    }

    pub(super) fn leave(&self, token: u64) {
        self.active.lock().retain(|r| r.token != token);
    }

    /// Sequence of the oldest reader, or [`NO_READER`].
    pub(super) fn oldest_seq(&self) -> u64 {
        self.active.lock().iter().map(|r| r.seq).min().unwrap_or(NO_READER)
    }

    /// As [`Readers::oldest_seq`], without readers that began before `since_ms`.
    pub(super) fn oldest_seq_since(&self, since_ms: i64) -> u64 {
        let active = self.active.lock();
        active.iter().filter(|r| r.since_ms >= since_ms).map(|r| r.seq).min().unwrap_or(NO_READER)
    }

    /// First timestamp that a reader may still ask for.
    pub(super) fn oldest_mint(&self) -> Option<i64> {
        self.active.lock().iter().map(|r| r.mint).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(seq: u64, oldest_reader: u64) -> Apply {
        Apply { seq, now_ms: 0, oldest_reader }
    }

    #[test]
    fn readers_see_prefixes_and_the_first_value_of_a_timestamp() {
        let mut s = OpenSeries::default();
        s.push_float(&apply(1, NO_READER), 10, 1.0);
        s.push_float(&apply(2, NO_READER), 20, 2.0);
        assert_eq!(s.visible_len(2), 2);
        // A reader came at sequence 2.
        s.push_float(&apply(3, 2), 5, 0.5);
        s.push_float(&apply(3, 2), 30, 3.0);
        s.push_float(&apply(4, 2), 20, 9.0);
        assert_eq!([1, 2, 3, 4].map(|seq| s.visible_len(seq)), [2, 2, 4, 5]);
        let all = s.copy(5, i64::MIN, i64::MAX);
        assert_eq!((all.timestamps_ms, all.values), (vec![5, 10, 20, 30], vec![0.5, 1.0, 2.0, 3.0]));
        assert_eq!(s.copy(5, 6, 20).timestamps_ms, [10, 20]);
        s.drain(2, 2, 7);
        assert_eq!((s.first_seq(), s.len(), s.visible_len(2), s.visible_len(3)), (3, 3, 0, 2));
        // The reader left; marks go with the next sample.
        s.push_float(&apply(5, NO_READER), 40, 4.0);
        assert_eq!((s.visible_len(2), s.marks.len()), (4, 0));
    }

    #[test]
    fn a_batch_sent_again_costs_nothing() {
        let mut s = OpenSeries::default();
        assert!(s.push_float(&apply(1, NO_READER), 10, model::stale_nan()).1);
        assert!(!s.push_float(&apply(2, NO_READER), 10, model::stale_nan()).1);
        assert!(s.push(&apply(3, NO_READER), Sample::histogram(11, model::Histogram::default())).1);
        assert_eq!((s.len(), s.copy(2, 0, 99).len()), (2, 2));
    }

    #[test]
    fn memory_is_counted_right_when_what_stays_is_packed_anew() {
        for n in 1..150_usize {
            for dropped in [1, n / 3, n.saturating_sub(1)] {
                let mut open = Open::default();
                open.insert(0, 1, Labels::empty());
                for i in 0..n as i64 {
                    open.push_float(&apply(1, NO_READER), 0, i * 10 + i % 3, (i * i % 1009) as f64);
                }
                open.drain(0, dropped, 1, 0);
                let series = open.get(0).expect("it is there");
                assert_eq!(
                    (open.bytes, open.samples),
                    (series.bytes() as u64, (n - dropped) as u64),
                    "{n} {dropped}"
                );
            }
        }
    }
}
