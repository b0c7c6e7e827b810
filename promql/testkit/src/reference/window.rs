//! Functions over windows: the samples of one series at one step in, at most one sample out.

use model::Labels;
use model::labels::Quoted;
use promql::parser::ast::{Boundary, Call, ValueType};

use super::extended::{mixed_schemas, reconciled};
use super::growth::{changes, resets};
use super::histogram::{Hist, kahan};
use super::select::{Ranges, Window};
use super::{Evaluator, Grid, Point, Row, SAME_LABELS, quantile};
use model::histogram::CounterResetHint;

/// What a function knows beside the samples.
pub(super) struct Frame<'a> {
    /// Time of evaluation.
    pub(super) t: i64,
    /// The window as written, `(start, end]`.
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) range: i64,
    pub(super) boundary: Boundary,
    pub(super) labels: &'a Labels,
    /// Scalar arguments at this step.
    pub(super) scalars: Vec<f64>,
    /// Start timestamps are looked at.
    pub(super) starts: bool,
}

impl Frame<'_> {
    pub(super) fn name(&self) -> &str {
        self.labels.metric_name()
    }
}

type Outcome = Result<Option<Point>, String>;

impl Evaluator<'_> {
    /// A call with a range vector among its arguments.
    pub(super) fn window_call(&self, call: &Call, grid: Grid) -> Result<Vec<Vec<Row>>, String> {
        let name = call.func.name;
        let position = call.args.iter().position(|a| a.value_type() == ValueType::Matrix);
        let position = position.expect("a call over a range vector");
        let ranges = self.ranges(&call.args[position], grid)?;
        let mut scalars = Vec::new();
        for (i, arg) in call.args.iter().enumerate() {
            if i != position {
                scalars.push(self.scalars(arg, grid)?);
            }
        }
        check_boundary(name, ranges.boundary)?;
        let times = grid.times();
        let mut out: Vec<Vec<Row>> = vec![Vec::new(); times.len()];
        let mut seen = Vec::new();
        for source in &ranges.sources {
            let drop_name = !matches!(name, "last_over_time" | "first_over_time") || source.drop_name;
            let labels = if drop_name { self.without_name(&source.labels) } else { source.labels.clone() };
            let (mut any, mut any_float) = (false, false);
            for (i, t) in times.iter().enumerate() {
                let (start, end) = ranges.bounds(*t);
                let window = cut(source, &ranges, (start, end), self.settings.lookback_ms);
                if window.floats.is_empty() && window.hists.is_empty() {
                    continue;
                }
                let frame = Frame {
                    t: *t,
                    start,
                    end,
                    range: ranges.range,
                    boundary: ranges.boundary,
                    labels: &source.labels,
                    scalars: scalars.iter().map(|s| s[i]).collect(),
                    starts: self.settings.use_start_timestamps
                        && matches!(name, "rate" | "irate" | "increase" | "resets"),
                };
                if let Some(point) = self.over_window(name, &window, &frame)? {
                    any = true;
                    any_float |= matches!(point, Point::Float(_));
                    out[i].push(Row { labels: labels.clone(), drop_name, point });
                }
            }
            if any {
                seen.push(labels);
            }
            if any_float && matches!(name, "rate" | "increase") {
                self.check_counter(source.labels.metric_name());
            }
        }
        if name == "absent_over_time" {
            return Ok(self.absent_steps(&out, &ranges));
        }
        seen.sort();
        if !self.settings.delayed_name_removal && seen.windows(2).any(|w| w[0] == w[1]) {
            return Err(SAME_LABELS.to_owned());
        }
        Ok(out)
    }

    fn check_counter(&self, name: &str) {
        let fits = ["_total", "_sum", "_count", "_bucket"].iter().any(|s| name.ends_with(s));
        if !name.is_empty() && !fits {
            self.info(format_args!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                Quoted(name)
            ));
        }
    }

    fn absent_steps(&self, found: &[Vec<Row>], ranges: &Ranges) -> Vec<Vec<Row>> {
        let labels = super::elementwise::absent_labels(&ranges.matchers);
        found
            .iter()
            .map(
                |rows| {
                    if rows.is_empty() { vec![Row::float(labels.clone(), true, 1.0)] } else { Vec::new() }
                },
            )
            .collect()
    }

    pub(super) fn mixed_window(&self, f: &Frame<'_>) {
        let name = Quoted(f.name());
        self.warn(format_args!("encountered a mix of histograms and floats for metric name {name}"));
    }

    fn ignored_hists(&self, f: &Frame<'_>) {
        let name = Quoted(f.name());
        let text = "ignored histograms in a range containing both floats and histograms for metric name";
        self.info(format_args!("{text} {name}"));
    }

    pub(super) fn not_counter(&self, f: &Frame<'_>) {
        let name = Quoted(f.name());
        self.warn(format_args!("this native histogram metric is not a counter: {name}"));
    }

    pub(super) fn not_gauge(&self, f: &Frame<'_>) {
        let name = Quoted(f.name());
        self.warn(format_args!("this native histogram metric is not a gauge: {name}"));
    }

    fn over_window(&self, name: &str, w: &Window, f: &Frame<'_>) -> Outcome {
        let floats: Vec<f64> = w.floats.iter().map(|p| p.1).collect();
        let float = |v: f64| Ok(Some(Point::Float(v)));
        let first_t = |p: Option<i64>, q: Option<i64>| p.into_iter().chain(q).min();
        match name {
            "rate" => return Ok(self.growth(w, f, true, true)),
            "increase" => return Ok(self.growth(w, f, true, false)),
            "delta" => return Ok(self.growth(w, f, false, false)),
            "irate" => return Ok(self.instant_growth(w, f, true)),
            "idelta" => return Ok(self.instant_growth(w, f, false)),
            "resets" => return Ok(resets(w, f)),
            "changes" => return Ok(changes(w, f)),
            "count_over_time" => return float((w.floats.len() + w.hists.len()) as f64),
            "present_over_time" | "absent_over_time" => return float(1.0),
            "first_over_time" => return Ok(end_point(w, false)),
            "last_over_time" => return Ok(end_point(w, true)),
            "ts_of_first_over_time" => {
                let t = first_t(w.floats.first().map(|p| p.0), w.hists.first().map(|p| p.0));
                return float(t.expect("the window holds something") as f64 / 1000.0);
            }
            "ts_of_last_over_time" => {
                // A missing kind counts as the epoch.
                let t = w.floats.last().map_or(0, |p| p.0).max(w.hists.last().map_or(0, |p| p.0));
                return float(t as f64 / 1000.0);
            }
            "sum_over_time" | "avg_over_time" => {
                if !w.floats.is_empty() && !w.hists.is_empty() {
                    self.mixed_window(f);
                    return Ok(None);
                }
                let avg = name == "avg_over_time";
                if w.floats.is_empty() {
                    return Ok(self.hists_over_time(w, f, avg).map(Point::Hist));
                }
                return float(if avg { average(&floats) } else { sum(&floats) });
            }
            "deriv" | "predict_linear" | "double_exponential_smoothing" => {
                if name == "double_exponential_smoothing" {
                    check_factors(f)?;
                }
                if floats.len() == 1 && !w.hists.is_empty() || floats.len() > 1 && !w.hists.is_empty() {
                    self.ignored_hists(f);
                }
                if floats.len() < 2 {
                    return Ok(None);
                }
                return float(match name {
                    "deriv" => regression(&w.floats, w.floats[0].0).0,
                    "predict_linear" => {
                        let (slope, intercept) = regression(&w.floats, f.t);
                        slope * f.scalars[0] + intercept
                    }
                    _ => smoothing(&floats, f.scalars[0], f.scalars[1]),
                });
            }
            _ => {}
        }
        // The rest looks at floats alone.
        if floats.is_empty() {
            return Ok(None);
        }
        if name == "quantile_over_time" && !(0.0..=1.0).contains(&f.scalars[0]) {
            self.invalid_quantile(f.scalars[0]);
        }
        if !w.hists.is_empty() {
            self.ignored_hists(f);
        }
        let extreme = |beats: fn(f64, f64) -> bool| {
            let mut best = w.floats[0];
            for p in &w.floats {
                if beats(p.1, best.1) || best.1.is_nan() {
                    best = *p;
                }
            }
            best
        };
        float(match name {
            "min_over_time" => extreme(|v, best| v < best).1,
            "max_over_time" => extreme(|v, best| v > best).1,
            "ts_of_min_over_time" => extreme(|v, best| v <= best).0 as f64 / 1000.0,
            "ts_of_max_over_time" => extreme(|v, best| v >= best).0 as f64 / 1000.0,
            "stddev_over_time" => variance(&floats).sqrt(),
            "stdvar_over_time" => variance(&floats),
            "quantile_over_time" => quantile::of_floats(f.scalars[0], &floats),
            "mad_over_time" => {
                if floats.iter().any(|v| v.is_nan()) {
                    return float(f64::NAN);
                }
                let median = quantile::of_floats(0.5, &floats);
                let away: Vec<f64> = floats.iter().map(|v| (v - median).abs()).collect();
                quantile::of_floats(0.5, &away)
            }
            other => return Err(format!("no reference for {other}")),
        })
    }

    pub(super) fn invalid_quantile(&self, q: f64) {
        self.warn(format_args!(
            "quantile value should be between 0 and 1, got {}",
            super::aggregate::format_g(q)
        ));
    }

    // === sum_over_time, avg_over_time ===

    fn hists_over_time(&self, w: &Window, f: &Frame<'_>, avg: bool) -> Option<Hist> {
        let hists: Vec<&Hist> = w.hists.iter().map(|p| &p.1).collect();
        let outcome = sum_hists(&hists, avg);
        let (out, met) = match outcome {
            Ok(v) => v,
            Err(_) => {
                mixed_schemas(self, f.name());
                return None;
            }
        };
        if met.collision {
            self.warn("conflicting counter resets during histogram aggregation");
        }
        if met.reconciled {
            reconciled(self, "aggregation");
        }
        Some(out)
    }
}

