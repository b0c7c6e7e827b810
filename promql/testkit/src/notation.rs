//! The notation of series and their values: `name{a="b"} 1 2+3x4 _ {{count:5}}`.
//!
//! Used by the scripts and by unit tests of rules.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Span};
use model::{FloatHistogram, Labels, MatchOp};

/// Most values one row may stand for, so that a slip in a script does not eat the memory.
pub(crate) const VALUES_MAX: usize = 1_000_000;

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum SeriesValue {
    /// `_`: no sample.
    Omitted,
    /// A float, the stale marker included.
    Float(f64),
    /// A native histogram.
    Histogram {
        /// The histogram.
        value: Arc<FloatHistogram>,
        /// Whether the counter reset hint was written, and so is to be compared.
        hint_given: bool,
    },
}

/// Start timestamps of a row, as offsets in milliseconds from the samples' own timestamps.
pub(crate) type StartOffsets = Vec<Option<i64>>;

/// A line of a script that begins with a series.
pub(crate) enum Row {
    /// A series and its values.
    Values(Labels, Vec<SeriesValue>),
    /// `SERIES@st …`
    StartTimestamps(Labels, StartOffsets),
}

/// Reads a series and its values.
///
/// # Errors
/// What is wrong with the line.
pub fn parse_series(line: &str) -> Result<(Labels, Vec<SeriesValue>), String> {
    match parse_row(line)? {
        Row::Values(labels, values) => Ok((labels, values)),
        Row::StartTimestamps(..) => Err(format!("start timestamps are not allowed here: {line}")),
    }
}

pub(crate) fn parse_row(line: &str) -> Result<Row, String> {
    let (labels, rest) = parse_labels(line)?;
    if let Some(rest) = rest.strip_prefix("@st") {
        return Ok(Row::StartTimestamps(labels, parse_start_offsets(rest)?));
    }
    if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
        return Err(format!("a blank is missing after the series: {line}"));
    }
    Ok(Row::Values(labels, parse_values(rest)?))
}

/// The label set at the start of `text`, and what follows it.
fn parse_labels(text: &str) -> Result<(Labels, &str), String> {
    let end = series_end(text).ok_or_else(|| format!("braces are not closed: {text}"))?;
    let (series, rest) = text.split_at(end);
    if series.is_empty() {
        return Err(format!("no series: {text}"));
    }
    let matchers = promql::parser::parse_selector(series).map_err(|e| e.to_string())?;
    if let Some(m) = matchers.iter().find(|m| m.op != MatchOp::Equal) {
        return Err(format!("a series has labels, not conditions: {m}"));
    }
    Ok((Labels::from_pairs(matchers.iter().map(|m| (&m.name, &m.value))), rest))
}

/// Where the name and the braces end. Quotes may hold braces.
fn series_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let name = bytes.iter().position(|b| matches!(b, b'{' | b' ' | b'\t' | b'@')).unwrap_or(bytes.len());
    if bytes.get(name) != Some(&b'{') {
        return Some(name);
    }
    let mut quote = None;
    let mut escaped = false;
    for (i, b) in bytes.iter().enumerate().skip(name + 1) {
        match quote {
            _ if escaped => escaped = false,
            Some(q) if *b == q => quote = None,
            Some(q) if *b == b'\\' && q != b'`' => escaped = true,
            Some(_) => {}
            None if matches!(b, b'"' | b'\'' | b'`') => quote = Some(*b),
            None if *b == b'}' => return Some(i + 1),
            None => {}
        }
    }
    None
}

// === Values ===

fn parse_values(text: &str) -> Result<Vec<SeriesValue>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = if rest.starts_with("{{") { histogram_item_end(rest) } else { word_end(rest) };
        let (item, tail) = rest.split_at(end);
        if item.starts_with("{{") {
            push_histograms(item, &mut out)?;
        } else {
            push_floats(item, &mut out)?;
        }
        if out.len() > VALUES_MAX {
            return Err(format!("more than {VALUES_MAX} values in one row"));
        }
        rest = tail.trim_start();
    }
    Ok(out)
}

fn word_end(text: &str) -> usize {
    text.find([' ', '\t']).unwrap_or(text.len())
}

