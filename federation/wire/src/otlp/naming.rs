//! What OTLP names become: metric names, label names and units, escaped or as they are.
//!
//! Spec: <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>; in the corners, what
//! Prometheus 3.14 does.

use model::labels::Quoted;

use super::message::Kind;

/// Units and what Prometheus calls them.
const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

/// Units behind a slash.
const PER_UNITS: &[(&str, &str)] = &[
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// Makes names of metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MetricNames {
    /// Units and types become a part of the name.
    pub(crate) suffixes: bool,
    /// Names stay as they are.
    pub(crate) utf8: bool,
}

impl MetricNames {
    /// The name of a metric; an error when there is none.
    pub(crate) fn build(self, name: &str, unit: &str, kind: Kind, monotonic: bool) -> Result<String, String> {
        let counter = kind == Kind::Sum && monotonic;
        let ratio = kind == Kind::Gauge && unit == "1";
        if self.utf8 {
            return Ok(if self.suffixes {
                with_suffixes(name, unit, counter, ratio)
            } else {
                name.to_owned()
            });
        }
        let mut built = if self.suffixes {
            tokens(name, unit, counter, ratio).join("_")
        } else {
            let parts = name.split(|c| !is_metric_char(c) && c != '_').filter(|p| !p.is_empty());
            parts.collect::<Vec<_>>().join("_")
        };
        if built.starts_with(|c: char| c.is_ascii_digit()) {
            built.insert(0, '_');
        }
        let quoted = Quoted(name);
        if built.is_empty() {
            return Err(format!("normalization for metric {quoted} resulted in empty name"));
        }
        if built != name && only_underscores(&built) {
            let bad = Quoted(&built);
            return Err(format!("normalization for metric {quoted} resulted in invalid name {bad}"));
        }
        Ok(built)
    }
}

fn is_metric_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// The parts of an escaped name, unit and type among them.
fn tokens(name: &str, unit: &str, counter: bool, ratio: bool) -> Vec<String> {
    let parts = name.split(|c| !is_metric_char(c)).filter(|p| !p.is_empty());
    let mut tokens: Vec<String> = parts.map(str::to_owned).collect();
    let (main, per) = unit_suffixes(unit);
    let (mut main, per) = (clean_unit(main), clean_unit(&per));
    if tokens.contains(&main) {
        main.clear();
    }
    let per = if per == "per_" { "" } else { per.strip_suffix('_').unwrap_or(&per) };
    let per = if tokens.iter().any(|t| t == per) { "" } else { per };
    let main = if per.is_empty() { main.as_str() } else { main.strip_suffix('_').unwrap_or(&main) };
    tokens.extend([main, per].into_iter().filter(|s| !s.is_empty()).map(str::to_owned));
    for (wanted, word) in [(counter, "total"), (ratio, "ratio")] {
        if wanted {
            tokens.retain(|t| t != word);
            tokens.push(word.to_owned());
        }
    }
    tokens
}

/// A name that stays as it is, with unit and type behind it.
fn with_suffixes(name: &str, unit: &str, counter: bool, ratio: bool) -> String {
    let (main, per) = unit_suffixes(unit);
    let behind = [(ratio, "ratio"), (counter, "total"), (!per.is_empty(), per.as_str())]
        .map(|(on, s)| on.then_some(s));
    let mut name = name;
    for suffix in behind.into_iter().flatten() {
        name = without_suffix(name, suffix);
    }
    let mut built = name.to_owned();
    if !main.is_empty() && !name.ends_with(main) {
        built.push('_');
        built.push_str(main);
    }
    for suffix in behind.into_iter().rev().flatten() {
        built.push('_');
        built.push_str(suffix);
    }
    built
}

/// Takes a suffix off, and the character before it, which should be a delimiter.
fn without_suffix<'a>(name: &'a str, suffix: &str) -> &'a str {
    match name.strip_suffix(suffix) {
        Some(rest) if rest.len() > 1 => {
            let mut chars = rest.chars();
            chars.next_back();
            chars.as_str()
        }
        _ => name,
    }
}

