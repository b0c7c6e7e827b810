//! The groups of an aggregation, numbered as they are met.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#aggregation-operators>.

use model::Labels;
use model::labels::METRIC_NAME;

use crate::error::Result;
use crate::exec::context::Context;
use crate::exec::matching::push_pair;
use crate::exec::memory::{HeldBytes, labels_bytes};
use crate::hash::FastMap;
use crate::plan::node::Aggregate;

pub(crate) struct Grouping<'q> {
    names: &'q [String],
    without: bool,
    numbers: FastMap<Box<[u8]>, usize>,
    labels: Vec<Labels>,
    key: Vec<u8>,
    bytes: HeldBytes<'q>,
}

impl<'q> Grouping<'q> {
    pub(crate) fn new(ctx: &'q Context<'_>, node: &'q Aggregate) -> Self {
        Self {
            names: &node.grouping,
            without: node.without,
            numbers: FastMap::default(),
            labels: Vec::new(),
            key: Vec::new(),
            bytes: ctx.memory.hold(),
        }
    }

    /// The number of the group that a series belongs to.
    pub(crate) fn find(&mut self, labels: &Labels) -> Result<usize> {
        if !self.without && self.names.is_empty() {
            if self.labels.is_empty() {
                self.labels.push(Labels::empty());
            }
            return Ok(0);
        }
        let (names, without) = (self.names, self.without);
        let keep = |n: &str| {
            let listed = names.iter().any(|k| k == n);
            if without { !listed && n != METRIC_NAME } else { listed }
        };
        self.key.clear();
        for (n, v) in labels.iter().filter(|(n, _)| keep(n)) {
            push_pair(&mut self.key, n, v);
        }
        if let Some(at) = self.numbers.get(self.key.as_slice()) {
            return Ok(*at);
        }
        let at = self.labels.len();
        let labels = labels.filter(keep);
        self.bytes.add(2 * labels_bytes(&labels))?;
        self.labels.push(labels);
        self.numbers.insert(self.key.as_slice().into(), at);
        Ok(at)
    }

    pub(crate) fn labels(&self, group: usize) -> &Labels {
        &self.labels[group]
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }
}
