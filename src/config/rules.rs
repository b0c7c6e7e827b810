//! Rule files: groups of recording and alerting rules, named by `rule_files`.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/recording_rules/>.

use std::collections::BTreeMap;
use std::path::Path;

use model::relabel::NameValidation;
use rules::{GroupConfig, RuleConfig, RuleKind};
use serde::Deserialize;

use super::scalar::{Ms, texts, whole};
use super::yaml::{self, At, ConfigError, Problem};

/// Rule files as written. The same types twice: whether unknown keys are errors is decided where a type is declared.
macro_rules! written {
    ($module:ident $(, $strict:ident)?) => {
        mod $module {
            use super::*;

            #[derive(Debug, Default, Deserialize)]
            #[serde(default $(, $strict)?)]
            pub(super) struct RuleFile {
                pub(super) groups: Vec<Option<At<Group>>>,
            }

            #[derive(Debug, Default, Deserialize)]
            #[serde(default $(, $strict)?)]
            pub(super) struct Group {
                pub(super) name: String,
                pub(super) interval: Option<Ms>,
                pub(super) query_offset: Option<Ms>,
                #[serde(deserialize_with = "whole")]
                pub(super) limit: Option<i64>,
                #[serde(deserialize_with = "texts")]
                pub(super) labels: BTreeMap<String, String>,
                pub(super) rules: Vec<Option<At<Rule>>>,
            }

            #[derive(Debug, Default, Deserialize)]
            #[serde(default $(, $strict)?)]
            pub(super) struct Rule {
                pub(super) record: Option<At<String>>,
                pub(super) alert: Option<At<String>>,
                pub(super) expr: Option<At<String>>,
                pub(super) r#for: Option<Ms>,
                pub(super) keep_firing_for: Option<Ms>,
                #[serde(deserialize_with = "texts")]
                pub(super) labels: BTreeMap<String, String>,
                #[serde(deserialize_with = "texts")]
                pub(super) annotations: BTreeMap<String, String>,
            }
        }
    };
}
written!(strict, deny_unknown_fields);
written!(lenient);

use strict::{Group, Rule, RuleFile};

impl From<lenient::RuleFile> for RuleFile {
    fn from(file: lenient::RuleFile) -> Self {
        let rule = |r: lenient::Rule| Rule {
            record: r.record,
            alert: r.alert,
            expr: r.expr,
            r#for: r.r#for,
            keep_firing_for: r.keep_firing_for,
            labels: r.labels,
            annotations: r.annotations,
        };
        let group = |g: lenient::Group| Group {
            name: g.name,
            interval: g.interval,
            query_offset: g.query_offset,
            limit: g.limit,
            labels: g.labels,
            rules: g.rules.into_iter().flatten().map(|r| Some(r.map(rule))).collect(),
        };
        Self { groups: file.groups.into_iter().flatten().map(|g| Some(g.map(group))).collect() }
    }
}

/// What becomes of keys that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// They are errors.
    Refuse,
    /// They are left out.
    Ignore,
}

/// What a file inherits from the configuration.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Interval of groups that name none.
    pub interval: Ms,
    /// Offset of queries of groups that name none.
    pub query_offset: Ms,
    /// Which names are valid.
    pub names: NameValidation,
    /// What the engine accepts in expressions.
    pub parser: promql::parser::ParserOptions,
}

/// Reads and checks a rule file.
///
/// # Errors
/// The first thing that is wrong, with file, line and column.
pub fn load(file: &Path, defaults: &Defaults) -> Result<Vec<GroupConfig>, ConfigError> {
    let text = yaml::read_file(file)?;
    let parsed = parse(&text, &file.display().to_string(), defaults, UnknownFields::Refuse);
    parsed.map_err(|mut problems| problems.swap_remove(0).in_file(file))
}

/// Reads and checks the text of a rule file.
///
/// # Errors
/// Everything that is wrong, at least one problem.
pub fn parse(
    text: &str,
    file: &str,
    defaults: &Defaults,
    unknown: UnknownFields,
) -> Result<Vec<GroupConfig>, Vec<Problem>> {
    let (document, more) = first_document(text);
    if more {
        tracing::warn!(file, "the file holds several YAML documents; only the first is used");
    }
    let parsed: Result<RuleFile, Problem> = match unknown {
        UnknownFields::Refuse => yaml::parse(document),
        UnknownFields::Ignore => yaml::parse::<lenient::RuleFile>(document).map(Into::into),
    };
    let parsed = parsed.map_err(|p| vec![p])?;
    let mut groups: Vec<GroupConfig> = Vec::new();
    let mut problems = Vec::new();
    for group in parsed.groups.iter().flatten() {
        if group.name.is_empty() {
            problems.push(group.problem("Groupname must not be empty"));
        }
        if groups.iter().any(|g| g.name == group.name) {
            problems.push(group.problem(format!("groupname: {:?} is repeated in the same file", group.name)));
        }
        groups.push(self::group(group, file, defaults, &mut problems));
    }
    if problems.is_empty() { Ok(groups) } else { Err(problems) }
}

