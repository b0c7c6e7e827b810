//! `rate` and its kin: how much samples grow within a window, and how often they fall.

use model::histogram::CounterResetHint;
use model::labels::Quoted;
use promql::parser::ast::Boundary;

use super::extended::{self, add, mixed_schemas, reconciled};
use super::histogram::Hist;
use super::select::Window;
use super::window::Frame;
use super::{Evaluator, Point};

impl Evaluator<'_> {
    // === rate, increase, delta ===

    pub(super) fn growth(&self, w: &Window, f: &Frame<'_>, counter: bool, rate: bool) -> Option<Point> {
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

    pub(super) fn instant_growth(&self, w: &Window, f: &Frame<'_>, rate: bool) -> Option<Point> {
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

/// A sample among floats and histograms in the order of time.
struct Merged {
    t: i64,
    start: i64,
    point: Point,
}

fn merged(w: &Window, starts: bool) -> Vec<Merged> {
    let start = |s: &[i64], i: usize| if starts { s[i] } else { 0 };
    let floats = w.floats.iter().enumerate().map(|(i, p)| Merged {
        t: p.0,
        start: start(&w.float_starts, i),
        point: Point::Float(p.1),
    });
    let hists = w.hists.iter().enumerate().map(|(i, p)| Merged {
        t: p.0,
        start: start(&w.hist_starts, i),
        point: Point::Hist(p.1.clone()),
    });
    let mut out: Vec<_> = floats.chain(hists).collect();
    out.sort_by_key(|p| p.t);
    out
}

/// With `anchored`, the newest sample at or before the start comes first.
fn anchored(w: &Window, f: &Frame<'_>) -> Vec<Merged> {
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

fn count_steps(points: &[Merged], counts: impl Fn(&Merged, &Merged) -> bool) -> Option<Point> {
    if points.is_empty() {
        return None;
    }
    let n = points.windows(2).filter(|w| counts(&w[0], &w[1])).count();
    Some(Point::Float(n as f64))
}

pub(super) fn resets(w: &Window, f: &Frame<'_>) -> Option<Point> {
    count_steps(&anchored(w, f), |a, b| match (&a.point, &b.point) {
        (Point::Float(x), Point::Float(y)) => y < x || started_anew(a.start, a.t, b.start, b.t),
        (Point::Hist(x), Point::Hist(y)) => started_anew(a.start, a.t, b.start, b.t) || y.is_reset_after(x),
        _ => true,
    })
}

pub(super) fn changes(w: &Window, f: &Frame<'_>) -> Option<Point> {
    count_steps(&anchored(w, f), |a, b| match (&a.point, &b.point) {
        (Point::Float(x), Point::Float(y)) => x != y && !(x.is_nan() && y.is_nan()),
        (Point::Hist(x), Point::Hist(y)) => !y.equals(x),
        _ => true,
    })
}