/// End of `{{…}}`, `{{…}}xN`, `{{…}}+{{…}}xN`.
fn histogram_item_end(text: &str) -> usize {
    let mut at = text.find("}}").map_or(text.len(), |i| i + 2);
    if text[at..].starts_with("+{{") || text[at..].starts_with("-{{") {
        at += text[at..].find("}}").map_or(text.len() - at, |i| i + 2);
    }
    at + word_end(&text[at..])
}

fn push_floats(item: &str, out: &mut Vec<SeriesValue>) -> Result<(), String> {
    let bad = || format!("bad value {item:?}");
    if item == "stale" {
        out.push(SeriesValue::Float(model::stale_nan()));
        return Ok(());
    }
    if let Some(rest) = item.strip_prefix('_') {
        let times = match rest.strip_prefix('x') {
            None if rest.is_empty() => 1,
            None => return Err(bad()),
            Some(n) => repetitions(n)?,
        };
        out.extend(std::iter::repeat_n(SeriesValue::Omitted, times));
        return Ok(());
    }
    let (first, rest) = split_number(item).ok_or_else(bad)?;
    if rest.is_empty() {
        out.push(SeriesValue::Float(first));
        return Ok(());
    }
    let (step, rest) =
        if rest.starts_with(['+', '-']) { split_number(rest).ok_or_else(bad)? } else { (0.0, rest) };
    let Some(times) = rest.strip_prefix('x') else {
        return parse_number(item).map(|v| out.push(SeriesValue::Float(v))).ok_or_else(bad);
    };
    let Ok(times) = repetitions(times) else {
        // `0x1F` is no repetition but a number.
        return parse_number(item).map(|v| out.push(SeriesValue::Float(v))).ok_or_else(bad);
    };
    let mut value = first;
    for _ in 0..=times {
        out.push(SeriesValue::Float(value));
        value += step;
    }
    Ok(())
}

fn repetitions(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n <= VALUES_MAX && !text.starts_with('+') => Ok(n),
        _ => Err(format!("bad number of repetitions {text:?}")),
    }
}

/// The decimal number at the start of `text`, and what follows it.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign_len = text.len() - unsigned.len();
    let bytes = unsigned.as_bytes();
    let word = unsigned.get(..3).filter(|w| w.eq_ignore_ascii_case("inf") || w.eq_ignore_ascii_case("nan"));
    let len = match word {
        Some(word) => word.len(),
        None => {
            let digits = |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
            let mut end = digits(0);
            if bytes.get(end) == Some(&b'.') {
                end = digits(end + 1);
            }
            if matches!(bytes.get(end), Some(b'e' | b'E')) {
                let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
                let after = digits(end + 1 + sign);
                if after > end + 1 + sign {
                    end = after;
                }
            }
            end
        }
    };
    let (number, rest) = text.split_at(sign_len + len);
    Some((parse_number(number)?, rest))
}

/// A whole text that is a number, signed or not.
pub(crate) fn parse_number(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned.starts_with(['+', '-']) || unsigned.is_empty() {
        return None;
    }
    match promql::parser::parse(text, &promql::parser::ParserOptions::default()) {
        Ok(promql::parser::Expr::Number(n)) if !n.duration => Some(n.value),
        _ => None,
    }
}

// === Start timestamps ===

fn parse_start_offsets(text: &str) -> Result<StartOffsets, String> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        let bad = || format!("bad start timestamp {item:?}");
        if let Some(rest) = item.strip_prefix('_') {
            let times = match rest.strip_prefix('x') {
                None if rest.is_empty() => 1,
                None => return Err(bad()),
                Some(n) => repetitions(n)?,
            };
            out.extend(std::iter::repeat_n(None, times));
            continue;
        }
        let (durations, times) = match item.rsplit_once('x') {
            Some((d, n)) => (d, repetitions(n)?),
            None => (item, 0),
        };
        let cut = durations.get(1..).and_then(|d| d.find(['+', '-'])).map_or(durations.len(), |i| i + 1);
        let (first, step) = durations.split_at(cut);
        let first = signed_duration(first).ok_or_else(bad)?;
        let step = if step.is_empty() { 0 } else { signed_duration(step).ok_or_else(bad)? };
        out.extend((0..=times as i64).map(|i| Some(first + i * step)));
    }
    Ok(out)
}

