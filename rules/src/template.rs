//! Texts of alert labels and annotations with values filled in.
//!
//! Of Go's template language this knows what nearly all rules use: `{{ $value }}`, `{{ $labels.NAME }}`,
//! `{{ $externalLabels.NAME }}` and `{{ $externalURL }}` (or `.Value` and so on), a double-quoted text, and the
//! functions `humanize`, `humanize1024`, `humanizeDuration`, `humanizePercentage`, `printf` with one operand, `toUpper`,
//! `toLower`, called before their operand or behind a `|`. Anything else is refused by [`Template::parse`], by name.

use model::Labels;

/// A text with places to fill in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Fill(Operand, Vec<Function>),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Value,
    Label(String),
    ExternalLabel(String),
    ExternalUrl,
    Text(String),
}

#[derive(Clone, Debug, PartialEq)]
enum Function {
    Humanize,
    Humanize1024,
    HumanizeDuration,
    HumanizePercentage,
    Upper,
    Lower,
    /// Text before and after a verb; the verb is `%v`/`%s` (`None`) or `%.Nf` (`Some(N)`).
    Printf(String, Option<usize>, String),
}

/// What the places are filled with.
pub(crate) struct Values<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) value: f64,
    pub(crate) external_labels: &'a Labels,
    pub(crate) external_url: &'a str,
}

#[derive(Clone)]
enum Filled {
    Number(f64),
    Text(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            let end =
                rest[start..].find("}}").ok_or_else(|| format!("template {text:?}: `{{{{` is not closed"))?;
            let inner = &rest[start + 2..start + end];
            let (trim_left, inner) = match inner.strip_prefix("- ") {
                Some(inner) => (true, inner),
                None => (false, inner),
            };
            let (trim_right, inner) = match inner.strip_suffix(" -") {
                Some(inner) => (true, inner),
                None => (false, inner),
            };
            let before = &rest[..start];
            push_text(&mut parts, if trim_left { before.trim_end() } else { before });
            parts.push(parse_action(inner.trim()).map_err(|e| format!("template {text:?}: {e}"))?);
            rest = &rest[start + end + 2..];
            if trim_right {
                rest = rest.trim_start();
            }
        }
        push_text(&mut parts, rest);
        Ok(Self { parts })
    }

    /// Fills the places in.
    pub(crate) fn expand(&self, values: &Values<'_>) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Fill(operand, functions) => {
                    let mut filled = operand.fill(values);
                    for function in functions {
                        match function.apply(filled) {
                            Ok(next) => filled = next,
                            Err(why) => {
                                filled = Filled::Text(format!("<error expanding template: {why}>"));
                                break;
                            }
                        }
                    }
                    out.push_str(&filled.text());
                }
            }
        }
        out
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

fn parse_action(action: &str) -> Result<Part, String> {
    let mut stages = split_pipe(action).into_iter();
    let first = tokens(stages.next().unwrap_or_default())?;
    let mut functions = Vec::new();
    let operand = match first.as_slice() {
        [operand] => parse_operand(operand)?,
        [call @ .., operand] => {
            functions.push(parse_function(call)?);
            parse_operand(operand)?
        }
        [] => return Err("`{{ }}` is empty".to_owned()),
    };
    for stage in stages {
        functions.push(parse_function(&tokens(stage)?)?);
    }
    Ok(Part::Fill(operand, functions))
}

