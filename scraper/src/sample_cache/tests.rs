//! Scrapes in a row against a store that tells what it was given.

use super::*;
use crate::exposition::HistogramOptions;
use crate::exposition::negotiation::BodyFormat;
use crate::exposition::protobuf::testing::*;
use crate::sample_labels::StartRules;
use crate::series_cache::{Appended, SeriesCache};
use crate::test_store::TestStore;
use model::Appendable;

/// A target in front of a store.
struct Target {
    store: TestStore,
    cache: SeriesCache,
    rules: SampleRules,
    histograms: HistogramOptions,
    now_ms: i64,
    counts: ScrapeCounts,
}

impl Target {
    fn new() -> Self {
        let rules = SampleRules {
            target_labels: Labels::from_pairs([("job", "j")]),
            honor_timestamps: true,
            ..SampleRules::default()
        };
        let histograms = HistogramOptions { native: true, ..HistogramOptions::default() };
        let store = TestStore::new();
        Self {
            store,
            cache: SeriesCache::default(),
            rules,
            histograms,
            now_ms: 0,
            counts: ScrapeCounts::default(),
        }
    }

    /// One scrape; what the store was given, or the error and what came of that.
    fn scrape(&mut self, body: &[u8], format: BodyFormat) -> (Vec<String>, String) {
        self.now_ms += 1000;
        let mut app = self.store.appender().expect("an open store");
        let Appended { counts, result, outdated } =
            self.cache.append(body, format, self.histograms, self.now_ms, &self.rules, app.as_mut());
        if result.is_err() {
            app.rollback();
            app = self.store.appender().expect("an open store");
            self.cache.append_stale(self.now_ms, app.as_mut()).expect("an open store");
        }
        if let Some(mut old) = outdated {
            old.append_stale_except(&self.cache, self.now_ms, app.as_mut()).expect("an open store");
        }
        app.commit().expect("an open store");
        self.counts = counts;
        (self.store.drain(), result.err().map(|e| e.to_string()).unwrap_or_default())
    }

    fn check(&mut self, body: &[u8], expect: &[&str]) {
        let (got, error) = self.scrape(body, BodyFormat::Protobuf);
        assert_eq!(
            (got.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), error.as_str()),
            (expect, "")
        );
    }

    fn check_text(&mut self, format: Format, body: &str, expect: &[&str]) {
        let (got, error) = self.scrape(body.as_bytes(), BodyFormat::Text(format));
        assert_eq!(
            (got.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), error.as_str()),
            (expect, "")
        );
    }
}

fn gauge(labels: &[(&str, &str)], v: f64) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = labels.iter().map(|(n, v)| label(n, v)).collect();
    parts.push(bytes(2, double(1, v)));
    metric(&parts)
}

