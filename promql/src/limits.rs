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
    free: Mutex<usize>,
    freed: Condvar,
}

/// A slot that is taken; dropping it gives it back.
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count.max(1)), freed: Condvar::new() }
    }

    /// Waits for a slot.
    pub(crate) fn take(
        &self,
        clock: &dyn Clock,
        deadline: Duration,
        cancel: Option<&CancelToken>,
    ) -> Result<Slot<'_>, QueryError> {
        let mut free = self.free.lock();
        while *free == 0 {
            if cancel.is_some_and(CancelToken::is_cancelled) {
                return Err(QueryError::Canceled(STAGE));
            }
            if clock.monotonic() > deadline {
                return Err(QueryError::Timeout(STAGE));
            }
            self.freed.wait_for(&mut free, LOOK_EVERY);
        }
        *free -= 1;
        Ok(Slot(self))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
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