/// A group, with its problems added to those before.
fn group(group: &At<Group>, file: &str, defaults: &Defaults, problems: &mut Vec<Problem>) -> GroupConfig {
    if let Err(e) = check_labels(&group.labels, defaults.names) {
        problems.push(group.problem(e));
    }
    let mut config = GroupConfig {
        name: group.name.clone(),
        file: file.to_owned(),
        interval_ms: group.interval.filter(|i| i.0 > 0).unwrap_or(defaults.interval).ms(),
        query_offset_ms: group.query_offset.unwrap_or(defaults.query_offset).ms(),
        // A negative limit is none.
        limit: group.limit.and_then(|l| usize::try_from(l).ok()).unwrap_or(0),
        labels: pairs(&group.labels),
        rules: Vec::new(),
    };
    let faults = problems.len();
    for (i, r) in group.rules.iter().flatten().enumerate() {
        let name = [&r.alert, &r.record].into_iter().flatten().find(|n| !n.is_empty());
        let name = name.map_or("", |n| n.value.as_str());
        let named = |p: Problem| {
            let reason = format!("group {:?}, rule {}, {name:?}: {}", group.name, i + 1, p.reason);
            Problem { reason, ..p }.or_at(r.position)
        };
        match rule(r, defaults) {
            Ok(rule) => config.rules.push(rule),
            Err(found) => problems.extend(found.into_iter().map(named)),
        }
    }
    // Only a group of good rules can be looked at as a whole.
    if problems.len() == faults
        && let Err(e) = config.check()
    {
        problems.push(group.problem(e.to_string()));
    }
    config
}

