//! Values as Go's `fmt` prints them: `Sprint`, `Sprintln` and `Sprintf`.
//!
//! What is printed is bounded by [`OUTPUT_LEN_BYTES_MAX`]. Addresses, which Go prints for pointers within lists, are
//! always the same here.

use std::fmt::Write;

use model::labels::Quoted;

use super::go_time;
use super::number::{with_any_precision, with_precision};
use super::value::Value;

/// Longest text that a template gives.
pub(super) const OUTPUT_LEN_BYTES_MAX: usize = 1 << 20;
/// Widths and precisions beyond it are refused, as in Go.
const WIDTH_MAX: i64 = 1_000_000;
/// Stands for the address of what a pointer points at.
const ADDRESS: &str = "0xc000000000";

/// The values one after the other, with blanks between those that are no texts.
pub(super) fn sprint(values: &[Value]) -> String {
    let mut out = String::new();
    let mut after_text = true;
    for (i, value) in values.iter().enumerate() {
        let is_text = value.as_text().is_some();
        if i > 0 && !is_text && !after_text {
            out.push(' ');
        }
        print(&mut out, value, 'v', &Flags::default(), 0);
        after_text = is_text;
    }
    out
}

/// The values with blanks between them, and a line's end.
pub(super) fn sprintln(values: &[Value]) -> String {
    let texts: Vec<String> = values.iter().map(|value| sprint(std::slice::from_ref(value))).collect();
    texts.join(" ") + "\n"
}

#[derive(Clone, Debug, Default)]
struct Flags {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

struct Formatter<'a> {
    format: &'a str,
    at: usize,
    args: &'a [Value],
    next_arg: usize,
    reordered: bool,
    good_index: bool,
    out: String,
}

/// # Errors
/// When the text becomes too long.
pub(super) fn sprintf(format: &str, args: &[Value]) -> Result<String, String> {
    let out = String::new();
    let mut f = Formatter { format, at: 0, args, next_arg: 0, reordered: false, good_index: true, out };
    while f.at < format.len() {
        let rest = &format[f.at..];
        let text = &rest[..rest.find('%').unwrap_or(rest.len())];
        f.out.push_str(text);
        f.at += text.len();
        if f.at < format.len() {
            f.at += 1;
            f.verb();
        }
        if f.out.len() > OUTPUT_LEN_BYTES_MAX {
            return Err(format!("output exceeds {OUTPUT_LEN_BYTES_MAX} bytes"));
        }
    }
    if !f.reordered && f.next_arg < args.len() {
        f.out.push_str("%!(EXTRA ");
        for (i, arg) in args[f.next_arg..].iter().enumerate() {
            if i > 0 {
                f.out.push_str(", ");
            }
            describe(&mut f.out, arg);
        }
        f.out.push(')');
    }
    Ok(f.out)
}

