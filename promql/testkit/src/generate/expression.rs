//! Random well-typed expressions.

use promql::parser::operators::AggregateOp;

use super::Profile;
use super::data::LABELS;
use super::rng::Rng;
use super::selector::Want;

/// Writes one expression.
pub(super) struct Writer<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) profile: &'a Profile,
    pub(super) start_ms: i64,
    /// How many subqueries surround the place.
    pub(super) subqueries: u32,
}

pub(super) fn generate(rng: &mut Rng, profile: &Profile, start_ms: i64) -> String {
    let depth = rng.between(1, i64::from(profile.max_depth.max(1))) as u32;
    let mut w = Writer { rng, profile, start_ms, subqueries: 0 };
    match w.rng.below(40) {
        0 => w.scalar(depth),
        1 => w.quoted(),
        _ => w.vector(depth),
    }
}

#[derive(Clone, Copy)]
enum Form {
    Selector,
    Window,
    Call,
    Aggregate,
    Binary,
    Histogram,
    Negated,
    Constant,
}

impl Writer<'_> {
    /// An instant vector.
    pub(super) fn vector(&mut self, depth: u32) -> String {
        if depth == 0 {
            let constant = self.rng.chance(6);
            return if constant { self.constant() } else { self.instant_selector(Want::Anything) };
        }
        let form = self.rng.weighted(&[
            (12, Form::Selector),
            (26, Form::Window),
            (16, Form::Call),
            (22, Form::Aggregate),
            (24, Form::Binary),
            (9, Form::Histogram),
            (3, Form::Negated),
            (1, Form::Constant),
        ]);
        match form {
            Form::Selector => self.instant_selector(Want::Anything),
            Form::Window => self.window_call(depth),
            Form::Call => self.vector_call(depth),
            Form::Aggregate => self.aggregation(depth),
            Form::Binary => self.binary(depth),
            Form::Histogram => self.histogram_call(depth),
            Form::Negated => {
                let inner = self.operand(depth - 1);
                format!("{}{inner}", self.rng.pick(&["-", "-", "+"]))
            }
            Form::Constant => self.constant(),
        }
    }

    /// A vector about one kind of series, if possible.
    pub(super) fn vector_of(&mut self, want: Want, depth: u32) -> String {
        if depth == 0 || self.rng.chance(40) { self.instant_selector(want) } else { self.vector(depth) }
    }

    /// A vector that can stand beside any operator.
    pub(super) fn operand(&mut self, depth: u32) -> String {
        let inner = self.vector(depth);
        format!("({inner})")
    }

    fn constant(&mut self) -> String {
        let number = self.number();
        format!("vector({number})")
    }

    /// A scalar.
    pub(super) fn scalar(&mut self, depth: u32) -> String {
        if depth == 0 || self.rng.chance(60) {
            return self.number();
        }
        match self.rng.below(8) {
            0 | 1 => {
                let inner = self.vector(depth - 1);
                format!("scalar({inner})")
            }
            2 => "time()".to_owned(),
            3 => "pi()".to_owned(),
            4 if self.profile.experimental_functions => {
                let (f, a, b) = (self.rng.pick(&["min_of", "max_of"]), self.number(), self.scalar(depth - 1));
                format!("{f}({a}, {b})")
            }
            5 if self.profile.experimental_functions => {
                self.rng.pick(&["start()", "end()", "step()", "range()"]).to_owned()
            }
            6 => {
                let inner = self.scalar(depth - 1);
                format!("-({inner})")
            }
            _ => {
                let (a, b) = (self.scalar(depth - 1), self.scalar(depth - 1));
                let op =
                    self.rng.pick(&["+", "-", "*", "/", "%", "^", "atan2", "== bool", "> bool", "<= bool"]);
                format!("(({a}) {op} ({b}))")
            }
        }
    }

    /// A literal.
    pub(super) fn number(&mut self) -> String {
        if self.profile.extreme_values && self.rng.chance(8) {
            return (self.rng.pick(&["NaN", "Inf", "-Inf", "-0", "1e300", "5e-324", "0.1", "-1e-310"]))
                .to_owned();
        }
        if self.profile.recent_syntax && self.rng.chance(5) {
            return self.rng.pick(&["1m", "5m30s", "1_000", "0x1f", "010"]).to_owned();
        }
        (self.rng.pick(&["0", "1", "2", "3", "-1", "0.5", "10", "-7", "100", "1.5", "60", "0x10"])).to_owned()
    }

    /// A number for a quantile or ratio.
    pub(super) fn fraction(&mut self, depth: u32) -> String {
        if self.rng.chance(5) {
            return self.scalar(depth);
        }
        let odd = self.profile.extreme_values && self.rng.chance(8);
        let all: &[&str] = if odd {
            &["NaN", "-0.1", "1.5", "Inf", "-Inf"]
        } else {
            &["0", "0.1", "0.25", "0.5", "0.5", "0.75", "0.9", "0.99", "1"]
        };
        self.rng.pick(all).to_owned()
    }

    fn quoted(&mut self) -> String {
        self.rng.pick(&["\"text\"", "'a\\n\"b'", "`raw\\n`", "\"\"", "(\"in\")"]).to_owned()
    }

    /// Some labels, separated.
    pub(super) fn label_list(&mut self, percent: u64) -> String {
        let mut labels = self.rng.subset(&LABELS, percent);
        if self.rng.chance(5) {
            labels.push("nolabel");
        }
        if self.rng.chance(4) {
            labels.push("__name__");
        }
        if self.profile.recent_syntax && self.rng.chance(4) {
            labels.push("\"data.center\"");
        }
        labels.join(", ")
    }

    // === Aggregations ===

    fn aggregation(&mut self, depth: u32) -> String {
        let mut op = self.rng.pick(&AggregateOp::ALL);
        // The plain ones are what everybody uses.
        if self.rng.chance(35) || (op.is_experimental() && !self.profile.experimental_functions) {
            op = self.rng.pick(&[AggregateOp::Sum, AggregateOp::Sum, AggregateOp::Avg, AggregateOp::Max]);
        }
        let clause = match self.rng.below(10) {
            0..=4 => format!("by ({})", self.label_list(45)),
            5 | 6 => format!("without ({})", self.label_list(40)),
            _ => String::new(),
        };
        let want = self.rng.pick(&[Want::Anything, Want::Anything, Want::Gauge, Want::Native]);
        let inner = self.vector_of(want, depth - 1);
        let args = match self.parameter(op, depth) {
            Some(p) => format!("({p}, {inner})"),
            None => format!("({inner})"),
        };
        match (clause.is_empty(), self.rng.chance(50)) {
            (true, _) => format!("{}{args}", op.as_str()),
            (false, true) => format!("{} {clause} {args}", op.as_str()),
            (false, false) => format!("{}{args} {clause}", op.as_str()),
        }
    }

    fn parameter(&mut self, op: AggregateOp, depth: u32) -> Option<String> {
        Some(match op {
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk => {
                let odd = self.profile.extreme_values && self.rng.chance(6);
                if odd {
                    return Some(self.scalar(depth - 1));
                }
                self.rng.pick(&["1", "2", "2", "3", "5", "100", "0", "-1", "2.7"]).to_owned()
            }
            AggregateOp::LimitRatio => {
                (self.rng.pick(&["0.5", "-0.5", "0.3", "-0.7", "1", "-1", "0", "0.9", "1.5", "-2"]))
                    .to_owned()
            }
            AggregateOp::Quantile => self.fraction(depth - 1),
            AggregateOp::CountValues => {
                self.rng.pick(&["\"value\"", "\"value\"", "\"job\"", "\"mode\""]).to_owned()
            }
            _ => return None,
        })
    }
}
