//! Functions over windows: what they get, what they give, and which there are.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/>.

use std::collections::VecDeque;
use std::sync::Arc;

use model::{FloatHistogram, Labels};

use super::{columns, extended, histogram_over_time, over_time, quantile, rate, regression, resets};
use crate::annotations::{Note, Notes};
use crate::error::Result;
use crate::exec::batch::Cell;
use crate::parser::ast::Boundary;
use crate::plan::node::Site;

/// All samples of one series, floats and histograms apart, without stale markers.
#[derive(Debug, Default)]
pub(crate) struct SeriesColumns {
    pub(crate) float_ts: Vec<i64>,
    pub(crate) floats: Vec<f64>,
    /// Empty, or as long as `floats`.
    pub(crate) float_starts: Vec<i64>,
    pub(crate) histogram_ts: Vec<i64>,
    pub(crate) histograms: Vec<Arc<FloatHistogram>>,
    /// Empty, or as long as `histograms`.
    pub(crate) histogram_starts: Vec<i64>,
    /// Indices of floats before which the counter was reset.
    pub(crate) resets: Vec<usize>,
}

impl SeriesColumns {
    pub(crate) fn clear(&mut self) {
        self.float_ts.clear();
        self.floats.clear();
        self.float_starts.clear();
        self.histogram_ts.clear();
        self.histograms.clear();
        self.histogram_starts.clear();
        self.resets.clear();
    }

    /// Number of samples.
    pub(crate) fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }

    /// Forgets the first floats and histograms.
    pub(crate) fn drop_front(&mut self, floats: usize, histograms: usize) {
        self.float_ts.drain(..floats);
        self.floats.drain(..floats);
        self.float_starts.drain(..floats.min(self.float_starts.len()));
        self.histogram_ts.drain(..histograms);
        self.histograms.drain(..histograms);
        self.histogram_starts.drain(..histograms.min(self.histogram_starts.len()));
        let gone = self.resets.partition_point(|r| *r < floats);
        self.resets.drain(..gone);
        self.resets.iter_mut().for_each(|r| *r -= floats);
    }
}

/// Where the window of one step lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) step: usize,
    /// The floats are `columns.floats[floats.0..floats.1]`.
    pub(crate) floats: (usize, usize),
    pub(crate) histograms: (usize, usize),
    /// End of the window as written, inclusive.
    pub(crate) end_ms: i64,
}

/// Neighbouring steps, in order, each of whose windows holds at least one float and no histogram; no float has a start
/// timestamp.
#[derive(Clone, Copy)]
pub(crate) struct Steps<'a> {
    pub(crate) columns: &'a SeriesColumns,
    pub(crate) bounds: &'a [Bound],
    pub(crate) range_ms: i64,
    /// Values of the scalar arguments, by step.
    pub(crate) args: &'a [Vec<f64>],
}

impl<'a> Steps<'a> {
    pub(crate) fn floats(&self, b: &Bound) -> &'a [f64] {
        &self.columns.floats[b.floats.0..b.floats.1]
    }
}

/// A function over the windows of many steps at once. `cells` has one entry for each step of the query; those of the
/// given steps are absent and are filled. The outcome is the same, bit for bit, as that of the function for one window.
pub(crate) type ColumnFn = fn(&Steps<'_>, &mut Env<'_>, &mut [f64]);

/// The samples that one step looks at.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    pub(crate) columns: &'a SeriesColumns,
    /// The window is `columns.floats[float_range.0..float_range.1]`.
    pub(crate) float_range: (usize, usize),
    pub(crate) histogram_range: (usize, usize),
    /// Evaluation time.
    pub(crate) ts_ms: i64,
    /// Bounds of the window as written, without what `anchored` and `smoothed` add: `(start, end]`.
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) boundary: Boundary,
}

