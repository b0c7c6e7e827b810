//! From matchers to series: postings of the month index, as Prometheus evaluates them.
//!
//! A matcher that an absent label passes is answered by taking away what it does not pass. Matchers over many values are
//! left to the labels themselves when few series remain, since those are read anyway.

use std::collections::BTreeMap;

use model::{LabelsResult, MatchOp, Matcher, StorageError};
use roaring::RoaringTreemap;

use super::Inner;
use super::families::INDEX;
use super::keys::{
    Month, all_series_key, index_key, index_prefix, month_of, parse_index_key, prefix_successor,
};
use super::postings;

/// With so few series left, the remaining matchers look at labels instead of postings.
const FEW_SERIES: u64 = 4096;

/// Series that may pass, per month, and what must still be asked of their labels.
#[derive(Default)]
pub(super) struct Selection {
    pub(super) months: BTreeMap<Month, RoaringTreemap>,
    /// Whether not all matchers were answered by postings.
    pub(super) check_labels: bool,
}

impl Selection {
    /// All series, over all months.
    pub(super) fn all(&self) -> RoaringTreemap {
        self.months.values().fold(RoaringTreemap::new(), |acc, ids| acc | ids)
    }
}

impl Inner {
    /// Months with data that a range touches.
    pub(super) fn months_in(&self, mint: i64, maxt: i64) -> Vec<Month> {
        if mint > maxt || maxt < 0 {
            return Vec::new();
        }
        self.months.read().range(month_of(mint)..=month_of(maxt)).copied().collect()
    }

    /// Series that pass the matchers, by the index alone.
    pub(super) fn select(
        &self,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
    ) -> Result<Selection, StorageError> {
        let mut out = Selection::default();
        let mut ordered: Vec<&Matcher> = matchers.iter().collect();
        ordered.sort_by_key(|m| cost(m));
        for month in self.months_in(mint, maxt) {
            let (ids, checked) = self.select_month(month, &ordered)?;
            out.check_labels |= !checked;
            if !ids.is_empty() {
                out.months.insert(month, ids);
            }
        }
        Ok(out)
    }

    fn select_month(
        &self,
        month: Month,
        matchers: &[&Matcher],
    ) -> Result<(RoaringTreemap, bool), StorageError> {
        let mut ids: Option<RoaringTreemap> = None;
        let mut checked = true;
        for m in matchers {
            if let Some(so_far) = &ids {
                if so_far.is_empty() {
                    break;
                }
                if cost(m) > COST_LOOKUP && so_far.len() <= FEW_SERIES {
                    checked = false;
                    continue;
                }
            }
            if m.matches_empty() {
                let base = match ids.take() {
                    Some(ids) => ids,
                    None => self.postings(&all_series_key(month))?,
                };
                ids = Some(base - self.union(month, m, false)?);
            } else {
                let set = self.union(month, m, true)?;
                ids = Some(match ids.take() {
                    Some(ids) => ids & set,
                    None => set,
                });
            }
        }
        match ids {
            Some(ids) => Ok((ids, checked)),
            None => Ok((self.postings(&all_series_key(month))?, true)),
        }
    }

    fn postings(&self, key: &[u8]) -> Result<RoaringTreemap, StorageError> {
        let mut ids = RoaringTreemap::new();
        let row = self.db.get_pinned_cf(&self.cf(INDEX), key).map_err(|e| self.error("read index of", &e))?;
        if let Some(row) = row {
            postings::decode(&row, &mut ids)?;
        }
        Ok(ids)
    }

    /// Series whose value of the matcher's label is present and passes (or, with `pass` false, does not pass).
    fn union(&self, month: Month, m: &Matcher, pass: bool) -> Result<RoaringTreemap, StorageError> {
        let mut ids = RoaringTreemap::new();
        if m.name.is_empty() || m.name.len() > super::keys::MAX_LABEL_NAME_LEN_BYTES {
            return Ok(ids);
        }
        // `=` and `!=` differ from what is asked only in the sense.
        if matches!(m.op, MatchOp::Equal | MatchOp::NotEqual)
            && (m.op == MatchOp::Equal) == pass
            && !m.value.is_empty()
        {
            return self.postings(&index_key(month, &m.name, &m.value));
        }
        let positive =
            (m.op == MatchOp::Regexp) == pass && matches!(m.op, MatchOp::Regexp | MatchOp::NotRegexp);
        if positive && let Some(set) = m.regexp().and_then(|re| re.literal_set()) {
            for value in set.iter().filter(|v| !v.is_empty()) {
                ids |= self.postings(&index_key(month, &m.name, value))?;
            }
            return Ok(ids);
        }
        let all = [String::new()];
        let prefixes = m.regexp().filter(|_| positive).map_or(all.as_slice(), |re| re.prefixes());
        for prefix in prefixes {
            self.each_value(month, &m.name, prefix, |value, row| {
                if m.matches(value) == pass {
                    postings::decode(row, &mut ids)?;
                }
                Ok(true)
            })?;
        }
        Ok(ids)
    }

