//! Counts of the head for /api/v1/status/tsdb.

use std::cmp::Reverse;

use model::labels::METRIC_NAME;

use crate::head::Head;

/// Counts of the head. The lists are sorted by count, greatest first, then by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Series in the head.
    pub series: u64,
    /// Different label pairs.
    pub label_pairs: u64,
    /// Chunks in the head.
    pub chunks: u64,
    /// Timestamp of the oldest sample of the head; `None` when it is empty.
    pub min_time: Option<i64>,
    /// Timestamp of the newest sample of the head; `None` when there was none.
    pub max_time: Option<i64>,
    /// Metric names by number of series.
    pub series_by_metric_name: Vec<(String, u64)>,
    /// Label names by number of values.
    pub values_by_label_name: Vec<(String, u64)>,
    /// Label names by bytes of their values over all series.
    pub value_bytes_by_label_name: Vec<(String, u64)>,
    /// Label pairs, as `name=value`, by number of series.
    pub series_by_label_pair: Vec<(String, u64)>,
}

/// Counts the head; the lists have at most `limit` entries.
pub(crate) fn of_head(head: &Head, limit: usize) -> Stats {
    let mut s = Stats { min_time: head.min_time(), max_time: head.max_time(), ..Stats::default() };
    head.series.for_each(|series| s.chunks += series.state.lock().chunk_count() as u64);
    head.with_postings(|p| {
        s.series = p.len() as u64;
        let mut metric_names = Vec::new();
        let mut value_counts = Vec::new();
        let mut value_bytes = Vec::new();
        let mut pairs = Vec::new();
        for (name, values) in p.iter() {
            s.label_pairs += values.len() as u64;
            value_counts.push((name, values.len() as u64));
            let mut bytes = 0;
            for (value, count) in values {
                bytes += (value.len() * count) as u64;
                pairs.push(((name, value), count as u64));
                if name == METRIC_NAME {
                    metric_names.push((value, count as u64));
                }
            }
            value_bytes.push((name, bytes));
        }
        s.series_by_metric_name = top(metric_names, limit, str::to_owned);
        s.values_by_label_name = top(value_counts, limit, str::to_owned);
        s.value_bytes_by_label_name = top(value_bytes, limit, str::to_owned);
        s.series_by_label_pair = top(pairs, limit, |(n, v)| format!("{n}={v}"));
    });
    s
}

fn top<K: Ord + Copy>(
    mut list: Vec<(K, u64)>,
    limit: usize,
    text: impl Fn(K) -> String,
) -> Vec<(String, u64)> {
    let key = |e: &(K, u64)| (Reverse(e.1), e.0);
    if limit < list.len() {
        list.select_nth_unstable_by_key(limit, key);
        list.truncate(limit);
    }
    list.sort_unstable_by_key(key);
    list.into_iter().map(|(k, n)| (text(k), n)).collect()
}
