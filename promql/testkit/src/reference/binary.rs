//! Binary operations. Partners are looked for among all series of the other side.

use std::collections::{BTreeMap, BTreeSet};

use model::labels::Quoted;
use model::{Labels, LabelsBuilder};
use promql::parser::ast::{Binary, BinaryOp, MatchCardinality, ValueType, VectorMatching};

use super::histogram::Hist;
use super::{Evaluated, Evaluator, Grid, Point, Row, Steps, quantile};
use model::histogram::CounterResetHint;

/// What two samples give. `keep` is the outcome of a comparison.
struct Outcome {
    point: Point,
    keep: bool,
    /// What is to be said.
    note: Option<String>,
}

impl Evaluator<'_> {
    pub(super) fn binary(&self, b: &Binary, grid: Grid) -> Evaluated {
        let (l, r) = (self.eval(&b.lhs, grid)?, self.eval(&b.rhs, grid)?);
        let vectors = match (l, r) {
            (Steps::Scalars(l), Steps::Scalars(r)) => {
                let out = l.into_iter().zip(r).map(|(l, r)| scalars(b.op, l, r)).collect();
                return Ok(Steps::Scalars(out));
            }
            (Steps::Vectors(v), Steps::Scalars(s)) => {
                v.into_iter().zip(s).map(|(v, s)| self.with_scalar(b, v, s, false)).collect()
            }
            (Steps::Scalars(s), Steps::Vectors(v)) => {
                v.into_iter().zip(s).map(|(v, s)| self.with_scalar(b, v, s, true)).collect()
            }
            (Steps::Vectors(l), Steps::Vectors(r)) => {
                let matching = b.matching.as_ref().expect("both are vectors");
                let mut out = Vec::new();
                for (l, r) in l.into_iter().zip(r) {
                    out.push(if b.op.is_set() {
                        set_operation(b.op, matching, l, r)
                    } else {
                        self.matched(b, matching, &l, &r)?
                    });
                }
                out
            }
            _ => unreachable!("the parser checked: {:?}", ValueType::String),
        };
        self.settled(vectors, grid).map(Steps::Vectors)
    }

    /// What there is to say about one step.
    fn say(&self, notes: BTreeSet<String>) {
        if notes.len() == 1 {
            self.notes.borrow_mut().extend(notes);
        } else {
            self.possible_notes.borrow_mut().extend(notes);
        }
    }

    fn with_scalar(&self, b: &Binary, rows: Vec<Row>, scalar: f64, swap: bool) -> Vec<Row> {
        let (mut out, mut notes) = (Vec::new(), BTreeSet::new());
        for row in rows {
            let number = Point::Float(scalar);
            let (l, r) = if swap { (&number, &row.point) } else { (&row.point, &number) };
            let outcome = match elements(b.op, l, r) {
                Ok(o) => o,
                Err(text) => {
                    notes.insert(text);
                    continue;
                }
            };
            let mut point = outcome.point;
            if b.op.is_comparison() && swap {
                point = row.point.clone();
            }
            if b.return_bool {
                point = Point::Float(f64::from(u8::from(outcome.keep)));
            } else if !outcome.keep {
                continue;
            }
            let drops = changes_schema(b.op) || b.return_bool;
            let labels = if drops { self.without_name(&row.labels) } else { row.labels.clone() };
            out.push(Row { labels, drop_name: row.drop_name || drops, point });
        }
        self.say(notes);
        out
    }

    fn matched(&self, b: &Binary, m: &VectorMatching, l: &[Row], r: &[Row]) -> Result<Vec<Row>, String> {
        let fills = m.fill_left.is_some() || m.fill_right.is_some();
        if (l.is_empty() && r.is_empty()) || ((l.is_empty() || r.is_empty()) && !fills) {
            return Ok(Vec::new());
        }
        let swap = m.card == MatchCardinality::OneToMany;
        let (many, one) = if swap { (r, l) } else { (l, r) };
        for (i, row) in one.iter().enumerate() {
            if one[..i].iter().any(|o| signature(m, &o.labels) == signature(m, &row.labels)) {
                return Err("found duplicate series for the match group".to_owned());
            }
        }
        // The sides are the written ones, whichever is the one with many.
        let (fill_many, fill_one) = (m.fill_left, m.fill_right);
        let mut work = Matched {
            e: self,
            b,
            m,
            swap,
            out: Vec::new(),
            notes: BTreeSet::new(),
            taken: BTreeSet::new(),
            inserted: BTreeMap::new(),
        };
        for row in many {
            let partner = one.iter().find(|o| signature(m, &o.labels) == signature(m, &row.labels));
            match (partner, fill_one) {
                (Some(o), _) => work.pair(row, o)?,
                (None, Some(v)) => {
                    let filled = Row::float(match_labels(m, &row.labels), false, v);
                    work.pair(row, &filled)?;
                }
                (None, None) => {}
            }
        }
        if let Some(v) = fill_many {
            for row in one {
                let key = signature(m, &row.labels);
                if !work.taken.contains(&key) {
                    let filled = Row::float(match_labels(m, &row.labels), false, v);
                    work.pair(&filled, row)?;
                }
            }
        }
        let (out, notes) = (work.out, work.notes);
        self.say(notes);
        Ok(out)
    }
}

