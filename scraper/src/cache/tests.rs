//! What a target's store sees over several scrapes. The oracle of the property test is a cache that has forgotten
//! everything but which series counted.

use std::collections::BTreeMap;

use model::relabel::{RelabelAction, RelabelRule};
use model::{Appendable, Exemplar, Labels, Regexp};
use proptest::prelude::*;

use super::*;
use crate::exposition;
use crate::test_store::TestStore;

/// A target that is scraped every 1000 ms.
struct Scene {
    store: TestStore,
    cache: ScrapeCache,
    rules: SampleRules,
    format: Format,
    now_ms: i64,
}

impl Scene {
    fn new() -> Self {
        let rules = SampleRules {
            target_labels: Labels::from_pairs([("instance", "i"), ("job", "j")]),
            honor_timestamps: true,
            ..SampleRules::default()
        };
        Self {
            store: TestStore::new(),
            cache: ScrapeCache::default(),
            rules,
            format: Format::Text,
            now_ms: 0,
        }
    }

    /// One scrape as the loop does it: on failure roll back and write stale markers.
    fn scrape(&mut self, body: &str) -> (ScrapeCounts, Option<String>) {
        self.now_ms += 1000;
        let mut app = self.store.appender().expect("open");
        let (counts, result) =
            self.cache.append(body.as_bytes(), self.format, self.now_ms, &self.rules, app.as_mut());
        let error = result.err().map(|e| e.to_string());
        if error.is_some() {
            app.rollback();
            app = self.store.appender().expect("open");
            self.cache.append_stale(self.now_ms, app.as_mut()).expect("the store takes markers");
        }
        app.commit().expect("commit");
        (counts, error)
    }

    /// Scrapes and compares what was stored, sorted, without the target's labels.
    fn check(&mut self, body: &str, expect: &[&str]) -> ScrapeCounts {
        let (counts, error) = self.scrape(body);
        assert_eq!(error, None, "{body}");
        self.stored(expect);
        counts
    }

    fn check_error(&mut self, body: &str, error: &str, expect: &[&str]) -> ScrapeCounts {
        let (counts, got) = self.scrape(body);
        assert_eq!(got.as_deref(), Some(error), "{body}");
        self.stored(expect);
        counts
    }

    fn stored(&self, expect: &[&str]) {
        let mut got: Vec<_> = self
            .store
            .drain()
            .iter()
            .map(|l| l.replace("{instance=\"i\", job=\"j\"}", "").replace("instance=\"i\", job=\"j\"", "_"))
            .collect();
        got.sort();
        assert_eq!(got, expect);
    }
}

#[test]
fn same_body_new_numbers_touches_no_labels() {
    let mut s = Scene::new();
    let body = |v: i32| {
        format!("# HELP a x\n# TYPE a gauge\na {v}\na{{x=\"1\"}} {v}\n# TYPE b gauge\nb {v}\n# end\n")
    };
    let first = s.check(&body(1), &["a 1000 1", "a{_, x=\"1\"} 1000 1", "b 1000 1"]);
    assert_eq!((first.scraped, first.post_relabel, first.series_added), (3, 3, 3));
    assert_eq!(s.store.appends_by_labels(), 3);
    let second = s.check(&body(2), &["a 2000 2", "a{_, x=\"1\"} 2000 2", "b 2000 2"]);
    assert_eq!((second.scraped, second.post_relabel, second.series_added), (3, 3, 0));
    assert_eq!(s.store.appends_by_labels(), 3);
}

#[test]
fn series_come_go_and_move() {
    let mut s = Scene::new();
    s.check("a 1\nb 1\nc 1\n", &["a 1000 1", "b 1000 1", "c 1000 1"]);
    s.check("a 2\nc 2\n", &["a 2000 2", "b 2000 stale", "c 2000 2"]);
    s.check("a 3\nc 3\n", &["a 3000 3", "c 3000 3"]);
    let c = s.check("c 4\nd 4\na 4\nb 4\n", &["a 4000 4", "b 4000 4", "c 4000 4", "d 4000 4"]);
    assert_eq!(c.series_added, 2);
    s.check("", &["a 5000 stale", "b 5000 stale", "c 5000 stale", "d 5000 stale"]);
    s.check("", &[]);
    let c = s.check("c 7\nd 7\na 7\nb 7\n", &["a 7000 7", "b 7000 7", "c 7000 7", "d 7000 7"]);
    assert_eq!(c.series_added, 0);
}

