//! The functions of Go's `text/template`. `and` and `or` are the executor's, since they evaluate no more than they need.

use super::{Add, Param, text};
use crate::links::escape_query;
use crate::template::exec::printed;
use crate::template::print::{OUTPUT_LEN_BYTES_MAX, sprint, sprintf, sprintln};
use crate::template::value::{Kind, Value};

const NO_COMPARISON: &str = "missing argument for comparison";
const BAD_COMPARISON: &str = "invalid type for comparison";

pub(super) fn add_all(add: &mut Add<'_>) {
    use Param::{Any, Text};
    add("and", &[Any], Some(Any), |_, _| Ok(Value::Nil));
    add("or", &[Any], Some(Any), |_, _| Ok(Value::Nil));
    add("not", &[Any], None, |args, _| Ok(Value::Bool(!args[0].is_true())));
    add("print", &[], Some(Any), |args, _| bounded(sprint(args)));
    add("println", &[], Some(Any), |args, _| bounded(sprintln(args)));
    add("printf", &[Text], Some(Any), |args, _| Ok(Value::text(sprintf(text(args, 0), &args[1..])?)));
    add("html", &[], Some(Any), |args, _| bounded(escape_html(&joined(args))));
    add("js", &[], Some(Any), |args, _| bounded(escape_js(&joined(args))));
    add("urlquery", &[], Some(Any), |args, _| bounded(escape_query(&joined(args))));
    add("len", &[Any], None, |args, _| len(&args[0]).map(|n| Value::Int(n as i64)));
    add("index", &[Any], Some(Any), |args, _| {
        args[1..].iter().try_fold(args[0].clone(), |item, at| index(&item, at))
    });
    add("slice", &[Any], Some(Any), |args, _| slice(&args[0], &args[1..]));
    add("call", &[Any], Some(Any), |args, _| match &args[0] {
        value if value.is_nil() => Err("call of nil".to_owned()),
        value => Err(format!("non-function {} of type {}", printed(value), value.type_name())),
    });
    add("eq", &[Any], Some(Any), |args, _| eq(&args[0], &args[1..]).map(Value::Bool));
    add("ne", &[Any, Any], None, |args, _| Ok(Value::Bool(!eq(&args[0], &args[1..])?)));
    add("lt", &[Any, Any], None, |args, _| lt(&args[0], &args[1]).map(Value::Bool));
    add("le", &[Any, Any], None, |args, _| le(&args[0], &args[1]).map(Value::Bool));
    add("gt", &[Any, Any], None, |args, _| Ok(Value::Bool(!le(&args[0], &args[1])?)));
    add("ge", &[Any, Any], None, |args, _| Ok(Value::Bool(!lt(&args[0], &args[1])?)));
}

/// # Errors
/// When the text is longer than templates may be.
pub(super) fn bounded(text: String) -> Result<Value, String> {
    if text.len() > OUTPUT_LEN_BYTES_MAX {
        return Err(format!("output exceeds {OUTPUT_LEN_BYTES_MAX} bytes"));
    }
    Ok(Value::text(text))
}

/// What the escaping functions escape: a text, or what `print` would print.
fn joined(args: &[Value]) -> String {
    match args {
        [Value::Text(text)] => text.to_string(),
        _ => {
            let shown =
                |value: &Value| if value.is_nil() { Value::text(printed(value)) } else { value.clone() };
            sprint(&args.iter().map(shown).collect::<Vec<_>>())
        }
    }
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", c as u32)),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

fn len(value: &Value) -> Result<usize, String> {
    match value {
        Value::Text(text) | Value::Html(text) => Ok(text.len()),
        Value::Labels(labels) => Ok(labels.len()),
        Value::Map(map) => Ok(map.len()),
        Value::Samples(samples) => Ok(samples.len()),
        Value::Nil | Value::NilInterface => {
            Err("reflect: call of reflect.Value.Type on zero Value".to_owned())
        }
        other => Err(format!("len of type {}", value_type(other))),
    }
}

/// The type of what a pointer points at.
fn value_type(value: &Value) -> &'static str {
    value.type_name().trim_start_matches('*')
}