impl<'a> Window<'a> {
    pub(crate) fn float_ts(&self) -> &'a [i64] {
        &self.columns.float_ts[self.float_range.0..self.float_range.1]
    }

    pub(crate) fn floats(&self) -> &'a [f64] {
        &self.columns.floats[self.float_range.0..self.float_range.1]
    }

    /// Start timestamps of the floats; empty when there are none.
    pub(crate) fn float_starts(&self) -> &'a [i64] {
        self.columns.float_starts.get(self.float_range.0..self.float_range.1).unwrap_or(&[])
    }

    pub(crate) fn histogram_ts(&self) -> &'a [i64] {
        &self.columns.histogram_ts[self.histogram_range.0..self.histogram_range.1]
    }

    pub(crate) fn histograms(&self) -> &'a [Arc<FloatHistogram>] {
        &self.columns.histograms[self.histogram_range.0..self.histogram_range.1]
    }

    pub(crate) fn histogram_starts(&self) -> &'a [i64] {
        self.columns.histogram_starts.get(self.histogram_range.0..self.histogram_range.1).unwrap_or(&[])
    }

    /// Indices, within the window, of floats that come after a reset within the window.
    pub(crate) fn resets(&self) -> impl Iterator<Item = usize> + 'a {
        let (lo, hi) = self.float_range;
        let all = &self.columns.resets;
        let from = all.partition_point(|r| *r <= lo);
        all[from..].iter().take_while(move |r| **r < hi).map(move |r| r - lo)
    }
}

/// What a function may use beside its window. One per thread and series.
pub(crate) struct Env<'a> {
    /// Labels of the series.
    pub(crate) labels: &'a Labels,
    /// Scalar arguments at this step.
    pub(crate) scalars: [f64; 2],
    /// Length of the range as written.
    pub(crate) range_ms: i64,
    /// The first argument.
    pub(crate) site: Site,
    /// All arguments.
    pub(crate) args_site: Site,
    pub(crate) notes: &'a mut Notes,
    pub(crate) state: &'a mut State,
}

impl<'a> Env<'a> {
    pub(crate) fn note(&mut self, note: Note<'_>) {
        self.notes.add(self.site, note);
    }

    pub(crate) fn note_args(&mut self, note: Note<'_>) {
        self.notes.add(self.args_site, note);
    }

    pub(crate) fn name(&self) -> &'a str {
        self.labels.metric_name()
    }
}

/// Buffers that live from step to step; `begin_series` empties them.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The window of the previous step.
    pub(crate) sorted_range: (usize, usize),
    /// Its floats, sorted; empty when they were not needed in order.
    pub(crate) sorted: Vec<f64>,
    pub(crate) scratch: Vec<f64>,
    /// Floats as numbers that sort like them.
    pub(crate) keys: Vec<i64>,
    /// Candidates for the extreme of the windows to come, best first: indices of floats.
    pub(crate) extremes: VecDeque<usize>,
    /// Floats before this one were looked at.
    pub(crate) extremes_end: usize,
    /// Changes within the floats of this range.
    pub(crate) changes: u64,
    pub(crate) changes_range: (usize, usize),
}

impl State {
    pub(crate) fn begin_series(&mut self) {
        self.sorted.clear();
        self.sorted_range = (0, 0);
        self.extremes.clear();
        self.extremes_end = 0;
        self.changes_range = (0, 0);
    }

    /// The first `floats` of the columns went away. What is known of windows that held one of them is of no use.
    pub(crate) fn drop_front(&mut self, floats: usize) {
        let moved = |(lo, hi): (usize, usize)| if lo < floats { (0, 0) } else { (lo - floats, hi - floats) };
        if self.sorted_range.0 < floats {
            self.sorted.clear();
        }
        self.sorted_range = moved(self.sorted_range);
        self.changes_range = moved(self.changes_range);
        let gone = self.extremes.partition_point(|i| *i < floats);
        self.extremes.drain(..gone);
        self.extremes.iter_mut().for_each(|i| *i -= floats);
        self.extremes_end = self.extremes_end.saturating_sub(floats);
    }
}

