//! Functions over windows: the samples of one series at one step in, at most one sample out.

use model::Labels;
use model::labels::Quoted;
use promql::parser::ast::{Boundary, Call, ValueType};

use super::extended::{self, add, mixed_schemas, reconciled};
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

    fn mixed_window(&self, f: &Frame<'_>) {
        let name = Quoted(f.name());
        self.warn(format_args!("encountered a mix of histograms and floats for metric name {name}"));
    }

    fn ignored_hists(&self, f: &Frame<'_>) {
        let name = Quoted(f.name());
        let text = "ignored histograms in a range containing both floats and histograms for metric name";
        self.info(format_args!("{text} {name}"));
    }

    fn not_counter(&self, f: &Frame<'_>) {
        let name = Quoted(f.name());
        self.warn(format_args!("this native histogram metric is not a counter: {name}"));
    }

    fn not_gauge(&self, f: &Frame<'_>) {
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

    // === rate, increase, delta ===

    fn growth(&self, w: &Window, f: &Frame<'_>, counter: bool, rate: bool) -> Option<Point> {
        if f.boundary != Boundary::Plain {
            return extended::growth(self, w, f, counter, rate);
        }
        if !w.floats.is_empty() && !w.hists.is_empty() {
            self.mixed_window(f);
            return None;
        }
        let starts: &[i64] = match (f.starts, w.hists.is_empty()) {
            (false, _) => &[],
            (true, true) => &w.float_starts,
            (true, false) => &w.hist_starts,
        };
        let (mut float, mut hist) = (0.0, None);
        let times: Vec<i64> = if w.hists.is_empty() {
            float = self.float_increase(&w.floats, starts, f, counter);
            w.floats.iter().map(|p| p.0).collect()
        } else {
            if w.hists.len() > 1 {
                hist = Some(self.hist_increase(&w.hists, starts, f, counter)?);
            }
            w.hists.iter().map(|p| p.0).collect()
        };
        let (first, last, gaps) = (times[0], times[times.len() - 1], times.len() - 1);
        let mut to_start = (first - f.start) as f64 / 1000.0;
        let mut to_end = (f.end - last) as f64 / 1000.0;
        let mut sampled = (last - first) as f64 / 1000.0;
        let average = if gaps > 0 { sampled / gaps as f64 } else { 0.0 };
        let threshold = average * 1.1;
        let known_start = starts.first().copied().filter(|s| *s != 0 && *s > f.start && *s < first);
        if counter && let Some(began) = known_start {
            to_start = 0.0;
            sampled = (last - began) as f64 / 1000.0;
            if let Some((_, h)) = w.hists.first() {
                match &mut hist {
                    None => hist = Some(h.clone()),
                    Some(sum) => {
                        if !add(self, f.name(), sum, h) {
                            return None;
                        }
                    }
                }
            } else {
                float += w.floats[0].1;
            }
        } else if gaps == 0 {
            return None;
        } else {
            if to_start >= threshold {
                to_start = average / 2.0;
            }
            if counter {
                let mut to_zero = to_start;
                if float > 0.0 && !w.floats.is_empty() && w.floats[0].1 >= 0.0 {
                    to_zero = sampled * (w.floats[0].1 / float);
                } else if let Some(h) = &hist
                    && h.count > 0.0
                    && w.hists[0].1.count >= 0.0
                {
                    to_zero = sampled * (w.hists[0].1.count / h.count);
                }
                if to_zero < to_start {
                    to_start = to_zero;
                }
            }
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        let mut factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
        if rate {
            factor /= f.range as f64 / 1000.0;
        }
        Some(match hist {
            Some(h) => Point::Hist(h.mul(factor)),
            None => Point::Float(float * factor),
        })
    }

    fn start_overlap(&self, f: &Frame<'_>) {
        self.warn(format_args!(
            "sample has start time that overlaps with previous sample timestamp for metric {}",
            Quoted(f.name())
        ));
    }

    fn float_increase(&self, p: &[(i64, f64)], starts: &[i64], f: &Frame<'_>, counter: bool) -> f64 {
        let mut out = p[p.len() - 1].1 - p[0].1;
        let mut overlap = false;
        for i in 1..p.len() {
            if !counter {
                break;
            }
            let mut began_anew = p[i].1 < p[i - 1].1;
            if i < starts.len() {
                overlap |= overlaps(starts[i - 1], p[i - 1].0, starts[i]);
                began_anew |= started_anew(starts[i - 1], p[i - 1].0, starts[i], p[i].0);
            }
            if began_anew {
                out += p[i - 1].1;
            }
        }
        if overlap {
            self.start_overlap(f);
        }
        out
    }

    fn hist_increase(&self, p: &[(i64, Hist)], starts: &[i64], f: &Frame<'_>, counter: bool) -> Option<Hist> {
        let gauge = CounterResetHint::Gauge;
        let last = &p[p.len() - 1].1;
        let mut previous = p[0].1.clone();
        let anew = |i: usize| i < starts.len() && started_anew(starts[i - 1], p[i - 1].0, starts[i], p[i].0);
        let mut custom = previous.is_custom();
        // Said first, since a mix of schemas later takes everything else back, and this not.
        let mut not_counter = counter && (previous.hint == gauge || last.hint == gauge);
        if counter && (anew(1) || p[1].1.is_reset_after(&previous)) {
            previous = Hist { schema: p[1].1.schema, bounds: p[1].1.bounds.clone(), ..Hist::default() };
            custom = p[1].1.is_custom();
        }
        if last.is_custom() != custom {
            if not_counter {
                self.not_counter(f);
            }
            mixed_schemas(self, f.name());
            return None;
        }
        let mut schema = last.schema.min(previous.schema);
        if counter {
            for (_, h) in &p[1..p.len() - 1] {
                not_counter |= h.hint == gauge;
                schema = schema.min(h.schema);
                if h.is_custom() != custom {
                    mixed_schemas(self, f.name());
                    return None;
                }
            }
        }
        let mut out = last.clone();
        out.reduce(schema);
        // Annotations of a window that fails in the end are lost but for the failure.
        let mut met_sub = false;
        let mut met_add = false;
        match out.sub(&previous) {
            Ok(met) => met_sub |= met.reconciled,
            Err(_) => {
                mixed_schemas(self, f.name());
                return None;
            }
        }
        let mut overlap = false;
        if counter {
            for i in 1..p.len() {
                if i < starts.len() {
                    overlap |= overlaps(starts[i - 1], p[i - 1].0, starts[i]);
                }
                if anew(i) || p[i].1.is_reset_after(&previous) {
                    match out.add(&previous) {
                        Ok(met) => met_add |= met.reconciled,
                        Err(_) => {
                            mixed_schemas(self, f.name());
                            return None;
                        }
                    }
                }
                previous = p[i].1.clone();
            }
        } else if p[0].1.hint != gauge || last.hint != gauge {
            self.not_gauge(f);
        }
        if not_counter {
            self.not_counter(f);
        }
        if overlap {
            self.start_overlap(f);
        }
        if met_sub {
            reconciled(self, "subtraction");
        }
        if met_add {
            reconciled(self, "addition");
        }
        out.hint = gauge;
        Some(out.compact())
    }

    // === irate, idelta ===

    fn instant_growth(&self, w: &Window, f: &Frame<'_>, rate: bool) -> Option<Point> {
        let merged = merged(w, f.starts);
        let [.., a, b] = &merged[..] else { return None };
        let seconds = (b.t - a.t) as f64 / 1000.0;
        let gauge = CounterResetHint::Gauge;
        match (&a.point, &b.point) {
            (Point::Float(x), Point::Float(y)) => {
                let reset = rate && (y < x || started_anew(a.start, a.t, b.start, b.t));
                let v = if reset { *y } else { y - x };
                Some(Point::Float(if rate { v / seconds } else { v }))
            }
            (Point::Hist(x), Point::Hist(y)) => {
                let mut out = y.clone();
                if rate && (x.hint == gauge || y.hint == gauge) {
                    self.not_counter(f);
                }
                if !rate && (x.hint != gauge || y.hint != gauge) {
                    self.not_gauge(f);
                }
                if (!rate || (!started_anew(a.start, a.t, b.start, b.t) && !y.is_reset_after(x)))
                    && !extended::subtract(self, f.name(), &mut out, x)
                {
                    return None;
                }
                out.hint = gauge;
                out = out.compact();
                Some(Point::Hist(if rate { out.div(seconds) } else { out }))
            }
            _ => {
                self.mixed_window(f);
                None
            }
        }
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

// === Start timestamps ===

/// Whether the start timestamps say that a counter began anew.
fn started_anew(previous_start: i64, previous: i64, start: i64, t: i64) -> bool {
    if start == 0 || start >= t || start < previous {
        return false;
    }
    if start > previous {
        return true;
    }
    previous_start <= previous && previous_start != 0 && previous_start != previous
}

fn overlaps(previous_start: i64, previous: i64, start: i64) -> bool {
    start != 0 && start < previous && start != previous_start
}

// === resets, changes ===

struct Merged<'a> {
    t: i64,
    start: i64,
    point: &'a Point,
}

/// Floats and histograms in the order of time.
fn merged_points(w: &Window, starts: bool) -> Vec<(i64, i64, Point)> {
    let start = |s: &[i64], i: usize| if starts { s[i] } else { 0 };
    let floats =
        w.floats.iter().enumerate().map(|(i, p)| (p.0, start(&w.float_starts, i), Point::Float(p.1)));
    let hists =
        w.hists.iter().enumerate().map(|(i, p)| (p.0, start(&w.hist_starts, i), Point::Hist(p.1.clone())));
    let mut out: Vec<_> = floats.chain(hists).collect();
    out.sort_by_key(|p| p.0);
    out
}

struct OwnedMerged {
    t: i64,
    start: i64,
    point: Point,
}

fn merged(w: &Window, starts: bool) -> Vec<OwnedMerged> {
    merged_points(w, starts).into_iter().map(|(t, start, point)| OwnedMerged { t, start, point }).collect()
}

/// With `anchored`, the newest sample at or before the start comes first.
fn anchored(w: &Window, f: &Frame<'_>) -> Vec<OwnedMerged> {
    let mut all = merged(w, f.starts);
    if f.boundary != Boundary::Anchored {
        return all;
    }
    if all.iter().all(|p| p.t <= f.start) {
        return Vec::new();
    }
    let before = all.iter().filter(|p| p.t <= f.start).count();
    all.drain(..before.saturating_sub(1));
    all
}

fn count_steps(points: &[OwnedMerged], counts: impl Fn(&Merged<'_>, &Merged<'_>) -> bool) -> Option<Point> {
    if points.is_empty() {
        return None;
    }
    let view = |p: &OwnedMerged| (p.t, p.start);
    let n = points
        .windows(2)
        .filter(|w| {
            let ((at, astart), (bt, bstart)) = (view(&w[0]), view(&w[1]));
            counts(
                &Merged { t: at, start: astart, point: &w[0].point },
                &Merged { t: bt, start: bstart, point: &w[1].point },
            )
        })
        .count();
    Some(Point::Float(n as f64))
}

fn resets(w: &Window, f: &Frame<'_>) -> Option<Point> {
    count_steps(&anchored(w, f), |a, b| match (a.point, b.point) {
        (Point::Float(x), Point::Float(y)) => y < x || started_anew(a.start, a.t, b.start, b.t),
        (Point::Hist(x), Point::Hist(y)) => started_anew(a.start, a.t, b.start, b.t) || y.is_reset_after(x),
        _ => true,
    })
}

fn changes(w: &Window, f: &Frame<'_>) -> Option<Point> {
    count_steps(&anchored(w, f), |a, b| match (a.point, b.point) {
        (Point::Float(x), Point::Float(y)) => x != y && !(x.is_nan() && y.is_nan()),
        (Point::Hist(x), Point::Hist(y)) => !y.equals(x),
        _ => true,
    })
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
