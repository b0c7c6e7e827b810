//! Pending alerts over a restart: when each one became active is read from the series `ALERTS_FOR_STATE`.
//!
//! The time without a server does not count as pending. An alert that would fire within the grace period waits for it,
//! so that what it depends on can be scraped again. Rules whose `for` is shorter than the grace period begin anew.

use std::collections::BTreeMap;

use model::labels::METRIC_NAME;
use model::{Labels, Queryable, Samples, SelectHints, StorageError, is_stale_nan};

use crate::alerting::{Alert, Alerting};
use crate::group::Timing;

/// The last sample of a series of `ALERTS_FOR_STATE`.
#[derive(Clone, Copy, Debug)]
struct LastSeen {
    timestamp_ms: i64,
    active_at_seconds: f64,
}

/// Restores the alerts of these rules at `now_ms`. What cannot be read is said in the log; its alerts stay as they are.
pub(crate) fn restore<'a>(
    rules: impl Iterator<Item = &'a mut Alerting>,
    queryable: &dyn Queryable,
    timing: Timing,
    now_ms: i64,
) {
    for rule in rules {
        // Whatever happens, there is no second try: from now on the rule writes its own series.
        rule.restored = true;
        if rule.for_ms < timing.grace_period_ms {
            continue;
        }
        match last_seen(rule, queryable, now_ms - timing.outage_tolerance_ms, now_ms) {
            Ok(seen) => {
                for (labels, alert) in &mut rule.active {
                    if let Some(seen) = seen.get(labels) {
                        take_up(alert, *seen, rule.for_ms, timing.grace_period_ms, now_ms);
                    }
                }
            }
            Err(error) => {
                tracing::error!(alert = rule.name, error, "failed to restore the `for` state of an alert");
            }
        }
    }
}

/// By the labels of the alert. Series that end with a stale marker are left out: the alert was not active any more.
fn last_seen(
    rule: &Alerting,
    queryable: &dyn Queryable,
    mint: i64,
    maxt: i64,
) -> Result<BTreeMap<Labels, LastSeen>, String> {
    let matchers = rule.for_state_matchers()?;
    let read = || -> Result<_, StorageError> {
        let querier = queryable.querier(mint, maxt)?;
        let mut set = querier.select(&matchers, &SelectHints::default())?;
        let mut found = BTreeMap::new();
        let mut samples = Samples::default();
        while let Some(series) = set.next()? {
            samples.clear();
            model::chunk::decode_chunks(&series.chunks, mint, maxt, &mut samples)?;
            let floats = samples.timestamps_ms.iter().zip(&samples.values).enumerate();
            let last = floats.take_while(|(i, _)| samples.histogram(*i).is_none()).last();
            if let Some((_, (timestamp_ms, value))) = last.filter(|(_, (_, v))| !is_stale_nan(**v)) {
                let seen = LastSeen { timestamp_ms: *timestamp_ms, active_at_seconds: *value };
                found.insert(series.labels.filter(|name| name != METRIC_NAME), seen);
            }
        }
        Ok(found)
    };
    read().map_err(|e| e.to_string())
}

fn take_up(alert: &mut Alert, seen: LastSeen, for_ms: i64, grace_period_ms: i64, now_ms: i64) {
    // Both are cut to seconds, as Prometheus does.
    let down_at_ms = seen.timestamp_ms / 1000 * 1000;
    let active_at_ms = (seen.active_at_seconds as i64).saturating_mul(1000);
    let pending_left_ms = for_ms - down_at_ms.saturating_sub(active_at_ms);
    alert.active_at_ms = if pending_left_ms <= 0 {
        // It was firing; the next evaluation makes it fire again.
        active_at_ms
    } else if pending_left_ms < grace_period_ms {
        now_ms + grace_period_ms - for_ms
    } else {
        active_at_ms.saturating_add(now_ms - down_at_ms)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_without_a_server_does_not_count() {
        const MINUTE: i64 = 60_000;
        // `for` is 60 minutes, the server was down from minute 100 to minute 130.
        for (active_at, expect) in [
            // Pending for 10 minutes: 50 are left.
            (90, 120),
            // 5 are left, less than the grace period of 10: it fires at minute 140.
            (45, 80),
            // Firing.
            (40, 40),
            (10, 10),
        ] {
            let mut alert = Alert {
                labels: Labels::empty(),
                annotations: Labels::empty(),
                state: crate::AlertState::Pending,
                value: 0.0,
                active_at_ms: 131 * MINUTE,
                fired_at_ms: None,
                resolved_at_ms: None,
                last_sent_ms: None,
                keep_firing_since_ms: None,
            };
            let seen = LastSeen {
                timestamp_ms: 100 * MINUTE + 999,
                active_at_seconds: (active_at * MINUTE / 1000) as f64,
            };
            take_up(&mut alert, seen, 60 * MINUTE, 10 * MINUTE, 130 * MINUTE);
            assert_eq!(alert.active_at_ms, expect * MINUTE, "{active_at}");
        }
    }
}
