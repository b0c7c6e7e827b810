//! `almanac check rules`: loads rule files as a node would, says everything that is wrong, and what is unwise.

use std::io::Read;
use std::path::{Path, PathBuf};

use model::LabelsBuilder;
use model::relabel::NameValidation;
use promql::parser::ParserOptions;
use rules::{GroupConfig, RuleKind};

use super::Verdict;
use crate::config::rules::{Defaults, UnknownFields, parse};
use crate::config::scalar::Ms;
use crate::config::yaml::{ConfigError, read_file};

/// What is looked at beyond mistakes, and what counts as one.
#[derive(Clone, Debug, Default)]
pub struct Lint {
    duplicate_rules: bool,
    /// What is found makes the command fail.
    fatal: bool,
    ignore_unknown_fields: bool,
    parser: ParserOptions,
}

/// Takes the options that are not about rules out of `--lint` of `check config`: what is left, and the interval from
/// which on scrapes are too rare for queries to find a sample.
pub fn config_lint(options: &str, lookback: Ms) -> (String, Option<Ms>) {
    let options: Vec<&str> = options.split(',').collect();
    if options.contains(&"none") {
        return (String::new(), None);
    }
    let intervals = options.iter().any(|o| ["all", "too-long-scrape-interval"].contains(o));
    let rest: Vec<&str> = options.into_iter().filter(|o| *o != "too-long-scrape-interval").collect();
    (rest.join(","), intervals.then_some(lookback))
}

impl Lint {
    /// The options of `--lint`, separated by commas, and what the other flags say.
    #[allow(clippy::print_stdout, reason = "the command's output")]
    pub fn new(options: &str, fatal: bool, ignore_unknown_fields: bool, features: &[String]) -> Self {
        let mut lint = Self { fatal, ignore_unknown_fields, ..Self::default() };
        for option in options.split(',').filter(|_| !options.is_empty()) {
            match option {
                "all" | "duplicate-rules" => lint.duplicate_rules = true,
                "none" => {}
                other => println!("WARNING: unknown lint option: {other:?}"),
            }
        }
        for feature in features.iter().filter(|f| !f.is_empty()) {
            match feature.as_str() {
                "promql-experimental-functions" => lint.parser.experimental_functions = true,
                "promql-extended-range-selectors" => lint.parser.extended_range_selectors = true,
                "promql-binop-fill-modifiers" => lint.parser.fill_modifiers = true,
                "promql-delayed-name-removal" | "promql-duration-expr" => {}
                other => println!("  WARNING: Unknown feature passed to --enable-feature: {other}"),
            }
        }
        lint
    }

    /// How a command ends that found something, or errors.
    pub fn verdict(&self, failed: bool, has_errors: bool) -> Verdict {
        match (failed, has_errors) {
            (true, true) => Verdict::Bad,
            (true, false) if self.fatal => Verdict::Lint,
            _ => Verdict::Good,
        }
    }

    /// Checks rule files and prints what promtool prints. Returns whether something was found, and whether it is more
    /// than lint.
    #[allow(clippy::print_stdout, reason = "the command's output")]
    pub fn files(&self, files: &[PathBuf], defaults: &Defaults) -> (bool, bool) {
        let (mut failed, mut wrong) = (false, false);
        for file in files {
            println!("Checking {}", file.display());
            let (found, errors) = match read_file(file) {
                Ok(text) => self.text(&text, Some(file), defaults),
                Err(e) => {
                    eprintln!("  FAILED:\n{e}");
                    (true, true)
                }
            };
            failed |= found;
            wrong |= errors;
        }
        (failed, wrong)
    }