/// Unit and the unit behind a slash, not yet cleaned.
fn unit_suffixes(unit: &str) -> (&str, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let named = |table: &'static [(&str, &'static str)], unit: &str| {
        table.iter().find(|(name, _)| *name == unit).map(|(_, word)| *word)
    };
    let usable = |unit: &str| !unit.is_empty() && !unit.contains(['{', '}']);
    let (main, per) = (main.trim(), per.trim());
    let main = if usable(main) { named(UNITS, main).unwrap_or(main) } else { "" };
    let per = if usable(per) { named(PER_UNITS, per).unwrap_or(per) } else { "" };
    (main, if per.is_empty() { String::new() } else { format!("per_{per}") })
}

/// Only characters of names, no two underscores in a row, none at the start.
fn clean_unit(unit: &str) -> String {
    let mut out = String::with_capacity(unit.len());
    for c in unit.chars() {
        let c = if is_metric_char(c) { c } else { '_' };
        if c != '_' || !out.ends_with('_') {
            out.push(c);
        }
    }
    if out.starts_with('_') {
        out.remove(0);
    }
    out
}

/// The unit of the metadata, which labels have too.
pub(crate) fn unit_name(unit: &str, utf8: bool) -> String {
    let (main, per) = unit_suffixes(unit);
    let (main, per) = if utf8 { (main.to_owned(), per) } else { (clean_unit(main), clean_unit(&per)) };
    let both = match (main.is_empty(), per.is_empty()) {
        (false, false) => format!("{main}_{per}"),
        (false, true) => main,
        _ => per,
    };
    let name = both.strip_prefix('_').unwrap_or(&both);
    name.strip_suffix('_').unwrap_or(name).to_owned()
}

/// Makes names of labels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LabelNames {
    /// Names stay as they are.
    pub(crate) utf8: bool,
    /// A name that begins with one underscore gets `key` before it.
    pub(crate) key_before_underscore: bool,
    /// Several underscores in a row stay.
    pub(crate) keep_underscores: bool,
}

impl LabelNames {
    /// The name of a label; an error when there is none.
    pub(crate) fn build(self, name: &str) -> Result<String, String> {
        if name.is_empty() {
            return Err("label name is empty".into());
        }
        if self.utf8 {
            if only_underscores(name) {
                return Err(format!("label name {} contains only underscores", Quoted(name)));
            }
            return Ok(name.to_owned());
        }
        let mut built = self.sanitize(name);
        if built.starts_with(|c: char| c.is_ascii_digit()) {
            built.insert_str(0, "key_");
        } else if self.key_before_underscore && built.starts_with('_') && !built.starts_with("__") {
            built.insert_str(0, "key");
        }
        if only_underscores(&built) {
            let (name, built) = (Quoted(name), Quoted(&built));
            return Err(format!("normalization for label name {name} resulted in invalid name {built}"));
        }
        Ok(built)
    }

    fn sanitize(self, name: &str) -> String {
        let one = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        if self.keep_underscores {
            return name.chars().map(one).collect();
        }
        let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
        let mut out = String::with_capacity(name.len());
        for c in inner.unwrap_or(name).chars().map(one) {
            if c != '_' || !out.ends_with('_') {
                out.push(c);
            }
        }
        // Reserved names stay reserved.
        if inner.is_some() { format!("__{out}__") } else { out }
    }
}