#[test]
fn failed_scrapes_make_everything_stale() {
    let mut s = Scene::new();
    s.check("a 1\nb 1\n", &["a 1000 1", "b 1000 1"]);
    let c = s.check_error(
        "a 2\nc 2\nb x\n",
        "line 3: strconv.ParseFloat: parsing \"x\": invalid syntax",
        &["a 2000 stale", "b 2000 stale"],
    );
    assert_eq!((c.scraped, c.post_relabel, c.series_added), (2, 2, 1));
    s.check_error("7&-", "line 1: expected a valid start token, got \"7&-\"", &[]);
    s.check("a 4\nb 4\n", &["a 4000 4", "b 4000 4"]);
}

#[test]
fn names_that_begin_alike_are_told_apart() {
    let mut s = Scene::new();
    s.check("a+1\nb{x=\"1\"}1\nc 1\n", &["a 1000 1", "b{_, x=\"1\"} 1000 1", "c 1000 1"]);
    s.check(
        "ainf 2\nb{x=\"1\"} 2\nc  2\n",
        &["a 2000 stale", "ainf 2000 2", "b{_, x=\"1\"} 2000 2", "c 2000 2"],
    );
    s.check(
        "a+3\nb{x=\"1\"}3\nc{} 3\n",
        &["a 3000 3", "ainf 3000 stale", "b{_, x=\"1\"} 3000 3", "c 3000 3"],
    );
}

#[test]
fn duplicates_within_a_scrape() {
    let mut s = Scene::new();
    for n in 1..4 {
        let c = s.check(
            &format!("a {n}\nb {n}\na {}\n", n + 10),
            &[&format!("a {n}000 {n}"), &format!("b {n}000 {n}")],
        );
        assert_eq!((c.scraped, c.post_relabel, c.duplicates), (3, 3, 1));
    }
    // With timestamps both count.
    s.check("b 1\na 1 3500\na 2 3600\n", &["a 3500 1", "a 3600 2", "a 4000 stale", "b 4000 1"]);
}

#[test]
fn explicit_timestamps() {
    let mut s = Scene::new();
    s.check("a 1 500\nb 1\n", &["a 500 1", "b 1000 1"]);
    s.check("a 2 600\nb 2\n", &["a 600 2", "b 2000 2"]);
    // No stale marker for a series that the target dates itself.
    s.check("b 3\n", &["b 3000 3"]);
    let c = s.check("a 4 100\nb 4\n", &["b 4000 4"]);
    assert_eq!((c.out_of_order, c.post_relabel), (1, 2));
    let c = s.check("a 4 9999999999\nb 5\n", &["b 5000 5"]);
    assert_eq!(c.out_of_bounds, 1);

    let mut s = Scene::new();
    s.rules.track_timestamps_staleness = true;
    s.check("a 1 500\nb 1\n", &["a 500 1", "b 1000 1"]);
    s.check("a 1 600\nb 1\n", &["a 600 1", "b 2000 1"]);
    s.check("b 2\n", &["a 3000 stale", "b 3000 2"]);

    let mut s = Scene::new();
    s.rules.honor_timestamps = false;
    s.check("a 1 500\n", &["a 1000 1"]);
    s.check("a 1 600\n", &["a 2000 1"]);
    s.check("b 1\n", &["a 3000 stale", "b 3000 1"]);
}

