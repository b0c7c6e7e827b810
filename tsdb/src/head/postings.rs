//! [`MemPostings`]: label pairs of the head to series. Resolving matchers is `crate::postings`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use model::{Labels, SeriesRef, StorageError};

use crate::postings::{List, PostingsIndex};

type Values = BTreeMap<Box<str>, Vec<u64>>;

/// Index of the head. Lists are sorted and unique; names without values are removed.
#[derive(Default)]
pub(crate) struct MemPostings {
    names: HashMap<Box<str>, Values>,
    all: Vec<u64>,
}

impl MemPostings {
    /// Adds a series, once.
    pub(crate) fn add(&mut self, series: SeriesRef, labels: &Labels) {
        insert(&mut self.all, series.0);
        for (n, v) in labels {
            let values = match self.names.get_mut(n) {
                Some(values) => values,
                None => self.names.entry(n.into()).or_default(),
            };
            match values.get_mut(v) {
                Some(list) => insert(list, series.0),
                None => {
                    values.insert(v.into(), vec![series.0]);
                }
            }
        }
    }

    /// Removes series; cost follows the lists they are in.
    pub(crate) fn remove(&mut self, gone: &[(SeriesRef, Labels)]) {
        let refs: HashSet<u64> = gone.iter().map(|(r, _)| r.0).collect();
        let pairs: HashSet<(&str, &str)> = gone.iter().flat_map(|(_, l)| l.iter()).collect();
        self.all.retain(|r| !refs.contains(r));
        for (n, v) in pairs {
            let Some(values) = self.names.get_mut(n) else { continue };
            let Some(list) = values.get_mut(v) else { continue };
            list.retain(|r| !refs.contains(r));
            if list.is_empty() {
                values.remove(v);
            }
            if values.is_empty() {
                self.names.remove(n);
            }
        }
    }

    /// Label names, in no order, with their values and lists.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Values)> {
        self.names.iter().map(|(n, v)| (&**n, v))
    }

    /// Values of a label, sorted.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.names.get(name).into_iter().flatten().map(|(v, _)| &**v)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

/// References are given in rising order, so this is nearly always a push.
fn insert(list: &mut Vec<u64>, id: u64) {
    match list.last() {
        Some(last) if *last >= id => {
            if let Err(at) = list.binary_search(&id) {
                list.insert(at, id);
            }
        }
        _ => list.push(id),
    }
}

impl PostingsIndex for MemPostings {
    fn all(&self) -> Result<List<'_>, StorageError> {
        Ok(List::Ids(Cow::Borrowed(&self.all)))
    }

    fn get(&self, name: &str, value: &str) -> Result<List<'_>, StorageError> {
        let list = self.names.get(name).and_then(|v| v.get(value));
        Ok(List::Ids(Cow::Borrowed(list.map_or(&[], Vec::as_slice))))
    }

    fn matching<'a>(
        &'a self,
        name: &str,
        prefix: &str,
        pass: &mut dyn FnMut(&str) -> bool,
        out: &mut Vec<List<'a>>,
    ) -> Result<(), StorageError> {
        let Some(values) = self.names.get(name) else { return Ok(()) };
        for (v, list) in values.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)) {
            if !v.starts_with(prefix) {
                break;
            }
            if pass(v) {
                out.push(List::Ids(Cow::Borrowed(list)));
            }
        }
        Ok(())
    }

    fn value_count(&self, name: &str) -> usize {
        self.names.get(name).map_or(0, BTreeMap::len)
    }

    /// Labels of series are not kept here.
    fn retain(
        &self,
        _: &mut Vec<u64>,
        _: &str,
        _: &mut dyn FnMut(&str) -> bool,
    ) -> Result<bool, StorageError> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::{MatchOp, Matcher};
    use proptest::prelude::*;

    use super::*;
    use crate::postings::resolve;

    fn any_labels() -> impl Strategy<Value = Labels> {
        let value = prop::sample::select(vec!["", "a", "ab", "abc", "b", "x1", "x2"]);
        prop::collection::vec((prop::sample::select(vec!["n", "m", "o"]), value), 0..4)
            .prop_map(|p| Labels::from_pairs(p.into_iter().chain([("__name__", "s")])))
    }

    fn any_matcher() -> impl Strategy<Value = Matcher> {
        let op = prop::sample::select(vec![
            MatchOp::Equal,
            MatchOp::NotEqual,
            MatchOp::Regexp,
            MatchOp::NotRegexp,
        ]);
        let name = prop::sample::select(vec!["n", "m", "o", "none", "__name__"]);
        let value =
            prop::sample::select(vec!["", "a", "ab.*", "a|b|", "x[12]", ".*", ".+", "a.+c", "s", ".*b"]);
        (op, name, value).prop_map(|(op, n, v)| Matcher::new(op, n, v).expect("valid"))
    }

    proptest! {
        #[test]
        fn equals_a_scan_over_all_series(
            series in prop::collection::vec(any_labels(), 0..40),
            gone in prop::collection::btree_set(0_usize..40, 0..10),
            matchers in prop::collection::vec(any_matcher(), 0..4),
        ) {
            let mut index = MemPostings::default();
            // In falling order, to see that lists are sorted whatever comes.
            for (i, l) in series.iter().enumerate().rev() {
                index.add(SeriesRef(i as u64), l);
            }
            let removed: Vec<_> = gone.iter().filter_map(|i| Some((SeriesRef(*i as u64), series.get(*i)?.clone()))).collect();
            index.remove(&removed);
            let expect: BTreeSet<u64> = (0..series.len())
                .filter(|i| !gone.contains(i) && Matcher::all_match(&matchers, &series[*i]))
                .map(|i| i as u64)
                .collect();
            let got = resolve(&index, &matchers).expect("memory does not fail");
            prop_assert_eq!(got, expect.into_iter().collect::<Vec<_>>());
        }
    }
}
