//! Every function over columns against its twin for one window, on random series.

use model::Labels;
use model::rng::Rng;

use crate::annotations::Notes;
use crate::exec::batch::{ABSENT, Cell, clean};
use crate::functions::rate::find_resets;
use crate::functions::window::{Bound, Env, SeriesColumns, State, Steps, Window, window_function};
use crate::parser::ast::Boundary;
use crate::plan::node::Site;

const FUNCTIONS: [&str; 16] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "resets",
    "changes",
    "sum_over_time",
    "avg_over_time",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "last_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "quantile_over_time",
];

fn series(r: &mut Rng) -> SeriesColumns {
    let mut c = SeriesColumns::default();
    let kind = r.below(5);
    let (mut t, mut v) = (0_i64, 0.0_f64);
    for _ in 0..r.below(400) + 1 {
        t += if r.below(10) == 0 { 1 + r.below(60_000) as i64 } else { 15_000 };
        v = match kind {
            0 => v + r.below(1_000) as f64 / 7.0,
            1 if r.below(20) == 0 => r.below(5) as f64 - 1.0,
            1 => v + r.below(3) as f64,
            2 => (r.below(2_000_001) as f64 - 1e6) * 1e-3,
            3 => f64::from_bits(r.next()),
            _ => [0.0, -0.0, 1.0, f64::NAN, f64::INFINITY, f64::MAX, 5e-324][r.below(7) as usize],
        };
        if kind == 2 && r.below(30) == 0 {
            v = f64::NAN;
        }
        c.float_ts.push(t);
        c.floats.push(clean(v));
    }
    find_resets(&mut c, 0);
    c
}

fn bounds(r: &mut Rng, c: &SeriesColumns) -> (Vec<Bound>, i64, usize) {
    let range_ms = 1 + r.below(40) as i64 * 15_000;
    let step_ms = 1_000 * (1 + r.below(100) as i64);
    let (mut bounds, mut end_ms, mut steps) = (Vec::new(), r.below(60_000) as i64, 0);
    while end_ms < c.float_ts[c.float_ts.len() - 1] + range_ms {
        let lo = c.float_ts.partition_point(|t| *t <= end_ms - range_ms);
        let hi = c.float_ts.partition_point(|t| *t <= end_ms);
        if lo < hi {
            bounds.push(Bound { step: steps, floats: (lo, hi), histograms: (0, 0), end_ms });
        }
        end_ms += step_ms;
        steps += 1;
    }
    (bounds, range_ms, steps)
}

fn check(seed: u64) {
    let mut r = Rng::new(seed);
    let c = series(&mut r);
    let (bounds, range_ms, steps) = bounds(&mut r, &c);
    let q = [0.0, 0.5, 0.9, 1.0, -1.0, f64::NAN][r.below(6) as usize];
    let args = [vec![q; steps]];
    let labels = Labels::empty();
    for name in FUNCTIONS {
        let function = window_function(name).expect("a known function");
        let run = function.run_columns.expect("a function over columns");
        let (mut notes, mut state) = (Notes::default(), State::default());
        let (mut other_notes, mut other_state) = (Notes::default(), State::default());
        let site = Site::default();
        let mut env = Env {
            labels: &labels,
            scalars: [q, 0.0],
            range_ms,
            site,
            args_site: site,
            notes: &mut notes,
            state: &mut state,
        };
        let mut cells = vec![ABSENT; steps];
        // In two runs, as the driver has it.
        let (first, second) = bounds.split_at(bounds.len() / 2);
        for bounds in [first, second] {
            run(&Steps { columns: &c, bounds, range_ms, args: &args }, &mut env, &mut cells);
        }
        let mut env = Env { notes: &mut other_notes, state: &mut other_state, ..env };
        for b in &bounds {
            let window = Window {
                columns: &c,
                float_range: b.floats,
                histogram_range: (0, 0),
                ts_ms: b.end_ms,
                start_ms: b.end_ms - range_ms,
                end_ms: b.end_ms,
                boundary: Boundary::Plain,
            };
            let expect = match (function.run)(&window, &mut env).expect("a value") {
                Cell::Float(v) => clean(v),
                _ => ABSENT,
            };
            let got = cells[b.step];
            let same = got.to_bits() == expect.to_bits()
                || (got.is_nan()
                    && expect.is_nan()
                    && (got.to_bits() != ABSENT.to_bits())
                    && (expect.to_bits() != ABSENT.to_bits()));
            assert!(
                same,
                "seed {seed}: {name} at {b:?}: {got:?} instead of {expect:?} over {:?}",
                window.floats()
            );
        }
        assert_eq!(notes.is_empty(), other_notes.is_empty(), "seed {seed}: {name}");
    }
}

#[test]
fn columns_give_what_windows_give() {
    (0..1_500).for_each(check);
}
