//! The `*_sd_configs` sections.
//!
//! Kinds that are built in are declared in full. The others are known by name, so that the error can say what to use
//! instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize, Serializer};

use super::http::http_section;
use super::scalar::{Ms, Url};
use super::yaml::At;

/// One of `static_configs`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaticGroup {
    pub targets: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
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

http_section! {
    /// One of `kubernetes_sd_configs`.
    pub struct KubernetesSd {
        pub role: Option<At<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
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
    /// When a target is a URL and no relabeling could change that.
    pub fn check(&self, has_relabeling: bool) -> Result<(), String> {
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
