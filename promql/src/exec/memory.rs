//! The account of the bytes that a running query holds: batches of its operators, what they buffer, selections that are
//! kept, collected results, decoded series.
//!
//! Counted are the large things, per batch and per group, never per sample: columns, labels, histograms, bitmaps. Whoever
//! holds memory has a [`HeldBytes`], whose end takes the bytes off the account, so that a query that fails leaves nothing
//! behind. What is larger than the whole budget is asked for before it is allocated.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{FloatHistogram, Labels};

use crate::error::{QueryError, Result};

/// What one query holds, against its budget.
#[derive(Debug, Default)]
pub(crate) struct MemoryAccount {
    /// 0 for none.
    limit: u64,
    now: AtomicU64,
    peak: AtomicU64,
    kept: AtomicU64,
}

impl MemoryAccount {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// An empty holding.
    pub(crate) fn hold(&self) -> HeldBytes<'_> {
        HeldBytes { account: self, bytes: 0 }
    }

    /// Fails when `bytes` more would be over the budget.
    pub(crate) fn fits(&self, bytes: u64) -> Result<()> {
        let total = self.now.load(Ordering::Relaxed).saturating_add(bytes);
        if self.limit > 0 && total > self.limit {
            return Err(self.over());
        }
        Ok(())
    }

    /// Fails when one column of `steps` cells would be over the budget.
    pub(crate) fn fits_column(&self, steps: usize) -> Result<()> {
        self.fits((steps as u64).saturating_mul(size_of::<f64>() as u64))
    }

    /// Holds `bytes` until the query is over.
    pub(crate) fn keep(&self, bytes: u64) -> Result<()> {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
        self.add(bytes)
    }

    /// What is held and will not last until the query is over.
    pub(crate) fn passing(&self) -> u64 {
        self.now().saturating_sub(self.kept.load(Ordering::Relaxed))
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    fn over(&self) -> QueryError {
        QueryError::TooMuchMemory { limit_bytes: self.limit }
    }

    fn add(&self, bytes: u64) -> Result<()> {
        let now = self.now.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.peak.fetch_max(now, Ordering::Relaxed);
        if self.limit > 0 && now > self.limit { Err(self.over()) } else { Ok(()) }
    }

    fn remove(&self, bytes: u64) {
        self.now.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that one part of a query holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct HeldBytes<'a> {
    account: &'a MemoryAccount,
    bytes: u64,
}

impl HeldBytes<'_> {
    /// Holds `bytes` more. After an error they are on the account too, until the holding ends.
    pub(crate) fn add(&mut self, bytes: u64) -> Result<()> {
        self.bytes += bytes;
        self.account.add(bytes)
    }

    /// Holds `bytes` in all.
    pub(crate) fn set(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.bytes {
            return self.add(bytes - self.bytes);
        }
        self.account.remove(self.bytes - bytes);
        self.bytes = bytes;
        Ok(())
    }

    /// Holds at least `bytes` in all: for buffers that grow and are kept.
    pub(crate) fn at_least(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.bytes { self.set(bytes) } else { Ok(()) }
    }
}

impl Drop for HeldBytes<'_> {
    fn drop(&mut self) {
        self.account.remove(self.bytes);
    }
}

/// Bytes of labels that someone keeps.
pub(crate) fn labels_bytes(labels: &Labels) -> u64 {
    (size_of::<Labels>() + labels.size_bytes()) as u64
}

/// Bytes of a histogram.
pub(crate) fn histogram_bytes(h: &FloatHistogram) -> u64 {
    let spans = h.positive_spans.len() + h.negative_spans.len();
    let floats = h.positive_buckets.len() + h.negative_buckets.len() + h.custom_values.len();
    (size_of::<FloatHistogram>() + 8 * (spans + floats)) as u64
}

/// Bytes of the histograms of a column. Neighbours that are one and the same count once.
pub(crate) fn histograms_bytes<'h>(column: impl Iterator<Item = &'h Arc<FloatHistogram>>) -> u64 {
    let mut last: Option<&Arc<FloatHistogram>> = None;
    let mut bytes = 0;
    for h in column {
        if !last.is_some_and(|l| Arc::ptr_eq(l, h)) {
            bytes += histogram_bytes(h);
        }
        last = Some(h);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_given_back() {
        let account = MemoryAccount::new(100);
        let mut a = account.hold();
        let mut b = account.hold();
        a.add(60).expect("within the budget");
        assert!(matches!(b.add(50), Err(QueryError::TooMuchMemory { limit_bytes: 100 })));
        assert_eq!((account.now(), account.peak()), (110, 110));
        drop(b);
        a.set(20).expect("less");
        a.at_least(10).expect("no change");
        assert_eq!(account.now(), 20);
        assert!(account.fits(80).is_ok() && account.fits(81).is_err());
        drop(a);
        assert_eq!(account.now(), 0);
        let none = MemoryAccount::new(0);
        assert!(none.hold().add(1 << 40).is_ok());
        assert!(none.fits_column(1 << 20).is_ok() && account.fits_column(usize::MAX).is_err());
    }
}