/// The state of matching two vectors.
struct Matched<'a, 'd> {
    e: &'a Evaluator<'d>,
    b: &'a Binary,
    m: &'a VectorMatching,
    swap: bool,
    out: Vec<Row>,
    notes: BTreeSet<String>,
    taken: BTreeSet<Labels>,
    inserted: BTreeMap<Labels, BTreeSet<Labels>>,
}

impl Matched<'_, '_> {
    fn pair(&mut self, many: &Row, one: &Row) -> Result<(), String> {
        let (l, r) = if self.swap { (one, many) } else { (many, one) };
        let outcome = match elements(self.b.op, &l.point, &r.point) {
            Ok(o) => o,
            Err(text) => {
                self.notes.insert(text);
                return Ok(());
            }
        };
        self.notes.extend(outcome.note);
        let point =
            if self.b.return_bool { Point::Float(f64::from(u8::from(outcome.keep))) } else { outcome.point };
        let labels = self.result_labels(many, one);
        let key = signature(self.m, &many.labels);
        if self.m.card == MatchCardinality::OneToOne {
            if !self.taken.insert(key) {
                return Err("multiple matches for labels: many-to-one matching must be explicit".to_owned());
            }
        } else {
            self.taken.insert(key.clone());
            if !self.inserted.entry(key).or_default().insert(labels.clone()) {
                return Err(
                    "multiple matches for labels: grouping labels must ensure unique matches".to_owned()
                );
            }
        }
        if outcome.keep || self.b.return_bool {
            self.out.push(Row { labels, drop_name: self.b.return_bool, point });
        }
        Ok(())
    }

    fn result_labels(&self, many: &Row, one: &Row) -> Labels {
        let m = self.m;
        let drops =
            (!self.e.settings.delayed_name_removal && self.b.return_bool) || changes_schema(self.b.op);
        let named = |n: &str| m.labels.iter().any(|l| l == n);
        let kept = many.labels.filter(|n| {
            let stays = m.card != MatchCardinality::OneToOne || named(n) == m.on;
            stays && !(drops && n == "__name__")
        });
        let mut out = LabelsBuilder::from_labels(&kept);
        for name in &m.include {
            match one.labels.value(name) {
                "" => out.del(name),
                v => out.set(name, v),
            };
        }
        out.build()
    }
}

fn changes_schema(op: BinaryOp) -> bool {
    use BinaryOp::{Add, Atan2, Div, Mod, Mul, Pow, Sub};
    matches!(op, Add | Sub | Div | Mul | Pow | Mod | Atan2)
}

/// Series with the same signature are partners.
fn signature(m: &VectorMatching, labels: &Labels) -> Labels {
    labels.filter(|n| {
        let named = m.labels.iter().any(|l| l == n);
        if m.on { named } else { !named && n != "__name__" }
    })
}

/// The labels of a sample that was filled in.
fn match_labels(m: &VectorMatching, labels: &Labels) -> Labels {
    signature(m, labels)
}

fn set_operation(op: BinaryOp, m: &VectorMatching, l: Vec<Row>, r: Vec<Row>) -> Vec<Row> {
    let there =
        |rows: &[Row], row: &Row| rows.iter().any(|o| signature(m, &o.labels) == signature(m, &row.labels));
    match op {
        BinaryOp::And => l.into_iter().filter(|x| there(&r, x)).collect(),
        BinaryOp::Unless => l.into_iter().filter(|x| !there(&r, x)).collect(),
        _ => {
            let more: Vec<Row> = r.into_iter().filter(|x| !there(&l, x)).collect();
            l.into_iter().chain(more).collect()
        }
    }
}