/// Splits at `|` outside quotes.
fn split_pipe(action: &str) -> Vec<&str> {
    let (mut stages, mut start, mut quoted) = (Vec::new(), 0, false);
    for (i, c) in action.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '|' if !quoted => {
                stages.push(&action[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    stages.push(&action[start..]);
    stages
}

/// Words, quoted texts with their quotes.
fn tokens(stage: &str) -> Result<Vec<&str>, String> {
    let mut tokens = Vec::new();
    let mut rest = stage.trim();
    while !rest.is_empty() {
        let end = match rest.strip_prefix('"') {
            Some(quoted) => quoted.find('"').ok_or("a quote is not closed")? + 2,
            None => rest.find(char::is_whitespace).unwrap_or(rest.len()),
        };
        tokens.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    Ok(tokens)
}

fn parse_operand(token: &str) -> Result<Operand, String> {
    if let Some(text) = token.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        return Ok(Operand::Text(text.to_owned()));
    }
    let name = |rest: &str| {
        let ok = !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        ok.then(|| rest.to_owned())
    };
    let label = token.strip_prefix("$labels.").or_else(|| token.strip_prefix(".Labels.")).and_then(name);
    if let Some(label) = label {
        return Ok(Operand::Label(label));
    }
    let external = token.strip_prefix("$externalLabels.").or_else(|| token.strip_prefix(".ExternalLabels."));
    if let Some(label) = external.and_then(name) {
        return Ok(Operand::ExternalLabel(label));
    }
    match token {
        "$value" | ".Value" => Ok(Operand::Value),
        "$externalURL" | ".ExternalURL" => Ok(Operand::ExternalUrl),
        other => Err(format!(
            "`{other}` is not supported; use $value, $labels.NAME, $externalLabels.NAME or $externalURL"
        )),
    }
}

fn parse_function(call: &[&str]) -> Result<Function, String> {
    match call {
        ["humanize"] => Ok(Function::Humanize),
        ["humanize1024"] => Ok(Function::Humanize1024),
        ["humanizeDuration"] => Ok(Function::HumanizeDuration),
        ["humanizePercentage"] => Ok(Function::HumanizePercentage),
        ["toUpper"] => Ok(Function::Upper),
        ["toLower"] => Ok(Function::Lower),
        ["printf", format] => parse_printf(format),
        other => Err(format!("function `{}` is not supported", other.join(" "))),
    }
}

fn parse_printf(format: &str) -> Result<Function, String> {
    let fail =
        || format!("printf format {format} is not supported; one of %v, %s, %f, %.Nf with text around it");
    let text = format.strip_prefix('"').and_then(|text| text.strip_suffix('"')).ok_or_else(fail)?;
    let (before, rest) = text.split_once('%').ok_or_else(fail)?;
    let (precision, after) = if let Some(after) = rest.strip_prefix(['v', 's']) {
        (None, after)
    } else if let Some(after) = rest.strip_prefix('f') {
        (Some(6), after)
    } else {
        let (digits, after) =
            rest.strip_prefix('.').and_then(|rest| rest.split_once('f')).ok_or_else(fail)?;
        (Some(digits.parse::<usize>().ok().filter(|n| *n <= 20).ok_or_else(fail)?), after)
    };
    let percent = after.replace("%%", "");
    if percent.contains('%') {
        return Err(fail());
    }
    Ok(Function::Printf(before.to_owned(), precision, after.replace("%%", "%")))
}

impl Operand {
    fn fill(&self, values: &Values<'_>) -> Filled {
        match self {
            Self::Value => Filled::Number(values.value),
            Self::Label(name) => Filled::Text(values.labels.value(name).to_owned()),
            Self::ExternalLabel(name) => Filled::Text(values.external_labels.value(name).to_owned()),
            Self::ExternalUrl => Filled::Text(values.external_url.to_owned()),
            Self::Text(text) => Filled::Text(text.clone()),
        }
    }
}

impl Filled {
    fn text(&self) -> String {
        match self {
            Self::Number(v) => format_number(*v),
            Self::Text(text) => text.clone(),
        }
    }

    fn number(&self) -> Result<f64, String> {
        match self {
            Self::Number(v) => Ok(*v),
            Self::Text(text) => text.parse().map_err(|_| format!("{text:?} is not a number")),
        }
    }
}

impl Function {
    fn apply(&self, operand: Filled) -> Result<Filled, String> {
        let text = match self {
            Self::Humanize => humanize(operand.number()?),
            Self::Humanize1024 => humanize_1024(operand.number()?),
            Self::HumanizeDuration => humanize_duration(operand.number()?),
            Self::HumanizePercentage => format!("{}%", four_digits(operand.number()? * 100.0)),
            Self::Upper => operand.text().to_uppercase(),
            Self::Lower => operand.text().to_lowercase(),
            Self::Printf(before, None, after) => format!("{before}{}{after}", operand.text()),
            Self::Printf(before, Some(digits), after) => {
                format!("{before}{:.digits$}{after}", operand.number()?)
            }
        };
        Ok(Filled::Text(text))
    }
}

/// As Go's `%v`: shortest digits, an exponent below 1e-4 and from 1e21 on.
fn format_number(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if v == 0.0 || (1e-4..1e21).contains(&v.abs()) { v.to_string() } else { go_exponent(&format!("{v:e}")) }
}

/// As Go's `%.4g`.
fn four_digits(v: f64) -> String {
    if !v.is_finite() || v == 0.0 {
        return format_number(v);
    }
    let rounded = format!("{v:.3e}");
    let (mantissa, exponent) = rounded.split_once('e').expect("`e` formatting writes an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a small integer");
    let trim = |digits: &str| {
        if digits.contains('.') {
            digits.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            digits.to_owned()
        }
    };
    if (-4..4).contains(&exponent) {
        trim(&format!("{v:.*}", (3 - exponent) as usize))
    } else {
        go_exponent(&format!("{}e{exponent}", trim(mantissa)))
    }
}

/// `1e5` as `1e+05`.
fn go_exponent(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').expect("the text has an exponent");
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn humanize(mut v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return four_digits(v);
    }
    let mut prefix = "";
    if v.abs() >= 1.0 {
        for next in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
            if v.abs() < 1000.0 {
                break;
            }
            prefix = next;
            v /= 1000.0;
        }
    } else {
        (v, prefix) = scale_up(v);
    }
    format!("{}{prefix}", four_digits(v))
}

fn scale_up(mut v: f64) -> (f64, &'static str) {
    let mut prefix = "";
    for next in ["m", "u", "n", "p", "f", "a", "z", "y"] {
        if v.abs() >= 1.0 {
            break;
        }
        prefix = next;
        v *= 1000.0;
    }
    (v, prefix)
}

fn humanize_1024(mut v: f64) -> String {
    if v.abs() <= 1.0 || !v.is_finite() {
        return four_digits(v);
    }
    let mut prefix = "";
    for next in ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"] {
        if v.abs() < 1024.0 {
            break;
        }
        prefix = next;
        v /= 1024.0;
    }
    format!("{}{prefix}", four_digits(v))
}

fn humanize_duration(v: f64) -> String {
    if !v.is_finite() {
        return four_digits(v);
    }
    if v == 0.0 {
        return "0s".to_owned();
    }
    if v.abs() < 1.0 {
        let (v, prefix) = scale_up(v);
        return format!("{}{prefix}s", four_digits(v));
    }
    let sign = if v < 0.0 { "-" } else { "" };
    let v = v.abs();
    let whole = v as i64;
    let (days, hours, minutes, seconds) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    if days != 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours != 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes != 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", four_digits(v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, value: f64, expect: &str) {
        let labels = Labels::from_pairs([("job", "node"), ("n", "12")]);
        let external = Labels::from_pairs([("cluster", "c1")]);
        let values =
            Values { labels: &labels, value, external_labels: &external, external_url: "http://p:9090" };
        assert_eq!(Template::parse(template).unwrap().expand(&values), expect, "{template}");
    }

    #[test]
    fn places_are_filled_in() {
        check("plain", 1.0, "plain");
        check("{{ $labels.job }}/{{$labels.absent}} is {{ $value }}", 0.5, "node/ is 0.5");
        check(
            "{{ .Labels.job | toUpper }} {{ .Value }} {{ $externalLabels.cluster }} {{ $externalURL }}",
            1.0,
            "NODE 1 c1 http://p:9090",
        );
        check("a {{- $value -}} b", 1.0, "a1b");
        check("{{ $value }}", f64::INFINITY, "+Inf");
        check("{{ $value }}", 1e21, "1e+21");
        check("{{ $value }}", 0.00001, "1e-05");
        check("{{ $labels.n | humanize }}", 1.0, "12");
        check("{{ $labels.job | humanize }}", 1.0, "<error expanding template: \"node\" is not a number>");
    }

    #[test]
    fn numbers_for_humans() {
        for (function, value, expect) in [
            ("humanize", 1_234_567.0, "1.235M"),
            ("humanize", 0.00321, "3.21m"),
            ("humanize", 0.0, "0"),
            ("humanize", -999.0, "-999"),
            ("humanize1024", 1_048_576.0, "1Mi"),
            ("humanizePercentage", 0.1234567, "12.35%"),
            ("humanizeDuration", 0.0, "0s"),
            ("humanizeDuration", 59.5, "59.5s"),
            ("humanizeDuration", 3661.0, "1h 1m 1s"),
            ("humanizeDuration", -90_061.0, "-1d 1h 1m 1s"),
            ("humanizeDuration", 0.0123, "12.3ms"),
            ("printf \"%.2f%%\"", 12.345, "12.35%"),
            ("printf \"<%v>\"", 2.0, "<2>"),
        ] {
            check(&format!("{{{{ {function} $value }}}}"), value, expect);
            check(&format!("{{{{ $value | {function} }}}}"), value, expect);
        }
        assert_eq!(four_digits(123_456.0), "1.235e+05");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for bad in [
            "{{ range query \"up\" }}x{{ end }}",
            "{{ $x }}",
            "{{",
            "{{ }}",
            "{{ $value | title }}",
            "{{ printf \"%d\" $value }}",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        assert!(Template::parse("{{ $value | title }}").unwrap_err().contains("title"));
    }
}
