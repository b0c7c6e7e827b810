use std::collections::BTreeMap;

use model::clock::ManualClock;
use model::memory::MemoryStorage;
use model::{Matcher, Queryable, SelectHints, is_stale_nan};

use super::*;

/// A world whose queries answer what the test sets.
struct World {
    answers: Arc<Mutex<BTreeMap<String, Result<Value, QueryError>>>>,
    storage: MemoryStorage,
    sent: Arc<Mutex<Vec<Alert>>>,
    clock: Arc<ManualClock>,
    environment: Environment,
}

fn world() -> World {
    let answers: Arc<Mutex<BTreeMap<String, Result<Value, QueryError>>>> = Arc::default();
    let storage = MemoryStorage::new();
    let known = Arc::clone(&answers);
    let manual = Arc::new(ManualClock::new(0));
    let clock: Arc<dyn model::Clock> = manual.clone();
    let sent: Arc<Mutex<Vec<Alert>>> = Arc::default();
    let told = Arc::clone(&sent);
    let query: QueryFn =
        Arc::new(move |query, _| known.lock().get(query).cloned().unwrap_or(Ok(Value::Vector(Vec::new()))));
    let environment = Environment {
        query: Arc::clone(&query),
        queryable: Arc::new(storage.clone()),
        appendable: Arc::new(storage.clone()),
        clock: clock.clone(),
        metrics: Arc::new(Metrics::new(&prometheus::Registry::new(), &clock).unwrap()),
        around: Surroundings { external_labels: Labels::empty(), external_url: "http://p".into(), query },
        timing: Timing { resend_delay_ms: 25, outage_tolerance_ms: 60_000, grace_period_ms: 10_000 },
        notify: Arc::new(move |alerts| told.lock().extend(alerts)),
        tracer: model::trace::Tracer::default(),
    };
    World { answers, storage, sent, clock: manual, environment }
}

impl World {
    fn answer(&self, query: &str, series: &[(&[(&str, &str)], f64)]) {
        let vector = series.iter().map(|(labels, value)| VectorSample {
            labels: Labels::from_pairs(labels.iter().copied()),
            timestamp_ms: 0,
            value: PointValue::Float(*value),
        });
        self.answers.lock().insert(query.to_owned(), Ok(Value::Vector(vector.collect())));
    }

    /// Every stored sample as `LABELS TIMESTAMP VALUE`.
    fn stored(&self, name: &str) -> Vec<String> {
        let querier = self.storage.querier(i64::MIN, i64::MAX).unwrap();
        let matcher = Matcher::new(model::MatchOp::Equal, "__name__", name).unwrap();
        let mut set = querier.select(&[matcher], &SelectHints::default()).unwrap();
        let mut found = Vec::new();
        while let Some(series) = set.next().unwrap() {
            let mut samples = model::Samples::default();
            model::chunk::decode_chunks(&series.chunks, i64::MIN, i64::MAX, &mut samples).unwrap();
            for (timestamp_ms, v) in samples.timestamps_ms.iter().zip(&samples.values) {
                let v = if is_stale_nan(*v) { "stale".to_owned() } else { v.to_string() };
                found.push(format!("{} {timestamp_ms} {v}", series.labels));
            }
        }
        found
    }
}

fn recording(record: &str, expr: &str) -> RuleConfig {
    RuleConfig { expr: expr.into(), labels: Vec::new(), kind: RuleKind::Recording { record: record.into() } }
}

fn alert(name: &str, for_ms: i64, keep_firing_for_ms: i64) -> RuleConfig {
    let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    RuleConfig {
        expr: "q".into(),
        labels: vec![pair("severity", "page"), pair("who", "{{ $labels.job }}")],
        kind: RuleKind::Alerting {
            alert: name.into(),
            for_ms,
            keep_firing_for_ms,
            annotations: vec![pair("text", "{{ $labels.job }} is {{ $value }}")],
        },
    }
}

fn group(rules: Vec<RuleConfig>) -> GroupConfig {
    GroupConfig {
        name: "g".into(),
        file: "f".into(),
        interval_ms: 10,
        query_offset_ms: 0,
        limit: 0,
        labels: vec![("team".into(), "t".into())],
        rules,
    }
}

