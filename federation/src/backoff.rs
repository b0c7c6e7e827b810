//! Waiting between attempts: exponential, with the receiver's own wish (`Retry-After`) taking precedence within reason.
//! Nothing here sleeps.

use std::time::Duration;

/// A receiver that asks for more is asked again after this time all the same, so that a mistaken header cannot stop a
/// sender for good.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The growing pause between attempts at one batch.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `min`, doubled each time, up to `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        let max = max.max(min);
        Self { min, max, next: min }
    }

    /// The next pause. `retry_after` is what the receiver asked for.
    pub fn pause(&mut self, retry_after: Option<Duration>) -> Duration {
        let own = self.next;
        self.next = (own * 2).min(self.max);
        match retry_after {
            Some(wish) if !wish.is_zero() => wish.min(MAX_RETRY_AFTER),
            _ => own,
        }
    }

    /// Starts again from the shortest pause.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

/// Reads `Retry-After`: seconds, or a date in HTTP's form, from which `now_ms` is subtracted. `None` when it is
/// neither or lies in the past.
#[must_use]
pub fn parse_retry_after(value: &str, now_ms: i64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let at_ms = chrono::DateTime::parse_from_rfc2822(value).ok()?.timestamp_millis();
    u64::try_from(at_ms.saturating_sub(now_ms)).ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn doubles_up_to_the_limit_and_obeys_the_receiver() {
        let mut b = Backoff::new(MS(30), MS(100));
        assert_eq!([b.pause(None), b.pause(None), b.pause(None), b.pause(None)], [30, 60, 100, 100].map(MS));
        b.reset();
        assert_eq!(b.pause(Some(MS(7))), MS(7));
        assert_eq!(b.pause(Some(MS(0))), MS(60));
        assert_eq!(b.pause(Some(MS(u64::MAX / 2))), MAX_RETRY_AFTER);
    }

    #[test]
    fn reads_both_forms_of_retry_after() {
        let check = |v: &str, expect: Option<u64>| {
            assert_eq!(parse_retry_after(v, 1_445_412_470_000), expect.map(MS), "{v}")
        };
        check("120", Some(120_000));
        check(" 1 ", Some(1_000));
        check("Wed, 21 Oct 2015 07:28:00 GMT", Some(10_000));
        check("Wed, 21 Oct 2015 07:27:00 GMT", None);
        check("-1", None);
        check("soon", None);
    }
}
