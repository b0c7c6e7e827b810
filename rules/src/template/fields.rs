//! Fields and methods of values: what `.name` gives.

use super::go_time;
use super::value::{Named, Value};

/// The field `name` of a value.
///
/// # Errors
/// What Go says when there is none.
pub(super) fn field(receiver: &Value, name: &str, has_args: bool) -> Result<Value, String> {
    let found = match receiver {
        Value::Nil => return Ok(Value::Nil),
        Value::NilInterface => return Err(format!("nil pointer evaluating interface {{}}.{name}")),
        Value::Labels(labels) if !has_args => return Ok(Value::text(labels.value(name))),
        Value::Map(map) if !has_args => return Ok(map.get(name).cloned().unwrap_or(Value::NilInterface)),
        Value::Labels(_) | Value::Map(_) => {
            return Err(format!("{name} is not a method but has arguments"));
        }
        Value::Sample(sample) => match name {
            "Labels" => Some(Value::Labels(sample.labels.clone())),
            "Value" => Some(sample.value.clone()),
            _ => None,
        },
        Value::Alert(alert) => match name {
            "Labels" => Some(Value::Labels(alert.labels.clone())),
            "ExternalLabels" => Some(Value::Labels(alert.external_labels.clone())),
            "ExternalURL" => Some(Value::Text(alert.external_url.clone())),
            "Value" => Some(alert.value.clone()),
            _ => None,
        },
        Value::Histogram(histogram) => match name {
            "Count" => Some(Value::Float(histogram.count)),
            "Sum" => Some(Value::Float(histogram.sum)),
            "ZeroCount" => Some(Value::Float(histogram.zero_count)),
            "ZeroThreshold" => Some(Value::Float(histogram.zero_threshold)),
            _ => None,
        },
        Value::Time(ms) => return method(time_method(*ms, name), receiver, name, has_args),
        Value::Duration(ns) => return method(duration_method(*ns, name), receiver, name, has_args),
        _ => None,
    };
    match found {
        Some(_) if has_args => Err(format!("{name} has arguments but cannot be invoked as function")),
        Some(value) => Ok(value),
        None => Err(format!("can't evaluate field {name} in type {}", receiver.type_name())),
    }
}

fn method(found: Option<Value>, receiver: &Value, name: &str, has_args: bool) -> Result<Value, String> {
    match found {
        Some(_) if has_args => Err(format!("wrong number of args for {name}: want 0 got 1")),
        Some(value) => Ok(value),
        None => Err(format!("can't evaluate field {name} in type {}", receiver.type_name())),
    }
}

fn time_method(ms: i64, name: &str) -> Option<Value> {
    let named = |type_name, (value, text)| Value::Named(Named { type_name, value, text: Some(text) });
    Some(match name {
        "Unix" => Value::int64(ms.div_euclid(1000)),
        "UnixMilli" => Value::int64(ms),
        "UnixMicro" => Value::int64(ms.saturating_mul(1_000)),
        "UnixNano" => Value::int64(ms.saturating_mul(1_000_000)),
        "UTC" => Value::Time(ms),
        "String" => Value::text(go_time::text(ms)),
        "Month" => named("time.Month", go_time::month(ms)),
        "Weekday" => named("time.Weekday", go_time::weekday(ms)),
        "IsZero" => Value::Bool(false),
        _ => Value::Int(go_time::part(ms, name)?),
    })
}

fn duration_method(ns: i64, name: &str) -> Option<Value> {
    let float = |unit: f64| Value::Float(ns as f64 / unit);
    Some(match name {
        "Hours" => float(3.6e12),
        "Minutes" => float(6e10),
        "Seconds" => float(1e9),
        "Milliseconds" => Value::int64(ns / 1_000_000),
        "Microseconds" => Value::int64(ns / 1_000),
        "Nanoseconds" => Value::int64(ns),
        "String" => Value::text(go_time::duration(ns)),
        _ => return None,
    })
}
