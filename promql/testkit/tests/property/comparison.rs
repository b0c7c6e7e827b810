//! When two answers are the same.
//!
//! Floats are compared by their bits, all NaNs being one, unless the expression holds something whose order of
//! operations nothing fixes; see [`Kind`].

use std::collections::{BTreeMap, BTreeSet};

use model::{FloatHistogram, Labels};
use promql::parser::ast::{AggregateOp, BinaryOp, Expr};
use promql::{PointValue, Value, VectorSample};

/// What the elements of an instant vector are sorted by.
#[derive(Clone, Copy, Debug)]
enum Order {
    None,
    Values,
    Labels,
}

/// Up to so many elements the order of ties is defined: that of insertion.
const TIES_MAX: usize = 12;

/// What about an expression is not defined to the last bit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// What the order of an instant vector says.
    order: Order,
    /// Relative difference of floats that is let pass.
    tolerance: f64,
}

impl Kind {
    pub(crate) fn of(expr: &Expr) -> Self {
        let order = match expr.without_parens() {
            Expr::Call(c) if c.func.name.starts_with("sort_by_label") => Order::Labels,
            Expr::Call(c) if c.func.name.starts_with("sort") => Order::Values,
            Expr::Aggregate(a)
                if matches!(a.op, AggregateOp::Topk | AggregateOp::Bottomk) && a.grouping.is_empty() =>
            {
                Order::Values
            }
            _ => Order::None,
        };
        let mut inexact = false;
        expr.walk(|e| inexact |= is_inexact(e));
        let order = if inexact { Order::None } else { order };
        Self { order, tolerance: if inexact { 1e-9 } else { 0.0 } }
    }

    /// Whether values may differ a little: then what is made of them, by rounding or comparing, may differ a lot, and a
    /// difference proves nothing.
    pub(crate) fn is_inexact(self) -> bool {
        self.tolerance > 0.0
    }

    fn floats(self, a: f64, b: f64) -> bool {
        if a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) {
            return true;
        }
        self.tolerance > 0.0 && (a - b).abs() <= self.tolerance * a.abs().max(b.abs())
    }

    fn histograms(self, a: &FloatHistogram, b: &FloatHistogram) -> bool {
        let (mut a, mut b) = (a.clone(), b.clone());
        a.compact(0);
        b.compact(0);
        let lists =
            |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.floats(*a, *b));
        a.counter_reset_hint == b.counter_reset_hint
            && a.schema == b.schema
            && a.positive_spans == b.positive_spans
            && a.negative_spans == b.negative_spans
            && lists(
                &[a.zero_threshold, a.zero_count, a.count, a.sum],
                &[b.zero_threshold, b.zero_count, b.count, b.sum],
            )
            && lists(&a.positive_buckets, &b.positive_buckets)
            && lists(&a.negative_buckets, &b.negative_buckets)
            && lists(&a.custom_values, &b.custom_values)
    }

    /// Of many elements, those that compare equal may come in any order.
    fn same_order(self, a: &[VectorSample], b: &[VectorSample]) -> bool {
        let mut pairs = a.iter().zip(b);
        let labels = |(a, b): (&VectorSample, &VectorSample)| a.labels == b.labels;
        match self.order {
            Order::None => true,
            _ if a.len() <= TIES_MAX => pairs.all(labels),
            Order::Values => pairs.all(|(a, b)| match (&a.value, &b.value) {
                (PointValue::Float(a), PointValue::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
                _ => false,
            }),
            Order::Labels => {
                // A label that some have not got contradicts natural order.
                let names = |s: &VectorSample| s.labels.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>();
                a.windows(2).any(|w| names(&w[0]) != names(&w[1])) || pairs.all(labels)
            }
        }
    }

    fn points(self, a: &PointValue, b: &PointValue) -> bool {
        match (a, b) {
            (PointValue::Float(a), PointValue::Float(b)) => self.floats(*a, *b),
            (PointValue::Histogram(a), PointValue::Histogram(b)) => self.histograms(a, b),
            _ => false,
        }
    }
}

