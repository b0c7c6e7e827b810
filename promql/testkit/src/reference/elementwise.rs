//! Functions over instant vectors and scalars.

use std::collections::{BTreeMap, BTreeSet};

use model::labels::Quoted;
use model::{Labels, LabelsBuilder, MatchOp, Matcher, Regexp};
use promql::parser::ast::{Call, Expr, ValueType};

use super::histogram::Hist;
use super::quantile::{self, Le, NanEffect};
use super::{Evaluated, Evaluator, Grid, Point, Row, Steps, unique_of_a_kind};

/// Labels that the matchers demand, for `absent`.
pub(super) fn absent_labels(matchers: &[Matcher]) -> Labels {
    let (mut out, mut had) = (BTreeMap::new(), BTreeSet::new());
    // Those that narrow the series down come before those that take series away.
    let mut ordered: Vec<&Matcher> = matchers.iter().filter(|m| m.name != "__name__").collect();
    ordered.sort_by_key(|m| {
        let demanded = matchers.iter().any(|o| o.name == m.name && !o.matches(""));
        let negative = m.op == MatchOp::NotEqual || m.op == MatchOp::NotRegexp;
        !demanded || (negative && m.matches(""))
    });
    for m in ordered {
        if m.op == MatchOp::Equal && had.insert(m.name.as_str()) {
            out.insert(m.name.as_str(), m.value.as_str());
        } else {
            out.remove(m.name.as_str());
        }
    }
    Labels::from_pairs(out.into_iter().filter(|(_, v)| !v.is_empty()))
}

type NativeRows<'r> = Vec<(&'r Row, &'r Hist)>;
type ClassicRows = Vec<(Labels, Vec<Le>)>;

