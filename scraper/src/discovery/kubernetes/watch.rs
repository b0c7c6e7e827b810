//! One watch: lists a kind, follows its changes, and never gives up.
//!
//! `kube`'s own watcher was not taken because it asks forever for a version that the server has answered with status
//! 410, loses an event it cannot decode, and reconnects without a pause to a server that closes every watch at once.
//!
//! The rules here:
//! - A list replaces the store only when its last page has arrived.
//! - A watch that ends is resumed from the last version seen, bookmarks included.
//! - Version too old (410, as a status or as an event), an event that cannot be decoded, and errors that no repetition
//!   cures lead to a new list.
//! - Failures wait: 50 ms at first, twice as long each time, up to [`RETRY_MAX`] when the server cannot be reached or
//!   is in trouble, so that targets follow within a second of its return; up to [`REFUSED_RETRY_MAX`] when it refuses us.
//! - A connection that is silent for longer than the server was told to keep it is given up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::Cluster;
use super::object::Object;
use super::store::{Listed, Store};
use crate::discovery::metrics::Metrics;

/// Objects in one page of a list.
const PAGE_OBJECTS: u32 = 500;
/// How long a page may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the server keeps a watch open. Short, because a dead connection is noticed only after it.
const WATCH_SECONDS: u32 = 60;
/// How much later than that a watch counts as dead.
const WATCH_GRACE: Duration = Duration::from_secs(5);
/// A watch that ends sooner than this without an event counts as failed.
const WATCH_SHORT: Duration = Duration::from_secs(1);
/// A watch that lasted longer than this shows that earlier failures are over.
const WATCH_LONG: Duration = Duration::from_secs(10);
/// First pause after a failure.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest pause while the server cannot be reached.
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Longest pause while the server refuses us.
const REFUSED_RETRY_MAX: Duration = Duration::from_secs(15);
/// Failures in a row after which credentials and certificates are read again.
const FAILURES_BEFORE_NEW_CLIENT: u32 = 5;
/// Least time between two messages about the same trouble.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Which objects of a kind are watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Query {
    /// `None` for all namespaces.
    pub(super) namespace: Option<String>,
    /// Label selector, empty for none.
    pub(super) label: String,
    /// Field selector, empty for none.
    pub(super) field: String,
}

/// A running watch; it ends when the last user drops it.
pub(super) struct Watching<K> {
    store: Arc<Store<K>>,
    task: JoinHandle<()>,
}

/// Makes the API handle for a kind, in a namespace or in all.
pub(super) type MakeApi<K> = fn(kube::Client, Option<&str>) -> Api<K>;

impl<K> Watching<K> {
    pub(super) fn store(&self) -> &Store<K> {
        &self.store
    }
}

