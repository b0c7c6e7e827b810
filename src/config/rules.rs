//! Rule files: groups of recording and alerting rules, named by `rule_files`.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/recording_rules/>.

use std::collections::BTreeMap;
use std::path::Path;

use model::relabel::NameValidation;
use rules::{GroupConfig, RuleConfig, RuleKind};
use serde::Deserialize;

use super::scalar::Ms;
use super::yaml::{self, At, ConfigError, Problem};

/// A rule file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleFile {
    groups: Vec<At<Group>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Group {
    name: String,
    interval: Option<Ms>,
    query_offset: Option<At<String>>,
    limit: usize,
    labels: BTreeMap<String, String>,
    rules: Vec<At<Rule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rule {
    record: Option<At<String>>,
    alert: Option<At<String>>,
    expr: Option<At<String>>,
    r#for: Option<Ms>,
    keep_firing_for: Option<Ms>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
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
    let (document, more) = first_document(&text);
    if more {
        tracing::warn!(file = %file.display(), "the file holds several YAML documents; only the first is used");
    }
    parse(document, &file.display().to_string(), defaults).map_err(|p| p.in_file(file))
}

fn parse(text: &str, file: &str, defaults: &Defaults) -> Result<Vec<GroupConfig>, Problem> {
    let parsed: RuleFile = yaml::parse(text)?;
    let mut groups: Vec<GroupConfig> = Vec::new();
    for group in &parsed.groups {
        if group.name.is_empty() {
            return Err(group.problem("Groupname must not be empty"));
        }
        if groups.iter().any(|g| g.name == group.name) {
            return Err(group.problem(format!("groupname: {:?} is repeated in the same file", group.name)));
        }
        check_labels(&group.labels, defaults.names).map_err(|e| group.problem(e))?;
        let query_offset_ms = match &group.query_offset {
            Some(text) => signed_ms(text).map_err(|e| text.problem(e))?,
            None => defaults.query_offset.ms(),
        };
        let rules = group.rules.iter().enumerate().map(|(i, r)| {
            rule(r, defaults).map_err(|p| {
                let name = r.alert.as_ref().or(r.record.as_ref()).map_or("", |n| n.value.as_str());
                let reason = format!("group {:?}, rule {}, {name:?}: {}", group.name, i + 1, p.reason);
                Problem { reason, ..p }.or_at(r.position)
            })
        });
        let config = GroupConfig {
            name: group.name.clone(),
            file: file.to_owned(),
            interval_ms: group.interval.filter(|i| i.0 > 0).unwrap_or(defaults.interval).ms(),
            query_offset_ms,
            limit: group.limit,
            labels: pairs(&group.labels),
            rules: rules.collect::<Result<_, _>>()?,
        };
        config.check().map_err(|e| group.problem(e.to_string()))?;
        groups.push(config);
    }
    Ok(groups)
}

fn rule(r: &At<Rule>, defaults: &Defaults) -> Result<RuleConfig, Problem> {
    let expr = r.expr.as_ref().filter(|e| !e.is_empty());
    let Some(expr) = expr else { return Err(Problem::new("field 'expr' must be set in rule")) };
    promql::parser::parse(expr, &defaults.parser)
        .map_err(|e| expr.problem(format!("could not parse expression: {e}")))?;
    check_labels(&r.labels, defaults.names)?;
    let kind = match (&r.record, &r.alert) {
        (Some(record), Some(_)) => return Err(record.problem("only one of 'record' and 'alert' must be set")),
        (None, None) => return Err(Problem::new("one of 'record' or 'alert' must be set")),
        (Some(record), None) => {
            for (set, field) in [
                (!r.annotations.is_empty(), "annotations"),
                (r.r#for.is_some_and(|f| f.0 != 0), "for"),
                (r.keep_firing_for.is_some_and(|f| f.0 != 0), "keep_firing_for"),
            ] {
                if set {
                    return Err(record.problem(format!("invalid field '{field}' in recording rule")));
                }
            }
            if !defaults.names.is_metric_name(record) {
                return Err(record.problem(format!("invalid recording rule name: {}", record.value)));
            }
            if record.contains(['{', '}']) {
                let text = "braces present in the recording rule name; should it be in expr?";
                return Err(record.problem(format!("{text}: {}", record.value)));
            }
            RuleKind::Recording { record: record.value.clone() }
        }
        (None, Some(alert)) => {
            if let Some(name) = r.annotations.keys().find(|n| !defaults.names.is_label_name(n)) {
                return Err(alert.problem(format!("invalid annotation name: {name}")));
            }
            RuleKind::Alerting {
                alert: alert.value.clone(),
                for_ms: r.r#for.map_or(0, Ms::ms),
                keep_firing_for_ms: r.keep_firing_for.map_or(0, Ms::ms),
                annotations: pairs(&r.annotations),
            }
        }
    };
    Ok(RuleConfig { expr: expr.value.clone(), labels: pairs(&r.labels), kind })
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

/// A duration that may be negative.
fn signed_ms(text: &str) -> Result<i64, String> {
    match text.strip_prefix('-') {
        Some(positive) => model::duration::parse_ms(positive).map(|ms| -ms),
        None => model::duration::parse_ms(text),
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
        let p = parse(text, "f.yml", &defaults(NameValidation::Utf8)).expect_err("broken");
        assert_eq!((p.position.line, p.position.column), (5, 11));
        assert!(p.reason.contains("group \"g\", rule 1, \"a\": could not parse expression"), "{}", p.reason);
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