fn index(item: &Value, at: &Value) -> Result<Value, String> {
    match item {
        Value::Nil | Value::NilInterface => Err("index of untyped nil".to_owned()),
        Value::Labels(labels) => Ok(Value::text(labels.value(key(at)?))),
        Value::Map(map) => Ok(map.get(key(at)?).cloned().unwrap_or(Value::NilInterface)),
        Value::Samples(samples) => {
            let at = position(at, samples.len())?;
            let found = samples.get(at).ok_or("reflect: slice index out of range")?;
            Ok(Value::Sample(found.clone()))
        }
        Value::Text(text) | Value::Html(text) => {
            let at = position(at, text.len())?;
            let byte = text.as_bytes().get(at).ok_or("reflect: string index out of range")?;
            Ok(Value::byte(*byte))
        }
        other => Err(format!("can't index item of type {}", value_type(other))),
    }
}

fn key(at: &Value) -> Result<&str, String> {
    match at {
        Value::Text(text) => Ok(text),
        Value::Nil | Value::NilInterface => Err("value is nil; should be of type string".to_owned()),
        other => Err(format!("value has type {}; should be string", other.type_name())),
    }
}

/// A position, which may be the end.
fn position(at: &Value, len: usize) -> Result<usize, String> {
    let Some(n) = at.as_int() else {
        return Err(match at {
            Value::Nil | Value::NilInterface => "cannot index slice/array with nil".to_owned(),
            other => format!("cannot index slice/array with type {}", other.type_name()),
        });
    };
    usize::try_from(n).ok().filter(|n| *n <= len).ok_or_else(|| format!("index out of range: {n}"))
}

fn slice(item: &Value, indexes: &[Value]) -> Result<Value, String> {
    if item.is_nil() {
        return Err("slice of untyped nil".to_owned());
    }
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    let len = match item {
        Value::Text(_) | Value::Html(_) if indexes.len() == 3 => {
            return Err("cannot 3-index slice a string".to_owned());
        }
        Value::Text(text) | Value::Html(text) => text.len(),
        Value::Samples(samples) => samples.len(),
        other => return Err(format!("can't slice item of type {}", value_type(other))),
    };
    let mut bounds = [0, len, len];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        *bound = position(index, len)?;
    }
    let [from, to, cap] = bounds;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    if to > cap {
        return Err(format!("invalid slice index: {to} > {cap}"));
    }
    let cut = |text: &str| String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned();
    Ok(match item {
        Value::Text(text) => Value::text(cut(text)),
        Value::Html(text) => Value::Html(cut(text).into()),
        Value::Samples(samples) => Value::Samples(samples[from..to].into()),
        other => other.clone(),
    })
}

fn incompatible(a: &Value, b: &Value) -> String {
    format!("incompatible types for comparison: {} and {}", a.type_name(), b.type_name())
}

fn eq(first: &Value, others: &[Value]) -> Result<bool, String> {
    if others.is_empty() {
        return Err(NO_COMPARISON.to_owned());
    }
    for other in others {
        if equal(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(match (a.kind(), b.kind()) {
        (Some(Kind::Int), Some(Kind::Int | Kind::Uint))
        | (Some(Kind::Uint), Some(Kind::Int | Kind::Uint)) => a.as_int() == b.as_int(),
        (Some(x), Some(y)) if x == y => match (a, b) {
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            _ => a.as_text() == b.as_text(),
        },
        _ if a.is_nil() || b.is_nil() => a.is_nil() && b.is_nil(),
        (None, None) => return same_thing(a, b),
        _ => return Err(incompatible(a, b)),
    })
}

/// Pointers are equal when they point at the same; maps and lists cannot be compared.
fn same_thing(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Sample(a), Value::Sample(b)) => Ok(std::sync::Arc::ptr_eq(a, b)),
        (Value::Histogram(a), Value::Histogram(b)) => Ok(std::sync::Arc::ptr_eq(a, b)),
        (Value::Labels(_) | Value::Map(_) | Value::Samples(_) | Value::Alert(_), _) => {
            Err(format!("non-comparable type {}: {}", printed(b), b.type_name()))
        }
        _ => Ok(false),
    }
}

fn lt(a: &Value, b: &Value) -> Result<bool, String> {
    let (Some(x), Some(y)) = (a.kind(), b.kind()) else { return Err(BAD_COMPARISON.to_owned()) };
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => Ok(a < b),
        _ if matches!((x, y), (Kind::Int | Kind::Uint, Kind::Int | Kind::Uint)) => {
            Ok(a.as_int() < b.as_int())
        }
        _ if x != y => Err(incompatible(a, b)),
        (Value::Bool(_), _) => Err(BAD_COMPARISON.to_owned()),
        _ => Ok(a.as_text() < b.as_text()),
    }
}

fn le(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(lt(a, b)? || equal(a, b)?)
}
