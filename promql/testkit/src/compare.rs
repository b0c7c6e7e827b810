//! Whether an answer is the expected one.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{FloatHistogram, Labels};
use promql::{MatrixSeries, PointValue, Value, VectorSample};

use crate::notation::SeriesValue;
use crate::script::Expect;

/// Relative difference below which floats are equal.
const EPSILON: f64 = 1e-6;

type Checked = Result<(), String>;

/// Checks the answer of an instant query.
pub(crate) fn instant(expect: &Expect, value: &Value) -> Checked {
    match value {
        Value::String { value, .. } => match &expect.string {
            Some(s) if s == value => Ok(()),
            Some(s) => Err(format!("expected string {s:?}, got {value:?}")),
            None => Err(format!("got string {value:?}")),
        },
        Value::Scalar { value, .. } => match expect.scalar {
            Some(s) if almost_equal(s, *value) => Ok(()),
            Some(s) => Err(format!("expected scalar {s}, got {value}")),
            None => Err(format!("got scalar {value}")),
        },
        Value::Vector(samples) => vector(expect, samples),
        Value::Matrix(series) => match expect.range_vector {
            Some((start, step)) => matrix(expect, series, start, step),
            None => Err("got a range vector".into()),
        },
    }
}

/// Checks the answer of a range query.
pub(crate) fn range(expect: &Expect, value: &Value, start: i64, step: i64) -> Checked {
    match value {
        Value::Matrix(series) => matrix(expect, series, start, step),
        other => Err(format!("got a {} from a range query", other.result_type())),
    }
}

/// What a range query gave for one of its steps, as the instant query would have given it.
pub(crate) fn at_step(value: &Value, timestamp_ms: i64, scalar: bool) -> Value {
    let Value::Matrix(series) = value else {
        return value.clone();
    };
    let mut samples = Vec::new();
    for s in series {
        let floats = s.floats.iter().filter(|(t, _)| *t == timestamp_ms).map(|(_, v)| PointValue::Float(*v));
        let histograms = s
            .histograms
            .iter()
            .filter(|(t, _)| *t == timestamp_ms)
            .map(|(_, h)| PointValue::Histogram(h.clone()));
        samples.extend(floats.chain(histograms).map(|value| VectorSample {
            labels: s.labels.clone(),
            timestamp_ms,
            value,
        }));
    }
    match samples.first() {
        Some(VectorSample { value: PointValue::Float(v), .. }) if scalar => {
            Value::Scalar { timestamp_ms, value: *v }
        }
        _ => Value::Vector(samples),
    }
}

fn vector(expect: &Expect, got: &[VectorSample]) -> Checked {
    no_other_kind(expect, "vector")?;
    let mut rows: BTreeMap<&Labels, (usize, Option<&SeriesValue>)> = BTreeMap::new();
    for (i, (labels, values)) in expect.rows.iter().enumerate() {
        rows.insert(labels, (i, values.first()));
    }
    for (i, sample) in got.iter().enumerate() {
        let Some((position, want)) = rows.remove(&sample.labels) else {
            return Err(format!("unexpected series {} with {}", sample.labels, point_text(&sample.value)));
        };
        if expect.ordered && position != i {
            return Err(format!("{} is at position {}, expected at {}", sample.labels, i + 1, position + 1));
        }
        let Some(want) = want else {
            return Err(format!("no value is expected for {}", sample.labels));
        };
        point(want, &sample.value).map_err(|e| format!("{}: {e}", sample.labels))?;
    }
    match rows.keys().next() {
        Some(labels) => Err(format!("expected series {labels} is missing")),
        None => Ok(()),
    }
}

fn no_other_kind(expect: &Expect, kind: &str) -> Checked {
    match (&expect.scalar, &expect.string) {
        (Some(s), _) => Err(format!("expected scalar {s}, got a {kind}")),
        (_, Some(s)) => Err(format!("expected string {s:?}, got a {kind}")),
        _ => Ok(()),
    }
}

fn matrix(expect: &Expect, got: &[MatrixSeries], start: i64, step: i64) -> Checked {
    no_other_kind(expect, "matrix")?;
    if expect.ordered {
        return Err("`expect ordered` does not go with a matrix".into());
    }
    if !got.is_sorted_by(|a, b| a.labels < b.labels) {
        return Err("the matrix is not sorted by labels".into());
    }
    let mut rows: BTreeMap<&Labels, &Vec<SeriesValue>> = BTreeMap::new();
    for (labels, values) in &expect.rows {
        rows.insert(labels, values);
    }
    for series in got {
        let Some(values) = rows.remove(&series.labels) else {
            return Err(format!("unexpected series {} with {}", series.labels, points_text(series)));
        };
        matrix_series(values, series, start, step)
            .map_err(|e| format!("{}: {e}; got {}", series.labels, points_text(series)))?;
    }
    match rows.keys().next() {
        Some(labels) => Err(format!("expected series {labels} is missing")),
        None => Ok(()),
    }
}

