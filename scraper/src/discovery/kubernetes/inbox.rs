//! What changed since a role last looked: a set of objects, so that a storm of changes to one costs one rebuild.

use std::collections::HashSet;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::Notify;

use super::object::ObjectRef;
use crate::discovery::metrics::Metrics;

/// Changed objects, and a bell. Bounded by the number of objects that exist or existed since the last look.
#[derive(Debug)]
pub(super) struct Inbox {
    changed: Mutex<HashSet<ObjectRef>>,
    bell: Notify,
    /// Objects that were added while they were not there.
    items: IntCounter,
    /// Objects that are there, of this and other inboxes.
    depth: IntGauge,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.take();
    }
}

impl Inbox {
    /// An empty one, of the queue of that name.
    pub(super) fn new(metrics: &Metrics, name: &str) -> Self {
        Self {
            changed: Mutex::default(),
            bell: Notify::new(),
            items: metrics.kubernetes_queue_items.with_label_values(&[name]),
            depth: metrics.kubernetes_queue_depth.with_label_values(&[name]),
        }
    }

    /// Notes that objects changed.
    pub(super) fn add(&self, objects: impl IntoIterator<Item = ObjectRef>) {
        let mut changed = self.changed.lock();
        let before = changed.len();
        changed.extend(objects);
        let new = changed.len() - before;
        self.items.inc_by(new as u64);
        self.depth.add(new as i64);
        drop(changed);
        self.bell.notify_one();
    }

    /// Rings without a change, for example because a watch has seen everything once.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Takes what changed.
    pub(super) fn take(&self) -> HashSet<ObjectRef> {
        let taken = std::mem::take(&mut *self.changed.lock());
        self.depth.sub(taken.len() as i64);
        taken
    }

    /// Waits for the bell; a ring since the last wait counts.
    pub(super) async fn wait(&self) {
        self.bell.notified().await;
    }
}
