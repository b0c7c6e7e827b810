//! `sum` and `avg` of native histograms.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#sum>, `#avg`.

use std::collections::HashMap;
use std::sync::Arc;

use model::histogram::CounterResetHint;
use model::{FloatHistogram, Labels};

use crate::annotations::{HistogramOperation, Note};
use crate::error::Result;
use crate::exec::batch::histogram_weight;
use crate::exec::context::Context;
use crate::exec::memory::{HeldBytes, histogram_bytes};
use crate::functions::histogram::Accumulated;
use crate::parser::ast::AggregateOp;
use crate::plan::node::Aggregate;

/// Accumulators of those groups and steps that have histograms.
pub(crate) struct HistogramGroups<'q> {
    node: &'q Aggregate,
    cells: HashMap<usize, State>,
    bytes: HeldBytes<'q>,
}

struct State {
    sum: Accumulated,
    /// Exponential and custom buckets met: there is no result.
    incompatible: bool,
    /// A float came first: there is no result, and histograms are not even added up.
    began_with_float: bool,
    reset_seen: bool,
    no_reset_seen: bool,
}

/// What a group has at a step.
pub(crate) enum Taken {
    /// No histogram was there.
    None,
    Histogram(Arc<FloatHistogram>),
    /// Histograms were there, and nothing comes of them.
    Nothing,
}

impl<'q> HistogramGroups<'q> {
    pub(crate) fn new(ctx: &'q Context<'_>, node: &'q Aggregate) -> Self {
        Self { node, cells: HashMap::new(), bytes: ctx.memory.hold() }
    }

    pub(crate) fn add(
        &mut self,
        ctx: &Context<'_>,
        cell: usize,
        h: &Arc<FloatHistogram>,
        labels: &Labels,
        after_float: bool,
    ) -> Result<()> {
        let is_mean = self.node.op == AggregateOp::Avg;
        let state = match self.cells.get_mut(&cell) {
            Some(s) if s.incompatible || s.began_with_float => return Ok(()),
            Some(s) => {
                match s.sum.add(h) {
                    Ok(false) => {}
                    Ok(true) => {
                        let note = Note::MismatchedCustomBuckets(HistogramOperation::Aggregation);
                        ctx.note(self.node.input_site, note);
                    }
                    Err(_) => {
                        ctx.note(self.node.input_site, Note::MixedExponentialCustom(labels.metric_name()));
                        s.incompatible = true;
                    }
                }
                s
            }
            None => {
                ctx.hold(histogram_weight(h))?;
                // The sum and what its additions lost.
                self.bytes.add(2 * histogram_bytes(h) + size_of::<State>() as u64)?;
                self.cells.entry(cell).or_insert(State {
                    sum: Accumulated::new(h, is_mean),
                    incompatible: false,
                    began_with_float: after_float,
                    reset_seen: false,
                    no_reset_seen: false,
                })
            }
        };
        match h.counter_reset_hint {
            CounterResetHint::CounterReset => state.reset_seen = true,
            CounterResetHint::NotCounterReset => state.no_reset_seen = true,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
        Ok(())
    }

    /// Whether nothing can come of the group any more: what else it holds is not looked at.
    pub(crate) fn is_lost(&self, cell: usize) -> bool {
        self.cells.get(&cell).is_some_and(|s| s.incompatible)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Takes the outcome out; `with_floats` tells whether the group has floats at that step too.
    pub(crate) fn take(&mut self, ctx: &Context<'_>, cell: usize, with_floats: bool) -> Taken {
        let Some(state) = self.cells.remove(&cell) else { return Taken::None };
        if with_floats {
            ctx.note(self.node.input_site, Note::MixedFloatsHistogramsAgg);
            return Taken::Nothing;
        }
        if state.incompatible {
            return Taken::Nothing;
        }
        if state.reset_seen && state.no_reset_seen {
            ctx.note(self.node.input_site, Note::CounterResetCollision(HistogramOperation::Aggregation));
        }
        match state.sum.finish() {
            Some(h) => {
                ctx.release(histogram_weight(&h));
                Taken::Histogram(Arc::new(h))
            }
            None => Taken::Nothing,
        }
    }
}