#[test]
fn sample_limit_fails_the_scrape_and_still_counts() {
    let mut s = Scene::new();
    s.rules.sample_limit = 2;
    s.check("a 1\nb 1\n", &["a 1000 1", "b 1000 1"]);
    let c = s.check_error("a 2\nb 2\nc 2\nd 2\n", "sample limit exceeded", &["a 2000 stale", "b 2000 stale"]);
    assert_eq!((c.scraped, c.post_relabel, c.series_added), (4, 4, 0));
    s.check("a 3\nb 3\n", &["a 3000 3", "b 3000 3"]);
    s.check("c 4\n", &["a 4000 stale", "b 4000 stale", "c 4000 4"]);
}

#[test]
fn label_limits() {
    let fail = |set: fn(&mut SampleRules), body: &str, error: &str| {
        let mut s = Scene::new();
        set(&mut s.rules);
        s.check("a 1\n", &["a 1000 1"]);
        s.check_error(body, error, &["a 2000 stale"]);
    };
    fail(
        |r| r.label_limit = 4,
        "a{x=\"1\",y=\"2\"} 1\n",
        "label_limit exceeded (metric: a, number of labels: 5, limit: 4)",
    );
    fail(
        |r| r.label_name_length_limit = 8,
        "a{long_name=\"1\"} 1\n",
        "label_name_length_limit exceeded (metric: a, label name: long_name, length: 9, limit: 8)",
    );
    fail(
        |r| r.label_value_length_limit = 2,
        "a{x=\"123\"} 1\n",
        "label_value_length_limit exceeded (metric: a, label name: x, value: \"123\", length: 3, limit: 2)",
    );
    fail(|_| {}, "a{x=\"1\",x=\"2\"} 1\n", "label name \"x\" is not unique: invalid sample");
    fail(
        |r| r.names = model::relabel::NameValidation::Legacy,
        "{\"a.b\"} 1\n",
        "invalid metric name or label names: {\"a.b\", instance=\"i\", job=\"j\"}",
    );
}

#[test]
fn conflicts_with_target_labels() {
    let mut s = Scene::new();
    s.scrape("a{job=\"x\",exported_job=\"y\",instance=\"\"} 1\nb{exported_exported_job=\"z\",exported_job=\"y\",job=\"x\"} 1\n");
    assert_eq!(
        s.store.drain(),
        [
            "a{exported_exported_job=\"x\", exported_job=\"y\", instance=\"i\", job=\"j\"} 1000 1",
            "b{exported_exported_exported_job=\"x\", exported_exported_job=\"z\", exported_job=\"y\", instance=\"i\", job=\"j\"} 1000 1",
        ]
    );
    s = Scene::new();
    s.rules.honor_labels = true;
    s.scrape("a{job=\"x\",instance=\"\"} 1\nb 1\n");
    assert_eq!(s.store.drain(), ["a{job=\"x\"} 1000 1", "b{instance=\"i\", job=\"j\"} 1000 1"]);
}

#[test]
fn metric_relabeling_drops_and_renames() {
    let mut s = Scene::new();
    let rule = |action, regex: &str, target: &str, replacement: &str| RelabelRule {
        source_labels: vec!["__name__".into()],
        regex: Regexp::new(regex).expect("valid"),
        action,
        target_label: target.into(),
        replacement: replacement.into(),
        ..RelabelRule::default()
    };
    s.rules.relabel = vec![
        rule(RelabelAction::Drop, "drop_.*", "", "$1"),
        rule(RelabelAction::Replace, "old_(.*)", "__name__", "new_$1"),
    ]
    .into();
    for n in 1..3 {
        let c = s.check(
            &format!("drop_a {n}\nold_b {n}\nc {n}\n"),
            &[&format!("c {n}000 {n}"), &format!("new_b {n}000 {n}")],
        );
        assert_eq!((c.scraped, c.post_relabel), (3, 2));
    }
    let drop_names =
        RelabelRule { source_labels: Vec::new(), ..rule(RelabelAction::LabelDrop, "__name__", "", "$1") };
    s.rules.relabel = vec![drop_names].into();
    s.check_error("x 1\n", "missing metric name (__name__ label)", &["c 3000 stale", "new_b 3000 stale"]);
}