/// A function over one window that holds at least one sample.
pub(crate) type WindowFn = fn(&Window<'_>, &mut Env<'_>) -> Result<Cell>;

/// A function over windows and what the one who drives it must know.
#[derive(Clone, Copy)]
pub(crate) struct WindowFunction {
    pub(crate) run: WindowFn,
    /// The same for many steps of a series of floats.
    pub(crate) run_columns: Option<ColumnFn>,
    /// The name of the metric stays.
    pub(crate) keeps_name: bool,
    /// [`SeriesColumns::resets`] is looked at.
    pub(crate) needs_resets: bool,
    /// Start timestamps are looked at when the engine uses them.
    pub(crate) uses_starts: bool,
    /// Floats under a name that is no counter's deserve an info.
    pub(crate) wants_counter: bool,
}

/// The function with this name.
pub(crate) fn window_function(name: &str) -> Option<WindowFunction> {
    let plain = |run: WindowFn| WindowFunction {
        run,
        run_columns: None,
        keeps_name: false,
        needs_resets: false,
        uses_starts: false,
        wants_counter: false,
    };
    let counter = |run: WindowFn, wants_counter| WindowFunction {
        needs_resets: true,
        uses_starts: true,
        wants_counter,
        ..plain(run)
    };
    let with =
        |run_columns: ColumnFn, f: WindowFunction| WindowFunction { run_columns: Some(run_columns), ..f };
    Some(match name {
        "rate" => with(columns::rate, counter(rate::rate, true)),
        "increase" => with(columns::increase, counter(rate::increase, true)),
        "delta" => with(columns::delta, plain(rate::delta)),
        "irate" => with(columns::irate, WindowFunction { uses_starts: true, ..plain(rate::irate) }),
        "idelta" => with(columns::idelta, plain(rate::idelta)),
        "resets" => with(
            columns::resets,
            WindowFunction { uses_starts: true, needs_resets: true, ..plain(resets::resets) },
        ),
        "changes" => with(columns::changes, plain(resets::changes)),
        "deriv" => plain(regression::deriv),
        "predict_linear" => plain(regression::predict_linear),
        "double_exponential_smoothing" => plain(regression::double_exponential_smoothing),
        "sum_over_time" => with(columns::sum, plain(histogram_over_time::sum)),
        "avg_over_time" => with(columns::avg, plain(histogram_over_time::avg)),
        "count_over_time" => with(columns::count, plain(over_time::count)),
        "min_over_time" => with(columns::min, plain(over_time::min)),
        "max_over_time" => with(columns::max, plain(over_time::max)),
        "ts_of_min_over_time" => plain(over_time::ts_of_min),
        "ts_of_max_over_time" => plain(over_time::ts_of_max),
        "ts_of_first_over_time" => plain(over_time::ts_of_first),
        "ts_of_last_over_time" => plain(over_time::ts_of_last),
        "first_over_time" => WindowFunction { keeps_name: true, ..plain(over_time::first) },
        "last_over_time" => {
            with(columns::last, WindowFunction { keeps_name: true, ..plain(over_time::last) })
        }
        "present_over_time" | "absent_over_time" => plain(|_, _| Ok(Cell::Float(1.0))),
        "stddev_over_time" => with(columns::stddev, plain(over_time::stddev)),
        "stdvar_over_time" => with(columns::stdvar, plain(over_time::stdvar)),
        "mad_over_time" => plain(quantile::mad),
        "quantile_over_time" => with(columns::quantile, plain(quantile::quantile_over_time)),
        _ => return None,
    })
}

/// The function for `anchored` and `smoothed` windows, for those functions that differ there.
pub(crate) fn extended_function(name: &str, plain: WindowFunction) -> WindowFunction {
    let run: WindowFn = match name {
        "rate" => extended::rate,
        "increase" => extended::increase,
        "delta" => extended::delta,
        _ => return WindowFunction { run_columns: None, ..plain },
    };
    WindowFunction { run, run_columns: None, ..plain }
}