    /// Walks the values of a label that begin with `prefix`, sorted, until `visit` says no.
    fn each_value(
        &self,
        month: Month,
        name: &str,
        prefix: &str,
        mut visit: impl FnMut(&str, &[u8]) -> Result<bool, StorageError>,
    ) -> Result<(), StorageError> {
        if name.is_empty() || name.len() > super::keys::MAX_LABEL_NAME_LEN_BYTES {
            return Ok(());
        }
        let begin = index_key(month, name, prefix);
        let mut rows = self.db.raw_iterator_cf(&self.cf(INDEX));
        rows.seek(&begin);
        while let Some((key, row)) = rows.item() {
            if !key.starts_with(&begin) {
                break;
            }
            let Some((_, _, value)) = parse_index_key(key) else {
                return Err(StorageError::decode("index key", "not a label pair"));
            };
            if !visit(value, row)? {
                break;
            }
            rows.next();
        }
        rows.status().map_err(|e| self.error("read index of", &e))
    }

    /// Names of all labels of a month, in the order of the index (by length first).
    fn each_name(&self, month: Month, mut visit: impl FnMut(&str)) -> Result<(), StorageError> {
        let mut rows = self.db.raw_iterator_cf(&self.cf(INDEX));
        let mut from = Some([all_series_key(month).as_slice(), &[0]].concat());
        while let Some(begin) = from.take() {
            rows.seek(&begin);
            let Some((m, name, _)) = rows.key().and_then(parse_index_key) else { break };
            if m != month {
                break;
            }
            visit(name);
            from = prefix_successor(&index_prefix(month, name));
        }
        rows.status().map_err(|e| self.error("read index of", &e))
    }

    /// All label names of the months in range, from the index.
    pub(super) fn index_names(&self, mint: i64, maxt: i64) -> Result<Vec<String>, StorageError> {
        let mut names = std::collections::BTreeSet::new();
        for month in self.months_in(mint, maxt) {
            self.each_name(month, |name| {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            })?;
        }
        Ok(names.into_iter().collect())
    }

    /// Values of a label among `months`, or, with `None`, of all series. At most `limit` are gathered per month, which
    /// are its first ones.
    pub(super) fn index_values(
        &self,
        name: &str,
        months: &[(Month, Option<&RoaringTreemap>)],
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let mut values = std::collections::BTreeSet::new();
        for (month, ids) in months {
            let mut found = 0;
            self.each_value(*month, name, "", |value, row| {
                if let Some(ids) = ids {
                    let mut here = RoaringTreemap::new();
                    postings::decode(row, &mut here)?;
                    if here.is_disjoint(ids) {
                        return Ok(true);
                    }
                }
                found += 1;
                if !values.contains(value) {
                    values.insert(value.to_owned());
                }
                Ok(limit == 0 || found <= limit)
            })?;
        }
        Ok(values.into_iter().collect())
    }
}

const COST_LOOKUP: u8 = 1;

/// Rough cost of a matcher: one look-up, some, or a walk over all values of its label.
fn cost(m: &Matcher) -> u8 {
    match m.op {
        MatchOp::Equal if !m.value.is_empty() => 0,
        MatchOp::NotEqual if !m.value.is_empty() => COST_LOOKUP,
        MatchOp::Regexp
            if m.regexp().is_some_and(|re| re.literal_set().is_some_and(|s| s.len() <= 64))
                && !m.matches_empty() =>
        {
            COST_LOOKUP
        }
        MatchOp::Regexp if !m.matches_empty() => 2,
        _ => 3,
    }
}

/// Cuts a list at its limit and says so.
pub(super) fn limited(mut values: Vec<String>, limit: usize) -> LabelsResult {
    let mut warnings = Vec::new();
    if limit > 0 && values.len() > limit {
        values.truncate(limit);
        warnings.push("results truncated due to limit".to_owned());
    }
    LabelsResult { values, warnings }
}