impl Formatter<'_> {
    fn peek(&self) -> Option<char> {
        self.format[self.at..].chars().next()
    }

    fn verb(&mut self) {
        let mut flags = Flags::default();
        self.good_index = true;
        while let Some(c) = self.peek() {
            match c {
                '#' => flags.sharp = true,
                '0' => flags.zero = true,
                '+' => flags.plus = true,
                '-' => flags.minus = true,
                ' ' => flags.space = true,
                _ => break,
            }
            self.at += 1;
        }
        let mut after_index = self.index();
        if self.peek() == Some('*') {
            self.at += 1;
            match self.int_arg() {
                Some(width) => {
                    flags.minus |= width < 0;
                    flags.width = Some(width.unsigned_abs() as usize);
                }
                None => self.out.push_str("%!(BADWIDTH)"),
            }
            after_index = false;
        } else {
            flags.width = self.number();
            if after_index && flags.width.is_some() {
                self.good_index = false;
            }
        }
        if self.peek() == Some('.') {
            self.at += 1;
            if after_index {
                self.good_index = false;
            }
            after_index = self.index();
            if self.peek() == Some('*') {
                self.at += 1;
                match self.int_arg() {
                    Some(precision) if precision >= 0 => flags.precision = Some(precision as usize),
                    Some(_) => {}
                    None => self.out.push_str("%!(BADPREC)"),
                }
                after_index = false;
            } else {
                flags.precision = Some(self.number().unwrap_or(0));
            }
        }
        if !after_index {
            self.index();
        }
        // Zeros pad on the left only.
        flags.zero &= !flags.minus;
        let Some(verb) = self.peek() else {
            self.out.push_str("%!(NOVERB)");
            return;
        };
        self.at += verb.len_utf8();
        if verb == '%' {
            self.out.push('%');
        } else if !self.good_index {
            let _ = write!(self.out, "%!{verb}(BADINDEX)");
        } else if let Some(arg) = self.args.get(self.next_arg) {
            self.next_arg += 1;
            print_verb(&mut self.out, arg, verb, &flags);
        } else {
            let _ = write!(self.out, "%!{verb}(MISSING)");
        }
    }

    fn number(&mut self) -> Option<usize> {
        let digits = self.format[self.at..].chars().take_while(char::is_ascii_digit).count();
        let text = &self.format[self.at..self.at + digits];
        self.at += digits;
        text.parse::<i64>().ok().filter(|n| *n <= WIDTH_MAX).map(|n| n as usize)
    }

    fn int_arg(&mut self) -> Option<i64> {
        let value = self.args.get(self.next_arg)?.as_int();
        self.next_arg += 1;
        value.filter(|n| n.abs() <= WIDTH_MAX)
    }

    /// `[3]`: the number of the argument that comes next. Whether there was one.
    fn index(&mut self) -> bool {
        if self.peek() != Some('[') {
            return false;
        }
        self.reordered = true;
        let rest = &self.format[self.at + 1..];
        let Some(end) = rest.find(']') else {
            self.good_index = false;
            self.at += 1;
            return false;
        };
        self.at += end + 2;
        match rest[..end].parse::<usize>() {
            Ok(n) if (1..=self.args.len()).contains(&n) => {
                self.next_arg = n - 1;
                true
            }
            _ => {
                self.good_index = false;
                false
            }
        }
    }
}

/// `TYPE=VALUE`, in messages within the text.
fn describe(out: &mut String, value: &Value) {
    if value.is_nil() {
        out.push_str("<nil>");
    } else {
        let _ = write!(out, "{}=", value.type_name());
        print(out, value, 'v', &Flags::default(), 0);
    }
}

fn bad_verb(out: &mut String, value: &Value, verb: char) {
    let _ = write!(out, "%!{verb}(");
    describe(out, value);
    out.push(')');
}

fn print_verb(out: &mut String, value: &Value, verb: char, flags: &Flags) {
    match verb {
        'T' => pad(out, value.type_name(), flags),
        'p' if !matches!(
            value,
            Value::Sample(_) | Value::Time(_) | Value::Duration(_) | Value::Histogram(_)
        ) =>
        {
            bad_verb(out, value, verb);
        }
        'p' => pad(out, ADDRESS, flags),
        _ => print(out, value, verb, flags, 0),
    }
}

