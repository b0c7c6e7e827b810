//! How series of two vectors find each other: series with equal *match groups* do.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#vector-matching>.

use model::Labels;
use model::labels::METRIC_NAME;

use super::context::Context;
use super::memory::HeldBytes;
use crate::error::Result;
use crate::hash::FastMap;
use crate::parser::ast::VectorMatching;

/// What an entry of the map takes beside its key.
const ENTRY_BYTES: u64 = 32;

/// Numbers match groups in the order they are met.
pub(crate) struct Groups<'q> {
    matching: &'q VectorMatching,
    ordinals: FastMap<Box<[u8]>, usize>,
    key: Vec<u8>,
    bytes: HeldBytes<'q>,
}

impl<'q> Groups<'q> {
    pub(crate) fn new(ctx: &'q Context<'_>, matching: &'q VectorMatching) -> Self {
        Self { matching, ordinals: FastMap::default(), key: Vec::new(), bytes: ctx.memory.hold() }
    }

    /// The number of the group of `labels`.
    pub(crate) fn ordinal(&mut self, labels: &Labels) -> Result<usize> {
        write_key(self.matching, labels, &mut self.key);
        if let Some(o) = self.ordinals.get(self.key.as_slice()) {
            return Ok(*o);
        }
        self.bytes.add(self.key.len() as u64 + ENTRY_BYTES)?;
        let next = self.ordinals.len();
        self.ordinals.insert(self.key.as_slice().into(), next);
        Ok(next)
    }

    /// The number of the group of `labels`, if it was met before.
    pub(crate) fn find(&mut self, labels: &Labels) -> Option<usize> {
        write_key(self.matching, labels, &mut self.key);
        self.ordinals.get(self.key.as_slice()).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.ordinals.len()
    }
}

fn is_kept(matching: &VectorMatching, name: &str) -> bool {
    let listed = matching.labels.iter().any(|l| l == name);
    if matching.on { listed } else { !listed && name != METRIC_NAME }
}

fn write_key(matching: &VectorMatching, labels: &Labels, key: &mut Vec<u8>) {
    key.clear();
    for (n, v) in labels.iter().filter(|(n, _)| is_kept(matching, n)) {
        push_pair(key, n, v);
    }
}

/// Adds a pair to a key; 0xff is in no UTF-8 text.
pub(crate) fn push_pair(key: &mut Vec<u8>, name: &str, value: &str) {
    key.extend_from_slice(name.as_bytes());
    key.push(0xff);
    key.extend_from_slice(value.as_bytes());
    key.push(0xff);
}

/// The labels that make the match group.
pub(crate) fn group_labels(matching: &VectorMatching, labels: &Labels) -> Labels {
    labels.filter(|n| is_kept(matching, n))
}