#[test]
fn forgotten_references_are_renewed() {
    let mut s = Scene::new();
    s.check("a 1\nb{x=\"\\\"\"} 1\n", &["a 1000 1", "b{_, x=\"\\\"\"} 1000 1"]);
    s.store.forget_refs();
    s.check("a 2\nb{x=\"\\\"\"} 2\n", &["a 2000 2", "b{_, x=\"\\\"\"} 2000 2"]);
    let by_labels = s.store.appends_by_labels();
    let c = s.check("a 3\nb{x=\"\\\"\"} 3\n", &["a 3000 3", "b{_, x=\"\\\"\"} 3000 3"]);
    assert_eq!((s.store.appends_by_labels(), c.series_added), (by_labels, 0));
}

#[test]
fn stores_without_references_work_too() {
    let store = model::memory::MemoryStorage::new();
    let mut cache = ScrapeCache::default();
    let rules = SampleRules::default();
    for (t, body) in [(1, "a 1\nb 1\n"), (2, "a 2\nb 2\n"), (3, "a 3\n")] {
        let mut app = store.appender().expect("open");
        cache.append(body.as_bytes(), Format::Text, t, &rules, app.as_mut()).1.expect("scrape");
        app.commit().expect("commit");
    }
    let q = model::Queryable::querier(&store, 0, 10).expect("open");
    let any = model::Matcher::new(model::MatchOp::Equal, "__name__", "b").expect("valid");
    let mut set = q.select(&[any], &model::SelectHints::default()).expect("select");
    let series = set.next().expect("read").expect("one series");
    let mut samples = model::Samples::new();
    model::chunk::decode_chunks(&series.chunks, 0, 10, &mut samples).expect("decode");
    assert_eq!(samples.timestamps_ms, [1, 2, 3]);
    assert!(model::is_stale_nan(samples.values[2]));
}

#[test]
fn metadata_is_kept_and_handed_on() {
    let mut s = Scene::new();
    s.rules.append_metadata = true;
    s.format = Format::OpenMetrics;
    let body = "# TYPE a_seconds counter\n# UNIT a_seconds seconds\n# HELP a_seconds old\na_seconds_total 1 # {t=\"1\"} 2\nb 1\n# EOF\n";
    s.scrape(body);
    s.scrape(body);
    let given: Vec<_> = s
        .store
        .metadata()
        .iter()
        .map(|(l, m)| format!("{} {} {}", l.metric_name(), m.help, m.unit))
        .collect();
    assert_eq!(given, ["a_seconds_total old seconds"]);
    assert_eq!(s.store.exemplars().len(), 2);
    assert_eq!(s.store.exemplars()[1].1.timestamp_ms, None, "the store knows the sample's");
    s.scrape(&body.replace("old", "new"));
    assert_eq!(s.store.metadata().len(), 2);
    let list = s.cache.metadata().list();
    assert_eq!((list.len(), list[0].0.as_str(), &*list[0].1.help), (1, "a_seconds", "new"));
    for n in 0..12 {
        assert_eq!(s.cache.metadata().list().len(), usize::from(n < 11), "after {n} scrapes without it");
        s.scrape(&format!("b {n}\nc{n} 1\n# EOF\n"));
    }
}

#[test]
fn type_and_unit_become_labels() {
    let mut s = Scene::new();
    s.rules.type_and_unit_labels = true;
    s.rules.target_labels = Labels::empty();
    s.format = Format::OpenMetrics;
    s.scrape(
        "# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{__type__=\"x\"} 1\n# EOF\n",
    );
    assert_eq!(s.store.drain(), ["a_seconds_total{__type__=\"counter\", __unit__=\"seconds\"} 1000 1"]);
}

