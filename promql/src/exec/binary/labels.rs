//! Labels of the results of binary operators between vectors, and texts that name series.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#vector-matching>.

use model::labels::{METRIC_NAME, TYPE_LABEL, UNIT_LABEL};
use model::{Labels, LabelsBuilder};

use crate::exec::matching::group_labels;
use crate::functions::math::changes_meaning;
use crate::parser::ast::{BinaryOp, MatchCardinality, VectorMatching};

/// Labels of the result of `many` and `one`.
pub(crate) fn result_labels(
    many: &Labels,
    one: &Labels,
    op: BinaryOp,
    matching: &VectorMatching,
    drop_now: bool,
) -> Labels {
    let drops = drop_now || changes_meaning(op);
    let one_to_one = matching.card == MatchCardinality::OneToOne;
    let keep = |n: &str| {
        if drops && matches!(n, METRIC_NAME | TYPE_LABEL | UNIT_LABEL) {
            return false;
        }
        !one_to_one || matching.labels.iter().any(|l| l == n) == matching.on
    };
    let labels = many.filter(keep);
    if matching.include.is_empty() {
        return labels;
    }
    let mut b = LabelsBuilder::from_labels(&labels);
    for name in &matching.include {
        b.set(name, one.value(name));
    }
    b.build()
}

/// What is wrong when two series of the "one" side share a match group.
pub(crate) fn conflict_text(matching: &VectorMatching, a: &Labels, b: &Labels) -> String {
    let side = if matching.card == MatchCardinality::OneToMany { "left" } else { "right" };
    let (mut x, mut y) = (braced(a), braced(b));
    if x > y {
        std::mem::swap(&mut x, &mut y);
    }
    format!(
        "found duplicate series for the match group {} on the {side} hand-side of the operation: [{x}, {y}];many-to-many matching not allowed: matching labels must be unique on one side",
        braced(&group_labels(matching, a)),
    )
}

/// All labels between braces, the name among them.
pub(crate) fn braced(labels: &Labels) -> String {
    use std::fmt::Write;
    let mut out = String::from("{");
    for (i, (n, v)) in labels.iter().enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        let value = model::labels::Quoted(v);
        let _ = if model::labels::is_legacy_label_name(n) {
            write!(out, "{comma}{n}={value}")
        } else {
            write!(out, "{comma}{}={value}", model::labels::Quoted(n))
        };
    }
    out.push('}');
    out
}
