//! The objects of one watch, and who wants to know when they change.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use super::inbox::Inbox;
use super::object::{Object, ObjectRef, key};
use super::packed::Packed;
use crate::discovery::metrics::Metrics;

/// Objects by key. Readers see a change before their inbox hears of it, never after.
pub(super) struct Store<K> {
    state: RwLock<State>,
    metrics: Arc<Metrics>,
    kind: PhantomData<fn() -> K>,
}

struct State {
    objects: HashMap<Arc<str>, Packed>,
    synced: bool,
    inboxes: Vec<Weak<Inbox>>,
}

/// Objects on their way from a list into the store, packed page by page.
#[derive(Default)]
pub(super) struct Listed(Vec<(Arc<str>, Packed)>);

#[derive(Clone, Copy)]
enum Change {
    Add,
    Update,
    Delete,
}

impl Listed {
    pub(super) fn add<K: Object>(&mut self, objects: Vec<K>) {
        self.0.extend(objects.into_iter().map(kept));
    }
}

impl<K: Object> Store<K> {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let state = State { objects: HashMap::new(), synced: false, inboxes: Vec::new() };
        Self { state: RwLock::new(state), metrics, kind: PhantomData }
    }

    pub(super) fn get(&self, key: &str) -> Option<K> {
        let packed = self.state.read().objects.get(key)?.clone();
        let mut object: K = packed.unpack();
        let meta = object.meta_mut();
        match key.split_once('/') {
            Some((namespace, name)) => {
                meta.namespace = Some(namespace.to_owned());
                meta.name = Some(name.to_owned());
            }
            None => meta.name = Some(key.to_owned()),
        }
        Some(object)
    }

    /// Whether the whole cluster was listed once.
    pub(super) fn is_synced(&self) -> bool {
        self.state.read().synced
    }

    /// Tells `inbox` of every object there is and of every change from now on, as long as it lives.
    pub(super) fn subscribe(&self, inbox: &Arc<Inbox>) {
        let mut state = self.state.write();
        state.inboxes.retain(|known| known.strong_count() > 0);
        state.inboxes.push(Arc::downgrade(inbox));
        inbox.add(state.objects.keys().map(|key| ObjectRef::new(K::KIND, Arc::clone(key))));
    }

    /// Makes `listed` the objects there are.
    pub(super) fn replace(&self, listed: Listed) {
        let mut state = self.state.write();
        let mut before = std::mem::take(&mut state.objects);
        let mut changed = Vec::new();
        state.objects.reserve(listed.0.len());
        for (key, object) in listed.0 {
            let (key, change) = match before.remove_entry(&key) {
                Some((key, old)) => (key, (old != object).then_some(Change::Update)),
                None => (key, Some(Change::Add)),
            };
            if let Some(change) = change {
                changed.push(ObjectRef::new(K::KIND, Arc::clone(&key)));
                self.count(change);
            }
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
        let key = match state.objects.entry(key) {
            Entry::Occupied(mut old) => {
                self.count(Change::Update);
                if *old.get() == object {
                    return;
                }
                old.insert(object);
                Arc::clone(old.key())
            }
            Entry::Vacant(place) => {
                self.count(Change::Add);
                let key = Arc::clone(place.key());
                place.insert(object);
                key
            }
        };
        state.tell(&[ObjectRef::new(K::KIND, key)]);
    }

    /// Removes one object.
    pub(super) fn delete(&self, object: &K) {
        let key = key(object.meta());
        let mut state = self.state.write();
        if state.objects.remove(key.as_str()).is_some() {
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

impl State {
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

/// The object as it is kept: only what is used, and without its version, which changes when nothing that is used does.
fn kept<K: Object>(mut object: K) -> (Arc<str>, Packed) {
    object.slim();
    (key(object.meta()).into(), Packed::of(&object))
}
