//! Two stores and a seam against one store that always had everything.

use std::sync::atomic::{AtomicUsize, Ordering};

use model::chunk::decode_chunks;
use model::memory::MemoryStorage;
use model::{MatchOp, Sample, Samples};
use proptest::prelude::*;

use super::*;

type Flat = Vec<(String, Vec<Sample>)>;

fn flat(mut set: Box<dyn SeriesSet>) -> (Flat, Vec<String>) {
    let mut out = Vec::new();
    let mut samples = Samples::new();
    let mut last: Option<Labels> = None;
    while let Some(s) = set.next().expect("readable") {
        assert!(last.as_ref().is_none_or(|l| *l < s.labels), "sorted and unique");
        last = Some(s.labels.clone());
        assert!(s.chunks.is_sorted_by_key(|c| c.mint));
        decode_chunks(&s.chunks, i64::MIN, i64::MAX, &mut samples).expect("columns");
        out.push((s.labels.to_string(), samples.iter().collect()));
    }
    (out, set.warnings())
}

/// A store that counts queries and fails when told to.
struct Remote {
    store: MemoryStorage,
    asked: AtomicUsize,
    down: bool,
}

impl Queryable for Remote {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.down {
            return Err(StorageError::Unavailable { who: "remote".into(), reason: "down".into() });
        }
        self.store.querier(mint, maxt)
    }
}

struct Setup {
    tiered: Tiered,
    whole: MemoryStorage,
    remote: Arc<Remote>,
}

fn external() -> Labels {
    Labels::from_pairs([("b_cluster", "c1"), ("replica", "r1")])
}

/// Each sample goes to the whole store and, with external labels, to the remote one; from `seam` on to the local one
/// too.
fn setup(samples: &[(usize, i64)], seam: i64, down: bool) -> Setup {
    let (whole, local, remote) = (MemoryStorage::new(), MemoryStorage::new(), MemoryStorage::new());
    let mut local_min: Option<i64> = None;
    let names: Vec<Labels> = [
        vec![("__name__", "up"), ("a", "1")],
        vec![("__name__", "up"), ("a", "1"), ("c", "2")],
        vec![("__name__", "up"), ("job", "x")],
        vec![("__name__", "up"), ("c", "3"), ("job", "x")],
        vec![("a", "2")],
    ]
    .into_iter()
    .map(Labels::from_pairs)
    .collect();
    for (i, t) in samples {
        let labels = &names[i % names.len()];
        let sample = Sample::float(*t, (*i as f64) * 1000.0 + *t as f64);
        whole.insert(labels, sample.clone());
        let sent = Labels::from_pairs(labels.iter().chain(external().iter()));
        remote.insert(&sent, sample.clone());
        // The same series of another node, which must never be seen.
        let other = sent.iter().map(|(n, v)| (n, if n == "replica" { "r2" } else { v }));
        remote.insert(&Labels::from_pairs(other), Sample::float(*t, -1.0));
        if *t >= seam {
            local.insert(labels, sample);
            local_min = Some(local_min.map_or(*t, |m| m.min(*t)));
        }
    }
    let remote = Arc::new(Remote { store: remote, asked: AtomicUsize::new(0), down });
    let tiered = Tiered {
        local: Arc::new(local),
        local_min_time: Arc::new(move || local_min),
        remote: remote.clone(),
        external_labels: external(),
        promoted: None,
        on_unavailable: OnUnavailable::WarnLocalOnly,
    };
    Setup { tiered, whole, remote }
}

