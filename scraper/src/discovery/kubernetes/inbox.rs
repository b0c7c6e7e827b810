//! What changed since a role last looked: a set of objects, so that a storm of changes to one costs one rebuild.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::object::ObjectRef;

/// Changed objects, and a bell. Bounded by the number of objects that exist or existed since the last look.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    changed: Mutex<HashSet<ObjectRef>>,
    bell: Notify,
}

impl Inbox {
    /// Notes that objects changed.
    pub(super) fn add(&self, objects: impl IntoIterator<Item = ObjectRef>) {
        self.changed.lock().extend(objects);
        self.bell.notify_one();
    }

    /// Rings without a change, for example because a watch has seen everything once.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Takes what changed.
    pub(super) fn take(&self) -> HashSet<ObjectRef> {
        std::mem::take(&mut *self.changed.lock())
    }

    /// Waits for the bell; a ring since the last wait counts.
    pub(super) async fn wait(&self) {
        self.bell.notified().await;
    }
}