fn scalars(op: BinaryOp, l: f64, r: f64) -> f64 {
    let truth = |b: bool| f64::from(u8::from(b));
    match op {
        BinaryOp::Add => l + r,
        BinaryOp::Sub => l - r,
        BinaryOp::Mul => l * r,
        BinaryOp::Div => l / r,
        BinaryOp::Mod => l % r,
        BinaryOp::Pow => go_pow(l, r),
        BinaryOp::Atan2 => l.atan2(r),
        other => truth(compares(other, l, r)),
    }
}

fn compares(op: BinaryOp, l: f64, r: f64) -> bool {
    match op {
        BinaryOp::Eq => l == r,
        BinaryOp::NotEq => l != r,
        BinaryOp::Less => l < r,
        BinaryOp::LessEq => l <= r,
        BinaryOp::Greater => l > r,
        BinaryOp::GreaterEq => l >= r,
        _ => false,
    }
}

/// Rust and Go agree on the special cases of powers but for none.
fn go_pow(l: f64, r: f64) -> f64 {
    l.powf(r)
}

/// `Err` is what is said of a pair that gives nothing.
fn elements(op: BinaryOp, l: &Point, r: &Point) -> Result<Outcome, String> {
    let kind = |p: &Point| if matches!(p, Point::Float(_)) { "float" } else { "histogram" };
    let incompatible = || {
        Err(format!(
            "PromQL info: incompatible sample types encountered for binary operator {}: {} {} {}",
            Quoted(op.as_str()),
            kind(l),
            op.as_str(),
            kind(r)
        ))
    };
    let plain = |h: Hist| Ok(Outcome { point: Point::Hist(h), keep: true, note: None });
    match (l, r) {
        (Point::Float(a), Point::Float(b)) => match op {
            BinaryOp::TrimLower | BinaryOp::TrimUpper => incompatible(),
            op if op.is_comparison() => {
                Ok(Outcome { point: Point::Float(*a), keep: compares(op, *a, *b), note: None })
            }
            op => Ok(Outcome { point: Point::Float(scalars(op, *a, *b)), keep: true, note: None }),
        },
        (Point::Float(a), Point::Hist(h)) => match op {
            BinaryOp::Mul => plain(h.clone().mul(*a).compact()),
            _ => incompatible(),
        },
        (Point::Hist(h), Point::Float(b)) => match op {
            BinaryOp::Mul => plain(h.clone().mul(*b).compact()),
            BinaryOp::Div => plain(h.clone().div(*b).compact()),
            BinaryOp::TrimUpper => plain(quantile::trim(h, *b, true)),
            BinaryOp::TrimLower => plain(quantile::trim(h, *b, false)),
            _ => incompatible(),
        },
        (Point::Hist(a), Point::Hist(b)) => match op {
            BinaryOp::Add | BinaryOp::Sub => {
                let minus = op == BinaryOp::Sub;
                let mut out = a.clone();
                let met = if minus { out.sub(b) } else { out.add(b) };
                let Ok(met) = met else {
                    return Err(format!(
                        "PromQL warning: incompatible bucket layout encountered for binary operator {}",
                        op.as_str()
                    ));
                };
                let what = if minus { "subtraction" } else { "addition" };
                if minus {
                    out.hint = CounterResetHint::Gauge;
                }
                if met.collision {
                    // A pair that is complained about in earnest gives nothing.
                    return Err(format!(
                        "PromQL warning: conflicting counter resets during histogram {what}"
                    ));
                }
                let note = met
                    .reconciled
                    .then(|| format!("PromQL info: mismatched custom buckets were reconciled during {what}"));
                Ok(Outcome { point: Point::Hist(out.compact()), keep: true, note })
            }
            BinaryOp::Eq => Ok(Outcome { point: Point::Hist(a.clone()), keep: a.equals(b), note: None }),
            BinaryOp::NotEq => Ok(Outcome { point: Point::Hist(a.clone()), keep: !a.equals(b), note: None }),
            _ => incompatible(),
        },
    }
}