fn selectors() -> Vec<Vec<Matcher>> {
    let m = |op, n: &str, v: &str| Matcher::new(op, n, v).expect("valid");
    vec![
        vec![m(MatchOp::Equal, "__name__", "up")],
        vec![m(MatchOp::Regexp, "__name__", ".*")],
        vec![m(MatchOp::NotEqual, "a", "1")],
        vec![m(MatchOp::Equal, "job", "x"), m(MatchOp::Equal, "c", "")],
        // Local series have no such label, so these pass.
        vec![m(MatchOp::Equal, "__name__", "up"), m(MatchOp::NotEqual, "replica", "r1")],
        vec![m(MatchOp::Equal, "b_cluster", "")],
        vec![],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_seam_cannot_be_seen(
        samples in proptest::collection::vec((0..5_usize, 0..60_i64), 0..60),
        seam in -5..70_i64,
        (mint, len) in (-5..65_i64, -2..70_i64),
    ) {
        let Setup { tiered, whole, .. } = setup(&samples, seam, false);
        let maxt = mint + len;
        let (ours, expect) =
            (tiered.querier(mint, maxt).expect("opens"), whole.querier(mint, maxt).expect("opens"));
        let hints = SelectHints::default();
        for matchers in selectors() {
            let (got, warnings) = flat(ours.select(&matchers, &hints).expect("selects"));
            let (want, _) = flat(expect.select(&matchers, &hints).expect("selects"));
            prop_assert_eq!(got, want);
            prop_assert!(warnings.is_empty());
            for limit in [0, 2] {
                prop_assert_eq!(
                    ours.label_names(&matchers, limit).expect("answers"),
                    expect.label_names(&matchers, limit).expect("answers")
                );
                for name in ["a", "c", "__name__", "replica", "b_cluster"] {
                    prop_assert_eq!(
                        ours.label_values(name, &matchers, limit).expect("answers"),
                        expect.label_values(name, &matchers, limit).expect("answers")
                    );
                }
            }
        }
    }
}

#[test]
fn recent_queries_do_not_ask_the_remote_store() {
    let Setup { tiered, remote, .. } = setup(&[(0, 10), (0, 20), (0, 30)], 20, true);
    for (mint, asked) in [(20, 0), (25, 0), (19, 1)] {
        let before = remote.asked.load(Ordering::SeqCst);
        tiered.querier(mint, 100).expect("opens");
        assert_eq!(remote.asked.load(Ordering::SeqCst) - before, asked, "{mint}");
    }
}

#[test]
fn a_remote_store_that_is_down_costs_a_warning_or_the_query() {
    let Setup { mut tiered, .. } = setup(&[(0, 10), (0, 20)], 20, true);
    let matchers = [Matcher::equal("__name__", "up")];
    let q = tiered.querier(0, 100).expect("opens with what there is");
    let (data, warnings) = flat(q.select(&matchers, &SelectHints::default()).expect("selects"));
    assert_eq!(data[0].1, [Sample::float(20, 20.0)]);
    assert!(warnings.len() == 1 && warnings[0].contains("remote: down"), "{warnings:?}");
    let names = q.label_names(&matchers, 0).expect("answers");
    assert_eq!((names.values.len(), names.warnings.len()), (2, 1));
    assert_eq!(q.label_values("a", &matchers, 0).expect("answers").warnings.len(), 1);

    tiered.on_unavailable = OnUnavailable::Fail;
    assert!(matches!(tiered.querier(0, 100), Err(StorageError::Unavailable { .. })));
    assert!(tiered.querier(20, 100).is_ok(), "not needed, so not asked");
}

#[test]
fn a_matcher_that_wants_the_external_label_goes_as_it_is() {
    let Setup { tiered, .. } = setup(&[(0, 10), (0, 20)], 20, false);
    let q = tiered.querier(0, 100).expect("opens");
    let matchers = [Matcher::equal("replica", "r2")];
    let (data, _) = flat(q.select(&matchers, &SelectHints::default()).expect("selects"));
    let expect = vec![("up{a=\"1\", replica=\"r2\"}".to_owned(), vec![Sample::float(10, -1.0)])];
    assert_eq!(data, expect);
}

#[test]
fn promoted_history_is_seen_once_under_its_tag() {
    let l = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
    let (plain, tagged) = (l(&[("__name__", "up")]), l(&[("__name__", "up"), ("longterm", "x")]));
    let other = l(&[("__name__", "up"), ("job", "b")]);
    let (whole, local, remote) = (MemoryStorage::new(), MemoryStorage::new(), MemoryStorage::new());
    for t in 0..100 {
        whole.insert(&tagged, Sample::float(t, t as f64));
        whole.insert(&other, Sample::float(t, 1.0));
        local.insert(&other, Sample::float(t, 1.0));
        local.insert(if t < 50 { &plain } else { &tagged }, Sample::float(t, t as f64));
    }
    // The series without the tag ends with a stale marker when the one with it begins.
    local.insert(&plain, Sample::float(50, model::stale_nan()));
    let mut sent = 0;
    let mut check = |upto: i64, until: i64| {
        while sent < upto {
            let to = Labels::from_pairs(tagged.iter().chain(external().iter()));
            remote.insert(&to, Sample::float(sent, sent as f64));
            sent += 1;
        }
        let tiered = Tiered {
            local: Arc::new(local.clone()),
            local_min_time: Arc::new(|| Some(0)),
            remote: Arc::new(remote.clone()),
            external_labels: external(),
            promoted: Some(Promoted { tags: vec!["longterm".into()], until: Arc::new(move || Some(until)) }),
            on_unavailable: OnUnavailable::Fail,
        };
        let q = tiered.querier(0, 99).expect("opens");
        flat(q.select(&[Matcher::equal("__name__", "up")], &SelectHints::default()).expect("selects")).0
    };
    let expect = {
        let q = whole.querier(0, 99).expect("opens");
        flat(q.select(&[Matcher::equal("__name__", "up")], &SelectHints::default()).expect("selects")).0
    };
    // While it is being sent every sample is there once, under one name or the other.
    for upto in [0, 20, 49] {
        let found = check(upto, 55);
        let total: usize = found.iter().map(|(_, s)| s.len()).sum();
        assert_eq!(total, 200 + 1, "{upto}: all, and the stale marker");
    }
    assert_eq!(check(60, 55), expect);
}