#[test]
fn recorded_series_come_and_go_stale() {
    let world = world();
    let mut group = Group::new(group(vec![recording("r", "q")])).unwrap();
    world.answer("q", &[(&[("__name__", "x"), ("a", "1")], 1.0), (&[("a", "2")], 2.0)]);
    group.evaluate(&world.environment, 10);
    world.answer("q", &[(&[("a", "2")], 3.0)]);
    group.evaluate(&world.environment, 20);
    // A failing rule ends nothing.
    world.answers.lock().insert("q".into(), Err(QueryError::Execution("broken".into())));
    group.evaluate(&world.environment, 30);
    let shown = group.shown().lock().clone();
    assert_eq!((shown.rules[0].health, shown.rules[0].last_error.as_str()), (Health::Err, "broken"));
    world.answer("q", &[]);
    group.evaluate(&world.environment, 40);
    assert_eq!(
        world.stored("r"),
        [
            r#"r{a="1", team="t"} 10 1"#,
            r#"r{a="1", team="t"} 20 stale"#,
            r#"r{a="2", team="t"} 10 2"#,
            r#"r{a="2", team="t"} 20 3"#,
            r#"r{a="2", team="t"} 40 stale"#,
        ]
    );
}

#[test]
fn answers_that_collide_or_are_too_many_are_refused() {
    let world = world();
    let mut config = group(vec![recording("r", "q")]);
    config.limit = 1;
    let mut limited = Group::new(config).unwrap();
    world.answer("q", &[(&[("__name__", "x")], 1.0), (&[("__name__", "y")], 2.0)]);
    limited.evaluate(&world.environment, 10);
    assert!(limited.shown().lock().rules[0].last_error.contains("same labelset"));
    world.answer("q", &[(&[("a", "1")], 1.0), (&[("a", "2")], 2.0)]);
    limited.evaluate(&world.environment, 20);
    assert_eq!(limited.shown().lock().rules[0].last_error, "exceeded limit of 1 with 2 series");
    assert!(world.stored("r").is_empty());
}

#[test]
fn an_alert_is_pending_then_firing_then_kept_then_gone() {
    let world = world();
    let mut group = Group::new(group(vec![alert("A", 20, 15)])).unwrap();
    let state = |group: &Group| group.shown().lock().rules[0].alerting.clone().unwrap();
    assert_eq!(state(&group).state, AlertState::Unknown);
    let mut seen = Vec::new();
    for (ts, holds) in [(0, false), (10, true), (20, true), (30, true), (40, false), (50, false), (60, false)]
    {
        world.answer("q", if holds { &[(&[("__name__", "up"), ("job", "node")], 7.0)] } else { &[] });
        group.evaluate(&world.environment, ts);
        seen.push(state(&group).state.as_str());
        if ts == 30 {
            let alert = &state(&group).alerts[0];
            assert_eq!(
                alert.labels.to_string(),
                r#"{alertname="A", job="node", severity="page", team="t", who="node"}"#
            );
            assert_eq!(alert.annotations.value("text"), "node is 7");
            assert_eq!((alert.active_at_ms, alert.keep_firing_since_ms), (10, None));
        }
    }
    assert_eq!(seen, ["inactive", "pending", "pending", "firing", "firing", "firing", "inactive"]);
    let states: Vec<_> = world
        .stored("ALERTS")
        .iter()
        .map(|line| {
            let state = if line.contains("firing") { "firing" } else { "pending" };
            format!("{state} {}", line.split("} ").nth(1).unwrap())
        })
        .collect();
    assert_eq!(
        states,
        [
            "firing 30 1",
            "firing 40 1",
            "firing 50 1",
            "firing 60 stale",
            "pending 10 1",
            "pending 20 1",
            "pending 30 stale"
        ]
    );
    assert_eq!(world.stored("ALERTS_FOR_STATE").len(), 6);
}

