//! `anchored` and `smoothed`.

use promql::parser::ast::Boundary;

use super::histogram::Hist;
use super::select::{Source, Window};
use super::window::Frame;
use super::{Evaluator, Point};
use model::histogram::CounterResetHint;
use model::labels::Quoted;

/// The value at `t` of a line through two points. A counter that fell has begun at zero.
fn interpolate(a: (i64, f64), b: (i64, f64), t: i64, counter: bool) -> f64 {
    let from = if counter && b.1 < a.1 { 0.0 } else { a.1 };
    from + (b.1 - from) * (t - a.0) as f64 / (b.0 - a.0) as f64
}

fn interpolate_hists(
    e: &Evaluator<'_>,
    name: &str,
    a: &(i64, Hist),
    b: &(i64, Hist),
    t: i64,
    counter: bool,
) -> Option<Hist> {
    if t == a.0 {
        return Some(a.1.clone());
    }
    if t == b.0 {
        return Some(b.1.clone());
    }
    let fraction = (t - a.0) as f64 / (b.0 - a.0) as f64;
    if counter && b.1.is_reset_after(&a.1) {
        return Some(b.1.clone().mul(fraction));
    }
    let mut out = b.1.clone();
    if !subtract(e, name, &mut out, &a.1) {
        return None;
    }
    out = out.mul(fraction);
    add(e, name, &mut out, &a.1).then_some(out)
}

pub(super) fn mixed_schemas(e: &Evaluator<'_>, name: &str) {
    e.warn(format_args!(
        "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
        Quoted(name)
    ));
}

pub(super) fn reconciled(e: &Evaluator<'_>, what: &str) {
    e.info(format_args!("mismatched custom buckets were reconciled during {what}"));
}

pub(super) fn add(e: &Evaluator<'_>, name: &str, h: &mut Hist, other: &Hist) -> bool {
    match h.add(other) {
        Ok(met) => {
            if met.reconciled {
                reconciled(e, "addition");
            }
            true
        }
        Err(_) => {
            mixed_schemas(e, name);
            false
        }
    }
}

pub(super) fn subtract(e: &Evaluator<'_>, name: &str, h: &mut Hist, other: &Hist) -> bool {
    match h.sub(other) {
        Ok(met) => {
            if met.reconciled {
                reconciled(e, "subtraction");
            }
            true
        }
        Err(_) => {
            mixed_schemas(e, name);
            false
        }
    }
}

/// A `smoothed` instant selector at one moment.
pub(super) fn smoothed_at(e: &Evaluator<'_>, s: &Source, t: i64, lookback: i64) -> Option<Point> {
    let w = s.window(t - lookback, t + lookback);
    let name = s.labels.metric_name();
    if !w.floats.is_empty() && !w.hists.is_empty() {
        e.warn(format_args!("encountered a mix of histograms and floats for metric name {}", Quoted(name)));
        return None;
    }
    if !w.hists.is_empty() {
        let next = w.hists.iter().position(|(ht, _)| *ht >= t);
        return match next {
            Some(i) if w.hists[i].0 == t => Some(Point::Hist(w.hists[i].1.clone())),
            Some(0) => None,
            Some(i) => {
                let (a, b) = (&w.hists[i - 1], &w.hists[i]);
                if a.1.is_custom() != b.1.is_custom() {
                    mixed_schemas(e, name);
                    return None;
                }
                let gauge = CounterResetHint::Gauge;
                let counter = a.1.hint != gauge || b.1.hint != gauge;
                interpolate_hists(e, name, a, b, t, counter).map(Point::Hist)
            }
            None => w
                .hists
                .last()
                .map(|(_, h)| Point::Hist(Hist { hint: CounterResetHint::Unknown, ..h.clone() })),
        };
    }
    match w.floats.iter().position(|(ft, _)| *ft >= t) {
        Some(i) if w.floats[i].0 == t => Some(Point::Float(w.floats[i].1)),
        Some(0) => None,
        Some(i) => Some(Point::Float(interpolate(w.floats[i - 1], w.floats[i], t, false))),
        None => w.floats.last().map(|(_, v)| Point::Float(*v)),
    }
}

/// First and last sample that count; `None` when nothing lies in the window.
fn ends(times: &[i64], f: &Frame<'_>) -> Option<(usize, usize)> {
    let smoothed = f.boundary == Boundary::Smoothed;
    let mut last = times.len() - 1;
    let after = times[..last].iter().position(|t| *t > f.start).unwrap_or(last);
    let first = after.saturating_sub(1);
    if smoothed {
        last = times[..last].iter().position(|t| *t >= f.end).unwrap_or(last);
    }
    if times[last] <= f.start || (smoothed && times[first] > f.end) {
        return None;
    }
    Some((first, last))
}

