//! Which blocks retention drops. Whole blocks only, oldest first.

use std::sync::Arc;

use crate::block::Block;

/// What to drop, and why.
#[derive(Default)]
pub(crate) struct Doomed {
    pub(crate) by_time: Vec<Arc<Block>>,
    pub(crate) by_size: Vec<Arc<Block>>,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    /// 0: no limit.
    pub(crate) retention_ms: i64,
    /// 0: no limit.
    pub(crate) retention_bytes: u64,
}

/// Picks the blocks that end `retention_ms` or more before the newest one does, and the oldest ones that do not fit into
/// `retention_bytes` together with `other_bytes`.
pub(crate) fn pick(blocks: &[Arc<Block>], limits: Limits, other_bytes: u64) -> Doomed {
    let mut newest_first: Vec<&Arc<Block>> = blocks.iter().collect();
    newest_first.sort_by_key(|b| std::cmp::Reverse(b.meta.max_time));
    let mut out = Doomed::default();
    let Some(newest) = newest_first.first().map(|b| b.meta.max_time) else { return out };
    let mut total_bytes = other_bytes;
    for b in newest_first {
        total_bytes = total_bytes.saturating_add(b.len_bytes);
        if limits.retention_ms > 0
            && b.meta.max_time < newest
            && newest.saturating_sub(b.meta.max_time) >= limits.retention_ms
        {
            out.by_time.push(b.clone());
        } else if limits.retention_bytes > 0 && total_bytes > limits.retention_bytes {
            out.by_size.push(b.clone());
        }
    }
    out
}
