//! How many shards the load needs.
//!
//! Little's law: requests under way = samples per second × seconds per sample. Rates are averages that forget
//! exponentially, as in Prometheus; a backlog adds load so that it is caught up in about twenty seconds of each
//! twenty it is long. Small differences are ignored, since changing the number means waiting for all requests under
//! way.

use std::time::Duration;

/// How often the number is computed anew.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// Weight of the newest interval.
const WEIGHT: f64 = 0.2;
/// Part of the backlog to catch up with per second.
const CATCH_UP: f64 = 0.05;
/// A number within this part of the current one changes nothing.
const TOLERANCE: f64 = 0.3;
/// While samples are older than this, shards are not taken away.
const BEHIND: Duration = Duration::from_secs(10);

/// An average per second that forgets.
#[derive(Debug, Default)]
struct Rate {
    per_second: Option<f64>,
}

impl Rate {
    fn add(&mut self, amount: f64, elapsed: Duration) -> f64 {
        let now = amount / elapsed.as_secs_f64().max(1e-3);
        let rate = self.per_second.map_or(now, |old| old + WEIGHT * (now - old));
        self.per_second = Some(rate);
        rate
    }
}

/// What happened since the last computation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interval {
    /// Its length.
    pub(crate) elapsed: Duration,
    /// Items read from the log.
    pub(crate) items_in: usize,
    /// Items acknowledged.
    pub(crate) items_out: usize,
    /// Time spent in requests, summed over shards.
    pub(crate) busy: Duration,
    /// Age of the newest acknowledged sample while others wait.
    pub(crate) behind: Duration,
}

/// Computes the number of shards.
#[derive(Debug)]
pub(crate) struct Planner {
    min: usize,
    max: usize,
    items_in: Rate,
    items_out: Rate,
    busy: Rate,
}

impl Planner {
    pub(crate) fn new(min: usize, max: usize) -> Self {
        let min = min.max(1);
        Self {
            min,
            max: max.max(min),
            items_in: Rate::default(),
            items_out: Rate::default(),
            busy: Rate::default(),
        }
    }

    /// The number wanted as computed, and the number to have next.
    pub(crate) fn plan(&mut self, current: usize, i: Interval) -> (f64, usize) {
        let items_in = self.items_in.add(i.items_in as f64, i.elapsed);
        let items_out = self.items_out.add(i.items_out as f64, i.elapsed);
        let busy = self.busy.add(i.busy.as_secs_f64(), i.elapsed);
        if items_out <= 0.0 {
            return (current as f64, current);
        }
        let seconds_per_item = busy / items_out;
        let backlog = i.behind.as_secs_f64() * items_in;
        let wanted = seconds_per_item * (items_in + CATCH_UP * backlog);
        let next = wanted.ceil();
        let now = current as f64;
        if (now * (1.0 - TOLERANCE)..=now * (1.0 + TOLERANCE)).contains(&next) {
            return (wanted, current);
        }
        let next = (next as usize).clamp(self.min, self.max);
        if next < current && i.behind > BEHIND { (wanted, current) } else { (wanted, next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn steady(planner: &mut Planner, mut current: usize, i: Interval) -> usize {
        for _ in 0..50 {
            current = planner.plan(current, i).1;
        }
        current
    }

    #[test]
    fn follows_the_load_within_the_limits() {
        let i = |items, busy, behind| Interval {
            elapsed: S(10),
            items_in: items,
            items_out: items,
            busy: S(busy),
            behind: S(behind),
        };
        assert_eq!(steady(&mut Planner::new(1, 50), 1, i(1000, 1, 0)), 1);
        assert_eq!(steady(&mut Planner::new(1, 50), 1, i(100_000, 80, 0)), 8);
        // A backlog asks for more than the load alone.
        assert_eq!(steady(&mut Planner::new(1, 50), 1, i(100_000, 80, 20)), 16);
        assert_eq!(steady(&mut Planner::new(1, 50), 1, i(100_000, 80, 10_000)), 50);
        assert_eq!(steady(&mut Planner::new(4, 50), 4, i(1000, 1, 0)), 4);
        assert_eq!(steady(&mut Planner::new(1, 50), 20, i(1000, 1, 0)), 1);
        // Behind, so nothing is taken away.
        assert_eq!(steady(&mut Planner::new(1, 50), 20, i(1000, 1, 60)), 20);
        // Nothing goes out, so nothing is known.
        assert_eq!(steady(&mut Planner::new(1, 50), 3, Interval { items_out: 0, ..i(1000, 30, 60) }), 3);
    }
}