#[test]
fn alerts_are_sent_again_and_again_and_when_they_are_resolved() {
    let world = world();
    let mut group = Group::new(group(vec![alert("A", 20, 0)])).unwrap();
    let mut sent = Vec::new();
    for ts in (0..=120).step_by(10) {
        let holds = (10..70).contains(&ts);
        world.answer("q", if holds { &[(&[("job", "node")], 7.0)] } else { &[] });
        group.evaluate(&world.environment, ts);
        for alert in world.sent.lock().drain(..) {
            assert_eq!(&*alert.generator_url, "http://p/graph?g0.expr=q&g0.tab=1");
            assert_eq!(alert.annotations.value("text"), "node is 7");
            sent.push((ts, alert.starts_at_ms, alert.ends_at_ms));
        }
    }
    // Firing from 30 on; sent when more than 25 have passed; valid for four times that; resolved at 70.
    assert_eq!(sent, [(30, 30, 130), (60, 30, 160), (70, 30, 70), (100, 30, 70)]);
    group.evaluate(&world.environment, 70 + 15 * 60_000);
    assert_eq!(world.sent.lock().drain(..).count(), 1);
    group.evaluate(&world.environment, 80 + 15 * 60_000);
    assert!(world.sent.lock().is_empty() && group.rules[0].alerting.as_ref().unwrap().active.is_empty());
}

#[test]
fn pending_alerts_go_on_after_a_restart() {
    let world = world();
    let run = |group: &mut Group, ts: i64| {
        world.clock.set_ms(ts);
        group.evaluate(&world.environment, ts);
    };
    let active_at = |group: &Group| {
        group.shown().lock().rules[0].alerting.clone().unwrap().alerts.first().map(|a| a.active_at_ms)
    };
    world.answer("q", &[(&[("job", "node")], 7.0)]);
    let mut before = Group::new(group(vec![alert("A", 30_000, 0)])).unwrap();
    (0..=10_000).step_by(5_000).for_each(|ts| run(&mut before, ts));
    assert_eq!(active_at(&before), Some(0));
    let mut after = Group::new(group(vec![alert("A", 30_000, 0)])).unwrap();
    after.restore_later();
    run(&mut after, 40_000);
    assert_eq!((active_at(&after), world.stored("ALERTS").len()), (Some(40_000), 3));
    // Ten seconds were spent pending; the 35 without a server are added.
    run(&mut after, 45_000);
    assert_eq!((active_at(&after), world.stored("ALERTS").len()), (Some(35_000), 3));
    run(&mut after, 50_000);
    assert_eq!(world.stored("ALERTS_FOR_STATE").len(), 4);
}

#[test]
fn labels_as_written_show_in_the_series_where_an_alert_has_none() {
    let world = world();
    let mut rule = alert("A", 0, 0);
    rule.labels = vec![("who".into(), "{{ $labels.nobody }}".into())];
    let mut group = Group::new(group(vec![rule])).unwrap();
    world.answer("q", &[(&[("job", "node")], 7.0)]);
    group.evaluate(&world.environment, 10);
    assert!(
        world.stored("ALERTS")[0].contains(r#"who="{{ $labels.nobody }}""#),
        "{:?}",
        world.stored("ALERTS")
    );
    assert_eq!(world.sent.lock()[0].labels.to_string(), r#"{alertname="A", job="node", team="t"}"#);
}

#[test]
fn a_changed_group_takes_alerts_over_and_ends_old_series() {
    let world = world();
    let mut old = Group::new(group(vec![alert("A", 20, 0), recording("gone", "q")])).unwrap();
    world.answer("q", &[(&[("job", "node")], 1.0)]);
    old.evaluate(&world.environment, 10);
    let mut new = Group::new(group(vec![alert("A", 5, 0)])).unwrap();
    new.take_over(&mut old);
    new.evaluate(&world.environment, 20);
    let alerts = new.shown().lock().rules[0].alerting.clone().unwrap();
    assert_eq!((alerts.state, alerts.alerts[0].active_at_ms), (AlertState::Firing, 10));
    assert_eq!(world.stored("gone").last().unwrap(), r#"gone{job="node", team="t"} 20 stale"#);
    new.retire(&world.environment, 30);
    assert!(world.stored("ALERTS_FOR_STATE").last().unwrap().ends_with("30 stale"));
}

#[test]
fn what_cannot_run_is_named() {
    let mut rule = alert("A", 0, 0);
    rule.labels.push(("x".into(), "{{ range }}".into()));
    let error = Group::new(group(vec![recording("r", "q"), rule])).err().unwrap().to_string();
    assert!(error.starts_with(r#"f: group "g", rule 2 ("A"): "#), "{error}");
}