impl Evaluator<'_> {
    pub(super) fn call(&self, call: &Call, grid: Grid) -> Evaluated {
        let name = call.func.name;
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let n = grid.times().len();
        let constant = match name {
            "start" => Some(seconds(self.query.start)),
            "end" => Some(seconds(self.query.end)),
            "range" => Some(seconds(self.query.end - self.query.start)),
            "step" if self.query.is_instant() => Some(0.0),
            "step" => Some(seconds(self.query.step)),
            "pi" => Some(std::f64::consts::PI),
            _ => None,
        };
        if let Some(v) = constant {
            return Ok(Steps::Scalars(vec![v; n]));
        }
        match name {
            "time" => return Ok(Steps::Scalars(grid.times().into_iter().map(seconds).collect())),
            "min_of" | "max_of" => {
                let (a, b) = (self.scalars(&call.args[0], grid)?, self.scalars(&call.args[1], grid)?);
                let pick = if name == "max_of" { go_max } else { go_min };
                return Ok(Steps::Scalars(a.into_iter().zip(b).map(|(a, b)| pick(a, b)).collect()));
            }
            "scalar" => {
                let vectors = self.vectors(&call.args[0], grid)?;
                return Ok(Steps::Scalars(vectors.iter().map(|rows| only_float(rows)).collect()));
            }
            "label_replace" => return self.label_replace(call, grid).map(Steps::Vectors),
            "label_join" => return self.label_join(call, grid).map(Steps::Vectors),
            "info" => return self.info_call(call, grid).map(Steps::Vectors),
            _ => {}
        }
        if call.args.iter().any(|a| a.value_type() == ValueType::Matrix) {
            return self.window_call(call, grid).map(Steps::Vectors);
        }
        if let ("timestamp" | "start_timestamp", Some(Expr::Vector(v))) =
            (name, call.args.first().map(Expr::without_parens))
        {
            let mut out = Vec::new();
            for t in self.moments(v, grid)? {
                let mut rows = Vec::new();
                // Pinned, it is looked at without the offset, among the samples that the offset leaves.
                let at = self.pinned(v.at).unwrap_or(t);
                for (labels, s) in self.newest_among(&v.matchers, (t, at)) {
                    let value = if name == "timestamp" { s.t } else { s.start };
                    if name == "timestamp" || self.settings.use_start_timestamps {
                        rows.push(Row::float(self.without_name(&labels), true, seconds(value)));
                    }
                }
                out.push(rows);
            }
            return self.settled(out, grid).map(Steps::Vectors);
        }
        let out = self.over_vectors(call, grid)?;
        self.settled(out, grid).map(Steps::Vectors)
    }

    /// Functions of a vector and some scalars, or of a scalar alone, step by step.
    fn over_vectors(&self, call: &Call, grid: Grid) -> Result<Vec<Vec<Row>>, String> {
        let name = call.func.name;
        if name.starts_with("sort") && !grid.is_instant() {
            self.warn("sort is ineffective for range queries since results are always ordered by labels");
        }
        let mut vectors = vec![Vec::new(); grid.times().len()];
        let (mut scalars, mut texts) = (Vec::new(), Vec::new());
        for arg in &call.args {
            match self.eval(arg, grid)? {
                Steps::Vectors(v) => vectors = v,
                Steps::Scalars(v) => scalars.push(v),
                Steps::Text(t) => texts.push(t),
            }
        }
        let mut out = Vec::new();
        for ((i, t), rows) in grid.times().into_iter().enumerate().zip(vectors) {
            let numbers: Vec<f64> = scalars.iter().map(|s| s[i]).collect();
            out.push(self.over_vector(call, t, rows, &numbers, &texts, !grid.is_instant())?);
        }
        Ok(out)
    }

    fn over_vector(
        &self,
        call: &Call,
        t: i64,
        rows: Vec<Row>,
        numbers: &[f64],
        texts: &[String],
        in_range: bool,
    ) -> Result<Vec<Row>, String> {
        let name = call.func.name;
        let seconds = t as f64 / 1000.0;
        if let Some(f) = calendar(name) {
            if call.args.is_empty() {
                return Ok(vec![Row::float(Labels::empty(), false, f(i128::from(t / 1000)))]);
            }
            return Ok(self.each_float(rows, |v| f(whole_seconds(v))));
        }
        Ok(match name {
            "vector" => vec![Row::float(Labels::empty(), false, numbers[0])],
            "absent" => {
                if !rows.is_empty() {
                    return Ok(Vec::new());
                }
                let labels = match call.args[0].without_parens() {
                    Expr::Vector(v) => absent_labels(&v.matchers),
                    _ => Labels::empty(),
                };
                vec![Row::float(labels, false, 1.0)]
            }
            "timestamp" => {
                let row = |r: Row| Row::float(self.without_name(&r.labels), true, seconds);
                rows.into_iter().map(row).collect()
            }
            "start_timestamp" => Vec::new(),
            // In a range nothing defines an order: that of the series stays.
            "sort" | "sort_desc" if in_range => {
                rows.into_iter().filter(|r| matches!(r.point, Point::Float(_))).collect()
            }
            "sort_by_label" | "sort_by_label_desc" if in_range => rows,
            "sort" | "sort_desc" => sorted(rows, name == "sort_desc"),
            "sort_by_label" | "sort_by_label_desc" => {
                sorted_by_label(rows, texts, name == "sort_by_label_desc")
            }
            "clamp" | "clamp_min" | "clamp_max" => {
                let (low, high) = match name {
                    "clamp" => (numbers[0], numbers[1]),
                    "clamp_min" => (numbers[0], f64::INFINITY),
                    _ => (f64::NEG_INFINITY, numbers[0]),
                };
                if high < low {
                    return Ok(Vec::new());
                }
                self.each_float(rows, |v| go_max(low, go_min(high, v)))
            }
            "round" => {
                let inverse = 1.0 / numbers.first().copied().unwrap_or(1.0);
                self.each_float(rows, |v| (v * inverse + 0.5).floor() / inverse)
            }
            "histogram_count" => self.each_hist(rows, |h| h.count),
            "histogram_sum" => self.each_hist(rows, |h| h.sum),
            "histogram_avg" => self.each_hist(rows, |h| h.sum / h.count),
            "histogram_stdvar" => self.each_hist(rows, quantile::native_variance),
            "histogram_stddev" => self.each_hist(rows, |h| quantile::native_variance(h).sqrt()),
            "histogram_quantile" => self.histogram_quantiles(&rows, None, numbers),
            "histogram_quantiles" => self.histogram_quantiles(&rows, Some(&texts[0]), numbers),
            "histogram_fraction" => self.histogram_fraction(&rows, numbers[0], numbers[1]),
            _ => match float_function(name) {
                Some(f) => self.each_float(rows, f),
                None => return Err(format!("no reference for {name}")),
            },
        })
    }

    fn each_float(&self, rows: Vec<Row>, f: impl Fn(f64) -> f64) -> Vec<Row> {
        rows.into_iter()
            .filter_map(|r| match r.point {
                Point::Float(v) => Some(Row::float(self.without_name(&r.labels), true, f(v))),
                Point::Hist(_) => None,
            })
            .collect()
    }

    fn each_hist(&self, rows: Vec<Row>, f: impl Fn(&Hist) -> f64) -> Vec<Row> {
        rows.into_iter()
            .filter_map(|r| match r.point {
                Point::Hist(h) => Some(Row::float(self.without_name(&r.labels), true, f(&h))),
                Point::Float(_) => None,
            })
            .collect()
    }

    // === Histograms ===

    /// Native histograms, and classic ones with their buckets; where both are there, neither.
    fn histograms<'r>(&self, rows: &'r [Row]) -> (NativeRows<'r>, ClassicRows) {
        let name = |r: &Row| {
            if self.settings.delayed_name_removal { r.labels.metric_name().to_owned() } else { String::new() }
        };
        let named = |text: String, name: &str| {
            if name.is_empty() { text } else { format!("{text} for metric name {}", Quoted(name)) }
        };
        let mut native = Vec::new();
        let mut classic: Vec<(Labels, Labels, Vec<Le>)> = Vec::new();
        for r in rows {
            let v = match &r.point {
                Point::Hist(h) => {
                    native.push((r, h));
                    continue;
                }
                Point::Float(v) => *v,
            };
            let le = r.labels.value("le");
            let Some(upper) = go_float(le) else {
                let text =
                    format!("bucket label \"le\" is missing or has a malformed value of {}", Quoted(le));
                self.warn(named(text, &name(r)));
                continue;
            };
            let key = r.labels.without(&["le"]);
            let bucket = Le { upper, count: v };
            match classic.iter_mut().find(|c| c.0 == key) {
                Some(c) => c.2.push(bucket),
                None => classic.push((key.clone(), key, vec![bucket])),
            }
        }
        native.retain(|(r, _)| {
            let both = classic.iter().position(|c| c.0 == r.labels);
            if let Some(i) = both {
                classic.remove(i);
                let text = "vector contains a mix of classic and native histograms".to_owned();
                self.warn(named(text, &name(r)));
            }
            both.is_none()
        });
        (native, classic.into_iter().map(|(_, labels, buckets)| (labels, buckets)).collect())
    }

    fn histogram_quantiles(&self, rows: &[Row], label: Option<&str>, quantiles: &[f64]) -> Vec<Row> {
        let mut out = Vec::new();
        for q in quantiles {
            if !(0.0..=1.0).contains(q) {
                self.invalid_quantile(*q);
            }
        }
        let (native, classic) = self.histograms(rows);
        let suffix = |name: &str| {
            if name.is_empty() { String::new() } else { format!(" for metric name {}", Quoted(name)) }
        };
        for q in quantiles {
            let labelled = |labels: &Labels| match label {
                None => labels.clone(),
                Some(name) => LabelsBuilder::from_labels(labels).set(name, &open_metrics_float(*q)).build(),
            };
            for (r, h) in &native {
                let labels = self.without_name(&r.labels);
                let (v, effect) = quantile::of_native(*q, h);
                let of = suffix(labels.metric_name());
                match effect {
                    NanEffect::None => {}
                    NanEffect::Result => self.info(format_args!(
                        "input to histogram_quantile has NaN observations, result is NaN{of}"
                    )),
                    NanEffect::Skew => self.info(format_args!(
                        "input to histogram_quantile has NaN observations, result is skewed higher{of}"
                    )),
                }
                out.push(Row::float(labelled(&labels), true, v));
            }
            for (labels, buckets) in &classic {
                let labels = self.without_name(labels);
                let (v, forced) = quantile::of_classic(*q, buckets);
                if forced {
                    self.info(format_args!(
                        "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){}",
                        suffix(labels.metric_name())
                    ));
                }
                out.push(Row::float(labelled(&labels), true, v));
            }
        }
        out
    }

    fn histogram_fraction(&self, rows: &[Row], lower: f64, upper: f64) -> Vec<Row> {
        let (native, classic) = self.histograms(rows);
        let mut out = Vec::new();
        for (r, h) in native {
            let labels = self.without_name(&r.labels);
            let (v, nans) = quantile::native_fraction(lower, upper, h);
            if nans {
                let text =
                    "input to histogram_fraction has NaN observations, which are excluded from all fractions";
                match labels.metric_name() {
                    "" => self.info(text),
                    name => self.info(format_args!("{text} for metric name {}", Quoted(name))),
                }
            }
            out.push(Row::float(labels, true, v));
        }
        for (labels, buckets) in classic {
            let v = quantile::classic_fraction(lower, upper, &buckets);
            out.push(Row::float(self.without_name(&labels), true, v));
        }
        out
    }

    // === Labels ===

    fn label_replace(&self, call: &Call, grid: Grid) -> Result<Vec<Vec<Row>>, String> {
        let text = |i: usize| match call.args[i].without_parens() {
            Expr::String(s) => s.value.clone(),
            _ => unreachable!("a string, as the parser checked"),
        };
        let (dst, template, src, pattern) = (text(1), text(2), text(3), text(4));
        let regexp = Regexp::new(&pattern).map_err(|e| e.to_string())?;
        if dst.is_empty() {
            return Err("invalid destination label name in label_replace()".to_owned());
        }
        let mut vectors = self.vectors(&call.args[0], grid)?;
        for row in vectors.iter_mut().flatten() {
            if let Some(value) = regexp.expand(row.labels.value(&src), &template) {
                set_label(row, &dst, &value);
            }
        }
        unique_of_a_kind(&vectors)?;
        Ok(vectors)
    }

    fn label_join(&self, call: &Call, grid: Grid) -> Result<Vec<Vec<Row>>, String> {
        let texts: Vec<String> = call.args[1..]
            .iter()
            .map(|a| match a.without_parens() {
                Expr::String(s) => s.value.clone(),
                _ => unreachable!("a string, as the parser checked"),
            })
            .collect();
        let (dst, separator, sources) = (&texts[0], &texts[1], &texts[2..]);
        if dst.is_empty() || sources.iter().any(String::is_empty) {
            return Err("invalid label name in label_join()".to_owned());
        }
        let mut vectors = self.vectors(&call.args[0], grid)?;
        for row in vectors.iter_mut().flatten() {
            let values: Vec<&str> = sources.iter().map(|s| row.labels.value(s)).collect();
            let joined = values.join(separator);
            set_label(row, dst, &joined);
        }
        unique_of_a_kind(&vectors)?;
        Ok(vectors)
    }
}