fn matrix_series(values: &[SeriesValue], got: &MatrixSeries, start: i64, step: i64) -> Checked {
    let mut points: BTreeMap<i64, PointValue> = BTreeMap::new();
    points.extend(got.floats.iter().map(|(t, v)| (*t, PointValue::Float(*v))));
    points.extend(got.histograms.iter().map(|(t, h)| (*t, PointValue::Histogram(h.clone()))));
    if points.len() != got.floats.len() + got.histograms.len() {
        return Err("two points have the same timestamp".into());
    }
    for (i, want) in values.iter().enumerate() {
        let t = start + i as i64 * step;
        match (want, points.remove(&t)) {
            (SeriesValue::Omitted, None) => {}
            (SeriesValue::Omitted, Some(p)) => {
                return Err(format!("unexpected {} at {t} ms", point_text(&p)));
            }
            (_, None) => return Err(format!("point at {t} ms is missing")),
            (want, Some(p)) => point(want, &p).map_err(|e| format!("at {t} ms: {e}"))?,
        }
    }
    match points.first_key_value() {
        Some((t, p)) => Err(format!("unexpected {} at {t} ms", point_text(p))),
        None => Ok(()),
    }
}

fn point(want: &SeriesValue, got: &PointValue) -> Checked {
    match (want, got) {
        (SeriesValue::Float(a), PointValue::Float(b)) if almost_equal(*a, *b) => Ok(()),
        (SeriesValue::Float(a), got) => Err(format!("expected {a}, got {}", point_text(got))),
        (SeriesValue::Histogram { value, hint_given }, PointValue::Histogram(h))
            if same_histogram(value, h, *hint_given) =>
        {
            Ok(())
        }
        (SeriesValue::Histogram { value, .. }, got) => {
            Err(format!("expected {}, got {}", value.test_expression(), point_text(got)))
        }
        (SeriesValue::Omitted, got) => Err(format!("expected nothing, got {}", point_text(got))),
    }
}

fn point_text(p: &PointValue) -> String {
    match p {
        PointValue::Float(v) => v.to_string(),
        PointValue::Histogram(h) => h.test_expression(),
    }
}

fn points_text(s: &MatrixSeries) -> String {
    let floats = s.floats.iter().map(|(t, v)| format!("{v} @{t}"));
    let histograms = s.histograms.iter().map(|(t, h)| format!("{} @{t}", h.test_expression()));
    floats.chain(histograms).collect::<Vec<_>>().join(" ")
}

/// Compares without empty buckets; the hint only if it was given.
fn same_histogram(want: &FloatHistogram, got: &Arc<FloatHistogram>, with_hint: bool) -> bool {
    let (mut a, mut b) = (want.clone(), (**got).clone());
    a.compact(0);
    b.compact(0);
    let all_equal =
        |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| almost_equal(*a, *b));
    (!with_hint || a.counter_reset_hint == b.counter_reset_hint)
        && a.schema == b.schema
        && a.zero_threshold == b.zero_threshold
        && a.custom_values == b.custom_values
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && all_equal(&[a.count, a.sum, a.zero_count], &[b.count, b.sum, b.zero_count])
        && all_equal(&a.positive_buckets, &b.positive_buckets)
        && all_equal(&a.negative_buckets, &b.negative_buckets)
}

/// Equality of floats as the scripts have it.
pub(crate) fn almost_equal(a: f64, b: f64) -> bool {
    if model::is_stale_nan(a) || model::is_stale_nan(b) {
        return model::is_stale_nan(a) && model::is_stale_nan(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

#[cfg(test)]
mod tests {
    use super::almost_equal;

    #[test]
    fn floats_are_equal_within_a_millionth() {
        assert!(almost_equal(1.0, 1.000_000_1));
        assert!(!almost_equal(1.0, 1.000_01));
        assert!(!almost_equal(0.0, 1e-9));
        assert!(almost_equal(f64::NAN, -f64::NAN));
        assert!(!almost_equal(f64::NAN, model::stale_nan()));
        assert!(almost_equal(f64::INFINITY, f64::INFINITY));
        assert!(!almost_equal(f64::INFINITY, f64::MAX));
    }
}
