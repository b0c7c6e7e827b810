//! What lies between the log and the requests: samples in batches, and the book-keeping of what has been acknowledged.
//!
//! The log is read in pieces. A piece is done when each of its samples is acknowledged (or given up with a count),
//! and the acknowledged position is the end of the last piece such that it and all before it are done. The file that
//! keeps it is in [`position`].

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::storage::WalPosition;
use model::{Exemplar, HistogramValue, Labels, Metadata, Samples};
use parking_lot::RwLock;
use wire::write_v1::encode::encode_labels;

pub mod position;

/// A series as the destination sees it.
#[derive(Debug)]
pub(crate) struct SentSeries {
    /// Its labels, external ones included.
    pub(crate) labels: Labels,
    /// Stable hash of the labels: decides on the shard.
    pub(crate) hash: u64,
    /// Label section of a `WriteRequest`, encoded when it is first needed.
    raw_labels: OnceLock<Box<[u8]>>,
    metadata: RwLock<Option<Arc<Metadata>>>,
}

impl SentSeries {
    /// A series of which only the labels are known.
    pub(crate) fn new(labels: Labels) -> Self {
        let hash = labels.hash64();
        Self { labels, hash, raw_labels: OnceLock::new(), metadata: RwLock::new(None) }
    }

    /// Label section of a `WriteRequest`.
    pub(crate) fn raw_labels(&self) -> &[u8] {
        self.raw_labels.get_or_init(|| {
            let mut raw = Vec::new();
            encode_labels(&self.labels, &mut raw);
            raw.into()
        })
    }

    /// What is known of its metric family.
    pub(crate) fn metadata(&self) -> Option<Arc<Metadata>> {
        self.metadata.read().clone()
    }

    /// Notes what is known of its metric family.
    pub(crate) fn set_metadata(&self, metadata: Option<Arc<Metadata>>) {
        *self.metadata.write() = metadata;
    }
}

/// What is sent of a series.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Float(f64),
    Histogram(HistogramValue),
    Exemplar(Box<Exemplar>),
    /// Name of the metric family and what is known of it; only version 1.0 sends it apart from samples.
    Metadata(Box<(String, Metadata)>),
}

/// One thing to send.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) series: Arc<SentSeries>,
    /// 0 for metadata.
    pub(crate) timestamp_ms: i64,
    /// 0 when unknown.
    pub(crate) start_timestamp_ms: i64,
    pub(crate) value: Value,
}

/// Samples of one series at once, as the backlog reads them.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) series: Arc<SentSeries>,
    pub(crate) samples: Samples,
    pub(crate) exemplars: Vec<Exemplar>,
}

/// The items found in one piece of the log.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) items: Vec<Item>,
    /// What is acknowledged once all items of the piece and of those before it are.
    pub(crate) end: Acknowledged,
    /// Series that are new in this piece and may have a history without their tag: the piece stays open until they have
    /// been looked at.
    pub(crate) newly_tagged: Vec<Labels>,
    /// When it was read, by [`model::Clock::monotonic`].
    pub(crate) read_at: Duration,
}

/// How far everything is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Acknowledged {
    /// Everything before this position.
    pub position: WalPosition,
    /// Times of the samples before it; `None` while there was none.
    pub times: Option<Times>,
}

/// Times of acknowledged samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The highest one, in milliseconds.
    pub newest_ms: i64,
    /// A safe lower bound: what the log has after the position is not older, late samples of the usual lateness
    /// included.
    pub low_ms: i64,
}

/// Items that go out in one request, in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) items: Vec<Item>,
    /// How many items come from which piece, in order.
    pub(crate) receipt: Receipt,
}

/// Piece numbers and counts.
pub(crate) type Receipt = Vec<(u64, usize)>;