fn set_label(row: &mut Row, name: &str, value: &str) {
    row.labels = LabelsBuilder::from_labels(&row.labels).set(name, value).build();
    if name == "__name__" {
        row.drop_name = false;
    }
}

/// The value of the one float, if there is exactly one.
fn only_float(rows: &[Row]) -> f64 {
    let mut floats = rows.iter().filter_map(|r| match r.point {
        Point::Float(v) => Some(v),
        Point::Hist(_) => None,
    });
    match (floats.next(), floats.next()) {
        (Some(v), None) => v,
        _ => f64::NAN,
    }
}

// === Sorting ===

/// As Prometheus sorts short lists: an element moves ahead as long as it belongs before its neighbour. Equal values and
/// NaNs show that.
pub(super) fn insertion_sort<T>(items: &mut [T], before: impl Fn(&T, &T) -> bool) {
    for i in 1..items.len() {
        let mut j = i;
        while j > 0 && before(&items[j], &items[j - 1]) {
            items.swap(j, j - 1);
            j -= 1;
        }
    }
}

fn sorted(rows: Vec<Row>, descending: bool) -> Vec<Row> {
    let mut rows: Vec<(f64, Row)> = rows
        .into_iter()
        .filter_map(|r| match r.point {
            Point::Float(v) => Some((v, r)),
            Point::Hist(_) => None,
        })
        .collect();
    // NaN comes last either way.
    insertion_sort(&mut rows, |a, b| b.0.is_nan() || if descending { a.0 > b.0 } else { a.0 < b.0 });
    rows.into_iter().map(|(_, r)| r).collect()
}