impl<K: Object> Watching<K> {
    pub(super) fn start(cluster: Arc<Cluster>, query: Query, api: MakeApi<K>, metrics: Arc<Metrics>) -> Self {
        let store = Arc::new(Store::new(Arc::clone(&metrics)));
        let watch =
            Watch { store: Arc::clone(&store), cluster, query, api, metrics, retry: Retry::default() };
        Self { store, task: tokio::spawn(watch.run()) }
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl<K: Object> Watching<K> {
    /// A watch of nothing, whose store holds these objects; for `fuzz/`.
    pub(super) fn of_objects(objects: Vec<K>, metrics: Arc<Metrics>, task: JoinHandle<()>) -> Self {
        let store = Arc::new(Store::new(metrics));
        let mut listed = Listed::default();
        listed.add(objects);
        store.replace(listed);
        Self { store, task }
    }
}

impl<K> Drop for Watching<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Watch<K> {
    store: Arc<Store<K>>,
    cluster: Arc<Cluster>,
    query: Query,
    api: MakeApi<K>,
    metrics: Arc<Metrics>,
    retry: Retry,
}

/// Why a list or watch has to be begun again.
#[derive(Debug)]
enum Trouble {
    /// The version is too old or an event was lost: list again.
    Relist(String),
    /// Not reachable, or busy: the same again.
    Again(String),
    /// The server refuses us: the same again, with fresh credentials.
    Refused(String),
}

// === impl Watch ===

impl<K: Object> Watch<K> {
    async fn run(mut self) {
        let mut version: Option<String> = None;
        loop {
            let begun = Instant::now();
            let outcome = self.attempt(&mut version).await;
            let Err(trouble) = outcome else { continue };
            if begun.elapsed() > WATCH_LONG {
                self.retry.failures = 0;
            }
            self.metrics.kubernetes_failures.inc();
            if matches!(trouble, Trouble::Relist(_)) {
                version = None;
            }
            self.log(&trouble);
            let pause = self.retry.failed(&trouble);
            if self.retry.failures.is_multiple_of(FAILURES_BEFORE_NEW_CLIENT)
                || matches!(trouble, Trouble::Refused(_))
            {
                self.cluster.forget_client().await;
            }
            sleep(pause).await;
        }
    }

    /// Lists if there is no version to go on from, then watches until the watch ends.
    async fn attempt(&mut self, version: &mut Option<String>) -> Result<(), Trouble> {
        let client = self.cluster.client().await.map_err(|e| Trouble::Again(e.to_string()))?;
        let api = (self.api)(client, self.query.namespace.as_deref());
        let from = match version.take() {
            Some(version) => version,
            None => self.list(&api).await?,
        };
        let from = version.insert(from);
        self.watch(&api, from).await
    }

    async fn list(&mut self, api: &Api<K>) -> Result<String, Trouble> {
        let mut params = ListParams { limit: Some(PAGE_OBJECTS), ..ListParams::default() };
        params.label_selector = (!self.query.label.is_empty()).then(|| self.query.label.clone());
        params.field_selector = (!self.query.field.is_empty()).then(|| self.query.field.clone());
        let mut objects = Listed::default();
        loop {
            let page = match timeout(LIST_TIMEOUT, api.list(&params)).await {
                Ok(page) => page.map_err(|e| Trouble::of(&e))?,
                Err(_) => return Err(Trouble::Again(format!("no page within {LIST_TIMEOUT:?}"))),
            };
            objects.add(page.items);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                let version = page.metadata.resource_version.filter(|version| !version.is_empty());
                let version =
                    version.ok_or_else(|| Trouble::Relist("list without resourceVersion".to_owned()))?;
                self.store.replace(objects);
                self.recovered();
                return Ok(version);
            }
        }
    }

    /// Follows changes and moves `version` along. `Ok` when the server ended the watch in good order.
    async fn watch(&mut self, api: &Api<K>, version: &mut String) -> Result<(), Trouble> {
        let params = WatchParams {
            label_selector: (!self.query.label.is_empty()).then(|| self.query.label.clone()),
            field_selector: (!self.query.field.is_empty()).then(|| self.query.field.clone()),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            send_initial_events: false,
        };
        let patience = Duration::from_secs(u64::from(WATCH_SECONDS)) + WATCH_GRACE;
        let begun = Instant::now();
        let mut any_event = false;
        let stream = match timeout(patience, api.watch(&params, version)).await {
            Ok(stream) => stream.map_err(|e| Trouble::of(&e))?,
            Err(_) => return Err(Trouble::Again(format!("no answer within {patience:?}"))),
        };
        pin_mut!(stream);
        loop {
            let event = match timeout(patience, stream.next()).await {
                Ok(Some(event)) => event.map_err(|e| Trouble::of(&e))?,
                Ok(None) if !any_event && begun.elapsed() < WATCH_SHORT => {
                    return Err(Trouble::Again("the watch ended as soon as it began".to_owned()));
                }
                Ok(None) => return Ok(()),
                Err(_) => return Err(Trouble::Again(format!("nothing heard for {patience:?}"))),
            };
            *version = self.take(event)?;
            if !any_event {
                any_event = true;
                self.recovered();
            }
        }
    }

    /// Applies an event and returns the version it brings.
    fn take(&self, event: WatchEvent<K>) -> Result<String, Trouble> {
        let version_of = |object: &K| {
            let version = object.meta().resource_version.clone().filter(|version| !version.is_empty());
            version.ok_or_else(|| Trouble::Relist("event without resourceVersion".to_owned()))
        };
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = version_of(&object)?;
                self.store.apply(object);
                Ok(version)
            }
            WatchEvent::Deleted(object) => {
                let version = version_of(&object)?;
                self.store.delete(&object);
                Ok(version)
            }
            WatchEvent::Bookmark(bookmark) => Ok(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => Err(Trouble::of_status(status.code, &status.message)),
        }
    }

    fn recovered(&mut self) {
        if self.retry.logged.take().is_some() {
            let (kind, cluster) = (K::KIND, self.cluster.name());
            tracing::info!(?kind, cluster, "watching again");
        }
        self.retry.failures = 0;
    }

    fn log(&mut self, trouble: &Trouble) {
        if self.retry.logged.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return;
        }
        self.retry.logged = Some(Instant::now());
        let (kind, cluster, namespace) = (K::KIND, self.cluster.name(), self.query.namespace.as_deref());
        match trouble {
            Trouble::Refused(why) => tracing::error!(
                ?kind,
                namespace,
                cluster,
                why,
                "the Kubernetes API refuses to list or watch; known targets stay; check credentials and RBAC"
            ),
            Trouble::Relist(why) | Trouble::Again(why) => {
                tracing::warn!(
                    ?kind,
                    namespace,
                    cluster,
                    why,
                    "Kubernetes watch interrupted; known targets stay"
                );
            }
        }
    }
}

// === impl Trouble ===

impl Trouble {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status.code, &status.message),
            kube::Error::SerdeError(e) => Self::Relist(format!("answer not understood: {e}")),
            kube::Error::FromUtf8(e) => Self::Relist(format!("answer not understood: {e}")),
            other => Self::Again(other.to_string()),
        }
    }

    fn of_status(code: u16, message: &str) -> Self {
        let why = format!("status {code}: {message}");
        match code {
            401 | 403 => Self::Refused(why),
            429 | 500.. => Self::Again(why),
            _ => Self::Relist(why),
        }
    }
}

/// How often something failed in a row.
#[derive(Default)]
struct Retry {
    failures: u32,
    logged: Option<Instant>,
}

impl Retry {
    /// Counts a failure and says how long to wait.
    fn failed(&mut self, trouble: &Trouble) -> Duration {
        let max = if matches!(trouble, Trouble::Refused(_)) { REFUSED_RETRY_MAX } else { RETRY_MAX };
        let pause = RETRY_MIN.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        pause.min(max)
    }
}
