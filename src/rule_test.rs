//! `almanac test rules`: unit tests of rules, in promtool's format and with its output.
//!
//! A test group has series and what must come of them: alerts that fire, and answers of expressions. Rules are evaluated
//! at every interval from the start of the test on; they see only samples up to then.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/>.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::duration::go_duration;
use model::memory::MemoryStorage;
use model::relabel::NameValidation;
use model::{Appendable, FloatHistogram, Labels, Sample, SearchRegexp, SeriesRef, SystemClock};
use promql::parser::ParserOptions;
use promql::{Engine, EngineConfig, PointValue, QueryOptions, Value};
use promql_testkit::notation::{SeriesValue, parse_series};
use rules::unit_test::HandRun;
use rules::{AlertState, GroupConfig, GroupStatus, RuleParts, TemplateContext, Timing};
use serde::Deserialize;

use crate::cli::TestRulesFlags;
use crate::config::matching_files;
use crate::config::rules::{Defaults, UnknownFields, parse};
use crate::config::scalar::Ms;
use crate::config::yaml::{self, At, read_file};

/// Most samples that one query may load.
const SAMPLES_MAX: u64 = 10_000;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TestFile {
    rule_files: Vec<PathBuf>,
    evaluation_interval: Ms,
    group_eval_order: Vec<String>,
    tests: Vec<At<TestGroup>>,
    fuzzy_compare: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TestGroup {
    interval: Ms,
    input_series: Vec<At<InputSeries>>,
    alert_rule_test: Vec<AlertTest>,
    promql_expr_test: Vec<ExprTest>,
    external_labels: BTreeMap<String, String>,
    external_url: String,
    name: String,
    start_timestamp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct InputSeries {
    series: String,
    values: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AlertTest {
    eval_time: Ms,
    alertname: String,
    exp_alerts: Vec<ExpectedAlert>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExpectedAlert {
    exp_labels: BTreeMap<String, String>,
    exp_annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExprTest {
    expr: String,
    eval_time: Ms,
    exp_samples: Vec<ExpectedSample>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExpectedSample {
    labels: String,
    value: f64,
    histogram: String,
}

/// Runs test files and prints what promtool prints; whether all is as it should be.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub fn run(flags: &TestRulesFlags) -> bool {
    let chosen = match chosen(&flags.run) {
        Ok(chosen) => chosen,
        Err(e) => {
            eprintln!("{e}");
            return false;
        }
    };
    let mut good = true;
    for file in &flags.files {
        let failures = test_file(file, flags, chosen.as_ref());
        if failures.is_empty() {
            println!("  SUCCESS");
        } else {
            eprintln!("  FAILED:");
            failures.iter().for_each(|f| eprintln!("{f}\n"));
            good = false;
        }
        println!();
    }
    good
}

fn chosen(patterns: &[String]) -> Result<Option<SearchRegexp>, String> {
    if patterns.is_empty() {
        return Ok(None);
    }
    SearchRegexp::new(&patterns.join("|")).map(Some).map_err(|e| format!("--run: {e}"))
}

/// What is wrong in one file.
fn test_file(file: &Path, flags: &TestRulesFlags, chosen: Option<&SearchRegexp>) -> Vec<String> {
    let parsed = read_file(file).and_then(|text| yaml::parse::<TestFile>(&text).map_err(|p| p.in_file(file)));
    let mut tests = match parsed {
        Ok(tests) => tests,
        Err(e) => return vec![e.to_string()],
    };
    let mut order = BTreeMap::new();
    for (i, name) in tests.group_eval_order.iter().enumerate() {
        if order.insert(name.as_str(), i).is_some() {
            return vec![format!("group name repeated in evaluation order: {name}")];
        }
    }
    if tests.evaluation_interval.0 == 0 {
        tests.evaluation_interval = Ms(60_000);
    }
    let rule_files = match rule_files(file, &tests.rule_files) {
        Ok(files) => files,
        Err(e) => return vec![e],
    };
    let mut failures = Vec::new();
    for group in &tests.tests {
        if chosen.is_none_or(|regex| regex.is_match(&group.name)) {
            let test =
                Test { path: file, group, file: &tests, flags, order: &order, rule_files: &rule_files };
            match test.run() {
                Ok(found) => failures.extend(found),
                Err(found) => failures.extend(found),
            }
        }
    }
    failures
}

fn rule_files(file: &Path, patterns: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let dir = file.parent().unwrap_or(Path::new(""));
    let mut all = Vec::new();
    for pattern in patterns {
        let pattern = dir.join(pattern);
        let found = matching_files(&pattern).map_err(|e| e.to_string())?;
        if found.is_empty() {
            eprintln!("  WARNING: no file match pattern {}", pattern.display());
        }
        all.extend(found);
    }
    Ok(all)
}

/// One test group and what surrounds it.
struct Test<'a> {
    path: &'a Path,
    group: &'a TestGroup,
    file: &'a TestFile,
    flags: &'a TestRulesFlags,
    order: &'a BTreeMap<&'a str, usize>,
    rule_files: &'a [PathBuf],
}

/// A sample of an answer.
struct Point {
    labels: Labels,
    value: f64,
    histogram: Option<Arc<FloatHistogram>>,
}

impl Test<'_> {
    /// # Errors
    /// What keeps the test from being run, or from being run to its end. The other failures are returned.
    fn run(&self) -> Result<Vec<String>, Vec<String>> {
        let group = self.group;
        let start_ms = match &group.start_timestamp {
            Some(text) => {
                api::parse_time(text).map_err(|e| vec![format!("start_timestamp {text:?}: {e}")])?
            }
            None => 0,
        };
        let storage = MemoryStorage::new();
        let mut series = self.series(start_ms)?;
        let engine = self.engine();
        let run = self.rules(&engine, &storage)?;
        for test in &group.alert_rule_test {
            if test.alertname.is_empty() {
                let name = if group.name.is_empty() {
                    String::new()
                } else {
                    format!(" (in TestGroup {})", group.name)
                };
                let time = text_of(test.eval_time.0);
                return Err(vec![format!(
                    "an item under alert_rule_test misses required attribute alertname at eval_time {time}{name}"
                )]);
            }
        }
        let times = group
            .alert_rule_test
            .iter()
            .map(|t| t.eval_time)
            .chain(group.promql_expr_test.iter().map(|t| t.eval_time));
        let end_ms = start_ms + times.max().unwrap_or_default().ms();
        let interval_ms = self.file.evaluation_interval.ms();
        let mut failures = Vec::new();
        let mut ts_ms = start_ms;
        while ts_ms <= end_ms {
            series.append_until(&storage, ts_ms).map_err(|e| vec![e])?;
            let shown = run.evaluate(ts_ms);
            let broken = failed_rules(&shown, ts_ms);
            if !broken.is_empty() {
                failures.extend(broken);
                return Err(failures);
            }
            // Alerts are asked for at any time; the evaluation before it says what they are.
            let due = ts_ms - start_ms..ts_ms - start_ms + interval_ms;
            failures.extend(self.alerts(&shown, &due));
            ts_ms += interval_ms;
        }
        for test in &group.promql_expr_test {
            failures.extend(self.expression(test, &engine, &storage, start_ms).err());
        }
        Ok(failures)
    }

    fn engine(&self) -> Engine {
        let has = |name: &str| self.flags.features.features.iter().any(|f| f == name);
        let config = EngineConfig {
            max_samples: SAMPLES_MAX,
            default_subquery_step_ms: self.file.evaluation_interval.ms(),
            experimental_functions: has("promql-experimental-functions"),
            extended_range_selectors: has("promql-extended-range-selectors"),
            fill_modifiers: has("promql-binop-fill-modifiers"),
            delayed_name_removal: has("promql-delayed-name-removal"),
            duration_expressions: true,
            ..EngineConfig::default()
        };
        Engine::new(config, SystemClock::shared(), &prometheus::Registry::new())
    }

    fn interval_ms(&self) -> i64 {
        if self.group.interval.0 == 0 { self.file.evaluation_interval.ms() } else { self.group.interval.ms() }
    }

    fn series(&self, start_ms: i64) -> Result<Input, Vec<String>> {
        let mut rows = Vec::new();
        for input in &self.group.input_series {
            let row = parse_series(&format!("{} {}", input.series, input.values));
            rows.push(row.map_err(|e| vec![input.problem(e).in_file(self.path).to_string()])?);
        }
        Ok(Input { rows, next: 0, start_ms, interval_ms: self.interval_ms() })
    }

    fn rules(&self, engine: &Engine, storage: &MemoryStorage) -> Result<HandRun, Vec<String>> {
        let defaults = Defaults {
            interval: Ms(self.interval_ms()),
            query_offset: Ms(0),
            names: NameValidation::Utf8,
            parser: ParserOptions { ..engine.parser_options() },
        };
        let unknown =
            if self.flags.ignore_unknown_fields { UnknownFields::Ignore } else { UnknownFields::Refuse };
        let mut groups: Vec<GroupConfig> = Vec::new();
        for file in self.rule_files {
            let text = read_file(file).map_err(|e| vec![e.to_string()])?;
            let parsed = parse(&text, &file.display().to_string(), &defaults, unknown);
            groups.extend(parsed.map_err(|problems| {
                problems.into_iter().map(|p| p.in_file(file).to_string()).collect::<Vec<_>>()
            })?);
        }
        groups.sort_by_key(|g| self.order.get(g.name.as_str()).copied().unwrap_or(0));
        let parts = RuleParts {
            engine: engine.clone(),
            queryable: Arc::new(storage.clone()),
            appendable: Arc::new(storage.clone()),
            clock: SystemClock::shared(),
            timing: Timing::default(),
            notify: Arc::new(|_| {}),
            tracer: model::trace::Tracer::default(),
        };
        let context = TemplateContext {
            external_labels: Labels::from_pairs(&self.group.external_labels),
            external_url: self.group.external_url.clone(),
        };
        HandRun::new(groups, parts, &context).map_err(|e| vec![e.to_string()])
    }

    /// Holds the firing alerts against what is expected within this time.
    fn alerts(&self, shown: &[GroupStatus], due: &std::ops::Range<i64>) -> Vec<String> {
        let mut failures = Vec::new();
        let times: BTreeSet<i64> = self.group.alert_rule_test.iter().map(|t| t.eval_time.ms()).collect();
        for time in times.into_iter().filter(|t| due.contains(t)) {
            for test in self.group.alert_rule_test.iter().filter(|t| t.eval_time.ms() == time) {
                let mut got = firing(shown, &test.alertname);
                let mut expected: Vec<(Labels, Labels)> =
                    test.exp_alerts.iter().map(|alert| alert.labels(&test.alertname)).collect();
                got.sort();
                expected.sort();
                if got != expected {
                    let name = match self.group.name.as_str() {
                        "" => String::new(),
                        name => format!("    name: {name},\n"),
                    };
                    failures.push(format!(
                        "{name}    alertname: {}, time: {}, \n        exp:{}, \n        got:{}",
                        test.alertname,
                        text_of(time),
                        indented(&alerts_text(&expected), "            "),
                        indented(&alerts_text(&got), "            "),
                    ));
                }
            }
        }
        failures
    }

    /// # Errors
    /// What is wrong with the answer.
    fn expression(
        &self,
        test: &ExprTest,
        engine: &Engine,
        storage: &MemoryStorage,
        start_ms: i64,
    ) -> Result<(), String> {
        let head = format!("    expr: {:?}, time: {},", test.expr, text_of(test.eval_time.ms()));
        let at_ms = start_ms + test.eval_time.ms();
        let answer = engine.instant(storage, &test.expr, at_ms, &QueryOptions::default());
        let mut got: Vec<Point> = match answer.map_err(|e| format!("{head} err: {e}"))?.value {
            Value::Vector(vector) => vector
                .into_iter()
                .map(|sample| match sample.value {
                    PointValue::Float(value) => Point { labels: sample.labels, value, histogram: None },
                    PointValue::Histogram(h) => {
                        Point { labels: sample.labels, value: 0.0, histogram: Some(h) }
                    }
                })
                .collect(),
            Value::Scalar { value, .. } => vec![Point { labels: Labels::empty(), value, histogram: None }],
            _ => return Err(format!("{head} err: rule result is not a vector or scalar")),
        };
        let expected = test.exp_samples.iter().map(ExpectedSample::point).collect::<Result<Vec<_>, _>>();
        let mut expected = expected.map_err(|e| format!("{head} err: {e}"))?;
        got.sort_by(|a, b| a.labels.cmp(&b.labels));
        expected.sort_by(|a, b| a.labels.cmp(&b.labels));
        let same = got.len() == expected.len()
            && got.iter().zip(&expected).all(|(a, b)| a.equals(b, self.file.fuzzy_compare));
        if same {
            return Ok(());
        }
        Err(format!("{head}\n        exp: {}\n        got: {}", points_text(&expected), points_text(&got)))
    }
}

/// The series of a test, appended bit by bit.
struct Input {
    rows: Vec<(Labels, Vec<SeriesValue>)>,
    /// Values appended of each row.
    next: usize,
    start_ms: i64,
    interval_ms: i64,
}

impl Input {
    fn append_until(&mut self, storage: &MemoryStorage, ts_ms: i64) -> Result<(), String> {
        let mut appender = storage.appender().map_err(|e| e.to_string())?;
        let longest = self.rows.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
        while self.next < longest {
            let at_ms = self.start_ms + self.next as i64 * self.interval_ms;
            if at_ms > ts_ms {
                break;
            }
            for (labels, values) in &self.rows {
                let sample = match values.get(self.next) {
                    None | Some(SeriesValue::Omitted) => continue,
                    Some(SeriesValue::Float(v)) => Sample::float(at_ms, *v),
                    Some(SeriesValue::Histogram { value, .. }) => {
                        Sample::histogram(at_ms, model::HistogramValue::Float(value.clone()))
                    }
                };
                appender.append(SeriesRef::NONE, labels, sample).map_err(|e| format!("{labels}: {e}"))?;
            }
            self.next += 1;
        }
        appender.commit().map_err(|e| e.to_string())
    }
}

fn failed_rules(shown: &[GroupStatus], ts_ms: i64) -> Vec<String> {
    let rules = shown.iter().flat_map(|group| &group.rules).filter(|rule| !rule.last_error.is_empty());
    rules
        .map(|rule| {
            format!("    rule: {}, time: {}, err: {}", rule.name, go_duration(ts_ms), rule.last_error)
        })
        .collect()
}

fn firing(shown: &[GroupStatus], name: &str) -> Vec<(Labels, Labels)> {
    let rules = shown.iter().flat_map(|group| &group.rules).filter(|rule| rule.name == name);
    let alerts = rules.filter_map(|rule| rule.alerting.as_ref()).flat_map(|alerting| &alerting.alerts);
    let firing = alerts.filter(|alert| alert.state == AlertState::Firing);
    firing.map(|alert| (alert.labels.clone(), alert.annotations.clone())).collect()
}

impl ExpectedAlert {
    fn labels(&self, name: &str) -> (Labels, Labels) {
        let mut labels = self.exp_labels.clone();
        labels.insert("alertname".to_owned(), name.to_owned());
        let given =
            |map: &BTreeMap<String, String>| Labels::from_pairs(map.iter().filter(|(_, v)| !v.is_empty()));
        (given(&labels), given(&self.exp_annotations))
    }
}

impl ExpectedSample {
    fn point(&self) -> Result<Point, String> {
        let bad = |e: String| format!("labels {:?}: {e}", self.labels);
        let series = if self.labels.trim().is_empty() { "{}" } else { self.labels.as_str() };
        let (labels, _) = parse_series(&format!("{series} _")).map_err(bad)?;
        if self.histogram.is_empty() {
            return Ok(Point { labels, value: self.value, histogram: None });
        }
        let (_, mut values) = parse_series(&format!("{{}} {}", self.histogram)).map_err(bad)?;
        match (values.pop(), values.is_empty()) {
            (Some(SeriesValue::Histogram { value, .. }), true) => {
                Ok(Point { labels, value: 0.0, histogram: Some(value) })
            }
            _ => Err(bad("expected one histogram".to_owned())),
        }
    }
}

impl Point {
    fn equals(&self, other: &Self, fuzzy: bool) -> bool {
        let floats = |a: f64, b: f64| a == b || (fuzzy && (a.next_down() == b || a.next_up() == b));
        let histograms = match (&self.histogram, &other.histogram) {
            (None, None) => true,
            (Some(a), Some(b)) => a.to_string() == b.to_string() && a.schema == b.schema,
            _ => false,
        };
        self.labels == other.labels && histograms && floats(self.value, other.value)
    }
}

fn points_text(points: &[Point]) -> String {
    if points.is_empty() {
        return "nil".to_owned();
    }
    let text = |p: &Point| match &p.histogram {
        Some(histogram) => format!("{} {histogram}", braced(&p.labels)),
        None => format!("{} {}", braced(&p.labels), exponent(p.value)),
    };
    points.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Labels with the metric's name among them.
fn braced(labels: &Labels) -> String {
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}={}", model::labels::Quoted(value))).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// `3E+00`
fn exponent(v: f64) -> String {
    if v.is_nan() || v.is_infinite() {
        return if v.is_nan() {
            "NaN"
        } else if v > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        }
        .to_owned();
    }
    let text = format!("{v:E}");
    let (mantissa, exponent) = text.split_once('E').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}E{sign}{digits:0>2}")
}

fn alerts_text(alerts: &[(Labels, Labels)]) -> String {
    if alerts.is_empty() {
        return "[]".to_owned();
    }
    let texts = alerts.iter().enumerate().map(|(i, (labels, annotations))| {
        let text = format!("\nLabels:{}\nAnnotations:{}", braced(labels), braced(annotations));
        format!("{i}:{}", indented(&text, "  "))
    });
    format!("[\n{}\n]", texts.collect::<Vec<_>>().join(",\n"))
}

/// All lines but the first, moved to the right.
fn indented(text: &str, by: &str) -> String {
    text.replace('\n', &format!("\n{by}"))
}

fn text_of(ms: i64) -> String {
    model::duration::format_ms(ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tools::FeatureFlags;

    #[test]
    fn conformance() {
        let Some(root) = crate::testing::conformance_dir() else {
            eprintln!("test rules conformance: skipped, no conformance data");
            return;
        };
        let dir = root.join("rules");
        let index = std::fs::read_to_string(dir.join("index.tsv")).expect("index");
        let mut count = 0;
        for row in index.lines().filter(|l| l.starts_with("unittests/")) {
            let mut columns = row.split('\t');
            let (Some(file), Some(outcome)) = (columns.next(), columns.next()) else { continue };
            for ignore_unknown_fields in [false, true] {
                let flags = TestRulesFlags {
                    files: Vec::new(),
                    run: Vec::new(),
                    ignore_unknown_fields,
                    features: FeatureFlags { features: Vec::new() },
                };
                let good = match outcome {
                    "pass" => true,
                    "fail" => false,
                    "pass-ignoring-unknown-fields" => ignore_unknown_fields,
                    other => panic!("unknown outcome {other}"),
                };
                let failures = test_file(&dir.join(file), &flags, None);
                assert_eq!(failures.is_empty(), good, "{row}: {failures:?}");
            }
            count += 1;
        }
        assert!(count >= 5, "the index lists tests");
    }

    #[test]
    fn failures_read_as_promtool_writes_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("writable");
            path
        };
        write(
            "r.yml",
            "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: m > 1\n    for: 1m\n    annotations: {t: 'is {{ $value }}'}\n",
        );
        let test = write(
            "t.yml",
            "rule_files: [r.yml]
tests:
- name: one
  interval: 1m
  input_series: [{series: 'm{a=\"1\"}', values: '1+1x5'}]
  alert_rule_test:
  - {eval_time: 1m, alertname: A}
  - {eval_time: 150s, alertname: A, exp_alerts: [{exp_labels: {a: '1'}, exp_annotations: {t: 'is 3'}}]}
  - {eval_time: 3m, alertname: A}
  promql_expr_test:
  - {expr: m + 0.5, eval_time: 1m, exp_samples: [{labels: '{a=\"1\"}', value: 2.5}]}
  - {expr: m, eval_time: 1m, exp_samples: [{labels: 'm{a=\"1\"}', value: 3}]}
",
        );
        let flags = TestRulesFlags {
            files: Vec::new(),
            run: Vec::new(),
            ignore_unknown_fields: false,
            features: FeatureFlags { features: Vec::new() },
        };
        assert_eq!(
            test_file(&test, &flags, None),
            [
                "    name: one,
    alertname: A, time: 3m, 
        exp:[], 
        got:[
            0:
              Labels:{a=\"1\", alertname=\"A\"}
              Annotations:{t=\"is 4\"}
            ]",
                "    expr: \"m\", time: 1m,
        exp: {__name__=\"m\", a=\"1\"} 3E+00
        got: {__name__=\"m\", a=\"1\"} 2E+00",
            ]
        );
        assert_eq!((go_duration(0), go_duration(3_900_500)), ("0s".to_owned(), "1h5m0.5s".to_owned()));
    }
}
