//! Two stores in memory that differ in known ways.

use model::memory::MemoryStorage;
use proptest::prelude::*;
use wire::digest::WINDOW_MS;

use super::*;

fn labels(i: usize, external: bool) -> Labels {
    let i = i.to_string();
    let pairs = [("__name__", "m"), ("i", i.as_str()), ("longterm", "x")];
    let extra = [("cluster", "c")];
    Labels::from_pairs(pairs.iter().chain(extra.iter().filter(|_| external)).copied())
}

fn auditor(local: &MemoryStorage, remote: &MemoryStorage) -> Auditor {
    Auditor::new(
        Arc::new(local.clone()),
        Arc::new(remote.clone()),
        Arc::new(remote.clone()),
        vec![vec![Matcher::not_equal("longterm", "")]],
        Labels::from_pairs([("cluster", "c")]),
    )
}

#[test]
fn ranges_are_cut_at_windows() {
    let w = WINDOW_MS;
    assert_eq!(windows(-1, w).collect::<Vec<_>>(), [(-1, -1), (0, w - 1), (w, w)]);
    assert_eq!(windows(5, 4).count(), 0);
    assert_eq!(windows(5, 6).collect::<Vec<_>>(), [(5, 6)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Each local sample goes to the other side or not, or with another value; the other side has more of its own.
    #[test]
    fn exactly_what_is_missing_is_found(
        samples in proptest::collection::btree_map((0..5_usize, 0..50_i64), 0..20_u8, 0..60),
        others in proptest::collection::vec((0..7_usize, 0..60_i64), 0..20),
    ) {
        let (local, remote) = (MemoryStorage::new(), MemoryStorage::new());
        for (i, t) in others {
            // What another node has under another external label, and what this one had before its retention.
            let other = labels(i, false).iter().map(|(n, v)| (n.to_owned(), v.to_owned()))
                .chain([("cluster".to_owned(), "d".to_owned())]).collect::<Vec<_>>();
            remote.insert(&Labels::from_pairs(other), Sample::float(t, 1.0));
            remote.insert(&labels(i, true), Sample::float(t + 100, 1.0));
        }
        let mut expect = Verdict::default();
        let mut affected = std::collections::BTreeSet::new();
        for ((i, t), kind) in &samples {
            local.insert(&labels(*i, false), Sample::float(*t, 1.0));
            expect.samples += 1;
            match kind {
                0 => {
                    expect.missing += 1;
                    affected.insert(*i);
                }
                1 => {
                    expect.different += 1;
                    remote.insert(&labels(*i, true), Sample::float(*t, 2.0));
                }
                _ => remote.insert(&labels(*i, true), Sample::float(*t, 1.0)),
            }
        }
        let found = auditor(&local, &remote).window(0, WINDOW_MS - 1).expect("readable");
        prop_assert_eq!(
            (found.samples, found.missing, found.different, found.missing_series),
            (expect.samples, expect.missing, expect.different, affected.len() as u64)
        );
        let named: Vec<Labels> = affected.iter().map(|i| labels(*i, false)).collect();
        prop_assert_eq!(found.affected, named);
    }
}

/// Local samples are a replica's that is not the one whose samples are kept; the others are seconds beside them.
#[test]
fn of_a_replica_only_what_falls_into_holes_is_missing() {
    let (local, remote) = (MemoryStorage::new(), MemoryStorage::new());
    let named = |i: usize| {
        let pairs: Vec<_> = labels(i, true).iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        Labels::from_pairs(pairs)
    };
    for t in (0..400).map(|i| i * 15_000) {
        local.insert(&labels(0, false), Sample::float(t + 7_000, 1.0));
        local.insert(&labels(1, false), Sample::float(t + 7_000, 1.0));
        local.insert(&labels(2, false), Sample::float(t + 7_000, 1.0));
        remote.insert(&named(0), Sample::float(t, 1.0));
        if !(1_500_000..1_800_000).contains(&t) {
            remote.insert(&named(1), Sample::float(t, 1.0));
        }
    }
    let mut a = auditor(&local, &remote);
    a = Auditor::new(
        a.local,
        a.digests,
        a.remote,
        vec![vec![Matcher::not_equal("longterm", "")]],
        Labels::from_pairs([("__replica__", "b"), ("cluster", "c")]),
    )
    .of_replica("__replica__");
    let verdict = a.window(0, WINDOW_MS - 1).expect("reads");
    assert_eq!((verdict.series, verdict.samples), (3, 1200));
    assert_eq!((verdict.missing_series, verdict.missing), (2, 20 + 400), "{verdict:?}");
    assert_eq!(verdict.different, 0);
}
