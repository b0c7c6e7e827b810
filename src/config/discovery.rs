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
use super::yaml::{At, Problem};

/// The discovery sections of one job, or of one set of Alertmanagers.
pub struct Discovery<'a> {
    pub static_configs: &'a mut Option<Vec<At<StaticGroup>>>,
    pub file_sd_configs: &'a mut Option<Vec<At<FileSd>>>,
    pub http_sd_configs: &'a mut Option<Vec<At<HttpSd>>>,
    pub dns_sd_configs: &'a mut Option<Vec<At<DnsSd>>>,
    pub consul_sd_configs: &'a mut Option<Vec<At<ConsulSd>>>,
    pub kubernetes_sd_configs: &'a mut Option<Vec<At<KubernetesSd>>>,
}

/// Declares a section with the HTTP client's fields and those of discovery after its own.
macro_rules! discovery_section {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        $crate::config::http::http_section! {
            $(#[$meta])*
            pub struct $name {
                $($body)*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub static_configs: Option<Vec<$crate::config::yaml::At<$crate::config::discovery::StaticGroup>>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub file_sd_configs: Option<Vec<$crate::config::yaml::At<$crate::config::discovery::FileSd>>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub http_sd_configs: Option<Vec<$crate::config::yaml::At<$crate::config::discovery::HttpSd>>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub kubernetes_sd_configs: Option<Vec<$crate::config::yaml::At<$crate::config::discovery::KubernetesSd>>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub aws_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub azure_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub consul_sd_configs: Option<Vec<$crate::config::yaml::At<$crate::config::discovery::ConsulSd>>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub digitalocean_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub dns_sd_configs: Option<Vec<$crate::config::yaml::At<$crate::config::discovery::DnsSd>>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub docker_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub dockerswarm_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub ec2_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub ecs_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub elasticache_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub eureka_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub gce_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub hetzner_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub ionos_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub kuma_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub lightsail_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub linode_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub marathon_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub msk_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub nerve_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub nomad_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub oci_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub openstack_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub ovhcloud_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub puppetdb_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub rds_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub scaleway_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub serverset_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub stackit_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub triton_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub uyuni_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub vultr_sd_configs: Option<$crate::config::yaml::At<$crate::config::discovery::NotBuiltIn>>,
            }
        }

        impl $name {
            /// The discovery sections.
            pub fn discovery(&mut self) -> $crate::config::discovery::Discovery<'_> {
                $crate::config::discovery::Discovery {
                    static_configs: &mut self.static_configs,
                    file_sd_configs: &mut self.file_sd_configs,
                    http_sd_configs: &mut self.http_sd_configs,
                    dns_sd_configs: &mut self.dns_sd_configs,
                    consul_sd_configs: &mut self.consul_sd_configs,
                    kubernetes_sd_configs: &mut self.kubernetes_sd_configs,
                }
            }

            /// # Errors
            /// When a kind of discovery is asked for that is not built in.
            pub fn check_built_in(&self) -> Result<(), $crate::config::yaml::Problem> {
                let sections = [
                    ("aws_sd_configs", &self.aws_sd_configs),
                    ("azure_sd_configs", &self.azure_sd_configs),
                    ("digitalocean_sd_configs", &self.digitalocean_sd_configs),
                    ("docker_sd_configs", &self.docker_sd_configs),
                    ("dockerswarm_sd_configs", &self.dockerswarm_sd_configs),
                    ("ec2_sd_configs", &self.ec2_sd_configs),
                    ("ecs_sd_configs", &self.ecs_sd_configs),
                    ("elasticache_sd_configs", &self.elasticache_sd_configs),
                    ("eureka_sd_configs", &self.eureka_sd_configs),
                    ("gce_sd_configs", &self.gce_sd_configs),
                    ("hetzner_sd_configs", &self.hetzner_sd_configs),
                    ("ionos_sd_configs", &self.ionos_sd_configs),
                    ("kuma_sd_configs", &self.kuma_sd_configs),
                    ("lightsail_sd_configs", &self.lightsail_sd_configs),
                    ("linode_sd_configs", &self.linode_sd_configs),
                    ("marathon_sd_configs", &self.marathon_sd_configs),
                    ("msk_sd_configs", &self.msk_sd_configs),
                    ("nerve_sd_configs", &self.nerve_sd_configs),
                    ("nomad_sd_configs", &self.nomad_sd_configs),
                    ("oci_sd_configs", &self.oci_sd_configs),
                    ("openstack_sd_configs", &self.openstack_sd_configs),
                    ("ovhcloud_sd_configs", &self.ovhcloud_sd_configs),
                    ("puppetdb_sd_configs", &self.puppetdb_sd_configs),
                    ("rds_sd_configs", &self.rds_sd_configs),
                    ("scaleway_sd_configs", &self.scaleway_sd_configs),
                    ("serverset_sd_configs", &self.serverset_sd_configs),
                    ("stackit_sd_configs", &self.stackit_sd_configs),
                    ("triton_sd_configs", &self.triton_sd_configs),
                    ("uyuni_sd_configs", &self.uyuni_sd_configs),
                    ("vultr_sd_configs", &self.vultr_sd_configs),
                ];
                for (name, section) in sections {
                    if let Some(section) = section {
                        return Err($crate::config::discovery::not_built_in(name, section));
                    }
                }
                Ok(())
            }
        }
    };
}
pub(crate) use discovery_section;

/// What is said of a kind of discovery that is not built in.
pub fn not_built_in(name: &str, section: &At<NotBuiltIn>) -> Problem {
    let text =
        format!("{name} is not built in; write its targets with file_sd_configs or http_sd_configs instead");
    Problem { not_built_in: true, ..section.problem(text) }
}

impl Discovery<'_> {
    /// Fills defaults and makes file names relative to `dir`.
    ///
    /// # Errors
    /// The first section that is not usable.
    pub fn finish(self, dir: &Path, has_relabeling: bool) -> Result<(), Problem> {
        for g in self.static_configs.iter().flatten() {
            g.check(has_relabeling).map_err(|e| g.problem(e))?;
        }
        self.file_sd_configs.iter_mut().flatten().for_each(|f| f.finish(dir));
        for h in self.http_sd_configs.iter_mut().flatten() {
            let at = h.position;
            h.finish(dir).map_err(|e| Problem::new(e).or_at(at))?;
        }
        self.dns_sd_configs.iter_mut().flatten().for_each(|d| d.finish());
        for c in self.consul_sd_configs.iter_mut().flatten() {
            let at = c.position;
            c.finish(dir).map_err(|e| Problem::new(e).or_at(at))?;
        }
        for k in self.kubernetes_sd_configs.iter_mut().flatten() {
            let at = k.position;
            k.finish(dir).map_err(|e| Problem::new(e).or_at(at))?;
        }
        Ok(())
    }
}

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
