//! The objects of one watch, and who wants to know when they change.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use super::inbox::Inbox;
use super::object::{Object, ObjectRef, key};
use crate::discovery::metrics::Metrics;

/// Objects by key. Readers see a change before their inbox hears of it, never after.
pub(super) struct Store<K> {
    state: RwLock<State<K>>,
    metrics: Arc<Metrics>,
}

struct State<K> {
    objects: HashMap<String, Arc<K>>,
    synced: bool,
    inboxes: Vec<Weak<Inbox>>,
}

#[derive(Clone, Copy)]
enum Change {
    Add,
    Update,
    Delete,
}

impl<K> Store<K> {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let state = State { objects: HashMap::new(), synced: false, inboxes: Vec::new() };
        Self { state: RwLock::new(state), metrics }
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    /// Whether the whole cluster was listed once.
    pub(super) fn is_synced(&self) -> bool {
        self.state.read().synced
    }
}

impl<K: Object> Store<K> {
    /// Tells `inbox` of every object there is and of every change from now on, as long as it lives.
    pub(super) fn subscribe(&self, inbox: &Arc<Inbox>) {
        let mut state = self.state.write();
        state.inboxes.retain(|known| known.strong_count() > 0);
        state.inboxes.push(Arc::downgrade(inbox));
        inbox.add(state.objects.keys().map(|key| ObjectRef::new(K::KIND, key.as_str())));
    }

    /// Makes `listed` the objects there are.
    pub(super) fn replace(&self, listed: Vec<K>) {
        let mut state = self.state.write();
        let mut before = std::mem::take(&mut state.objects);
        let mut changed = Vec::new();
        for object in listed {
            let (key, object) = kept(object);
            let old = before.remove(&key);
            match &old {
                Some(old) if **old == object => {}
                _ => {
                    changed.push(ObjectRef::new(K::KIND, key.as_str()));
                    self.count(if old.is_some() { Change::Update } else { Change::Add });
                }
            }
            let object = old.filter(|old| **old == object).unwrap_or_else(|| Arc::new(object));
            state.objects.insert(key, object);
        }
        for key in before.into_keys() {
            self.count(Change::Delete);
            changed.push(ObjectRef::new(K::KIND, key));
        }
        state.synced = true;
        state.tell(&changed);
    }

    /// Adds or replaces one object. One whose kept fields are the same as before tells nobody.
    pub(super) fn apply(&self, object: K) {
        let (key, object) = kept(object);
        let mut state = self.state.write();
        match state.objects.entry(key.clone()) {
            Entry::Occupied(mut old) => {
                self.count(Change::Update);
                if **old.get() == object {
                    return;
                }
                old.insert(Arc::new(object));
            }
            Entry::Vacant(place) => {
                self.count(Change::Add);
                place.insert(Arc::new(object));
            }
        }
        state.tell(&[ObjectRef::new(K::KIND, key)]);
    }

    /// Removes one object.
    pub(super) fn delete(&self, object: &K) {
        let key = key(object.meta());
        let mut state = self.state.write();
        if state.objects.remove(&key).is_some() {
            self.count(Change::Delete);
            state.tell(&[ObjectRef::new(K::KIND, key)]);
        }
    }

    fn count(&self, change: Change) {
        let Some(role) = K::KIND.role() else { return };
        let event = match change {
            Change::Add => "add",
            Change::Update => "update",
            Change::Delete => "delete",
        };
        self.metrics.kubernetes_events.with_label_values(&[role.as_str(), event]).inc();
    }
}

impl<K> State<K> {
    fn tell(&self, changed: &[ObjectRef]) {
        for inbox in self.inboxes.iter().filter_map(Weak::upgrade) {
            if changed.is_empty() {
                inbox.ring();
            } else {
                inbox.add(changed.iter().cloned());
            }
        }
    }
}

/// The object as it is kept: without its version, which changes when nothing that is used does.
fn kept<K: Object>(mut object: K) -> (String, K) {
    object.meta_mut().resource_version = None;
    (key(object.meta()), object)
}