fn signed_duration(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let ms = model::duration::parse_ms(unsigned).ok()?;
    Some(if text.starts_with('-') { -ms } else { ms })
}

// === Histograms ===

fn push_histograms(item: &str, out: &mut Vec<SeriesValue>) -> Result<(), String> {
    let bad = || format!("bad histogram {item:?}");
    let (body, rest) = histogram_body(item).ok_or_else(bad)?;
    let (first, mut hint_given) = parse_histogram(body)?;
    if rest.is_empty() {
        out.push(SeriesValue::Histogram { value: Arc::new(first), hint_given });
        return Ok(());
    }
    let (step, times) = match rest.strip_prefix('x') {
        Some(times) => (None, times),
        None => {
            let (body, times) = histogram_body(&rest[1..]).ok_or_else(bad)?;
            let (step, given) = parse_histogram(body)?;
            hint_given = given;
            (Some(step), times.strip_prefix('x').ok_or_else(bad)?)
        }
    };
    let mut value = first;
    for i in 0..=repetitions(times)? {
        if let (Some(step), true) = (&step, i > 0) {
            if value.schema > step.schema {
                return Err(format!("cannot merge from schema {} to {}", step.schema, value.schema));
            }
            let outcome = if rest.starts_with('-') { value.sub(step) } else { value.add(step) };
            outcome.map_err(|e| e.to_string())?;
        }
        out.push(SeriesValue::Histogram { value: Arc::new(value.clone()), hint_given });
    }
    Ok(())
}

/// What is between `{{` and `}}`, and what follows.
fn histogram_body(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("{{")?.split_once("}}")
}

/// Reads the inside of `{{ }}`. Also tells whether the counter reset hint was given.
fn parse_histogram(body: &str) -> Result<(FloatHistogram, bool), String> {
    let mut h = FloatHistogram::default();
    let (mut offset, mut n_offset, mut hint_given) = (0, 0, false);
    let mut seen = Vec::new();
    let mut rest = body.trim();
    while !rest.is_empty() {
        let (key, tail) =
            rest.split_once(':').ok_or_else(|| format!("missing `:` in histogram at {rest:?}"))?;
        let value_end = match tail.starts_with('[') {
            true => tail.find(']').ok_or_else(|| format!("missing `]` in histogram at {tail:?}"))? + 1,
            false => word_end(tail),
        };
        let (value, after) = tail.split_at(value_end);
        let key = key.to_ascii_lowercase();
        if seen.contains(&key) {
            return Err(format!("duplicate key {key:?} in histogram"));
        }
        match key.as_str() {
            "schema" => h.schema = integer(value)?,
            "sum" => h.sum = number(value)?,
            "count" => h.count = number(value)?,
            "z_bucket" => h.zero_count = number(value)?,
            "z_bucket_w" => h.zero_threshold = number(value)?,
            "custom_values" => h.custom_values = numbers(value)?,
            "buckets" => h.positive_buckets = numbers(value)?,
            "n_buckets" => h.negative_buckets = numbers(value)?,
            "offset" => offset = integer(value)?,
            "n_offset" => n_offset = integer(value)?,
            "counter_reset_hint" => {
                hint_given = true;
                h.counter_reset_hint = hint(value)?;
            }
            _ => return Err(format!("bad histogram descriptor found: {key:?}")),
        }
        seen.push(key);
        rest = after.trim_start();
    }
    h.positive_spans = span(offset, h.positive_buckets.len());
    h.negative_spans = span(n_offset, h.negative_buckets.len());
    check_shape(&h)?;
    Ok((h, hint_given))
}