/// The samples that a function sees: those of the window, and the lookback around it that `anchored` and `smoothed` add.
fn cut(source: &super::select::Source, r: &Ranges, (start, end): (i64, i64), lookback: i64) -> Window {
    match r.boundary {
        Boundary::Plain => source.window(start, end),
        Boundary::Anchored => source.window(start - lookback, end),
        Boundary::Smoothed => source.window(start - lookback, end + lookback),
    }
}

fn check_boundary(name: &str, boundary: Boundary) -> Result<(), String> {
    let smoothed = ["rate", "increase", "delta"].contains(&name);
    match boundary {
        Boundary::Smoothed if !smoothed => Err(format!("smoothed does not go with {name}")),
        Boundary::Anchored if !smoothed && !["resets", "changes"].contains(&name) => {
            Err(format!("anchored does not go with {name}"))
        }
        _ => Ok(()),
    }
}

/// A sum or average of histograms: what came out, and what was met.
pub(super) fn sum_hists(
    hists: &[&Hist],
    avg: bool,
) -> Result<(Hist, super::histogram::Met), super::histogram::Incompatible> {
    let hint = |h: CounterResetHint| hists.iter().any(|x| x.hint == h);
    let mut met = super::histogram::Met {
        collision: hint(CounterResetHint::CounterReset) && hint(CounterResetHint::NotCounterReset),
        reconciled: false,
    };
    let mut sum = hists[0].clone();
    let mut lost: Option<Hist> = None;
    let (mut mean, mut count): (Option<Hist>, f64) = (None, 1.0);
    for h in &hists[1..] {
        count += 1.0;
        if mean.is_none() {
            let (mut next, mut next_lost) = (sum.clone(), lost.clone());
            met.reconciled |= next.kahan_add(h, &mut next_lost)?.reconciled;
            if !avg || !next.has_overflow() {
                (sum, lost) = (next, next_lost);
                continue;
            }
            mean = Some(sum.clone().div(count - 1.0));
            lost = lost.map(|l| l.div(count - 1.0));
        }
        let q = (count - 1.0) / count;
        lost = lost.map(|l| l.mul(q));
        let mut next = mean.take().expect("set above").mul(q);
        met.reconciled |= next.kahan_add(&(*h).clone().div(count), &mut lost)?.reconciled;
        mean = Some(next);
    }
    let mut out = match mean {
        Some(m) => m,
        None if avg => {
            lost = lost.map(|l| l.div(count));
            sum.div(count)
        }
        None => sum,
    };
    if let Some(l) = lost {
        met.reconciled |= out.add(&l)?.reconciled;
    }
    Ok((out, met))
}

