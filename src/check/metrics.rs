//! `almanac check metrics`: what is unwise in a body of metrics, and how many series each name has.
//!
//! The rules are those of <https://prometheus.io/docs/practices/naming/>, as promtool checks them. Input is standard
//! input; findings go to standard error, numbers to standard output.

use std::collections::BTreeMap;
use std::io::Read;

use model::relabel::NameValidation;

use super::Verdict;
use super::families::{self, Family, Kind};

/// Units that are known, each with the one to use instead; that is itself for a good one.
const UNITS: [(&str, &str); 24] = [
    ("amperes", "amperes"),
    ("bytes", "bytes"),
    ("celsius", "celsius"),
    ("grams", "grams"),
    ("joules", "joules"),
    ("kelvin", "kelvin"),
    ("meters", "meters"),
    ("metres", "metres"),
    ("seconds", "seconds"),
    ("volts", "volts"),
    ("minutes", "seconds"),
    ("hours", "seconds"),
    ("days", "seconds"),
    ("weeks", "seconds"),
    ("kelvins", "kelvin"),
    ("fahrenheit", "celsius"),
    ("rankine", "celsius"),
    ("inches", "meters"),
    ("yards", "meters"),
    ("miles", "meters"),
    ("bits", "bytes"),
    ("calories", "joules"),
    ("pounds", "grams"),
    ("ounces", "grams"),
];
const PREFIXES: [&str; 18] = [
    "pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi", "mega", "mibi",
    "giga", "gibi", "tera", "tebi", "peta", "pebi",
];
const ABBREVIATIONS: [&str; 14] =
    ["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"];

/// Reads standard input, prints what is wrong with it, and with `extended` what it holds.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub(super) fn run(extended: bool, lint: &str) -> Verdict {
    let lint = lint != "none";
    if !extended && !lint {
        eprintln!("error: at least one of --extended or linting must be enabled");
        eprintln!("Use --extended for cardinality analysis, or remove --lint=none to enable linting");
        return Verdict::Bad;
    }
    let mut body = Vec::new();
    if let Err(e) = std::io::stdin().lock().read_to_end(&mut body) {
        eprintln!("error while reading standard input: {e}");
        return Verdict::Bad;
    }
    let mut found = false;
    if lint {
        match families::parse(&body, NameValidation::Legacy) {
            Ok(families) => {
                let problems = problems(&families);
                problems.iter().for_each(|(name, text)| eprintln!("{name} {text}"));
                found = !problems.is_empty();
            }
            Err(e) => {
                eprintln!("error while linting: {e}");
                return Verdict::Bad;
            }
        }
    }
    if extended {
        match families::parse(&body, NameValidation::Utf8) {
            Ok(families) => print!("{}", table(&families)),
            Err(e) => {
                eprintln!("error while parsing text to metric families: {e}");
                return Verdict::Bad;
            }
        }
    }
    if found { Verdict::Lint } else { Verdict::Good }
}

/// Everything that is unwise, by name and text.
fn problems(families: &BTreeMap<String, Family>) -> Vec<(&str, String)> {
    let mut out = Vec::new();
    for (name, family) in families {
        let from = out.len();
        let mut say = |text: &str| out.push((name.as_str(), text.to_owned()));
        if !family.has_help {
            say("no help text");
        }
        if let Some((unit, base)) = unit(name).filter(|(unit, base)| unit != base) {
            say(&format!("use base unit \"{base}\" instead of \"{unit}\""));
        }
        suffixes(name, family.kind(), &mut say);
        labels(family, &mut say);
        if name.contains(':') {
            say("metric names should not contain ':'");
        }
        if is_camel_case(name) {
            say("metric names should be written in 'snake_case' not 'camelCase'");
        }
        if has_word(&name.to_lowercase(), &ABBREVIATIONS) {
            say("metric names should not contain abbreviated units");
        }
        for _ in 0..families::repeated(&family.metrics) {
            say("metric not unique");
        }
        out[from..].sort();
    }
    out
}

fn suffixes(name: &str, kind: Kind, say: &mut impl FnMut(&str)) {
    let total = name.ends_with("_total");
    match kind {
        Kind::Untyped => return,
        Kind::Counter if !total => say("counter metrics should have \"_total\" suffix"),
        Kind::Counter => {}
        _ if total => say("non-counter metrics should not have \"_total\" suffix"),
        _ => {}
    }
    let histogram = kind == Kind::Histogram;
    if !histogram && name.ends_with("_bucket") {
        say("non-histogram metrics should not have \"_bucket\" suffix");
    }
    for suffix in ["_count", "_sum"] {
        if !histogram && kind != Kind::Summary && name.ends_with(suffix) {
            say(&format!("non-histogram and non-summary metrics should not have \"{suffix}\" suffix"));
        }
    }
    let type_name = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Summary => "summary",
        Kind::Untyped => "untyped",
        Kind::Histogram => "histogram",
        Kind::GaugeHistogram => "gauge_histogram",
    };
    if has_word(&name.to_lowercase(), &[type_name]) {
        say(&format!("metric name should not include type '{type_name}'"));
    }
}

