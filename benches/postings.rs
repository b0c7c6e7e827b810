//! From matchers to series, in a block of a million series of which one label differs: intersections, regular expressions on
//! a million values, label values with matchers and with a limit.
//!
//! Prints milliseconds, best of five, and, for regular expressions, how many times the `regex` crate alone takes for the same
//! values. Selections are opened, not read: what is measured is the way to the list of series.
//!
//! Exits at once without `--bench`; with `--test` it takes a fiftieth of the series.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use model::clock::ManualClock;
use model::{Labels, MatchOp, Matcher, Querier, Queryable, Regexp, SampleValue, SelectHints};
use tsdb::{BlockBuilder, Config, Db};

const SERIES: usize = 1_000_000;
const ROUNDS: usize = 5;
const T_MS: i64 = 1_700_006_400_000;
const BLOCK_MS: i64 = 7_200_000;

/// Selections by name, and their matchers: label, operator, value.
type Selection<'a> = (&'a str, Vec<(&'a str, MatchOp, &'a str)>);

fn value(i: usize) -> String {
    let region = ["eu-west-1", "us-east-1", "ap-south-2"][i % 3];
    format!("{region}/payment-service-{i:07}/Pod-{:x}", i.wrapping_mul(2_654_435_761) % 65_536)
}

fn labels(i: usize) -> Labels {
    let third = |k: usize| if i % 1000 == k { "other" } else { "most" };
    let rare = if i.is_multiple_of(1000) { "yes" } else { "no" };
    Labels::from_pairs([
        ("__name__", "m"),
        ("first", third(1)),
        ("rare", rare),
        ("second", third(2)),
        ("third", third(3)),
        ("value", value(i).as_str()),
    ])
}

fn store(dir: &std::path::Path, series: usize) -> Arc<Db> {
    let clock = ManualClock::new(T_MS);
    let mut builder = BlockBuilder::new(dir, BLOCK_MS).expect("directory");
    for i in 0..series {
        builder.append(&labels(i), T_MS, SampleValue::Float(1.0)).expect("taken");
    }
    builder.finish(&clock).expect("written").expect("has samples");
    let config = Config { retention_ms: 0, ..Config::new(dir) };
    Db::open(config, Arc::new(clock), &prometheus::Registry::new()).expect("opened")
}

/// Milliseconds, best of some rounds.
fn best(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        #[allow(clippy::disallowed_methods, reason = "a bench measures time")]
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64() * 1000.0);
    }
    best
}

fn say(what: &str, ms: f64, more: &str) {
    writeln!(std::io::stdout(), "postings/{what:<40} {ms:9.3} ms {more}").expect("stdout");
}

fn matchers(of: &[(&str, MatchOp, &str)]) -> Vec<Matcher> {
    of.iter().map(|(n, op, v)| Matcher::new(*op, *n, *v).expect("valid")).collect()
}

fn selections(querier: &dyn Querier, list: &[Selection<'_>]) {
    for (what, selection) in list {
        let matchers = matchers(selection);
        let ms =
            best(|| drop(black_box(querier.select(&matchers, &SelectHints::default()).expect("selected"))));
        say(what, ms, "");
    }
}

/// Expressions on all values: through a selection, and alone beside the engine.
fn expressions(querier: &dyn Querier, series: usize) {
    let values: Vec<String> = (0..series).map(value).collect();
    let some: Vec<&str> = (0..series).step_by(series / 1000).map(|i| values[i].as_str()).collect();
    let set = some.join("|");
    for (what, pattern) in [
        ("thousand texts", set.as_str()),
        ("prefix", "eu-west-1/payment-service-00.*"),
        ("suffix", ".*/Pod-ff"),
        ("contains", ".*service-0042.*"),
        ("contains one of three", ".*(service-0042|service-0099|Pod-ab).*"),
        ("in order", "eu.*service.*-00.*/Pod-a.*"),
        ("without case", "(?i).*/pod-ff"),
        ("whole expression", ".*/payment-service-[0-9]*99/Pod-[a-f]+"),
    ] {
        let matcher = matchers(&[("value", MatchOp::Regexp, pattern)]);
        let selected =
            best(|| drop(black_box(querier.select(&matcher, &SelectHints::default()).expect("selected"))));
        let ours = Regexp::new(pattern).expect("valid");
        let engine = regex::Regex::new(&format!("^(?s:{pattern})$")).expect("valid");
        let count = |f: &dyn Fn(&str) -> bool| values.iter().filter(|v| f(v)).count();
        assert_eq!(count(&|v| ours.is_match(v)), count(&|v| engine.is_match(v)), "{what}");
        let fast = best(|| _ = black_box(count(&|v| ours.is_match(v))));
        let plain = best(|| _ = black_box(count(&|v| engine.is_match(v))));
        let more =
            format!("select; matching alone {fast:.1} ms, the engine {plain:.1} ms: {:.1}", plain / fast);
        say(what, selected, &more);
    }
}

fn label_values(querier: &dyn Querier) {
    let most = matchers(&[("first", MatchOp::Equal, "most")]);
    let rare = matchers(&[("rare", MatchOp::Equal, "yes")]);
    for (what, name, matchers, limit) in [
        ("all values", "value", &[][..], 0),
        ("ten values", "value", &[][..], 10),
        ("values of most series", "value", &most, 0),
        ("ten values of most series", "value", &most, 10),
        ("values of rare series", "value", &rare, 0),
        ("two values of most series", "rare", &most, 0),
    ] {
        let ms = best(|| drop(black_box(querier.label_values(name, matchers, limit).expect("read"))));
        say(what, ms, "");
    }
    let ms = best(|| drop(black_box(querier.label_names(&most, 0).expect("read"))));
    say("names of most series", ms, "");
    let hints = SelectHints { labels_only: true, func: "series".into(), limit: 10, ..SelectHints::default() };
    let ms = best(|| {
        let mut set = querier.select(&most, &hints).expect("selected");
        while black_box(set.next().expect("read")).is_some() {}
    });
    say("ten series of most, read", ms, "");
}

fn main() {
    let flag = |name: &str| std::env::args().any(|a| a == name);
    if !flag("--bench") {
        return;
    }
    let series = if flag("--test") { SERIES / 50 } else { SERIES };
    let dir = tempfile::tempdir().expect("directory");
    let db = store(dir.path(), series);
    let querier = db.querier(T_MS, T_MS).expect("opened");
    let is = MatchOp::Equal;
    let (first, second, third) = (("first", is, "most"), ("second", is, "most"), ("third", is, "most"));
    selections(
        &*querier,
        &[
            ("one list", vec![first]),
            ("two long lists", vec![first, second]),
            ("three long lists", vec![first, second, third]),
            ("a short and a long list", vec![("rare", is, "yes"), first]),
            ("long list without a short one", vec![first, ("rare", MatchOp::NotEqual, "yes")]),
        ],
    );
    expressions(&*querier, series);
    label_values(&*querier);
}