/// Logarithms, powers, trigonometric and hyperbolic functions: the engine computes them in the steps of Prometheus's
/// runtime, the reference does not.
fn is_inexact(e: &Expr) -> bool {
    match e {
        Expr::Binary(b) => {
            matches!(b.op, BinaryOp::Pow | BinaryOp::Atan2 | BinaryOp::TrimLower | BinaryOp::TrimUpper)
        }
        Expr::Call(c) => {
            matches!(c.func.name, "exp" | "ln" | "log2" | "log10")
                || ["sin", "cos", "tan"].iter().any(|f| c.func.name.trim_start_matches('a').starts_with(f))
                || c.func.name.starts_with("histogram_quantile")
                || c.func.name == "histogram_fraction"
        }
        _ => false,
    }
}

/// The first difference of two answers.
pub(crate) fn difference(kind: Kind, engine: &Value, reference: &Value) -> Option<String> {
    match (engine, reference) {
        (Value::Scalar { value: a, .. }, Value::Scalar { value: b, .. }) => {
            (!kind.floats(*a, *b)).then(|| format!("scalar {a} and {b}"))
        }
        (Value::String { value: a, .. }, Value::String { value: b, .. }) => {
            (a != b).then(|| format!("string {a:?} and {b:?}"))
        }
        (Value::Vector(a), Value::Vector(b)) => {
            if !kind.same_order(a, b) {
                return Some("the order".to_owned());
            }
            maps(kind, samples(engine), samples(reference))
        }
        (Value::Matrix(_), Value::Matrix(_)) => maps(kind, samples(engine), samples(reference)),
        _ => Some("the type".to_owned()),
    }
}

/// Whether two plans gave the same: values to the bit, in the same order, with the same annotations. How often something
/// happened is not compared, nor whether sorting was in vain: only the optimised plan evaluates once what does not change.
/// For the same reason something `pinned` may have another order: what is sorted inside stays so only there.
pub(crate) fn identical(a: &(Value, Vec<String>), b: &(Value, Vec<String>), pinned: bool) -> bool {
    let notes = |n: &[String]| {
        let mut n = stripped(n);
        n.retain(|n| !n.contains("sort is ineffective"));
        n
    };
    // The debug text shows every digit, and all NaNs alike.
    let text = |v: &Value| match v {
        Value::Vector(v) if pinned => {
            let mut v: Vec<String> = v.iter().map(|s| format!("{s:?}")).collect();
            v.sort_unstable();
            v.concat()
        }
        v => format!("{v:?}"),
    };
    text(&a.0) == text(&b.0) && notes(&a.1) == notes(&b.1)
}

type Samples = BTreeMap<(Labels, i64, bool), PointValue>;

fn samples(value: &Value) -> Samples {
    match value {
        Value::Vector(v) => v
            .iter()
            .map(|s| {
                let float = matches!(s.value, PointValue::Float(_));
                ((s.labels.clone(), s.timestamp_ms, float), s.value.clone())
            })
            .collect(),
        Value::Matrix(m) => m
            .iter()
            .flat_map(|s| {
                let floats =
                    s.floats.iter().map(|(t, v)| ((s.labels.clone(), *t, true), PointValue::Float(*v)));
                let histograms = s
                    .histograms
                    .iter()
                    .map(|(t, h)| ((s.labels.clone(), *t, false), PointValue::Histogram(h.clone())));
                floats.chain(histograms)
            })
            .collect(),
        _ => Samples::new(),
    }
}

fn maps(kind: Kind, a: Samples, b: Samples) -> Option<String> {
    for (key, v) in &a {
        match b.get(key) {
            None => return Some(format!("only the engine has {} at {}", key.0, key.1)),
            Some(w) if !kind.points(v, w) => {
                return Some(format!("{} at {}:\n  engine    {v:?}\n  reference {w:?}", key.0, key.1));
            }
            Some(_) => {}
        }
    }
    let missing = b.keys().find(|k| !a.contains_key(*k))?;
    Some(format!("only the reference has {} at {}", missing.0, missing.1))
}

/// Annotations without what the reference does not say: positions, counts, and the extent of forced monotonicity.
pub(crate) fn stripped(notes: &[String]) -> BTreeSet<String> {
    notes
        .iter()
        .map(|n| {
            let n = n.rsplit_once(" (").map_or(n.as_str(), |(text, _)| text);
            let n = match n.rsplit_once(" (") {
                Some((text, rest)) if rest.ends_with("occurrences)") => text,
                _ => n,
            };
            n.split_once(", from buckets").map_or(n, |(text, _)| text).to_owned()
        })
        .collect()
}
