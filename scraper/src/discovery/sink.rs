//! What one provider has found so far, and whom to wake when that changes.
//!
//! A provider writes, any number of jobs read. An update that changes nothing wakes nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::metrics::Metrics;
use crate::target_group::{TargetGroup, TargetGroups};

/// The groups of one provider by source.
pub(super) struct GroupSink {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    groups: BTreeMap<Arc<str>, Arc<TargetGroup>>,
    /// All groups in a row, made when someone asks and kept until something changes, for all jobs alike.
    list: Option<TargetGroups>,
    synced: bool,
    listeners: Vec<Arc<Notify>>,
}

impl GroupSink {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { state: Mutex::default(), metrics }
    }

    /// Puts groups in place of those of the same source. A group without targets is forgotten, as is the source of a
    /// `None`. Returns whether anything changed.
    pub(super) fn update(&self, changes: impl IntoIterator<Item = (Arc<str>, Option<TargetGroup>)>) -> bool {
        self.metrics.received_updates.inc();
        let mut state = self.state.lock();
        let mut changed = false;
        for (source, group) in changes {
            match group.filter(|group| !group.targets.is_empty()) {
                None => changed |= state.groups.remove(&source).is_some(),
                Some(group) if state.groups.get(&source).is_some_and(|old| **old == group) => {}
                Some(group) => {
                    state.groups.insert(source, Arc::new(group));
                    changed = true;
                }
            }
        }
        if changed {
            state.list = None;
            state.wake();
        }
        changed
    }

    /// Says that the provider has seen its whole source once.
    pub(super) fn mark_synced(&self) {
        let mut state = self.state.lock();
        if !state.synced {
            state.synced = true;
            state.wake();
        }
    }

    pub(super) fn is_synced(&self) -> bool {
        self.state.lock().synced
    }

    /// Wakes `listener` from now on.
    pub(super) fn subscribe(&self, listener: &Arc<Notify>) {
        let mut state = self.state.lock();
        if !state.listeners.iter().any(|known| Arc::ptr_eq(known, listener)) {
            state.listeners.push(Arc::clone(listener));
        }
    }

    pub(super) fn unsubscribe(&self, listener: &Arc<Notify>) {
        self.state.lock().listeners.retain(|known| !Arc::ptr_eq(known, listener));
    }

    /// Every group, by source; the same list as before when nothing changed.
    pub(super) fn list(&self) -> TargetGroups {
        let mut state = self.state.lock();
        let State { groups, list, .. } = &mut *state;
        Arc::clone(list.get_or_insert_with(|| Arc::new(groups.values().cloned().collect())))
    }
}

impl State {
    fn wake(&self) {
        for listener in &self.listeners {
            listener.notify_one();
        }
    }
}
