use model::{MatchOp, Matcher, SeriesRef};
use proptest::prelude::*;

use super::*;
use crate::postings::resolve;

fn any_labels() -> impl Strategy<Value = Labels> {
    let value = prop::sample::select(vec!["", "a", "ab", "abc", "b", "x1", "x2"]);
    prop::collection::vec((prop::sample::select(vec!["n", "m", "o"]), value), 0..4)
        .prop_map(|p| Labels::from_pairs(p.into_iter().chain([("__name__", "s")])))
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    let op =
        prop::sample::select(vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regexp, MatchOp::NotRegexp]);
    let name = prop::sample::select(vec!["n", "m", "o", "none", "__name__"]);
    let value = prop::sample::select(vec!["", "a", "ab.*", "a|b|", "x[12]", ".*", ".+", "a.+c", "s", ".*b"]);
    (op, name, value).prop_map(|(op, n, v)| Matcher::new(op, n, v).expect("valid"))
}

fn add(index: &mut MemPostings, labels: &Labels) -> Arc<MemSeries> {
    index.add(labels, |slot, pairs| MemSeries::new(SeriesRef(1), (slot, 0), pairs))
}

proptest! {
    #[test]
    fn equals_a_scan_over_all_series(
        series in prop::collection::vec(any_labels(), 0..40),
        gone in prop::collection::btree_set(0_usize..40, 0..30),
        later in prop::collection::vec(any_labels(), 0..20),
        matchers in prop::collection::vec(any_matcher(), 0..4),
    ) {
        let mut index = MemPostings::default();
        let mut there: Vec<_> = series.iter().map(|l| (add(&mut index, l), l)).collect();
        let mut at = 0..;
        let (removed, kept) = there.into_iter().partition(|_| at.next().is_some_and(|i| gone.contains(&i)));
        there = kept;
        let removed: Vec<_> = removed.into_iter().map(|(s, _): (_, &Labels)| s).collect();
        index.remove(&removed);
        there.extend(later.iter().map(|l| (add(&mut index, l), l)));
        prop_assert!(there.iter().all(|(s, _)| (s.slot as usize) < series.len().max(there.len())), "slots are used again");
        let expect: BTreeSet<u64> =
            there.iter().filter(|(_, l)| Matcher::all_match(&matchers, l)).map(|(s, _)| u64::from(s.slot)).collect();
        let got = resolve(&index, &matchers).expect("memory does not fail");
        prop_assert_eq!(got, expect.into_iter().collect::<Vec<_>>());

        let ranks = index.ranks();
        let place = |s: &MemSeries| s.pairs.iter().map(|p| ranks[*p as usize]).collect::<Vec<_>>();
        let mut writer = LabelsWriter::new();
        for (a, la) in &there {
            prop_assert_eq!(&index.labels(a, &mut writer), *la);
            prop_assert!(index.at(a.slot).is_some_and(|s| Arc::ptr_eq(s, a)));
            for (b, lb) in &there {
                prop_assert_eq!(index.has_labels(a, lb), la == lb);
                prop_assert_eq!(place(a).cmp(&place(b)), la.cmp(lb));
            }
        }
        let pairs: BTreeSet<_> = there.iter().flat_map(|(_, l)| l.iter()).collect();
        let mut shown: Vec<_> = index.iter().flat_map(|(n, values)| values.map(move |(v, count)| (n, v, count))).collect();
        shown.sort_unstable();
        let count = |n: &str, v: &str| there.iter().filter(|(_, l)| l.value(n) == v).count();
        prop_assert_eq!(shown, pairs.into_iter().map(|(n, v)| (n, v, count(n, v))).collect::<Vec<_>>());
        index.remove(&there.into_iter().map(|(s, _)| s).collect::<Vec<_>>());
        prop_assert_eq!((index.len(), index.names.len(), index.pages.len(), index.by_text.len()), (0, 0, 0, 0));
    }
}

#[test]
fn long_names_and_values_are_split_where_they_should_be() {
    let mut index = MemPostings::default();
    let (name, value) = ("n".repeat(127), "v".repeat(300));
    let pairs = [("a", "b"), (&*name, "x"), ("o", &*value)];
    let labels = Labels::from_pairs(pairs);
    let series = add(&mut index, &labels);
    let got: Vec<_> = series.pairs.iter().map(|p| index.pair_text(*p)).collect();
    assert_eq!(got, pairs);
    assert_eq!(index.values(&name).collect::<Vec<_>>(), ["x"]);
}