/// Schema, spans and bounds must fit each other, or arithmetic has nothing to go by. Counts may be anything: a result may
/// well be negative.
fn check_shape(h: &FloatHistogram) -> Result<(), String> {
    let is_custom = h.schema == CUSTOM_BUCKETS_SCHEMA;
    let last = |s: &[Span]| s.iter().map(|s| i64::from(s.offset) + i64::from(s.length)).max().unwrap_or(0);
    if !is_custom && last(&h.positive_spans).max(last(&h.negative_spans)) > i64::from(i32::MAX) {
        return Err("a bucket of the histogram lies beyond all that can be counted".into());
    }
    let mut shape = FloatHistogram { count: 0.0, zero_count: 0.0, ..h.clone() };
    shape.positive_buckets.fill(0.0);
    shape.negative_buckets.fill(0.0);
    shape.validate().map_err(|e| e.to_string())
}

fn span(offset: i32, buckets: usize) -> Vec<Span> {
    if buckets == 0 { Vec::new() } else { vec![Span { offset, length: buckets as u32 }] }
}

fn hint(text: &str) -> Result<CounterResetHint, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "unknown" => CounterResetHint::Unknown,
        "reset" => CounterResetHint::CounterReset,
        "not_reset" => CounterResetHint::NotCounterReset,
        "gauge" => CounterResetHint::Gauge,
        _ => return Err(format!("bad counter_reset_hint {text:?}")),
    })
}

fn integer(text: &str) -> Result<i32, String> {
    text.parse().map_err(|_| format!("bad integer {text:?} in histogram"))
}

fn number(text: &str) -> Result<f64, String> {
    parse_number(text).ok_or_else(|| format!("bad number {text:?} in histogram"))
}

fn numbers(text: &str) -> Result<Vec<f64>, String> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    inner.ok_or_else(|| format!("bad list {text:?} in histogram"))?.split_whitespace().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: &str) {
        let (labels, values) = parse_series(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        let values: Vec<String> = values
            .iter()
            .map(|v| match v {
                SeriesValue::Omitted => "_".to_owned(),
                SeriesValue::Float(v) if model::is_stale_nan(*v) => "stale".to_owned(),
                SeriesValue::Float(v) => v.to_string(),
                SeriesValue::Histogram { value, .. } => value.test_expression(),
            })
            .collect();
        assert_eq!(format!("{labels} {}", values.join(" ")).trim(), expect, "{line}");
    }

    #[test]
    fn reads_series_and_values() {
        check(r#"foo{a="x} y", b='"'} 1 -2.5 1e3 0x1F"#, r#"foo{a="x} y", b="\""} 1 -2.5 1000 31"#);
        check(r#"{__name__="foo"}"#, "foo");
        check("{} 1", "{} 1");
        check("foo 1x2 1+2x2 5-1x1 0x2", "foo 1 1 1 1 3 5 5 4 0 0 0");
        check("foo _ _x2 stale Inf -inf NaN", "foo _ _ _ stale inf -inf NaN");
        check("foo -1e-1+.5x1", "foo -0.1 0.4");
        check(
            "foo {{}} {{schema:1 sum:-0.3 count:3 buckets:[1 2] offset:-1}}x1",
            "foo {{}} {{schema:1 count:3 sum:-0.3 offset:-1 buckets:[1 2]}} {{schema:1 count:3 sum:-0.3 offset:-1 buckets:[1 2]}}",
        );
        check(
            "foo {{buckets:[1]}}+{{buckets:[1 1]}}x2",
            "foo {{buckets:[1]}} {{buckets:[2 1]}} {{buckets:[3 2]}}",
        );
        for bad in [
            "foo{a=\"1\"",
            "foo 1y",
            "foo {{x:1}}",
            "foo {{sum:1 sum:2}}",
            "foo{a!=\"1\"} 1",
            "foo 1x99999999999",
        ] {
            assert!(parse_series(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_start_timestamps() {
        let offsets = |text| parse_start_offsets(text).expect("valid");
        assert_eq!(offsets("-1m 0 +1ms _"), [Some(-60_000), Some(0), Some(1), None]);
        assert_eq!(offsets("-1mx1 _x2"), [Some(-60_000), Some(-60_000), None, None]);
        assert_eq!(offsets("-30s-1mx2"), [Some(-30_000), Some(-90_000), Some(-150_000)]);
        assert!(parse_start_offsets("-1q").is_err());
        assert!(matches!(parse_row("foo{a=\"b\"}@st -1m"), Ok(Row::StartTimestamps(..))));
    }
}
