//! What differs between two answers to one query.

use std::collections::BTreeMap;

use crate::answer::{Answer, Data, LabelSet, Point, Value};

/// In what way two answers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One is an error and the other is not.
    Outcome,
    /// Both are errors, of different types.
    ErrorType,
    /// The result types differ.
    ResultType,
    /// A series is in one of them only.
    Series,
    /// A series has a sample in one of them only.
    Samples,
    /// A value differs.
    Value,
    /// Only the order differs, and it should not.
    Order,
    /// One has warnings.
    Warnings,
    /// One has infos.
    Infos,
}

/// A difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// In what way.
    pub kind: Kind,
    /// Where, and what each said.
    pub detail: String,
    /// For values: how far they are apart, relative to the greater; infinite when that makes no sense.
    pub relative: f64,
    /// For values: how far they are apart; infinite when that makes no sense.
    pub absolute: f64,
}

/// What counts as equal.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Greatest relative distance of equal values.
    pub tolerance: f64,
    /// The order of an instant vector matters.
    pub ordered: bool,
    /// Warnings and infos are looked at.
    pub annotations: bool,
}

fn difference(kind: Kind, detail: String) -> Option<Difference> {
    Some(Difference { kind, detail, relative: f64::INFINITY, absolute: f64::INFINITY })
}

/// The first difference in the order of [`Kind`]; of values, the greatest.
#[must_use]
pub fn compare(left: &Answer, right: &Answer, rules: Rules) -> Option<Difference> {
    match (left, right) {
        (Answer::Failed { kind: a, text: ta }, Answer::Failed { kind: b, text: tb }) => {
            if a == b {
                None
            } else {
                difference(Kind::ErrorType, format!("{a}: {ta} | {b}: {tb}"))
            }
        }
        (Answer::Failed { text, .. }, Answer::Given { data, .. }) => {
            difference(Kind::Outcome, format!("error: {text} | {}", shortened(data)))
        }
        (Answer::Given { data, .. }, Answer::Failed { text, .. }) => {
            difference(Kind::Outcome, format!("{} | error: {text}", shortened(data)))
        }
        (
            Answer::Given { data: a, warnings: wa, infos: ia },
            Answer::Given { data: b, warnings: wb, infos: ib },
        ) => compare_data(a, b, rules).or_else(|| {
            if !rules.annotations {
                None
            } else if wa.is_empty() != wb.is_empty() {
                difference(Kind::Warnings, format!("{wa:?} | {wb:?}"))
            } else if ia.is_empty() != ib.is_empty() {
                difference(Kind::Infos, format!("{ia:?} | {ib:?}"))
            } else {
                None
            }
        }),
    }
}

fn compare_data(a: &Data, b: &Data, rules: Rules) -> Option<Difference> {
    match (a, b) {
        (Data::Text(x), Data::Text(y)) => {
            if x == y {
                None
            } else {
                difference(Kind::Value, format!("{x:?} | {y:?}"))
            }
        }
        (Data::Scalar(x), Data::Scalar(y)) => compare_rows(
            &as_rows(&[(LabelSet::new(), x.clone())]),
            &as_rows(&[(LabelSet::new(), y.clone())]),
            rules,
        ),
        (Data::Vector(x), Data::Vector(y)) => compare_rows(&as_rows(x), &as_rows(y), rules).or_else(|| {
            let order = |v: &[(LabelSet, Point)]| v.iter().map(|(l, _)| l.clone()).collect::<Vec<_>>();
            if rules.ordered && order(x) != order(y) && !same_values_in_order(x, y) {
                return difference(Kind::Order, format!("{:?} | {:?}", order(x), order(y)));
            }
            None
        }),
        (Data::Matrix(x), Data::Matrix(y)) => compare_rows(x, y, rules).or_else(|| {
            let order = |v: &[(LabelSet, Vec<Point>)]| v.iter().map(|(l, _)| l.clone()).collect::<Vec<_>>();
            if order(x) == order(y) {
                None
            } else {
                difference(Kind::Order, format!("{:?} | {:?}", order(x), order(y)))
            }
        }),
        // Without series the two look alike.
        (a, b) => difference(Kind::ResultType, format!("{} | {}", a.kind(), b.kind())),
    }
}

/// Equal values may stand in any order.
fn same_values_in_order(a: &[(LabelSet, Point)], b: &[(LabelSet, Point)]) -> bool {
    a.iter().zip(b).all(|((_, a), (_, b))| distance(&a.value, &b.value) == 0.0)
}

fn as_rows(v: &[(LabelSet, Point)]) -> Vec<(LabelSet, Vec<Point>)> {
    v.iter().map(|(l, p)| (l.clone(), vec![p.clone()])).collect()
}

