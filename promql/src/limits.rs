//! Slots: how many queries run at once. The others wait in line, as long as their time lasts.

use std::time::Duration;

use model::Clock;
use parking_lot::{Condvar, Mutex};

use crate::engine::CancelToken;
use crate::error::QueryError;

/// How long a waiting query sleeps before it looks at its clock and its cancel switch again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const STAGE: &str = "query queue";

/// A number of slots.
pub(crate) struct Slots {
    /// Numbers of those that are free.
    free: Mutex<Vec<usize>>,
    freed: Condvar,
}

/// A slot that is taken; dropping it gives it back.
pub(crate) struct Slot<'a> {
    slots: &'a Slots,
    number: usize,
}

impl Slot<'_> {
    /// Which one of the slots it is, from 0 on.
    pub(crate) fn number(&self) -> usize {
        self.number
    }
}

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Mutex::new((0..count.max(1)).rev().collect()), freed: Condvar::new() }
    }

    /// Waits for a slot.
    pub(crate) fn take(
        &self,
        clock: &dyn Clock,
        deadline: Duration,
        cancel: Option<&CancelToken>,
    ) -> Result<Slot<'_>, QueryError> {
        let mut free = self.free.lock();
        loop {
            if let Some(number) = free.pop() {
                return Ok(Slot { slots: self, number });
            }
            if cancel.is_some_and(CancelToken::is_cancelled) {
                return Err(QueryError::Canceled(STAGE));
            }
            if clock.monotonic() > deadline {
                return Err(QueryError::Timeout(STAGE));
            }
            self.freed.wait_for(&mut free, LOOK_EVERY);
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.slots.free.lock().push(self.number);
        self.slots.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::clock::ManualClock;

    #[test]
    fn the_newcomer_waits_and_times_out() {
        let (slots, clock) = (Slots::new(1), ManualClock::new(0));
        let first = slots.take(&clock, Duration::from_secs(1), None).expect("a free slot");
        clock.advance(Duration::from_secs(2));
        let waited = slots.take(&clock, Duration::from_secs(1), None).map(|_| ());
        assert!(matches!(waited, Err(QueryError::Timeout("query queue"))));
        drop(first);
        assert!(slots.take(&clock, Duration::from_secs(1), None).is_ok());
    }
}
