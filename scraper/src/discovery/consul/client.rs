//! Requests to Consul's HTTP API: catalog, health and the agent itself.
//!
//! Spec: <https://developer.hashicorp.com/consul/api-docs/features/blocking>.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use httpclient::Client;
use model::Clock;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use tokio::time::timeout;
use url::form_urlencoded::Serializer;

use crate::config::Secret;
use crate::discovery::config::ConsulConfig;
use crate::discovery::error::DiscoveryError;

/// How long Consul may hold a request until something changes.
const WAIT: Duration = Duration::from_secs(120);
/// How much later than that a request counts as failed.
const WAIT_GRACE: Duration = Duration::from_secs(15);
/// Largest answer that is read.
const BODY_LEN_BYTES_MAX: usize = 256 << 20;

/// Services with the tags of their instances.
pub(super) type Catalog = BTreeMap<String, Option<Vec<String>>>;

/// An instance of a service, on a node, with its checks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Instance {
    #[serde(default)]
    pub(super) node: Node,
    #[serde(default)]
    pub(super) service: Service,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) checks: Vec<Check>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Node {
    #[serde(rename = "Node")]
    pub(super) name: String,
    pub(super) address: String,
    pub(super) meta: Option<BTreeMap<String, String>>,
    pub(super) tagged_addresses: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Service {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) address: String,
    pub(super) port: i64,
    #[serde(deserialize_with = "nullable")]
    pub(super) tags: Vec<String>,
    pub(super) meta: Option<BTreeMap<String, String>>,
    pub(super) namespace: String,
    pub(super) partition: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Check {
    #[serde(rename = "CheckID")]
    pub(super) id: String,
    pub(super) status: String,
}

fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// One Consul agent.
pub(super) struct ConsulClient {
    base: String,
    prefix: String,
    common: Vec<(&'static str, String)>,
    config: ConsulConfig,
    user_agent: String,
    client: Client,
}

/// Takes from the environment what is not configured, as Consul's own client does: the token, namespace and partition.
/// The address always is configured, since it has a default.
fn complete(config: &ConsulConfig, env: &dyn Fn(&str) -> Option<String>) -> ConsulConfig {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let mut config = config.clone();
    if config.token.is_none() {
        // A file that cannot be read counts as none.
        let file = env("CONSUL_HTTP_TOKEN_FILE").and_then(|file| std::fs::read_to_string(file).ok());
        let token = file.map(|text| text.trim().to_owned()).filter(|token| !token.is_empty());
        config.token = token.or_else(|| env("CONSUL_HTTP_TOKEN")).map(Secret::new);
    }
    for (setting, name) in
        [(&mut config.namespace, "CONSUL_NAMESPACE"), (&mut config.partition, "CONSUL_PARTITION")]
    {
        if setting.is_empty() {
            *setting = env(name).unwrap_or_default();
        }
    }
    config
}

impl ConsulClient {
    /// # Errors
    /// When the settings make no client.
    pub(super) fn new(
        config: &ConsulConfig,
        user_agent: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DiscoveryError> {
        let config = complete(config, &|name| std::env::var(name).ok());
        let base = config.base_url();
        let client = Client::new(config.http.clone(), clock)
            .map_err(|message| DiscoveryError::Request { url: base.clone(), message })?;
        let prefix = config.path_prefix.trim_matches('/');
        let common =
            [("dc", &config.datacenter), ("ns", &config.namespace), ("partition", &config.partition)];
        let common = common.into_iter().filter(|(_, value)| !value.is_empty());
        let common = common.map(|(name, value)| (name, value.clone())).collect();
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        Ok(Self { base, prefix, common, config, user_agent: user_agent.to_owned(), client })
    }

    /// The agent's datacenter.
    ///
    /// # Errors
    /// When it does not say.
    pub(super) async fn datacenter(&self) -> Result<String, DiscoveryError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Agent {
            config: AgentConfig,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct AgentConfig {
            datacenter: String,
        }
        let (_, agent): (_, Agent) = self.get("/v1/agent/self", &self.common).await?;
        Ok(agent.config.datacenter)
    }

    /// All services, once they differ from those at `index`, and the index they have.
    ///
    /// # Errors
    /// When there is no such answer.
    pub(super) async fn catalog(
        &self,
        config: &ConsulConfig,
        index: u64,
    ) -> Result<(u64, Catalog), DiscoveryError> {
        let query = self.query(config, index, &config.filter);
        self.blocking("/v1/catalog/services", &query).await
    }

    /// The instances of a service, once they differ from those at `index`, and the index they have.
    ///
    /// # Errors
    /// When there is no such answer.
    pub(super) async fn service(
        &self,
        config: &ConsulConfig,
        name: &str,
        index: u64,
    ) -> Result<(u64, Vec<Instance>), DiscoveryError> {
        let mut query = self.query(config, index, &config.health_filter);
        query.extend(config.tags.iter().map(|tag| ("tag", tag.clone())));
        let path = format!("/v1/health/service/{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
        self.blocking(&path, &query).await
    }

    fn query(&self, config: &ConsulConfig, index: u64, filter: &str) -> Vec<(&'static str, String)> {
        let mut query = self.common.clone();
        if config.allow_stale {
            query.push(("stale", String::new()));
        }
        if index != 0 {
            query.push(("index", index.to_string()));
        }
        query.push(("wait", format!("{}ms", WAIT.as_millis())));
        query.extend(config.node_meta.iter().map(|(name, value)| ("node-meta", format!("{name}:{value}"))));
        if !filter.is_empty() {
            query.push(("filter", filter.to_owned()));
        }
        query
    }

    async fn blocking<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<(u64, T), DiscoveryError> {
        let (index, answer) = self.get(path, query).await?;
        let missing = || self.failed(path, "the answer has no X-Consul-Index; is this Consul?".to_owned());
        Ok((index.ok_or_else(missing)?, answer))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<(Option<u64>, T), DiscoveryError> {
        let sent = timeout(WAIT + WAIT_GRACE, self.send(path, query)).await;
        let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {:?}", WAIT + WAIT_GRACE)));
        sent.map_err(|message| self.failed(path, message))
    }

    async fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<(Option<u64>, T), String> {
        let query = Serializer::new(String::new()).extend_pairs(query).finish();
        let mut request = Request::get(format!("{}{}{path}?{query}", self.base, self.prefix))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, HeaderValue::from_str(&self.user_agent).map_err(|e| e.to_string())?);
        if let Some(token) = &self.config.token {
            let mut token = HeaderValue::from_str(token.expose()).map_err(|e| format!("token: {e}"))?;
            token.set_sensitive(true);
            request = request.header("X-Consul-Token", token);
        }
        let request = request.body(Bytes::new()).map_err(|e| e.to_string())?;
        let response = self.client.send(request).await.map_err(|e| e.reason().to_owned())?;
        let status = response.status();
        let index =
            response.headers().get("X-Consul-Index").and_then(|index| index.to_str().ok()?.parse().ok());
        let body = Limited::new(response.into_body(), BODY_LEN_BYTES_MAX).collect().await;
        let body = body.map_err(|e| format!("reading the answer: {e}"))?.to_bytes();
        if status != StatusCode::OK {
            let said = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
            return Err(format!("status {status}: {said}"));
        }
        let answer = serde_json::from_slice(&body).map_err(|e| format!("the answer is not Consul's: {e}"))?;
        Ok((index, answer))
    }

    fn failed(&self, path: &str, message: String) -> DiscoveryError {
        DiscoveryError::Request { url: format!("{}{}{path}", self.base, self.prefix), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_fills_what_is_not_configured() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), " from-file\n").unwrap();
        let file = file.path().to_str().unwrap();
        let with = |config: &ConsulConfig, pairs: &[(&str, &str)]| {
            let env = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            let done = complete(config, &env);
            (done.token.map(|t| t.expose().to_owned()).unwrap_or_default(), done.namespace, done.partition)
        };
        let all = [
            ("CONSUL_HTTP_TOKEN_FILE", file),
            ("CONSUL_HTTP_TOKEN", "from-env"),
            ("CONSUL_NAMESPACE", "n"),
            ("CONSUL_PARTITION", "p"),
            ("CONSUL_HTTP_ADDR", "elsewhere:1"),
        ];
        let text = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        let bare = ConsulConfig::default();
        assert_eq!(with(&bare, &all), text("from-file", "n", "p"));
        assert_eq!(with(&bare, &all[1..2]), text("from-env", "", ""));
        assert_eq!(with(&bare, &[("CONSUL_HTTP_TOKEN_FILE", "/none"), all[1]]), text("from-env", "", ""));
        let own = ConsulConfig { token: Some(Secret::new("own")), namespace: "o".into(), ..bare };
        assert_eq!(with(&own, &all), text("own", "o", "p"));
    }
}