fn labels(family: &Family, say: &mut impl FnMut(&str)) {
    for (label, _) in family.metrics.iter().flat_map(|m| &m.labels) {
        if is_camel_case(label) {
            say("label names should be written in 'snake_case' not 'camelCase'");
        }
        match family.kind() {
            Kind::Untyped => {}
            kind if label == "le" && kind != Kind::Histogram => {
                say("non-histogram metrics should not have \"le\" label");
            }
            kind if label == "quantile" && kind != Kind::Summary => {
                say("non-summary metrics should not have \"quantile\" label");
            }
            _ => {}
        }
    }
}

/// The first part of a name that is a unit, and the unit to use.
fn unit(name: &str) -> Option<(&str, &'static str)> {
    name.split('_').find_map(|part| {
        let without_prefix = PREFIXES.iter().filter_map(|p| part.strip_prefix(p));
        std::iter::once(part)
            .chain(without_prefix)
            .find_map(|unit| UNITS.iter().find(|(known, _)| *known == unit))
            .map(|(_, base)| (part, *base))
    })
}

/// Whether one of `words` stands in a name after its first underscore.
fn has_word(name: &str, words: &[&str]) -> bool {
    words.iter().any(|w| name.contains(&format!("_{w}_")) || name.ends_with(&format!("_{w}")))
}

fn is_camel_case(name: &str) -> bool {
    name.as_bytes().windows(2).any(|w| w[0].is_ascii_lowercase() && w[1].is_ascii_uppercase())
}

/// How many series each family has, most first.
fn table(families: &BTreeMap<String, Family>) -> String {
    let series = |f: &Family| match f.kind() {
        Kind::Histogram | Kind::Summary => f.metrics.len() * (2 + f.metrics[0].parts),
        _ => f.metrics.len(),
    };
    let mut counts: Vec<(&str, usize)> = families.iter().map(|(n, f)| (n.as_str(), series(f))).collect();
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let total: usize = counts.iter().map(|(_, n)| n).sum();
    let header = ["Metric", "Cardinality", "Percentage"].map(str::to_owned);
    let mut rows = vec![header];
    for (name, n) in counts {
        rows.push([name.to_owned(), n.to_string(), format!("{:.2}%", n as f64 * 100.0 / total as f64)]);
    }
    rows.push(["Total".into(), total.to_string(), "100%".into()]);
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0) + 4;
    let widths: [usize; 3] = std::array::from_fn(width);
    let mut out = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            out.push_str(&format!("{cell:width$}"));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str) -> Vec<String> {
        let families = families::parse(body.as_bytes(), NameValidation::Legacy).expect("valid");
        problems(&families).into_iter().map(|(name, text)| format!("{name} {text}")).collect()
    }

    #[test]
    fn unwise_names_and_labels_are_found() {
        for (body, expect) in [
            ("# HELP a_seconds x\na_seconds 1\n", &[][..]),
            ("a_total 1\n", &["a_total no help text"]),
            (
                "# HELP a_kilobytes x\na_kilobytes 1\n",
                &["a_kilobytes use base unit \"bytes\" instead of \"kilobytes\""],
            ),
            (
                "# HELP c x\n# TYPE c counter\nc{a=\"1\"} 1\nc{a=\"1\"} 2\nc{a=\"1\"} 3\n",
                &[
                    "c counter metrics should have \"_total\" suffix",
                    "c metric not unique",
                    "c metric not unique",
                ],
            ),
            (
                "# HELP a_total x\n# TYPE a_total gauge\na_total{le=\"1\",quantile=\"2\",aB=\"c\"} 1\n",
                &[
                    "a_total label names should be written in 'snake_case' not 'camelCase'",
                    "a_total non-counter metrics should not have \"_total\" suffix",
                    "a_total non-histogram metrics should not have \"le\" label",
                    "a_total non-summary metrics should not have \"quantile\" label",
                ],
            ),
            (
                "# HELP aB_ms:x_gauge x\n# TYPE aB_ms:x_gauge gauge\naB_ms:x_gauge 1\n# HELP a_sum y\n# TYPE a_sum counter\na_sum 1\n",
                &[
                    "aB_ms:x_gauge metric name should not include type 'gauge'",
                    "aB_ms:x_gauge metric names should be written in 'snake_case' not 'camelCase'",
                    "aB_ms:x_gauge metric names should not contain ':'",
                    "a_sum counter metrics should have \"_total\" suffix",
                    "a_sum non-histogram and non-summary metrics should not have \"_sum\" suffix",
                ],
            ),
        ] {
            assert_eq!(found(body), expect, "{body}");
        }
    }

    #[test]
    fn series_are_counted_by_family() {
        let body = "# TYPE s histogram\ns_bucket{le=\"1\"} 1\ns_bucket{le=\"+Inf\"} 1\ns_count 1\na 1\n";
        let families = families::parse(body.as_bytes(), NameValidation::Utf8).expect("valid");
        assert_eq!(
            table(&families),
            "Metric    Cardinality    Percentage    \n\
             s         4              80.00%        \n\
             a         1              20.00%        \n\
             Total     5              100%          \n"
        );
    }
}