impl Batch {
    pub(crate) fn push(&mut self, piece: u64, item: Item) {
        match self.receipt.last_mut() {
            Some((last, n)) if *last == piece => *n += 1,
            _ => self.receipt.push((piece, 1)),
        }
        self.items.push(item);
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// A piece of the log that is not done.
#[derive(Debug)]
struct Open {
    end: Acknowledged,
    /// Items outstanding.
    items: usize,
    /// Whether newly tagged series are still to be looked at.
    held: bool,
    read_at: Duration,
}

/// Counts what is outstanding per piece of the log.
#[derive(Debug)]
pub(crate) struct AckTracker {
    /// Pieces from the first that is not done on.
    pieces: VecDeque<Open>,
    /// Number of the first of them.
    first: u64,
    acknowledged: Acknowledged,
    outstanding: usize,
}

impl AckTracker {
    /// Everything before `acknowledged` is done.
    pub(crate) fn new(acknowledged: Acknowledged) -> Self {
        Self { pieces: VecDeque::new(), first: 0, acknowledged, outstanding: 0 }
    }

    /// Notes a piece with `items` items that ends at `end`, and returns its number. With `held` it is not done before
    /// [`AckTracker::release`].
    pub(crate) fn add(&mut self, end: Acknowledged, items: usize, held: bool, read_at: Duration) -> u64 {
        let number = self.first + self.pieces.len() as u64;
        self.pieces.push_back(Open { end, items, held, read_at });
        self.outstanding += items;
        self.advance();
        number
    }

    /// Notes that items are acknowledged.
    pub(crate) fn acknowledge(&mut self, receipt: &Receipt) {
        for (number, n) in receipt {
            let piece = self.piece(*number);
            assert!(piece.items >= *n, "an item is acknowledged once");
            piece.items -= n;
            self.outstanding -= n;
        }
        self.advance();
    }

    /// Notes that the newly tagged series of a piece have been looked at.
    pub(crate) fn release(&mut self, number: u64) {
        self.piece(number).held = false;
        self.advance();
    }

    fn piece(&mut self, number: u64) -> &mut Open {
        let i = number.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
        i.and_then(|i| self.pieces.get_mut(i)).expect("a piece stays until all its items are acknowledged")
    }

    fn advance(&mut self) {
        while let Some(Open { end, items: 0, held: false, .. }) = self.pieces.front() {
            self.acknowledged = *end;
            self.pieces.pop_front();
            self.first += 1;
        }
    }

    /// Everything before this is acknowledged.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        self.acknowledged
    }

    /// Items read and not yet acknowledged.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Whether a piece waits for newly tagged series.
    pub(crate) fn holds(&self) -> bool {
        self.pieces.iter().any(|p| p.held)
    }

    /// When the oldest piece with outstanding items was read.
    pub(crate) fn waiting_since(&self) -> Option<Duration> {
        self.pieces.iter().find(|p| p.items > 0).map(|p| p.read_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Acknowledged {
        Acknowledged { position: WalPosition { segment: 1, offset }, times: None }
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn the_position_never_passes_an_open_piece() {
        let mut t = AckTracker::new(at(0));
        let (a, b, c) =
            (t.add(at(10), 2, false, NOW), t.add(at(20), 1, false, NOW), t.add(at(30), 0, false, NOW));
        assert_eq!((t.acknowledged(), t.outstanding()), (at(0), 3));
        t.acknowledge(&vec![(a, 1), (b, 1)]);
        assert_eq!((t.acknowledged(), t.outstanding()), (at(0), 1));
        t.acknowledge(&vec![(a, 1)]);
        // The empty piece goes with it.
        assert_eq!((t.acknowledged(), t.outstanding()), (at(30), 0));
        let d = t.add(at(40), 1, true, NOW);
        assert_eq!(d, c + 1);
        t.acknowledge(&vec![(d, 1)]);
        assert_eq!((t.acknowledged(), t.outstanding(), t.waiting_since()), (at(30), 0, None));
        t.release(d);
        assert_eq!(t.acknowledged(), at(40));
        t.add(at(50), 0, false, NOW);
        assert_eq!(t.acknowledged(), at(50));
    }

    #[test]
    fn batches_count_by_piece() {
        let series = Arc::new(SentSeries::new(Labels::from_pairs([("a", "b")])));
        let mut b = Batch::default();
        for piece in [3, 3, 5] {
            let value = Value::Float(0.0);
            b.push(piece, Item { series: series.clone(), timestamp_ms: 0, start_timestamp_ms: 0, value });
        }
        assert_eq!((b.len(), b.receipt), (3, vec![(3, 2), (5, 1)]));
    }
}