fn only_underscores(name: &str) -> bool {
    name.bytes().all(|b| b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names() {
        let (escaped, utf8) =
            (MetricNames { suffixes: true, utf8: false }, MetricNames { suffixes: true, utf8: true });
        let counter = (Kind::Sum, true);
        let gauge = (Kind::Gauge, false);
        let other = (Kind::Sum, false);
        for (name, unit, (kind, monotonic), expect, expect_utf8) in [
            (
                "http.server.duration",
                "s",
                (Kind::Histogram, false),
                "http_server_duration_seconds",
                "http.server.duration_seconds",
            ),
            ("requests", "{request}", counter, "requests_total", "requests_total"),
            ("requests.total", "", counter, "requests_total", "requests_total"),
            ("total.requests", "1", counter, "requests_total", "total.requests_total"),
            ("use", "1", gauge, "use_ratio", "use_ratio"),
            ("ratio.use", "1", gauge, "use_ratio", "ratio.use_ratio"),
            ("use.ratio", "1", gauge, "use_ratio", "use_ratio"),
            ("use", "1", other, "use", "use"),
            ("io", "By/s", gauge, "io_bytes_per_second", "io_bytes_per_second"),
            ("io", "By/s", counter, "io_bytes_per_second_total", "io_bytes_per_second_total"),
            ("io.bytes", "By", gauge, "io_bytes", "io.bytes"),
            ("io", "{thing}/m", gauge, "io_per_minute", "io_per_minute"),
            ("speed", "m/s", gauge, "speed_meters_per_second", "speed_meters_per_second"),
            ("a", "%", gauge, "a_percent", "a_percent"),
            ("a", "foo bar/x y", gauge, "a_foo_bar_per_x_y", "a_foo bar_per_x y"),
            ("a", " s ", gauge, "a_seconds", "a_seconds"),
            ("a", "/", gauge, "a", "a"),
            ("a", "°C", gauge, "a_C", "a_°C"),
            ("5xx", "", gauge, "_5xx", "5xx"),
            ("a__b..c", "", gauge, "a_b_c", "a__b..c"),
            ("a:b", "", gauge, "a:b", "a:b"),
            ("größe", "", gauge, "gr_e", "größe"),
            ("total", "", counter, "total", "total_total"),
        ] {
            assert_eq!(escaped.build(name, unit, kind, monotonic).as_deref(), Ok(expect), "{name} {unit}");
            assert_eq!(utf8.build(name, unit, kind, monotonic).as_deref(), Ok(expect_utf8), "{name} {unit}");
        }
        let e = escaped.build("__", "", Kind::Gauge, false);
        assert_eq!(e.as_deref(), Err(&"normalization for metric \"__\" resulted in empty name".to_owned()));
    }

    #[test]
    fn metric_names_without_suffixes() {
        let names = MetricNames { suffixes: false, utf8: false };
        let build = |name: &str| names.build(name, "s", Kind::Sum, true);
        for (name, expect) in
            [("a.b", "a_b"), ("a..b__c", "a_b__c"), ("9a", "_9a"), ("_a", "_a"), ("__", "__"), (".a.", "a")]
        {
            assert_eq!(build(name).as_deref(), Ok(expect), "{name}");
        }
        assert_eq!(
            build("._").as_deref(),
            Err(&"normalization for metric \"._\" resulted in invalid name \"_\"".to_owned())
        );
        assert_eq!(
            build("..").as_deref(),
            Err(&"normalization for metric \"..\" resulted in empty name".to_owned())
        );
        let raw = MetricNames { suffixes: false, utf8: true };
        assert_eq!(raw.build("a.b", "s", Kind::Sum, true).as_deref(), Ok("a.b"));
    }

    #[test]
    fn units() {
        for (unit, expect, utf8) in [
            ("s", "seconds", "seconds"),
            ("By/s", "bytes_per_second", "bytes_per_second"),
            ("1", "", ""),
            ("{x}", "", ""),
            ("{x}/s", "per_second", "per_second"),
            ("_a_", "a", "a"),
            ("a b", "a_b", "a b"),
            ("°", "", "°"),
        ] {
            assert_eq!(
                (unit_name(unit, false).as_str(), unit_name(unit, true).as_str()),
                (expect, utf8),
                "{unit}"
            );
        }
    }

    #[test]
    fn label_names() {
        let build = |key, keep, name: &str| {
            LabelNames { utf8: false, key_before_underscore: key, keep_underscores: keep }.build(name)
        };
        for (name, expect, collapsed, without_key) in [
            ("http.method", "http_method", "http_method", "http_method"),
            ("a..b", "a__b", "a_b", "a__b"),
            ("_a", "key_a", "key_a", "_a"),
            (".a", "key_a", "key_a", "_a"),
            ("__a", "__a", "key_a", "__a"),
            ("__a..b__", "__a__b__", "__a_b__", "__a__b__"),
            ("1a", "key_1a", "key_1a", "key_1a"),
            ("é", "key_", "key_", ""),
            ("añb", "a_b", "a_b", "a_b"),
        ] {
            assert_eq!(build(true, true, name).as_deref(), Ok(expect), "{name}");
            assert_eq!(build(true, false, name).as_deref(), Ok(collapsed), "{name}");
            assert_eq!(build(false, true, name).unwrap_or_default(), without_key, "{name}");
        }
        for bad in ["", "__", "....", "____"] {
            assert!(build(true, true, bad).is_err(), "{bad}");
        }
        let utf8 = LabelNames { utf8: true, key_before_underscore: true, keep_underscores: true };
        assert_eq!(utf8.build("a.b").as_deref(), Ok("a.b"));
        assert!(utf8.build("__").is_err());
    }
}