    #[allow(clippy::print_stdout, reason = "the command's output")]
    fn text(&self, text: &str, file: Option<&Path>, defaults: &Defaults) -> (bool, bool) {
        let defaults = Defaults { parser: self.parser.clone(), ..defaults.clone() };
        let unknown = if self.ignore_unknown_fields { UnknownFields::Ignore } else { UnknownFields::Refuse };
        let name = file.unwrap_or(Path::new("-"));
        let failed = match parse(text, &name.display().to_string(), &defaults, unknown) {
            Err(problems) => {
                eprintln!("  FAILED:");
                for problem in problems {
                    eprintln!("{}", problem.in_file(name));
                }
                return (true, true);
            }
            Ok(groups) => match duplicates(&groups).filter(|_| self.duplicate_rules) {
                Some(text) => {
                    eprintln!("  FAILED:\nlint error {text}");
                    true
                }
                None => {
                    println!(
                        "  SUCCESS: {} rules found",
                        groups.iter().map(|g| g.rules.len()).sum::<usize>()
                    );
                    false
                }
            },
        };
        println!();
        (failed, false)
    }
}

/// Checks rule files, or standard input when there is none.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub fn run(files: &[PathBuf], lint: &Lint) -> Verdict {
    let defaults = Defaults {
        interval: Ms(60_000),
        query_offset: Ms(0),
        names: NameValidation::Utf8,
        parser: ParserOptions::default(),
    };
    let (failed, wrong) = if files.is_empty() {
        println!("Checking standard input");
        match standard_input() {
            Ok(text) => lint.text(&text, None, &defaults),
            Err(e) => {
                eprintln!("  FAILED: {e}");
                (true, true)
            }
        }
    } else {
        lint.files(files, &defaults)
    };
    lint.verdict(failed, wrong)
}

fn standard_input() -> Result<String, ConfigError> {
    let mut text = String::new();
    let read = std::io::stdin().lock().read_to_string(&mut text);
    read.map(|_| text).map_err(|e| ConfigError::whole(Path::new("-"), format!("cannot read: {e}")))
}

/// What to say of rules that write the same series.
fn duplicates(groups: &[GroupConfig]) -> Option<String> {
    let mut all = Vec::new();
    for group in groups {
        for rule in &group.rules {
            let mut labels = LabelsBuilder::new();
            for (name, value) in group.labels.iter().chain(&rule.labels) {
                labels.set(name, value);
            }
            let (RuleKind::Recording { record: name } | RuleKind::Alerting { alert: name, .. }) = &rule.kind;
            all.push((name.clone(), labels.build()));
        }
    }
    all.sort();
    let mut twice: Vec<_> = all.windows(2).filter(|w| w[0] == w[1]).map(|w| &w[0]).collect();
    twice.dedup();
    if twice.is_empty() {
        return None;
    }
    let mut text = format!("{} duplicate rule(s) found.\n", twice.len());
    for (metric, labels) in twice {
        text.push_str(&format!("Metric: {metric}\nLabel(s):\n"));
        labels.iter().for_each(|(name, value)| text.push_str(&format!("\t{name}: {value}\n")));
    }
    text.push_str("Might cause inconsistency while recording expressions");
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_lint() {
        let lookback = Ms(300_000);
        for (options, rest, intervals) in [
            ("duplicate-rules", "duplicate-rules", false),
            ("all", "all", true),
            ("too-long-scrape-interval", "", true),
            ("too-long-scrape-interval,duplicate-rules", "duplicate-rules", true),
            ("all,none", "", false),
            ("", "", false),
        ] {
            let (left, found) = config_lint(options, lookback);
            assert_eq!((left.as_str(), found), (rest, intervals.then_some(lookback)), "{options}");
        }
    }

    #[test]
    fn rules_of_one_name_and_labels_are_duplicates() {
        let text = "groups:\n- name: a\n  labels: {x: '1'}\n  rules:\n  - {record: r, expr: up}\n\
                    - name: b\n  rules:\n  - {record: r, expr: up, labels: {x: '1'}}\n  - {record: r, expr: up}\n";
        let defaults = Defaults {
            interval: Ms(60_000),
            query_offset: Ms(0),
            names: NameValidation::Utf8,
            parser: ParserOptions::default(),
        };
        let groups = parse(text, "f.yml", &defaults, UnknownFields::Refuse).expect("valid");
        assert_eq!(
            duplicates(&groups).as_deref(),
            Some(
                "1 duplicate rule(s) found.\nMetric: r\nLabel(s):\n\tx: 1\n\
                 Might cause inconsistency while recording expressions"
            )
        );
    }
}