fn compare_rows(
    a: &[(LabelSet, Vec<Point>)],
    b: &[(LabelSet, Vec<Point>)],
    rules: Rules,
) -> Option<Difference> {
    let by_labels = |rows: &[(LabelSet, Vec<Point>)]| rows.iter().cloned().collect::<BTreeMap<_, _>>();
    let (left, right) = (by_labels(a), by_labels(b));
    if left.len() != a.len() || right.len() != b.len() {
        return difference(Kind::Series, "a series occurs twice in one answer".into());
    }
    if let Some((l, p)) = left.iter().find(|(l, _)| !right.contains_key(*l)) {
        return difference(Kind::Series, format!("{l:?} {} | nothing", samples(p)));
    }
    if let Some((l, p)) = right.iter().find(|(l, _)| !left.contains_key(*l)) {
        return difference(Kind::Series, format!("{l:?} nothing | {}", samples(p)));
    }
    let mut worst: Option<Difference> = None;
    for (labels, x) in &left {
        let Some(y) = right.get(labels) else { continue };
        let times = |p: &[Point]| p.iter().map(|p| p.timestamp).collect::<Vec<_>>();
        if times(x) != times(y) {
            return difference(Kind::Samples, format!("{labels:?} {} | {}", samples(x), samples(y)));
        }
        for (x, y) in x.iter().zip(y) {
            let relative = distance(&x.value, &y.value);
            if relative > rules.tolerance && worst.as_ref().is_none_or(|w| w.relative < relative) {
                let detail = format!("{labels:?} at {}: {:?} | {:?}", x.timestamp, x.value, y.value);
                let absolute = match (&x.value, &y.value) {
                    (Value::Float(a), Value::Float(b)) if (a - b).is_finite() => (a - b).abs(),
                    _ => f64::INFINITY,
                };
                worst = Some(Difference { kind: Kind::Value, detail, relative, absolute });
            }
        }
    }
    worst
}

/// How far values are apart, relative to the greater one.
fn distance(a: &Value, b: &Value) -> f64 {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => apart(*a, *b),
        (
            Value::Histogram { count: ca, sum: sa, buckets: ba },
            Value::Histogram { count: cb, sum: sb, buckets: bb },
        ) => {
            if ba.len() != bb.len() || ba.iter().zip(bb).any(|(a, b)| a.0 != b.0) {
                return f64::INFINITY;
            }
            let of_buckets =
                ba.iter().zip(bb).map(|(a, b)| apart(a.1, b.1).max(apart(a.2, b.2)).max(apart(a.3, b.3)));
            of_buckets.fold(apart(*ca, *cb).max(apart(*sa, *sb)), f64::max)
        }
        _ => f64::INFINITY,
    }
}

fn apart(a: f64, b: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let d = (a - b).abs() / a.abs().max(b.abs());
    if d.is_nan() { f64::INFINITY } else { d }
}

fn samples(points: &[Point]) -> String {
    let shown: Vec<String> =
        points.iter().take(20).map(|p| format!("{}@{}", value(&p.value), p.timestamp)).collect();
    shown.join(" ")
}

fn value(v: &Value) -> String {
    match v {
        Value::Float(f) => f.to_string(),
        Value::Histogram { count, sum, .. } => format!("{{count:{count} sum:{sum}}}"),
    }
}

fn shortened(data: &Data) -> String {
    let text = format!("{data:?}");
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(rows: &[(&str, f64)]) -> Answer {
        let row = |(l, v): &(&str, f64)| {
            let labels = LabelSet::from([("a".to_owned(), (*l).to_owned())]);
            (labels, Point { timestamp: 1.0, value: Value::Float(*v) })
        };
        let data = Data::Vector(rows.iter().map(row).collect());
        Answer::Given { data, warnings: Vec::new(), infos: Vec::new() }
    }

    #[test]
    fn tells_what_differs() {
        let check = |a: &[(&str, f64)], b: &[(&str, f64)], ordered, kind| {
            let rules = Rules { tolerance: 1e-12, ordered, annotations: true };
            let found = compare(&vector(a), &vector(b), rules);
            assert_eq!(found.map(|d| d.kind), kind, "{a:?} {b:?}");
        };
        check(&[("x", 1.0), ("y", f64::NAN)], &[("y", f64::NAN), ("x", 1.0)], false, None);
        check(&[("x", 1.0), ("y", 2.0)], &[("y", 2.0), ("x", 1.0)], true, Some(Kind::Order));
        check(&[("x", 1.0), ("y", 1.0)], &[("y", 1.0), ("x", 1.0)], true, None);
        check(&[("x", 1.0)], &[("x", 1.0 + 1e-13)], false, None);
        check(&[("x", 1.0)], &[("x", 1.0 + 1e-11)], false, Some(Kind::Value));
        check(&[("x", f64::INFINITY)], &[("x", 1.0)], false, Some(Kind::Value));
        check(&[("x", 1.0)], &[("y", 1.0)], false, Some(Kind::Series));
        check(&[("x", 1.0)], &[], false, Some(Kind::Series));
        let failed = Answer::Failed { kind: "execution".into(), text: String::new() };
        let rules = Rules { tolerance: 0.0, ordered: false, annotations: true };
        assert_eq!(compare(&failed, &vector(&[]), rules).map(|d| d.kind), Some(Kind::Outcome));
        assert_eq!(compare(&failed, &failed, rules), None);
    }
}