fn print(out: &mut String, value: &Value, verb: char, flags: &Flags, depth: usize) {
    match value {
        Value::Nil | Value::NilInterface if verb == 'v' => pad(out, "<nil>", flags),
        Value::Nil | Value::NilInterface => {
            let _ = write!(out, "%!{verb}(<nil>)");
        }
        Value::Bool(b) if matches!(verb, 'v' | 't') => pad(out, if *b { "true" } else { "false" }, flags),
        Value::Int(n) => integer(out, value, *n, verb, flags),
        Value::Named(named) => match named.text {
            Some(text) if matches!(verb, 'v' | 's' | 'q') => string(out, value, text, verb, flags),
            _ => integer(out, value, named.value, verb, flags),
        },
        Value::Float(v) => float(out, value, *v, verb, flags),
        Value::Text(text) | Value::Html(text) => string(out, value, text, verb, flags),
        Value::Time(ms) => string(out, value, &go_time::text(*ms), verb, flags),
        Value::Duration(ns) => string(out, value, &go_time::duration(*ns), verb, flags),
        Value::Histogram(histogram) => string(out, value, &histogram.to_string(), verb, flags),
        Value::Labels(labels) => {
            let pairs = labels.iter().map(|(name, v)| (name, Value::text(v)));
            map(out, pairs, verb, flags, depth);
        }
        Value::Map(entries) => {
            map(out, entries.iter().map(|(name, v)| (name.as_str(), v.clone())), verb, flags, depth);
        }
        Value::Samples(samples) => {
            out.push('[');
            for (i, _) in samples.iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                out.push_str(ADDRESS);
            }
            out.push(']');
        }
        Value::Sample(sample) if depth == 0 => {
            out.push('&');
            structure(out, &[Value::Labels(sample.labels.clone()), sample.value.clone()], verb, flags);
        }
        Value::Sample(_) => out.push_str(ADDRESS),
        Value::Alert(data) => {
            let fields = [
                Value::Labels(data.labels.clone()),
                Value::Labels(data.external_labels.clone()),
                Value::Text(data.external_url.clone()),
                data.value.clone(),
            ];
            structure(out, &fields, verb, flags);
        }
        Value::Bool(_) => bad_verb(out, value, verb),
    }
}

/// A struct without the names of its fields.
pub(super) fn sprint_struct(fields: &[Value]) -> String {
    let mut out = String::new();
    structure(&mut out, fields, 'v', &Flags::default());
    out
}

fn structure(out: &mut String, fields: &[Value], verb: char, flags: &Flags) {
    out.push('{');
    for (i, field) in fields.iter().enumerate() {
        out.push_str(if i > 0 { " " } else { "" });
        print(out, field, verb, flags, 1);
    }
    out.push('}');
}

fn map<'a>(
    out: &mut String,
    entries: impl Iterator<Item = (&'a str, Value)>,
    verb: char,
    flags: &Flags,
    depth: usize,
) {
    out.push_str("map[");
    for (i, (name, value)) in entries.enumerate() {
        if out.len() > OUTPUT_LEN_BYTES_MAX {
            break;
        }
        out.push_str(if i > 0 { " " } else { "" });
        print(out, &Value::text(name), verb, flags, depth + 1);
        out.push(':');
        print(out, &value, verb, flags, depth + 1);
    }
    out.push(']');
}

fn pad(out: &mut String, text: &str, flags: &Flags) {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    let fill = if flags.zero { "0" } else { " " };
    if flags.minus {
        out.push_str(text);
        out.push_str(&" ".repeat(missing));
    } else {
        out.push_str(&fill.repeat(missing));
        out.push_str(text);
    }
}

/// Zeros go between the sign and the digits.
fn pad_number(out: &mut String, text: &str, flags: &Flags) {
    let signed = text.starts_with(['+', '-', ' ']);
    let width = flags.width.unwrap_or(0);
    if flags.zero && signed && text.len() < width {
        out.push_str(&text[..1]);
        pad(out, &text[1..], &Flags { width: Some(width - 1), ..flags.clone() });
    } else {
        pad(out, text, flags);
    }
}