fn sorted_by_label(mut rows: Vec<Row>, labels: &[String], descending: bool) -> Vec<Row> {
    insertion_sort(&mut rows, |a, b| {
        for l in labels {
            let (x, y) = (a.labels.value(l), b.labels.value(l));
            if x != y {
                return natural_less(x, y) != descending;
            }
        }
        if descending { b.labels < a.labels } else { a.labels < b.labels }
    });
    rows
}

/// Natural order, which says of no text that it comes before an empty one, nor the other way round.
fn natural_less(a: &str, b: &str) -> bool {
    let (a, b) = (chunks(a), chunks(b));
    for (i, x) in a.iter().enumerate() {
        let Some(y) = b.get(i) else { return false };
        match (x.parse::<i64>(), y.parse::<i64>()) {
            (Ok(m), Ok(n)) if m != n => return m < n,
            (Ok(_), Ok(_)) => {}
            _ if x != y => return x < y,
            _ => {}
        }
        if i + 1 == a.len() || i + 1 == b.len() {
            return i + 1 == a.len();
        }
    }
    false
}

/// Runs of digits and of anything else.
fn chunks(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for c in text.chars() {
        match out.last_mut() {
            Some(run) if run.ends_with(|l: char| l.is_ascii_digit()) == c.is_ascii_digit() => run.push(c),
            _ => out.push(c.to_string()),
        }
    }
    out
}

