//! What lies between the log and the requests: samples in batches, and the book-keeping of what has been acknowledged.
//!
//! The log is read in pieces. A piece is done when each of its samples is acknowledged (or given up with a count),
//! and the acknowledged position is the end of the last piece such that it and all before it are done. The file that
//! keeps it is in [`position`].

use std::collections::VecDeque;
use std::sync::Arc;

use model::storage::WalPosition;
use model::{Exemplar, HistogramValue, Metadata};

pub mod position;

/// A series as the destination sees it.
#[derive(Debug)]
pub(crate) struct SentSeries {
    /// Label section of a `WriteRequest`, encoded once.
    pub(crate) raw_labels: Box<[u8]>,
    /// Stable hash of the labels: decides on the shard.
    pub(crate) hash: u64,
    /// For metadata.
    pub(crate) metric_name: Box<str>,
}

/// What is sent of a series.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Float(f64),
    Histogram(HistogramValue),
    Exemplar(Box<Exemplar>),
    /// Name of the metric family and what is known of it.
    Metadata(Box<(String, Metadata)>),
}

/// One thing to send.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) series: Arc<SentSeries>,
    /// 0 for metadata.
    pub(crate) timestamp_ms: i64,
    pub(crate) value: Value,
}

/// The items found in one piece of the log.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) items: Vec<Item>,
    /// End of the piece.
    pub(crate) end: WalPosition,
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

/// Counts what is outstanding per piece of the log.
#[derive(Debug)]
pub(crate) struct AckTracker {
    /// Pieces from the first that is not done on: end and outstanding items.
    pieces: VecDeque<(WalPosition, usize)>,
    /// Number of the first of them.
    first: u64,
    acknowledged: WalPosition,
    outstanding: usize,
}

impl AckTracker {
    /// Everything before `acknowledged` is done.
    pub(crate) fn new(acknowledged: WalPosition) -> Self {
        Self { pieces: VecDeque::new(), first: 0, acknowledged, outstanding: 0 }
    }

    /// Notes a piece with `items` items that ends at `end`, and returns its number.
    pub(crate) fn add(&mut self, end: WalPosition, items: usize) -> u64 {
        let number = self.first + self.pieces.len() as u64;
        self.pieces.push_back((end, items));
        self.outstanding += items;
        self.advance();
        number
    }

    /// Notes that items are acknowledged.
    pub(crate) fn acknowledge(&mut self, receipt: &Receipt) {
        for (number, n) in receipt {
            let i = number.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
            let piece = i.and_then(|i| self.pieces.get_mut(i));
            let piece = piece.expect("a piece stays until all its items are acknowledged");
            assert!(piece.1 >= *n, "an item is acknowledged once");
            piece.1 -= n;
            self.outstanding -= n;
        }
        self.advance();
    }

    fn advance(&mut self) {
        while let Some((end, 0)) = self.pieces.front() {
            self.acknowledged = *end;
            self.pieces.pop_front();
            self.first += 1;
        }
    }

    /// Everything before this position is acknowledged.
    pub(crate) fn acknowledged(&self) -> WalPosition {
        self.acknowledged
    }

    /// Items read and not yet acknowledged.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> WalPosition {
        WalPosition { segment: 1, offset }
    }

    #[test]
    fn the_position_never_passes_an_open_piece() {
        let mut t = AckTracker::new(at(0));
        let (a, b, c) = (t.add(at(10), 2), t.add(at(20), 1), t.add(at(30), 0));
        assert_eq!((t.acknowledged(), t.outstanding()), (at(0), 3));
        t.acknowledge(&vec![(a, 1), (b, 1)]);
        assert_eq!((t.acknowledged(), t.outstanding()), (at(0), 1));
        t.acknowledge(&vec![(a, 1)]);
        // The empty piece goes with it.
        assert_eq!((t.acknowledged(), t.outstanding()), (at(30), 0));
        let d = t.add(at(40), 1);
        assert_eq!(d, c + 1);
        t.acknowledge(&vec![(d, 1)]);
        assert_eq!(t.acknowledged(), at(40));
        t.add(at(50), 0);
        assert_eq!(t.acknowledged(), at(50));
    }

    #[test]
    fn batches_count_by_piece() {
        let series = Arc::new(SentSeries { raw_labels: Box::new([]), hash: 0, metric_name: "".into() });
        let mut b = Batch::default();
        for piece in [3, 3, 5] {
            b.push(piece, Item { series: series.clone(), timestamp_ms: 0, value: Value::Float(0.0) });
        }
        assert_eq!((b.len(), b.receipt), (3, vec![(3, 2), (5, 1)]));
    }
}
