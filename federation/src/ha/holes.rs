//! Which samples of a backfill fall into holes of what is stored.

use model::chunk::decode_chunks;
use model::{Labels, Matcher, Queryable, Samples, SelectHints, StorageError};

/// A covered sample that lies further than this behind its series' newest is looked up.
pub(super) const OLD_MS: i64 = 300_000;
/// How far around a sample its neighbours are looked for. Further away there are none.
pub(crate) const AROUND_MS: i64 = 600_000;
/// The distance of samples where too few are stored to tell.
const USUAL_MS: i64 = 60_000;

/// Whether each of the times, sorted, of one series lies in a hole: none is stored within half the usual distance of samples, and
/// those before and behind are further apart than two and a half of it.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn which_fit(
    history: &dyn Queryable,
    labels: &Labels,
    times: &[i64],
) -> Result<Vec<bool>, StorageError> {
    let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else { return Ok(Vec::new()) };
    let (mint, maxt) = (first.saturating_sub(AROUND_MS), last.saturating_add(AROUND_MS));
    let stored = stored_times(history, labels, mint, maxt)?;
    Ok(times.iter().map(|t| fits(&stored, *t)).collect())
}

/// How many of the times, sorted, lie in holes of what is stored.
pub(crate) fn fitting(stored: &[i64], times: &[i64]) -> u64 {
    times.iter().filter(|t| fits(stored, **t)).count() as u64
}

fn stored_times(
    history: &dyn Queryable,
    labels: &Labels,
    mint: i64,
    maxt: i64,
) -> Result<Vec<i64>, StorageError> {
    let matchers: Vec<Matcher> = labels.iter().map(|(n, v)| Matcher::equal(n, v)).collect();
    let hints = SelectHints { start_ms: mint, end_ms: maxt, ..SelectHints::default() };
    let mut set = history.querier(mint, maxt)?.select(&matchers, &hints)?;
    let mut samples = Samples::new();
    while let Some(series) = set.next()? {
        // Others may have these labels and more.
        if series.labels == *labels {
            decode_chunks(&series.chunks, mint, maxt, &mut samples)?;
            return Ok(samples.timestamps_ms);
        }
    }
    Ok(Vec::new())
}

fn fits(stored: &[i64], t: i64) -> bool {
    let at = stored.partition_point(|s| *s < t);
    let near = |s: &&i64| (**s - t).abs() <= AROUND_MS;
    let before = at.checked_sub(1).and_then(|i| stored.get(i)).filter(near);
    let behind = stored.get(at).filter(near);
    let usual = usual_distance(&stored[at.saturating_sub(20)..stored.len().min(at + 20)]);
    let clear = |s: Option<&i64>| s.is_none_or(|s| (s - t).abs() * 2 > usual);
    let is_hole = match (before, behind) {
        (Some(a), Some(b)) => (b - a) * 2 > usual * 5,
        _ => true,
    };
    is_hole && clear(before) && clear(behind)
}

/// The median distance of neighbours.
fn usual_distance(stored: &[i64]) -> i64 {
    let mut distances: Vec<i64> = stored.windows(2).map(|w| w[1] - w[0]).collect();
    if distances.len() < 2 {
        return USUAL_MS;
    }
    let middle = distances.len() / 2;
    *distances.select_nth_unstable(middle).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_told_from_the_usual_distance() {
        let stored: Vec<i64> = (0..100).chain(130..200).map(|i| i * 15_000).collect();
        let inside: Vec<i64> = (0..200).map(|i| i * 15_000 + 7_000).filter(|t| fits(&stored, *t)).collect();
        assert_eq!(inside, (100..130).map(|i| i * 15_000 + 7_000).collect::<Vec<_>>());
        assert!(!fits(&stored, 150_000), "the very time is stored");
        assert!(fits(&stored, 10 * 3_600_000), "nothing is near");
        assert!(fits(&[], 5) && !fits(&[0], 20_000) && fits(&[0], 40_000), "too little to tell");
    }

    #[test]
    fn one_missed_scrape_is_no_hole() {
        let stored: Vec<i64> = (0..100).filter(|i| *i != 50).map(|i| i * 15_000).collect();
        assert!(!fits(&stored, 50 * 15_000));
    }
}