// === Numbers ===

pub(super) fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

pub(super) fn go_min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { a } else { b }
    } else if a < b {
        a
    } else {
        b
    }
}

/// Bucket bounds as they are read from `le`.
fn go_float(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        _ => text.parse().ok(),
    }
}

/// As OpenMetrics writes floats.
fn open_metrics_float(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = super::aggregate::format_g(v);
    if text.contains(['.', 'e']) { text } else { format!("{text}.0") }
}

fn float_function(name: &str) -> Option<fn(f64) -> f64> {
    use std::f64::consts::{LN_2, PI};
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        // Far out, both are the logarithm of twice the number.
        "asinh" => |v| if v.abs() > 1e150 { (v.abs().ln() + LN_2).copysign(v) } else { v.asinh() },
        "acosh" => |v| if v > 1e150 { v.ln() + LN_2 } else { v.acosh() },
        "atanh" => f64::atanh,
        "rad" => |v| v * PI / 180.0,
        "deg" => |v| v * 180.0 / PI,
        "sgn" => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        _ => return None,
    })
}

// === Calendar ===

/// Cut to whole seconds. What 64 bits do not hold ends up half their range away, where Prometheus's wraps around.
fn whole_seconds(v: f64) -> i128 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if v.abs() < LIMIT { i128::from(v as i64) } else { 1 << 63 }
}

/// Year, month and day, 1970-01-01 being day 0.
fn civil(day: i128) -> (i128, i128, i128) {
    let leap = |y: i128| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    let (era, mut rest) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let mut year = 1970;
    // Within 400 years, count.
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if rest < length {
            break;
        }
        rest -= length;
        year += 1;
    }
    let mut month = 1;
    while rest >= month_length(year, month) {
        rest -= month_length(year, month);
        month += 1;
    }
    (year + era * 400, month, rest + 1)
}

fn month_length(year: i128, month: i128) -> i128 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn calendar(name: &str) -> Option<fn(i128) -> f64> {
    Some(match name {
        "year" => |s| civil(s.div_euclid(86_400)).0 as f64,
        "month" => |s| civil(s.div_euclid(86_400)).1 as f64,
        "day_of_month" => |s| civil(s.div_euclid(86_400)).2 as f64,
        "days_in_month" => |s| {
            let (year, month, _) = civil(s.div_euclid(86_400));
            month_length(year, month) as f64
        },
        "day_of_year" => |s| {
            let (year, month, day) = civil(s.div_euclid(86_400));
            ((1..month).map(|m| month_length(year, m)).sum::<i128>() + day) as f64
        },
        "day_of_week" => |s| (s.div_euclid(86_400) + 4).rem_euclid(7) as f64,
        "hour" => |s| s.rem_euclid(86_400).div_euclid(3_600) as f64,
        "minute" => |s| s.rem_euclid(3_600).div_euclid(60) as f64,
        _ => return None,
    })
}