/// `rate`, `increase` and `delta` over `anchored` and `smoothed` windows.
pub(super) fn growth(
    e: &Evaluator<'_>,
    w: &Window,
    f: &Frame<'_>,
    counter: bool,
    rate: bool,
) -> Option<Point> {
    match (w.floats.is_empty(), w.hists.is_empty()) {
        (true, true) => None,
        (false, false) => {
            e.warn(format_args!(
                "encountered a mix of histograms and floats for metric name {}",
                Quoted(f.name())
            ));
            None
        }
        (false, true) => float_growth(&w.floats, f, counter, rate),
        (true, false) => hist_growth(e, &w.hists, f, counter, rate).map(Point::Hist),
    }
}

fn float_growth(p: &[(i64, f64)], f: &Frame<'_>, counter: bool, rate: bool) -> Option<Point> {
    let smoothed = f.boundary == Boundary::Smoothed;
    let times: Vec<i64> = p.iter().map(|p| p.0).collect();
    let (first, last) = ends(&times, f)?;
    let left = if smoothed && p[first].0 < f.start {
        interpolate(p[first], p[first + 1], f.start, counter)
    } else {
        p[first].1
    };
    let right = if smoothed && last > 0 && p[last].0 > f.end {
        interpolate(p[last - 1], p[last], f.end, counter)
    } else {
        p[last].1
    };
    let mut result = right - left;
    if counter {
        let from = if p[first].0 <= f.start { first + 1 } else { first };
        let to = if p[last].0 >= f.end { last } else { last + 1 };
        let (mut correction, mut previous) = (0.0, left);
        for (_, v) in p.get(from..to).unwrap_or_default() {
            if *v < previous {
                correction += previous;
            }
            previous = *v;
        }
        if right < previous {
            correction += previous;
        }
        result += correction;
    }
    if rate {
        result /= f.range as f64 / 1000.0;
    }
    Some(Point::Float(result))
}

fn hist_growth(
    e: &Evaluator<'_>,
    p: &[(i64, Hist)],
    f: &Frame<'_>,
    counter: bool,
    rate: bool,
) -> Option<Hist> {
    let smoothed = f.boundary == Boundary::Smoothed;
    let gauge = CounterResetHint::Gauge;
    let name = f.name();
    let times: Vec<i64> = p.iter().map(|p| p.0).collect();
    let (first, last) = ends(&times, f)?;
    for (_, h) in &p[first..=last] {
        if h.is_custom() != p[first].1.is_custom() {
            mixed_schemas(e, name);
            return None;
        }
        if counter && h.hint == gauge {
            e.warn(format_args!("this native histogram metric is not a counter: {}", Quoted(name)));
        }
    }
    let left = if smoothed && p[first].0 < f.start {
        interpolate_hists(e, name, &p[first], &p[first + 1], f.start, counter)?
    } else {
        p[first].1.clone()
    };
    let right = if smoothed && last > 0 && p[last].0 > f.end {
        interpolate_hists(e, name, &p[last - 1], &p[last], f.end, counter)?
    } else {
        p[last].1.clone()
    };
    if !counter && (left.hint != gauge || right.hint != gauge) {
        e.warn(format_args!("this native histogram metric is not a gauge: {}", Quoted(name)));
    }
    let mut result = right.clone();
    if !subtract(e, name, &mut result, &left) {
        return None;
    }
    if counter
        && let Some(c) = correction(e, p, (first, last), (&left, &right), f)?
        && !add(e, name, &mut result, &c)
    {
        return None;
    }
    if rate {
        result = result.div(f.range as f64 / 1000.0);
    }
    result.hint = gauge;
    Some(result.compact())
}

/// What resets took away. The outer `None`: it cannot be added up.
#[allow(clippy::option_option)]
fn correction(
    e: &Evaluator<'_>,
    p: &[(i64, Hist)],
    (first, last): (usize, usize),
    (left, right): (&Hist, &Hist),
    f: &Frame<'_>,
) -> Option<Option<Hist>> {
    let (mut from, mut previous) = (first + 1, left);
    let smoothed = f.boundary == Boundary::Smoothed;
    if smoothed && p[first].0 < f.start && p[first + 1].1.is_reset_after(&p[first].1) {
        previous = &p[first + 1].1;
        from += 1;
    }
    if from > last {
        return Some(None);
    }
    let mut sum: Option<Hist> = None;
    for h in p[from..last].iter().map(|p| &p.1).chain([right]) {
        if h.is_reset_after(previous) {
            match &mut sum {
                None => sum = Some(previous.clone()),
                Some(s) => {
                    if !add(e, f.name(), s, previous) {
                        return None;
                    }
                }
            }
        }
        previous = h;
    }
    Some(sum)
}
