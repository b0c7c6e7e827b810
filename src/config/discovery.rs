//! The `*_sd_configs` sections.
//!
//! Kinds that are built in are declared in full. The others are known by name, so that the error can say what to use
//! instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize, Serializer};

use super::http::{BasicAuth, http_section};
use super::scalar::{Ms, Secret, Url, present, texts, url_if_any};
use super::yaml::At;

/// One of `static_configs`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaticGroup {
    pub targets: Vec<String>,
    #[serde(deserialize_with = "texts", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// One of `file_sd_configs`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSd {
    pub files: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_interval: Option<Ms>,
}

http_section! {
    /// One of `http_sd_configs`.
    pub struct HttpSd {
        pub url: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub refresh_interval: Option<Ms>,
    }
}

/// One of `dns_sd_configs`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsSd {
    pub names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_interval: Option<Ms>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    pub port: u16,
}

http_section! {
    /// One of `consul_sd_configs`.
    pub struct ConsulSd {
        #[serde(skip_serializing_if = "Option::is_none")]
        pub server: Option<String>,
        #[serde(skip_serializing_if = "String::is_empty")]
        pub path_prefix: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub token: Option<Secret>,
        #[serde(skip_serializing_if = "String::is_empty")]
        pub datacenter: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        pub namespace: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        pub partition: String,
        #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        pub tag_separator: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub scheme: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub username: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub password: Option<Secret>,
        #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        pub allow_stale: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub refresh_interval: Option<Ms>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub services: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub tags: Vec<String>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub node_meta: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "String::is_empty")]
        pub filter: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        pub health_filter: String,
    }
}

http_section! {
    /// One of `kubernetes_sd_configs`.
    pub struct KubernetesSd {
        pub role: Option<At<String>>,
        #[serde(deserialize_with = "url_if_any", skip_serializing_if = "Option::is_none")]
        pub api_server: Option<Url>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub kubeconfig_file: Option<PathBuf>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub namespaces: Option<Namespaces>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub selectors: Vec<At<Selector>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub attach_metadata: Option<AttachMetadata>,
    }
}

/// `namespaces` of `kubernetes_sd_configs`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Namespaces {
    pub own_namespace: bool,
    pub names: Vec<String>,
}

/// One of `selectors` of `kubernetes_sd_configs`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selector {
    pub role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// `attach_metadata` of `kubernetes_sd_configs`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttachMetadata {
    pub node: bool,
    pub namespace: bool,
    pub deployment: bool,
    pub job: bool,
    pub cronjob: bool,
}

/// A section of a kind that is not built in; its content is not looked at.
#[derive(Clone, Debug, Default)]
pub struct NotBuiltIn;

impl<'de> Deserialize<'de> for NotBuiltIn {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(d).map(|_| Self)
    }
}

impl Serialize for NotBuiltIn {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_unit()
    }
}

impl StaticGroup {
    /// # Errors
    /// When a label has no name, or a target is a URL and no relabeling could change that.
    pub fn check(&self, has_relabeling: bool) -> Result<(), String> {
        if self.labels.contains_key("") {
            return Err("\"\" is not a valid label name".into());
        }
        match self.targets.iter().find(|t| t.contains('/')) {
            Some(t) if !has_relabeling => Err(format!("{t:?} is not a valid hostname")),
            _ => Ok(()),
        }
    }
}

impl FileSd {
    /// Fills defaults and makes file names relative to `dir`.
    pub fn finish(&mut self, dir: &Path) {
        self.files.iter_mut().for_each(|f| *f = dir.join(&*f));
        self.refresh_interval.get_or_insert(Ms(300_000));
    }
}

impl HttpSd {
    /// Fills defaults and makes file names relative to `dir`.
    ///
    /// # Errors
    /// When the HTTP client's settings are not usable.
    pub fn finish(&mut self, dir: &Path) -> Result<(), String> {
        self.refresh_interval.get_or_insert(Ms(60_000));
        self.http().finish(dir, true)
    }
}

impl DnsSd {
    /// Fills defaults.
    pub fn finish(&mut self) {
        self.refresh_interval.get_or_insert(Ms(30_000));
        self.kind.get_or_insert_with(|| "SRV".into());
    }
}

impl ConsulSd {
    /// Fills defaults and makes file names relative to `dir`.
    ///
    /// # Errors
    /// When credentials are given in two ways, or the HTTP client's settings are not usable.
    pub fn finish(&mut self, dir: &Path) -> Result<(), String> {
        self.server.get_or_insert_with(|| "localhost:8500".into());
        self.tag_separator.get_or_insert_with(|| ",".into());
        self.scheme = self.scheme.take().filter(|s| !s.is_empty()).or_else(|| Some("http".into()));
        self.allow_stale.get_or_insert(true);
        self.refresh_interval.get_or_insert(Ms(30_000));
        if self.username.is_some() || self.password.is_some() {
            let credentials = BasicAuth {
                username: self.username.clone(),
                password: self.password.clone(),
                ..BasicAuth::default()
            };
            // A second look at a finished section finds what the first one put there.
            if self.basic_auth.as_ref().is_some_and(|known| {
                known.username != credentials.username
                    || known.password.as_ref().map(|p| &p.0) != credentials.password.as_ref().map(|p| &p.0)
            }) {
                return Err(
                    "at most one of consul SD configuration username and password and basic auth can be configured"
                        .into(),
                );
            }
            self.basic_auth = Some(credentials);
        }
        if self.token.is_some() && (self.authorization.is_some() || self.oauth2.is_some()) {
            return Err("at most one of consul SD token, authorization, or oauth2 can be configured".into());
        }
        self.http().finish(dir, true)
    }
}

impl KubernetesSd {
    /// Fills defaults and makes file names relative to `dir`.
    ///
    /// # Errors
    /// When the role is missing, or HTTP client settings stand where no `api_server` does.
    pub fn finish(&mut self, dir: &Path) -> Result<(), String> {
        if self.role.is_none() {
            return Err("role missing (one of: pod, service, endpoints, endpointslice, node, ingress)".into());
        }
        if self.api_server.is_none() && !self.http().is_default() {
            return Err(
                "to use custom HTTP client configuration please provide the 'api_server' URL explicitly"
                    .into(),
            );
        }
        super::http::join(dir, &mut self.kubeconfig_file);
        self.http().finish(dir, true)
    }
}