fn string(out: &mut String, value: &Value, text: &str, verb: char, flags: &Flags) {
    let cut: String = match flags.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    };
    match verb {
        'v' if flags.sharp => pad(out, &Quoted(&cut).to_string(), flags),
        'v' | 's' => pad(out, &cut, flags),
        'q' if flags.sharp
            && !cut.contains(['`', '\u{7f}'])
            && !cut.contains(|c: char| c < ' ' && c != '\t') =>
        {
            pad(out, &format!("`{cut}`"), flags);
        }
        'q' => pad(out, &Quoted(&cut).to_string(), flags),
        'x' | 'X' => {
            let bytes = text.as_bytes();
            let bytes = &bytes[..bytes.len().min(flags.precision.unwrap_or(usize::MAX))];
            let upper = verb == 'X';
            let prefix = match (flags.sharp, upper) {
                (false, _) => "",
                (true, false) => "0x",
                (true, true) => "0X",
            };
            let hex = |b: &u8| if upper { format!("{b:02X}") } else { format!("{b:02x}") };
            let parts: Vec<String> = bytes.iter().map(hex).collect();
            let joined = if flags.space {
                parts.iter().map(|p| format!("{prefix}{p}")).collect::<Vec<_>>().join(" ")
            } else if parts.is_empty() {
                String::new()
            } else {
                format!("{prefix}{}", parts.concat())
            };
            pad(out, &joined, flags);
        }
        _ => bad_verb(out, value, verb),
    }
}

fn integer(out: &mut String, value: &Value, n: i64, verb: char, flags: &Flags) {
    let magnitude = n.unsigned_abs();
    let (digits, prefix) = match verb {
        'v' | 'd' => (magnitude.to_string(), ""),
        'b' => (format!("{magnitude:b}"), if flags.sharp { "0b" } else { "" }),
        'o' => (format!("{magnitude:o}"), if flags.sharp { "0" } else { "" }),
        'O' => (format!("{magnitude:o}"), "0o"),
        'x' => (format!("{magnitude:x}"), if flags.sharp { "0x" } else { "" }),
        'X' => (format!("{magnitude:X}"), if flags.sharp { "0X" } else { "" }),
        'c' | 'q' | 'U' => {
            let c = u32::try_from(n).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
            let text = match verb {
                'c' => c.to_string(),
                'q' => {
                    let quoted = Quoted(&c.to_string()).to_string();
                    let inner = &quoted[1..quoted.len() - 1];
                    match c {
                        '\'' => "'\\''".to_owned(),
                        '"' => "'\"'".to_owned(),
                        _ => format!("'{inner}'"),
                    }
                }
                _ if flags.sharp => format!("U+{n:04X} '{c}'"),
                _ => format!("U+{n:04X}"),
            };
            return pad(out, &text, flags);
        }
        _ => return bad_verb(out, value, verb),
    };
    let mut flags = flags.clone();
    let digits = match flags.precision {
        Some(precision) => {
            flags.zero = false;
            format!("{digits:0>precision$}")
        }
        None => digits,
    };
    pad_number(out, &format!("{}{prefix}{digits}", sign(n < 0, &flags)), &flags);
}

fn sign(negative: bool, flags: &Flags) -> &'static str {
    match (negative, flags.plus, flags.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    }
}

fn float(out: &mut String, value: &Value, v: f64, verb: char, flags: &Flags) {
    let lower = match verb {
        'v' | 'g' | 'G' => 'g',
        'e' | 'E' => 'e',
        'f' | 'F' => 'f',
        _ => return bad_verb(out, value, verb),
    };
    let default = if matches!(lower, 'e' | 'f') { Some(6) } else { None };
    let text = match flags.precision.or(default) {
        Some(digits) => with_precision(v.abs(), lower, digits),
        None => with_any_precision(v.abs(), lower),
    };
    let text = if verb == 'G' || verb == 'E' {
        text.to_uppercase().replace("NAN", "NaN").replace("INF", "Inf")
    } else {
        text
    };
    let mut flags = flags.clone();
    if !v.is_finite() {
        flags.zero = false;
    }
    let text = match text.strip_prefix('+') {
        // Infinity always has its sign.
        Some(plain) => format!("{}{plain}", if v < 0.0 { "-" } else { "+" }),
        None => format!("{}{text}", sign(v.is_sign_negative() && !v.is_nan(), &flags)),
    };
    pad_number(out, &text, &flags);
}