/// # Errors
/// Everything that is wrong with the rule.
fn rule(r: &At<Rule>, defaults: &Defaults) -> Result<RuleConfig, Vec<Problem>> {
    let mut problems = Vec::new();
    // An empty text counts as none.
    let given = |field: &'_ Option<At<String>>| field.as_ref().filter(|f| !f.is_empty()).cloned();
    let (record, alert, expr) = (given(&r.record), given(&r.alert), given(&r.expr));
    match (&record, &alert) {
        (Some(record), Some(_)) => {
            problems.push(record.problem("only one of 'record' and 'alert' must be set"));
        }
        (None, None) => problems.push(Problem::new("one of 'record' or 'alert' must be set")),
        _ => {}
    }
    // The expression as the parser prints it: that is what the API shows and links name.
    let mut printed = String::new();
    match &expr {
        None => problems.push(Problem::new("field 'expr' must be set in rule")),
        Some(expr) => match promql::parser::parse(expr, &defaults.parser) {
            Ok(parsed) => printed = parsed.to_string(),
            Err(e) => problems.push(expr.problem(format!("could not parse expression: {e}"))),
        },
    }
    if let Some(record) = &record {
        check_recording(r, record, defaults.names, &mut problems);
    }
    if let Err(e) = check_labels(&r.labels, defaults.names) {
        problems.push(Problem::new(e));
    }
    if let Some(name) = r.annotations.keys().find(|n| !defaults.names.is_label_name(n)) {
        problems.push(Problem::new(format!("invalid annotation name: {name}")));
    }
    if let Some(alert) = &alert {
        check_templates("label", alert, &r.labels, &mut problems);
        check_templates("annotation", alert, &r.annotations, &mut problems);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let kind = match (record, alert) {
        (Some(record), _) => RuleKind::Recording { record: record.value },
        (None, alert) => RuleKind::Alerting {
            alert: alert.map(|a| a.value).unwrap_or_default(),
            for_ms: r.r#for.map_or(0, Ms::ms),
            keep_firing_for_ms: r.keep_firing_for.map_or(0, Ms::ms),
            annotations: pairs(&r.annotations),
        },
    };
    Ok(RuleConfig { expr: printed, labels: pairs(&r.labels), kind })
}

fn check_templates(
    what: &str,
    alert: &At<String>,
    texts: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) {
    for (name, text) in texts {
        if let Err(e) = rules::check_template(alert, text) {
            problems.push(Problem::new(format!("{what} {name:?}: {e}")));
        }
    }
}

fn check_recording(r: &Rule, record: &At<String>, names: NameValidation, problems: &mut Vec<Problem>) {
    for (set, field) in [
        (!r.annotations.is_empty(), "annotations"),
        (r.r#for.is_some_and(|f| f.0 != 0), "for"),
        (r.keep_firing_for.is_some_and(|f| f.0 != 0), "keep_firing_for"),
    ] {
        if set {
            problems.push(record.problem(format!("invalid field '{field}' in recording rule")));
        }
    }
    if !names.is_metric_name(record) {
        problems.push(record.problem(format!("invalid recording rule name: {}", record.value)));
    }
    if record.contains(['{', '}']) {
        let text = "braces present in the recording rule name; should it be in expr?";
        problems.push(record.problem(format!("{text}: {}", record.value)));
    }
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<(String, String)> {
    map.iter().map(|(n, v)| (n.clone(), v.clone())).collect()
}

fn check_labels(labels: &BTreeMap<String, String>, names: NameValidation) -> Result<(), String> {
    match labels.keys().find(|n| !names.is_label_name(n) || *n == model::labels::METRIC_NAME) {
        Some(name) => Err(format!("invalid label name: {name}")),
        None => Ok(()),
    }
}

/// The text up to a second `---`, and whether there is one.
fn first_document(text: &str) -> (&str, bool) {
    let mut content = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_end();
        if trimmed == "---" || trimmed.starts_with("--- ") {
            if content {
                return (&text[..at], true);
            }
        } else if !trimmed.is_empty() && !trimmed.trim_start().starts_with('#') {
            content = true;
        }
        at += line.len();
    }
    (text, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(names: NameValidation) -> Defaults {
        let parser = promql::parser::ParserOptions::default();
        Defaults { interval: Ms(60_000), query_offset: Ms(0), names, parser }
    }

    #[test]
    fn errors_name_the_rule_and_its_place() {
        let text = "groups:\n- name: g\n  rules:\n  - record: a\n    expr: sum(\n";
        let problems = parse(text, "f.yml", &defaults(NameValidation::Utf8), UnknownFields::Refuse);
        let p = &problems.expect_err("broken")[0];
        assert_eq!((p.position.line, p.position.column), (5, 11));
        assert!(p.reason.contains("group \"g\", rule 1, \"a\": could not parse expression"), "{}", p.reason);
    }

    #[test]
    fn everything_that_is_wrong_is_said() {
        let text = "groups:\n- name: g\n  note: x\n  rules:\n  - record: a{}\n    alert: b\n    for: 1m\n\
                    \x20   labels: {__name__: c}\n  - expr: ''\n- name: g\n";
        let check = |unknown| {
            let problems =
                parse(text, "f.yml", &defaults(NameValidation::Utf8), unknown).expect_err("broken");
            problems.into_iter().map(|p| format!("{}: {}", p.position.line, p.reason)).collect::<Vec<_>>()
        };
        let strict = check(UnknownFields::Refuse);
        assert!(strict.len() == 1 && strict[0].contains("note"), "{strict:?}");
        let lenient = check(UnknownFields::Ignore);
        let expect = [
            "5: group \"g\", rule 1, \"b\": only one of 'record' and 'alert' must be set",
            "5: group \"g\", rule 1, \"b\": field 'expr' must be set in rule",
            "5: group \"g\", rule 1, \"b\": invalid field 'for' in recording rule",
            "5: group \"g\", rule 1, \"b\": braces present in the recording rule name; should it be in expr?: a{}",
            "5: group \"g\", rule 1, \"b\": invalid label name: __name__",
            "9: group \"g\", rule 2, \"\": one of 'record' or 'alert' must be set",
            "9: group \"g\", rule 2, \"\": field 'expr' must be set in rule",
            "10: groupname: \"g\" is repeated in the same file",
        ];
        assert_eq!(lenient, expect);
    }

    #[test]
    fn nothing_and_numbers_mean_what_they_do_for_prometheus() {
        let text =
            "groups:\n-\n- {name: g, limit: -1, rules: [null, {record: a, expr: up, labels: {x: }}]}\n";
        let groups =
            parse(text, "f.yml", &defaults(NameValidation::Utf8), UnknownFields::Refuse).expect("valid");
        assert_eq!((groups.len(), groups[0].limit, groups[0].rules.len()), (1, 0, 1));
        assert_eq!(groups[0].rules[0].labels, [("x".to_owned(), String::new())]);
        let text = "groups: [{name: g, query_offset: -1m}]";
        assert!(parse(text, "f.yml", &defaults(NameValidation::Utf8), UnknownFields::Refuse).is_err());
    }

    #[test]
    fn only_the_first_document_counts() {
        assert_eq!(first_document("# c\n---\na: 1\n---\nb: 2\n"), ("# c\n---\na: 1\n", true));
        assert_eq!(first_document("a: 1\n"), ("a: 1\n", false));
    }

    #[test]
    fn conformance() {
        let Some(root) = crate::testing::conformance_dir() else {
            eprintln!("rules conformance: skipped, no conformance data");
            return;
        };
        let dir = root.join("rules");
        let index = std::fs::read_to_string(dir.join("index.tsv")).expect("index");
        let rows = index.lines().filter(|l| l.starts_with("rulefiles/"));
        let mut wrong = Vec::new();
        for row in rows {
            let mut columns = row.split('\t');
            let (Some(file), Some(outcome)) = (columns.next(), columns.next()) else { continue };
            let utf8 = load(&dir.join(file), &defaults(NameValidation::Utf8));
            let legacy = load(&dir.join(file), &defaults(NameValidation::Legacy));
            let good = match outcome {
                "ok" => utf8.is_ok(),
                "error" => utf8.is_err() && legacy.is_err(),
                "error-legacy" => utf8.is_ok() && legacy.is_err(),
                other => panic!("unknown outcome {other}"),
            };
            if !good {
                wrong.push(format!("{row}\n    -> {:?}", utf8.map(|_| "loaded").map_err(|e| e.to_string())));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