#[test]
fn series_come_and_go() {
    let mut t = Target::new();
    let one = |v| family("g", GAUGE, &[gauge(&[("a", "1")], v), gauge(&[("a", "2")], v)]);
    t.check(&one(1.0), &[r#"g{a="1", job="j"} 1000 1"#, r#"g{a="2", job="j"} 1000 1"#]);
    assert_eq!((t.counts.scraped, t.counts.series_added), (2, 2));
    t.check(&one(2.0), &[r#"g{a="1", job="j"} 2000 2"#, r#"g{a="2", job="j"} 2000 2"#]);
    assert_eq!((t.counts.scraped, t.counts.series_added), (2, 0));
    assert_eq!(t.store.appends_by_labels(), 2);
    let other = family(
        "g",
        GAUGE,
        &[gauge(&[("a", "2")], 3.0), gauge(&[("a", "0")], 3.0), gauge(&[("a", "2")], 4.0)],
    );
    t.check(
        &other,
        &[r#"g{a="2", job="j"} 3000 3"#, r#"g{a="0", job="j"} 3000 3"#, r#"g{a="1", job="j"} 3000 stale"#],
    );
    assert_eq!((t.counts.scraped, t.counts.post_relabel, t.counts.duplicates), (3, 3, 1));
    // Cut off: what is known of the target goes stale, and comes back with the next scrape.
    let (got, error) = t.scrape(&other[..other.len() - 1], BodyFormat::Protobuf);
    assert!(error.starts_with("clientpb: insufficient length"), "{error}");
    let stale = [r#"g{a="2", job="j"} 4000 stale"#, r#"g{a="0", job="j"} 4000 stale"#];
    let (mut got, mut stale) = (got, stale.map(str::to_owned).to_vec());
    got.sort();
    stale.sort();
    assert_eq!(got, stale);
    t.check(&one(5.0), &[r#"g{a="1", job="j"} 5000 5"#, r#"g{a="2", job="j"} 5000 5"#]);
    t.store.forget_refs();
    t.check(&one(6.0), &[r#"g{a="1", job="j"} 6000 6"#, r#"g{a="2", job="j"} 6000 6"#]);
}

#[test]
fn histograms_are_known_again_too() {
    let mut t = Target::new();
    let body = |n: u64| {
        let native = bytes(7, [uint(1, n), span(12, 0, 1), sint(13, n as i64), bucket(n, 1.0)].concat());
        let classic = bytes(7, [uint(1, n), bucket(n, 1.0)].concat());
        family("h", HISTOGRAM, &[metric(&[label("k", "n"), native]), metric(&[label("k", "c"), classic])])
    };
    for n in 1..4 {
        let at = n * 1000;
        t.check(
            &body(n),
            &[
                &format!("h{{job=\"j\", k=\"n\"}} {at} int s=0 n={n}"),
                &format!("h_count{{job=\"j\", k=\"c\"}} {at} {n}"),
                &format!("h_sum{{job=\"j\", k=\"c\"}} {at} 0"),
                &format!("h_bucket{{job=\"j\", k=\"c\", le=\"1.0\"}} {at} {n}"),
                &format!("h_bucket{{job=\"j\", k=\"c\", le=\"+Inf\"}} {at} {n}"),
            ],
        );
        assert_eq!(t.store.appends_by_labels(), 5, "only the first scrape needs labels");
    }
    // Now without the native part: the histogram ends, its classic series begin.
    t.histograms.native = false;
    let (got, _) = t.scrape(&body(5), BodyFormat::Protobuf);
    assert!(got.contains(&"h{job=\"j\", k=\"n\"} 4000 stale".to_owned()), "{got:?}");
    assert_eq!(got.len(), 4 + 4 + 1);
}

#[test]
fn limits_of_histograms() {
    let body = |schema: i64, buckets: u64| {
        let deltas: Vec<u8> = (0..buckets).flat_map(|i| sint(13, i64::from(i == 0))).collect();
        let native = bytes(7, [uint(1, buckets), sint(5, schema), span(12, 1, buckets), deltas].concat());
        family("h", HISTOGRAM, &[metric(&[native])])
    };
    let mut t = Target::new();
    t.rules.schema_max = Some(2);
    t.check(&body(3, 8), &[r#"h{job="j"} 1000 int s=2 n=8"#]);
    t.rules.bucket_limit = 4;
    t.check(&body(1, 8), &[r#"h{job="j"} 2000 int s=0 n=8"#]);
    t.rules.bucket_limit = 1;
    // From 2 to the power of 0 on, buckets of any width remain at least one.
    t.check(&body(2, 4), &[r#"h{job="j"} 3000 int s=0 n=4"#]);
    let far_apart =
        bytes(7, [uint(1, 2), span(12, -20, 1), span(12, 40, 1), sint(13, 1), sint(13, 0)].concat());
    let (got, error) = t.scrape(&family("h", HISTOGRAM, &[metric(&[far_apart])]), BodyFormat::Protobuf);
    assert_eq!(error, "histogram bucket limit exceeded");
    assert_eq!(got, [r#"h{job="j"} 4000 stale"#]);
    t.rules.bucket_limit = 0;
    t.rules.sample_limit = 1;
    let two = family("g", GAUGE, &[gauge(&[], 1.0), gauge(&[("a", "b")], 1.0)]);
    assert_eq!(t.scrape(&two, BodyFormat::Protobuf).1, "sample limit exceeded");
    assert_eq!(t.counts.scraped, 2);
}

#[test]
fn a_histogram_that_contradicts_itself_fails_the_scrape() {
    let native = bytes(7, [uint(1, 9), span(12, 0, 1), sint(13, 1)].concat());
    let (_, error) =
        Target::new().scrape(&family("h", HISTOGRAM, &[metric(&[native])]), BodyFormat::Protobuf);
    assert!(error.contains("1 observations found in buckets, but the Count field is 9"), "{error}");
}

#[test]
fn exemplars_are_sorted_and_take_the_timestamp_of_the_sample() {
    let mut t = Target::new();
    let counter = bytes(3, [double(1, 1.0), exemplar(2, "c", 1.0, None)].concat());
    let native = bytes(
        7,
        [
            uint(1, 1),
            span(12, 0, 1),
            sint(13, 1),
            exemplar(16, "late", 1.0, Some(9)),
            exemplar(16, "early", 1.0, Some(3)),
        ]
        .concat(),
    );
    let body =
        [family("c", COUNTER, &[metric(&[counter])]), family("h", HISTOGRAM, &[metric(&[native])])].concat();
    t.scrape(&body, BodyFormat::Protobuf);
    let got: Vec<_> =
        t.store.exemplars().iter().map(|(_, e)| (e.labels.value("t").to_owned(), e.timestamp_ms)).collect();
    assert_eq!(
        got,
        [("c".to_owned(), None), ("early".to_owned(), Some(3500)), ("late".to_owned(), Some(9500))]
    );
}

#[test]
fn metadata_is_appended_with_news_only() {
    let mut t = Target::new();
    t.rules.append_metadata = true;
    let body = |kind| family("g", kind, &[gauge(&[], 1.0)]);
    t.scrape(&body(GAUGE), BodyFormat::Protobuf);
    t.scrape(&body(GAUGE), BodyFormat::Protobuf);
    assert_eq!(t.store.metadata().len(), 1);
    t.scrape(&body(UNTYPED), BodyFormat::Protobuf);
    assert_eq!(t.store.metadata().len(), 2);
    assert_eq!(&*t.store.metadata()[0].1.help, "help me");
}

const TEXT_HISTOGRAM: &str = "# TYPE h histogram\nh_bucket{k=\"1\",le=\"1\"} 2\nh_bucket{k=\"1\",le=\"+Inf\"} 3\nh_sum{k=\"1\"} 4\nh_count{k=\"1\"} 3\nh_bucket{k=\"2\",le=\"+Inf\"} 1\nh_count{k=\"2\"} 1\n# TYPE g gauge\ng 1\n";

#[test]
fn classic_histograms_in_text_are_converted() {
    let mut t = Target::new();
    t.histograms.convert_classic = true;
    for at in [1000, 2000] {
        t.check_text(
            Format::Text,
            TEXT_HISTOGRAM,
            &[
                &format!("h{{job=\"j\", k=\"1\"}} {at} int s=-53 n=3"),
                &format!("h{{job=\"j\", k=\"2\"}} {at} int s=-53 n=1"),
                &format!("g{{job=\"j\"}} {at} 1"),
            ],
        );
    }
    assert_eq!(t.counts.scraped, 3);
    t.histograms.keep_classic = true;
    let (got, _) = t.scrape(TEXT_HISTOGRAM.as_bytes(), BodyFormat::Text(Format::Text));
    assert_eq!(got.len(), 6 + 2 + 1);
    assert!(got[4].starts_with("h{job=\"j\", k=\"1\"} 3000 int"), "{got:?}");
}

#[test]
fn broken_classic_histograms_are_left_out() {
    let mut t = Target::new();
    t.histograms.convert_classic = true;
    let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 5\nh_bucket{le=\"2\"} 3\nh_count 3\nh 7\n# TYPE s summary\ns_count 1\n";
    t.check_text(Format::Text, body, &[r#"h{job="j"} 1000 7"#, r#"s_count{job="j"} 1000 1"#]);
    // At the end of the body, and with fractions.
    let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 0.5\nh_count 3\n# EOF\n";
    let (got, _) = t.scrape(body.as_bytes(), BodyFormat::Text(Format::OpenMetrics));
    assert!(got.contains(&r#"h{job="j"} 2000 float s=-53 n=3"#.to_owned()), "{got:?}");
}

const STARTS: &str = "# TYPE c counter\nc_total{a=\"1\"} 5\nc_created{a=\"1\"} 1.5\nc_total{a=\"2\"} 6\nc_created{a=\"3\"} 2\n# TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_count 1\nh_created 0.25\n# TYPE g gauge\ng_created 7\n# EOF\n";

#[test]
fn start_timestamps_of_openmetrics() {
    let mut t = Target::new();
    t.now_ms = 9000;
    t.rules.starts = StartRules { read: true, as_zeros: false };
    for at in [10_000, 11_000] {
        t.check_text(
            Format::OpenMetrics,
            STARTS,
            &[
                &format!("c_total{{a=\"1\", job=\"j\"}} {at} 5 st=1500"),
                &format!("c_total{{a=\"2\", job=\"j\"}} {at} 6"),
                &format!("h_bucket{{job=\"j\", le=\"1.0\"}} {at} 1 st=250"),
                &format!("h_bucket{{job=\"j\", le=\"+Inf\"}} {at} 1 st=250"),
                &format!("h_count{{job=\"j\"}} {at} 1 st=250"),
                &format!("g_created{{job=\"j\"}} {at} 7"),
            ],
        );
    }
    assert_eq!(t.counts.scraped, 6);
    t.histograms.convert_classic = true;
    let (got, _) = t.scrape(STARTS.as_bytes(), BodyFormat::Text(Format::OpenMetrics));
    assert!(got.contains(&"h{job=\"j\"} 12000 int s=-53 n=1 st=250".to_owned()), "{got:?}");
    // Without the feature they are series like others.
    t.rules.starts = StartRules::default();
    t.histograms.convert_classic = false;
    let (got, _) = t.scrape(STARTS.as_bytes(), BodyFormat::Text(Format::OpenMetrics));
    assert!(got.contains(&"c_created{a=\"1\", job=\"j\"} 13000 1.5".to_owned()), "{got:?}");
}

#[test]
fn start_timestamps_as_zeros() {
    let mut t = Target::new();
    t.now_ms = 9000;
    t.rules.starts = StartRules { read: true, as_zeros: true };
    let counter = bytes(3, [double(1, 5.0), stamp(3, 4, 0)].concat());
    let body = family("c", COUNTER, &[metric(&[counter])]);
    t.check(&body, &[r#"c{job="j"} 4000 0"#, r#"c{job="j"} 10000 5 st=4000"#]);
    t.check(&body, &[r#"c{job="j"} 11000 5 st=4000"#]);
}

#[test]
fn series_go_on_when_a_target_changes_its_format() {
    let mut t = Target::new();
    t.check_text(Format::Text, "g 1\nold 1\n", &[r#"g{job="j"} 1000 1"#, r#"old{job="j"} 1000 1"#]);
    t.check(&family("g", GAUGE, &[gauge(&[], 2.0)]), &[r#"g{job="j"} 2000 2"#, r#"old{job="j"} 2000 stale"#]);
    t.check_text(Format::Text, "g 3\n", &[r#"g{job="j"} 3000 3"#]);
    t.check_text(Format::Text, "new 3\n", &[r#"new{job="j"} 4000 3"#, r#"g{job="j"} 4000 stale"#]);
}

#[test]
fn failing_scrapes_leave_bounded_memory() {
    let mut t = Target::new();
    t.rules.sample_limit = 10;
    for scrape in 0..40 {
        let name = |i: usize| format!("m{scrape}_{i}");
        let gauges: Vec<_> = (0..500).map(|i| gauge(&[("l", &name(i))], 1.0)).collect();
        assert_eq!(t.scrape(&family("g", GAUGE, &gauges), BodyFormat::Protobuf).1, "sample limit exceeded");
    }
    // Each flush is at most a thousand metrics after the one before.
    assert!(t.cache.forced_flushes() >= 10, "{}", t.cache.forced_flushes());
}