// === Numbers ===

fn end_point(w: &Window, last: bool) -> Option<Point> {
    let (f, h) = if last { (w.floats.last(), w.hists.last()) } else { (w.floats.first(), w.hists.first()) };
    match (f, h) {
        (Some(f), Some(h)) if (last && h.0 < f.0) || (!last && f.0 < h.0) => Some(Point::Float(f.1)),
        (_, Some(h)) => Some(Point::Hist(h.1.clone())),
        (Some(f), None) => Some(Point::Float(f.1)),
        (None, None) => None,
    }
}

fn sum(values: &[f64]) -> f64 {
    let (s, c) = values.iter().fold((0.0, 0.0), |(s, c), v| kahan(*v, s, c));
    if s.is_infinite() { s } else { s + c }
}

/// The mean of the sum, or, when that overflows, a running mean.
pub(super) fn average(values: &[f64]) -> f64 {
    let (mut sum, mut mean, mut c) = (values[0], None, 0.0);
    let mut count = 1.0;
    for v in &values[1..] {
        count += 1.0;
        if mean.is_none() {
            let next: (f64, f64) = kahan(*v, sum, c);
            if next.0.is_finite() || next.0.is_nan() {
                (sum, c) = next;
                continue;
            }
            mean = Some(sum / (count - 1.0));
            c /= count - 1.0;
        }
        let q = (count - 1.0) / count;
        let (m, lost) = kahan(v / count, q * mean.unwrap_or_default(), q * c);
        (mean, c) = (Some(m), lost);
    }
    match mean {
        Some(m) => m + c,
        None => sum / count + c / count,
    }
}

