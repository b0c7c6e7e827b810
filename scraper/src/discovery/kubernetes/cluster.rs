//! Connections to Kubernetes API servers, and the watches that share them.
//!
//! Roles that look at the same objects of the same cluster share one watch, whichever jobs they belong to. A client is
//! made when it is first needed and made anew, with files read again, when the server keeps refusing or failing.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use parking_lot::Mutex;

use super::measured::Measured;
use super::object::Object;
use super::watch::{MakeApi, Query, Watching};
use crate::config::HttpConfig;
use crate::discovery::client_config::kube_client;
use crate::discovery::config::KubernetesConfig;
use crate::discovery::error::DiscoveryError;
use crate::discovery::metrics::Metrics;

/// How long setting up a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be silent. Longer than a watch lasts.
const READ_TIMEOUT: Duration = Duration::from_secs(90);
/// Where the namespace of this process's pod is written.
const OWN_NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// All clusters that some configuration names.
pub(in crate::discovery) struct Clusters {
    known: Mutex<Vec<(Access, Weak<Cluster>)>>,
    metrics: Arc<Metrics>,
    user_agent: String,
}

/// How a cluster is reached. Configurations with equal access share the cluster.
#[derive(Clone, Debug, PartialEq)]
struct Access {
    api_server: Option<String>,
    kubeconfig_file: Option<String>,
    http: HttpConfig,
}

/// One API server as one user.
pub(super) struct Cluster {
    access: Access,
    user_agent: String,
    client: tokio::sync::Mutex<Option<Client>>,
    watches: Mutex<HashMap<(TypeId, Query), Weak<dyn Any + Send + Sync>>>,
    metrics: Arc<Metrics>,
}

// === impl Clusters ===

impl Clusters {
    pub(in crate::discovery) fn new(metrics: Arc<Metrics>, user_agent: &str) -> Self {
        Self { known: Mutex::default(), metrics, user_agent: user_agent.to_owned() }
    }

    /// The cluster that `config` names, shared with everyone who names the same.
    pub(super) fn get(&self, config: &KubernetesConfig) -> Arc<Cluster> {
        let access = Access {
            api_server: config.api_server.clone(),
            kubeconfig_file: config.kubeconfig_file.clone(),
            http: config.http.clone(),
        };
        let mut known = self.known.lock();
        known.retain(|(_, cluster)| cluster.strong_count() > 0);
        let found = known.iter().find(|(other, _)| *other == access);
        if let Some(cluster) = found.and_then(|(_, cluster)| cluster.upgrade()) {
            return cluster;
        }
        let cluster = Arc::new(Cluster {
            access: access.clone(),
            user_agent: self.user_agent.clone(),
            client: tokio::sync::Mutex::default(),
            watches: Mutex::default(),
            metrics: Arc::clone(&self.metrics),
        });
        known.push((access, Arc::downgrade(&cluster)));
        cluster
    }
}

// === impl Cluster ===

impl Cluster {
    /// What messages call it.
    pub(super) fn name(&self) -> &str {
        let file = self.access.kubeconfig_file.as_deref();
        self.access.api_server.as_deref().or(file).unwrap_or("in-cluster")
    }

    /// Where what happens is counted.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The watch for `query`, begun if nobody has it yet.
    pub(super) fn watch<K: Object>(cluster: &Arc<Self>, query: Query, api: MakeApi<K>) -> Arc<Watching<K>> {
        let mut watches = cluster.watches.lock();
        watches.retain(|_, watch| watch.strong_count() > 0);
        let slot = (TypeId::of::<K>(), query.clone());
        let running = watches.get(&slot).and_then(Weak::upgrade);
        if let Some(running) = running.and_then(|watch| watch.downcast::<Watching<K>>().ok()) {
            return running;
        }
        let watching =
            Arc::new(Watching::start(Arc::clone(cluster), query, api, Arc::clone(&cluster.metrics)));
        let weak: Weak<Watching<K>> = Arc::downgrade(&watching);
        watches.insert(slot, weak);
        watching
    }

    /// A client, the same for everyone until it is forgotten.
    ///
    /// # Errors
    /// When a file cannot be read or the settings make no client.
    pub(super) async fn client(&self) -> Result<Client, DiscoveryError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let client = match &self.access {
            Access { api_server: Some(url), kubeconfig_file: None, http } => {
                kube_client(url, http, &self.user_agent, READ_TIMEOUT)
                    .map_err(|message| self.error(message))?
            }
            _ => {
                let config = self.config().await.map_err(|message| self.error(message))?;
                Client::try_from(config).map_err(|e| self.error(e.to_string()))?
            }
        };
        let namespace = client.default_namespace().to_owned();
        let measured = Measured { inner: client, metrics: Arc::clone(&self.metrics) };
        Ok(slot.insert(Client::new(measured, namespace)).clone())
    }

    /// Makes the next [`Self::client`] read kubeconfig, certificates and passwords again.
    pub(super) async fn forget_client(&self) {
        *self.client.lock().await = None;
    }

    fn error(&self, message: String) -> DiscoveryError {
        DiscoveryError::Cluster { cluster: self.name().to_owned(), message }
    }

    async fn config(&self) -> Result<Config, String> {
        let mut config = if let Some(path) = &self.access.kubeconfig_file {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|e| format!("{path}: {e}"))?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| format!("{path}: {e}"))?
        } else {
            Config::incluster()
                .map_err(|e| format!("{e}; outside a cluster set `api_server` or `kubeconfig_file`"))?
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        // The watch has its own pauses; two layers of them would multiply.
        config.default_retry = false;
        let agent = HeaderValue::from_str(&self.user_agent).map_err(|e| format!("User-Agent: {e}"))?;
        config.headers.push((USER_AGENT, agent));
        Ok(config)
    }
}

/// The namespace this process's pod is in.
pub(super) fn own_namespace() -> Result<String, DiscoveryError> {
    let path = OWN_NAMESPACE_FILE.to_owned();
    let name =
        std::fs::read_to_string(&path).map_err(|source| DiscoveryError::Io { path: path.clone(), source })?;
    if name.trim().is_empty() {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "the file is empty");
        return Err(DiscoveryError::Io { path, source });
    }
    Ok(name.trim().to_owned())
}
