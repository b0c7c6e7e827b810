//! Selection through the index against the plain definition, `Matcher::all_match`.

use model::{MatchOp, Queryable};

use super::*;

fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).unwrap()
}

fn fixture() -> (Fixture, Vec<Labels>) {
    let f = Fixture::new();
    let mut all = Vec::new();
    for i in 0..120_usize {
        let mut pairs = vec![("__name__".to_owned(), format!("m{}", i % 3)), ("i".to_owned(), i.to_string())];
        if i % 2 == 0 {
            pairs.push(("job".into(), format!("job-{}", i % 5)));
        }
        if i % 7 == 0 {
            pairs.push(("zone.ü".into(), "a\0b".into()));
        }
        all.push(Labels::from_pairs(pairs));
    }
    // Half of the series in this month, a third in the one before, some in both.
    for (i, l) in all.iter().enumerate() {
        if i % 2 == 0 {
            f.commit_floats(l, [(T0, i as f64)]);
        }
        if i % 3 == 0 || i % 2 == 1 {
            f.commit_floats(l, [(T0 - 30 * DAY_MS, i as f64)]);
        }
    }
    (f, all)
}

#[test]
fn matchers_select_as_defined() {
    use MatchOp::{Equal, NotEqual, NotRegexp, Regexp};
    let (mut f, all) = fixture();
    let cases = [
        vec![],
        vec![matcher(Equal, "__name__", "m1")],
        vec![matcher(Equal, "__name__", "none")],
        vec![matcher(Equal, "job", "")],
        vec![matcher(NotEqual, "job", "")],
        vec![matcher(NotEqual, "job", "job-2")],
        vec![matcher(Regexp, "job", "job-[12]")],
        vec![matcher(Regexp, "job", "job-[12]|")],
        vec![matcher(Regexp, "job", "job-1|job-4|x")],
        vec![matcher(Regexp, "job", ".*")],
        vec![matcher(Regexp, "job", ".+")],
        vec![matcher(NotRegexp, "job", ".+")],
        vec![matcher(NotRegexp, "job", "job-[12]")],
        vec![matcher(NotRegexp, "job", "job-1|")],
        vec![matcher(NotRegexp, "job", "job-.*")],
        vec![matcher(Regexp, "i", "1.*"), matcher(NotEqual, "__name__", "m0")],
        vec![matcher(Equal, "__name__", "m0"), matcher(Regexp, "i", "[0-9]*5"), matcher(Equal, "job", "")],
        vec![matcher(Equal, "zone.ü", "a\0b"), matcher(NotRegexp, "i", "1[0-9]")],
        vec![matcher(Equal, "absent", ""), matcher(NotEqual, "absent", "x")],
        vec![matcher(NotEqual, "absent", "")],
        vec![matcher(Regexp, "absent", "x?"), matcher(Equal, "i", "7")],
    ];
    for restarted in [false, true] {
        for m in &cases {
            for (mint, maxt) in
                [(i64::MIN, i64::MAX), (T0 - DAY_MS, T0), (T0 - 31 * DAY_MS, T0 - DAY_MS), (T0 + 1, T0 + 2)]
            {
                let got: Vec<Labels> = read(f.store(), m, mint, maxt).unwrap().into_keys().collect();
                let mut want: Vec<Labels> = all
                    .iter()
                    .enumerate()
                    .filter(|(i, l)| {
                        let new = i % 2 == 0 && mint <= T0 && T0 <= maxt;
                        let t = T0 - 30 * DAY_MS;
                        let old = (i % 3 == 0 || i % 2 == 1) && mint <= t && t <= maxt;
                        (new || old) && Matcher::all_match(m, l)
                    })
                    .map(|(_, l)| l.clone())
                    .collect();
                want.sort();
                assert_eq!(got, want, "{m:?} in [{mint}, {maxt}], restarted: {restarted}");
                let q = f.store().querier(mint, maxt).unwrap();
                let hints = SelectHints { labels_only: true, ..Default::default() };
                let mut set = q.select(m, &hints).unwrap();
                let mut got = Vec::new();
                while let Some(s) = set.next().unwrap() {
                    got.push(s.labels);
                }
                assert_eq!(got, want, "labels only, {m:?}");
            }
        }
        f.advance(DAY_MS);
        f.store().maintain().unwrap();
        f.restart();
    }
}

#[test]
fn names_and_values_are_listed() {
    let (f, all) = fixture();
    let q = f.store().querier(i64::MIN, i64::MAX).unwrap();
    assert_eq!(q.label_names(&[], 0).unwrap().values, ["__name__", "i", "job", "zone.ü"]);
    let cut = q.label_names(&[], 2).unwrap();
    assert_eq!((cut.values.len(), cut.warnings.len()), (2, 1));
    let m = [matcher(MatchOp::Equal, "i", "7")];
    assert_eq!(q.label_names(&m, 0).unwrap().values, ["__name__", "i", "zone.ü"]);
    assert_eq!(q.label_values("job", &[], 0).unwrap().values, ["job-0", "job-1", "job-2", "job-3", "job-4"]);
    assert_eq!(q.label_values("job", &[], 2).unwrap().values, ["job-0", "job-1"]);
    assert_eq!(q.label_values("zone.ü", &[], 0).unwrap().values, ["a\0b"]);
    assert!(q.label_values("absent", &[], 0).unwrap().values.is_empty());
    assert!(q.label_values("", &[], 0).unwrap().values.is_empty());
    let m = [matcher(MatchOp::Regexp, "i", "1.")];
    let mut want: Vec<&str> =
        all.iter().filter(|l| Matcher::all_match(&m, l)).filter_map(|l| l.get("job")).collect();
    want.sort_unstable();
    want.dedup();
    assert_eq!(q.label_values("job", &m, 0).unwrap().values, want);
    let q = f.store().querier(T0 + 40 * DAY_MS, T0 + 50 * DAY_MS).unwrap();
    assert!(q.label_values("job", &[], 0).unwrap().values.is_empty());
}