#[test]
fn ever_new_series_do_not_grow_the_cache() {
    let mut s = Scene::new();
    s.check("a 1\n", &["a 1000 1"]);
    for n in 0..50 {
        let body: String = (0..100).map(|i| format!("m{n}_{i} 1\n")).collect();
        s.scrape(&(body + "broken"));
    }
    assert!(s.cache.entries.len() <= 1200, "{}", s.cache.entries.len());
    assert!(s.cache.forced_flushes() > 0);
    for n in 0..50 {
        s.scrape(&(0..100).map(|i| format!("m{n}_{i} 1\n")).collect::<String>());
    }
    assert_eq!(s.cache.entries.len(), 100);
    assert!(s.cache.lines.capacity() < 200 && s.cache.family_lists.capacity() < 2_000);
}

#[test]
fn a_closed_store_fails_the_scrape() {
    let s = Scene::new();
    s.store.close();
    assert!(s.store.appender().is_err());
}

#[test]
fn openmetrics_bodies_end_as_prometheus_ends_them() {
    let Ok(dir) = std::env::var("CONFORMANCE_DIR") else { return };
    let index = std::fs::read_to_string(format!("{dir}/openmetrics/index.tsv")).expect("index");
    let mut wrong = Vec::new();
    for line in index.lines().skip(1) {
        let fields: Vec<_> = line.split('\t').collect();
        let [case, _, outcome, samples, newer] = fields[..] else { panic!("odd line {line}") };
        let body = std::fs::read(format!("{dir}/openmetrics/parsers/{case}/metrics")).expect("case");
        let mut app = TestStore::new().appender().expect("open");
        let rules = SampleRules { honor_timestamps: true, ..SampleRules::default() };
        let (counts, result) = ScrapeCache::default().append(
            &body,
            Format::OpenMetrics,
            1_600_000_000_000,
            &rules,
            app.as_mut(),
        );
        let scraped = if newer == "-" { outcome } else { newer } == "scraped";
        let count_fits = samples.parse().map_or(true, |n: usize| n == counts.scraped);
        if result.is_ok() != scraped || (scraped && !count_fits) {
            wrong.push(format!("{case}: want {outcome} {samples} {newer}, got {counts:?} {result:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One line of a random body.
fn line() -> impl Strategy<Value = String> {
    let name = prop_oneof![8 => "[a-d]", 1 => Just("h_bucket".to_owned())];
    let labels = prop_oneof![
        Just(String::new()),
        "[xy]".prop_map(|v| format!("{{l=\"{v}\"}}")),
        "[xy]".prop_map(|v| format!("{{l=\"{v}\",job=\"e\"}}")),
        Just("{le=\"1\"}".to_owned()),
    ];
    let blank = prop_oneof![6 => Just(" "), 1 => Just("  "), 1 => Just("\t")];
    let value = prop_oneof![4 => (0..100_i32).prop_map(|v| v.to_string()), 1 => Just("NaN".to_owned()), 1 => Just("1e3".to_owned())];
    let stamp = prop_oneof![9 => Just(String::new()), 1 => (1..9_i32).prop_map(|t| format!(" {t}"))];
    prop_oneof![
        8 => (name, labels, blank, value, stamp).prop_map(|(n, l, b, v, t)| format!("{n}{l}{b}{v}{t}")),
        1 => Just("# TYPE h histogram".to_owned()),
        1 => Just("# HELP a text".to_owned()),
        1 => Just(String::new()),
    ]
}

/// What one scrape should store, from a parser and plain maps. `known` are the series of the scrape before, and whether
/// they count for staleness.
fn oracle(
    body: &str,
    now_ms: i64,
    rules: &SampleRules,
    known: &mut BTreeMap<String, (Labels, bool)>,
) -> Vec<(Labels, i64, String)> {
    let mut parser = Parser::new(Format::Text, body.as_bytes());
    let mut stored = Vec::new();
    let mut now: BTreeMap<String, (Labels, bool)> = BTreeMap::new();
    while let Some(entry) = parser.next().expect("random bodies are valid") {
        let exposition::Entry::Series(tail) = entry else { continue };
        let mut pairs = Vec::new();
        parser.labels(&mut pairs).expect("ASCII");
        let key = String::from_utf8_lossy(tail.series).into_owned();
        // The first sight decides the labels for good, as the cache keeps them.
        let fresh = rules.series_labels(&mut pairs, &mut LabelsWriter::new()).expect("valid").expect("kept");
        let again = now.get(&key).cloned();
        let before = again.as_ref().or(known.get(&key));
        let labels = before.map_or(fresh, |(labels, _)| labels.clone());
        if again.is_some() && tail.timestamp_ms.is_none() {
            continue;
        }
        stored.push((labels.clone(), tail.timestamp_ms.unwrap_or(now_ms), tail.value.to_string()));
        let counts = tail.timestamp_ms.is_none() || again.is_some_and(|(_, counts)| counts);
        now.insert(key, (labels, counts));
    }
    for (key, (labels, counted)) in known.iter() {
        if *counted && !now.get(key).is_some_and(|(_, counts)| *counts) {
            stored.push((labels.clone(), now_ms, "stale".into()));
        }
    }
    *known = now;
    stored
}

/// A store that takes everything, so that the order of samples decides nothing.
#[derive(Default)]
struct Everything {
    labels: Vec<Labels>,
    log: Vec<(Labels, i64, String)>,
}

impl Appender for Everything {
    fn append(&mut self, _: SeriesRef, labels: &Labels, s: Sample) -> Result<SeriesRef, AppendError> {
        self.labels.push(labels.clone());
        let series = SeriesRef(self.labels.len() as u64);
        if let model::SampleValue::Float(v) = s.value {
            self.append_float(series, s.timestamp_ms, v)?;
        }
        Ok(series)
    }
    fn append_float(&mut self, series: SeriesRef, t: i64, v: f64) -> Result<(), AppendError> {
        let labels = self.labels[series.0 as usize - 1].clone();
        let text = if model::is_stale_nan(v) { "stale".into() } else { v.to_string() };
        self.log.push((labels, t, text));
        Ok(())
    }
    fn append_exemplar(&mut self, _: SeriesRef, _: &Exemplar) -> Result<(), AppendError> {
        Ok(())
    }
    fn append_metadata(&mut self, _: SeriesRef, _: &model::Metadata) -> Result<(), AppendError> {
        Ok(())
    }
    fn commit(self: Box<Self>) -> Result<(), model::StorageError> {
        Ok(())
    }
    fn rollback(self: Box<Self>) {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a target does between scrapes, the store sees what a cache without memory would have shown it.
    #[test]
    fn prediction_changes_nothing(
        start in proptest::collection::vec(line(), 0..12),
        edits in proptest::collection::vec((0..12_usize, proptest::option::of(line()), any::<bool>()), 0..24),
    ) {
        let rules = SampleRules {
            target_labels: Labels::from_pairs([("job", "j")]),
            honor_timestamps: true,
            ..SampleRules::default()
        };
        let mut app = Everything::default();
        let mut cache = ScrapeCache::default();
        let mut known = BTreeMap::new();
        let mut lines = start;
        for (n, (at, edit, rewrite)) in edits.into_iter().enumerate() {
            let now_ms = 1000 * (n as i64 + 1);
            let body: String = lines.iter().map(|l| format!("{l}\n")).collect();
            let mut expect = oracle(&body, now_ms, &rules, &mut known);
            let (_, result) = cache.append(body.as_bytes(), Format::Text, now_ms, &rules, &mut app);
            prop_assert!(result.is_ok());
            let mut got = std::mem::take(&mut app.log);
            got.sort();
            expect.sort();
            prop_assert_eq!(got, expect, "scrape {} of\n{}", n, body);
            match edit {
                Some(line) if rewrite && at < lines.len() => lines[at] = line,
                Some(line) => lines.insert(at.min(lines.len()), line),
                None if rewrite => lines.reverse(),
                None if at < lines.len() => { lines.remove(at); }
                None => {}
            }
        }
    }
}