fn variance(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut cm, mut aux, mut ca) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for v in values {
        count += 1.0;
        let delta = v - (mean + cm);
        (mean, cm) = kahan(delta / count, mean, cm);
        (aux, ca) = kahan(delta * (v - (mean + cm)), aux, ca);
    }
    (aux + ca) / count
}

/// Slope, and value at `at`, of the line that fits best.
fn regression(p: &[(i64, f64)], at: i64) -> (f64, f64) {
    if p.iter().skip(1).all(|q| q.1 == p[0].1) {
        return if p[0].1.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, p[0].1) };
    }
    let x = |q: &(i64, f64)| (q.0 - at) as f64 / 1e3;
    let total = |f: &dyn Fn(&(i64, f64)) -> f64| {
        let (s, c) = p.iter().fold((0.0, 0.0), |(s, c), q| kahan(f(q), s, c));
        s + c
    };
    let n = p.len() as f64;
    let (sx, sy) = (total(&x), total(&|q| q.1));
    let (sxy, sxx) = (total(&|q| x(q) * q.1), total(&|q| x(q) * x(q)));
    let slope = (sxy - sx * sy / n) / (sxx - sx * sx / n);
    (slope, sy / n - slope * sx / n)
}

fn check_factors(f: &Frame<'_>) -> Result<(), String> {
    // NaN passes, as both comparisons fail for it.
    let bad = |v: f64| v <= 0.0 || v >= 1.0;
    if f.scalars.iter().any(|v| bad(*v)) {
        Err("invalid smoothing or trend factor".to_owned())
    } else {
        Ok(())
    }
}

fn smoothing(values: &[f64], smooth: f64, trend: f64) -> f64 {
    let (mut s0, mut s1, mut b) = (0.0, values[0], values[1] - values[0]);
    for (i, v) in values.iter().enumerate().skip(1) {
        let x = smooth * v;
        if i > 1 {
            b = trend * (s1 - s0) + (1.0 - trend) * b;
        }
        let y = (1.0 - smooth) * (s1 + b);
        (s0, s1) = (s1, x + y);
    }
    s1
}
