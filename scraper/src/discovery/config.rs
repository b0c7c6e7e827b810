//! What a job asks discovery for: plain types, no YAML.
//!
//! The configuration file is read elsewhere; here are the settings themselves, their defaults and the rules that a
//! well-typed setting can still break ([`DiscoveryConfig::validate`]). Two settings that are equal share one running
//! provider, so every type here compares by value. The rules are Prometheus's, see
//! <https://prometheus.io/docs/prometheus/latest/configuration/configuration/>.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::error::DiscoveryError;
use crate::config::{HttpConfig, Secret};
use crate::target_group::TargetGroup;

/// `refresh_interval` of `file_sd_configs` when none is given.
pub const FILE_REFRESH_INTERVAL_DEFAULT_MS: u64 = 5 * 60 * 1000;
/// `refresh_interval` of `http_sd_configs` when none is given.
pub const HTTP_REFRESH_INTERVAL_DEFAULT_MS: u64 = 60 * 1000;

/// One entry of a job's `*_sd_configs`.
#[derive(Clone, Debug, PartialEq)]
pub enum DiscoveryConfig {
    /// `static_configs`: the groups themselves. An empty `source` is replaced by the group's position.
    Static(Vec<TargetGroup>),
    /// `file_sd_configs`.
    File(FileConfig),
    /// `http_sd_configs`.
    Http(HttpDiscoveryConfig),
    /// `dns_sd_configs`.
    Dns(DnsConfig),
    /// `consul_sd_configs`.
    Consul(Box<ConsulConfig>),
    /// `kubernetes_sd_configs`.
    Kubernetes(KubernetesConfig),
}

/// Targets from DNS records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The names that are looked up.
    pub names: Vec<String>,
    /// The records that are asked for.
    pub record: DnsRecord,
    /// The port of the targets; SRV records have their own.
    pub port: u16,
    /// How often the names are looked up.
    pub refresh_interval_ms: u64,
}

/// A type of DNS records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsRecord {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Mail servers.
    Mx,
    /// Name servers.
    Ns,
    /// Hosts and ports of a service.
    #[default]
    Srv,
}

/// Targets from Consul.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsulConfig {
    /// `HOST:PORT` of the agent; a scheme in front is taken instead of `scheme`.
    pub server: String,
    /// `http` or `https`.
    pub scheme: String,
    /// What stands before the paths of the API.
    pub path_prefix: String,
    /// Sent as `X-Consul-Token`.
    pub token: Option<Secret>,
    /// Empty for the agent's own.
    pub datacenter: String,
    /// Empty for the token's own.
    pub namespace: String,
    /// Empty for the agent's own.
    pub partition: String,
    /// Stands between the tags of a service, and around them.
    pub tag_separator: String,
    /// Take answers of servers that do not lead.
    pub allow_stale: bool,
    /// Least time between two answers about one service.
    pub refresh_interval_ms: u64,
    /// The services; all of them when empty.
    pub services: Vec<String>,
    /// Tags that an instance must have, all of them.
    pub tags: Vec<String>,
    /// Metadata that a node must have.
    pub node_meta: BTreeMap<String, String>,
    /// Filter expression for the catalog.
    pub filter: String,
    /// Filter expression for instances.
    pub health_filter: String,
    /// How to connect and who we are.
    pub http: HttpConfig,
}

/// Target groups read from JSON or YAML files.
#[derive(Clone, Debug, PartialEq)]
pub struct FileConfig {
    /// Paths; the last part may hold one `*`. Relative paths are taken from the working directory, so the loader
    /// joins them with the directory of the configuration file.
    pub files: Vec<String>,
    /// How often every file is read again although nothing seems to have changed.
    pub refresh_interval_ms: u64,
}

/// Target groups fetched as JSON from a URL.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpDiscoveryConfig {
    /// The URL, `http` or `https`.
    pub url: String,
    /// How often it is fetched; also the time limit of one fetch.
    pub refresh_interval_ms: u64,
    /// How to connect and who we are.
    pub http: HttpConfig,
}

/// Targets from the Kubernetes API.
#[derive(Clone, Debug, PartialEq)]
pub struct KubernetesConfig {
    /// What is made into targets.
    pub role: Role,
    /// URL of the API server; `None` means the cluster this process runs in, unless `kubeconfig_file` is set.
    pub api_server: Option<String>,
    /// A kubeconfig file, read again whenever a connection must be set up anew.
    pub kubeconfig_file: Option<String>,
    /// Where to look; the default is every namespace.
    pub namespaces: Namespaces,
    /// Restrictions that the API server applies.
    pub selectors: Vec<Selector>,
    /// What to add from related objects.
    pub attach_metadata: AttachMetadata,
    /// How to connect to `api_server`.
    pub http: HttpConfig,
}

/// Which namespaces are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// The namespace of the pod this process runs in, in addition to `names`.
    pub own_namespace: bool,
    /// Namespaces by name.
    pub names: Vec<String>,
}

/// A restriction on the objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The kind it applies to.
    pub role: Role,
    /// A label selector, empty for none.
    pub label: String,
    /// A field selector, empty for none.
    pub field: String,
}

/// What to add to a target from objects it is related to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachMetadata {
    /// Labels and annotations of the node it runs on (roles pod, endpoints, endpointslice).
    pub node: bool,
    /// Labels and annotations of its namespace (every role but node).
    pub namespace: bool,
    /// Name of the deployment that owns its pod.
    pub deployment: bool,
    /// Name of the job that owns its pod.
    pub job: bool,
    /// Name of the cron job that owns its pod's job.
    pub cronjob: bool,
}

/// What Kubernetes discovery makes into targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Each declared container port of each pod.
    Pod,
    /// Each node's kubelet.
    Node,
    /// Each port of each service.
    Service,
    /// Each address and port of each endpoint slice, and the other ports of the pods behind it.
    EndpointSlice,
    /// Each address and port of each endpoints object, and the other ports of the pods behind it.
    Endpoints,
    /// Each host and path of each ingress.
    Ingress,
}

// === impl DiscoveryConfig ===

impl DiscoveryConfig {
    /// The mechanism's name, as metrics and messages have it.
    #[must_use]
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Static(_) => "static",
            Self::File(_) => "file",
            Self::Http(_) => "http",
            Self::Dns(_) => "dns",
            Self::Consul(_) => "consul",
            Self::Kubernetes(_) => "kubernetes",
        }
    }

    /// Checks the rules that types cannot express.
    ///
    /// # Errors
    /// [`DiscoveryError::Config`] names the setting and what to change.
    pub fn validate(&self) -> Result<(), DiscoveryError> {
        match self {
            Self::Static(_) => Ok(()),
            Self::File(file) => file.validate(),
            Self::Http(http) => http.validate(),
            Self::Dns(dns) => dns.validate(),
            Self::Consul(consul) => consul.validate(),
            Self::Kubernetes(kubernetes) => kubernetes.validate(),
        }
    }
}

fn config_error(message: impl Into<String>) -> DiscoveryError {
    DiscoveryError::Config(message.into())
}

impl FileConfig {
    fn validate(&self) -> Result<(), DiscoveryError> {
        if self.files.is_empty() {
            return Err(config_error("file_sd_configs: `files` must name at least one path"));
        }
        if self.refresh_interval_ms == 0 {
            return Err(config_error("file_sd_configs: `refresh_interval` must be greater than 0"));
        }
        match self.files.iter().find(|path| !is_target_file_pattern(path)) {
            Some(path) => Err(config_error(format!(
                "file_sd_configs: path {path:?} must end in .json, .yml or .yaml and may hold one `*`, in its last part"
            ))),
            None => Ok(()),
        }
    }
}

/// Whether `path` ends in an extension that file discovery reads, with at most one `*` and no `/` after it.
fn is_target_file_pattern(path: &str) -> bool {
    let Some((stem, extension)) = path.rsplit_once('.') else { return false };
    if !matches!(extension, "json" | "yml" | "yaml" | "JSON" | "YML" | "YAML") {
        return false;
    }
    match stem.split_once('*') {
        None => true,
        Some((_, rest)) => !rest.contains('/'),
    }
}

impl HttpDiscoveryConfig {
    fn validate(&self) -> Result<(), DiscoveryError> {
        check_url("http_sd_configs: `url`", &self.url)?;
        if self.refresh_interval_ms == 0 {
            return Err(config_error("http_sd_configs: `refresh_interval` must be greater than 0"));
        }
        Ok(())
    }
}

impl DnsConfig {
    fn validate(&self) -> Result<(), DiscoveryError> {
        if self.names.is_empty() {
            return Err(config_error("DNS-SD config must contain at least one SRV record name"));
        }
        if self.record != DnsRecord::Srv && self.port == 0 {
            return Err(config_error("a port is required in DNS-SD configs for all record types except SRV"));
        }
        if self.refresh_interval_ms == 0 {
            return Err(config_error("dns_sd_configs: `refresh_interval` must be greater than 0"));
        }
        Ok(())
    }
}

impl FromStr for DnsRecord {
    type Err = DiscoveryError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.to_ascii_uppercase().as_str() {
            "A" => Ok(Self::A),
            "AAAA" => Ok(Self::Aaaa),
            "MX" => Ok(Self::Mx),
            "NS" => Ok(Self::Ns),
            "SRV" => Ok(Self::Srv),
            _ => Err(config_error(format!("invalid DNS-SD records type {name}"))),
        }
    }
}

impl Default for ConsulConfig {
    fn default() -> Self {
        Self {
            server: "localhost:8500".into(),
            scheme: "http".into(),
            path_prefix: String::new(),
            token: None,
            datacenter: String::new(),
            namespace: String::new(),
            partition: String::new(),
            tag_separator: ",".into(),
            allow_stale: true,
            refresh_interval_ms: 30_000,
            services: Vec::new(),
            tags: Vec::new(),
            node_meta: BTreeMap::new(),
            filter: String::new(),
            health_filter: String::new(),
            http: HttpConfig::default(),
        }
    }
}

impl ConsulConfig {
    /// Scheme and address of the agent.
    pub(super) fn base_url(&self) -> String {
        match self.server.split_once("://") {
            // Encryption that was asked for is not taken back.
            Some(("http", server)) => format!("{}://{server}", self.scheme),
            Some(_) => self.server.clone(),
            None => format!("{}://{}", self.scheme, self.server),
        }
    }

    fn validate(&self) -> Result<(), DiscoveryError> {
        if self.server.trim().is_empty() {
            return Err(config_error("consul SD configuration requires a server address"));
        }
        if self.token.is_some() && self.http.authorization.is_some() {
            return Err(config_error(
                "at most one of consul SD token, authorization, or oauth2 can be configured",
            ));
        }
        if self.refresh_interval_ms == 0 {
            return Err(config_error("consul_sd_configs: `refresh_interval` must be greater than 0"));
        }
        check_url("consul_sd_configs: `server`", &self.base_url())
    }
}

fn check_url(what: &str, url: &str) -> Result<(), DiscoveryError> {
    if url.is_empty() {
        return Err(config_error(format!("{what} is missing")));
    }
    let uri: http::Uri =
        url.parse().map_err(|e| config_error(format!("{what} {url:?} is not a URL: {e}")))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(config_error(format!("{what} {url:?} must start with http:// or https://")));
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(config_error(format!("{what} {url:?} names no host")));
    }
    Ok(())
}

// === impl KubernetesConfig ===

impl KubernetesConfig {
    /// Everything from the cluster this process runs in.
    #[must_use]
    pub fn in_cluster(role: Role) -> Self {
        Self {
            role,
            api_server: None,
            kubeconfig_file: None,
            namespaces: Namespaces::default(),
            selectors: Vec::new(),
            attach_metadata: AttachMetadata::default(),
            http: HttpConfig::default(),
        }
    }

    fn validate(&self) -> Result<(), DiscoveryError> {
        let fail = |message: String| Err(config_error(format!("kubernetes_sd_configs: {message}")));
        let custom_http = self.http != HttpConfig::default();
        if self.api_server.is_some() && self.kubeconfig_file.is_some() {
            return fail("`api_server` and `kubeconfig_file` exclude each other; keep one".to_owned());
        }
        if self.kubeconfig_file.is_some() && custom_http {
            return fail("HTTP client settings and `kubeconfig_file` exclude each other".to_owned());
        }
        if self.api_server.is_none() && custom_http {
            return fail("HTTP client settings need an explicit `api_server`".to_owned());
        }
        if self.api_server.is_some() && self.namespaces.own_namespace {
            return fail("`api_server` and `namespaces.own_namespace` exclude each other".to_owned());
        }
        if self.kubeconfig_file.is_some() && self.namespaces.own_namespace {
            return fail("`kubeconfig_file` and `namespaces.own_namespace` exclude each other".to_owned());
        }
        if let Some(url) = &self.api_server {
            check_url("kubernetes_sd_configs: `api_server`", url)?;
        }
        self.validate_selectors()
    }

    fn validate_selectors(&self) -> Result<(), DiscoveryError> {
        let allowed = self.role.selectors();
        for (i, selector) in self.selectors.iter().enumerate() {
            if self.selectors[..i].iter().any(|earlier| earlier.role == selector.role) {
                let role = selector.role;
                return Err(config_error(format!("kubernetes_sd_configs: two selectors for role {role}")));
            }
            if !allowed.contains(&selector.role) {
                let names: Vec<_> = allowed.iter().map(Role::as_str).collect();
                return Err(config_error(format!(
                    "kubernetes_sd_configs: role {} takes selectors for {} only, not for {}",
                    self.role,
                    names.join(", "),
                    selector.role
                )));
            }
            super::kubernetes::selector::check_field(&selector.field)?;
            super::kubernetes::selector::check_label(&selector.label)?;
        }
        Ok(())
    }

    /// The label and field selector for objects of `role`, empty strings for none.
    #[must_use]
    pub(super) fn selector(&self, role: Role) -> (&str, &str) {
        match self.selectors.iter().find(|selector| selector.role == role) {
            Some(selector) => (&selector.label, &selector.field),
            None => ("", ""),
        }
    }
}

// === impl Role ===

impl Role {
    /// Every role.
    pub const ALL: [Role; 6] =
        [Role::Pod, Role::Node, Role::Service, Role::EndpointSlice, Role::Endpoints, Role::Ingress];

    /// The name in configuration files.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Service => "service",
            Self::EndpointSlice => "endpointslice",
            Self::Endpoints => "endpoints",
            Self::Ingress => "ingress",
        }
    }

    /// The kinds that selectors may be given for.
    fn selectors(self) -> &'static [Role] {
        match self {
            Self::Pod => &[Role::Pod, Role::Node],
            Self::Service => &[Role::Service],
            Self::EndpointSlice => &[Role::Pod, Role::Service, Role::EndpointSlice],
            Self::Endpoints => &[Role::Pod, Role::Service, Role::Endpoints],
            Self::Node => &[Role::Node],
            Self::Ingress => &[Role::Ingress],
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = DiscoveryError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == name).ok_or_else(|| {
            config_error(format!(
                "kubernetes_sd_configs: unknown role {name:?}; one of pod, service, endpoints, endpointslice, node, ingress"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = Box<dyn FnOnce(&mut KubernetesConfig)>;

    fn kubernetes(change: impl FnOnce(&mut KubernetesConfig)) -> Result<(), DiscoveryError> {
        let mut config = KubernetesConfig::in_cluster(Role::Pod);
        change(&mut config);
        DiscoveryConfig::Kubernetes(config).validate()
    }

    fn selector(role: Role) -> Selector {
        Selector { role, label: "foo=bar".into(), field: "metadata.status=Running".into() }
    }

    #[test]
    fn kubernetes_rules() {
        fn own_http() -> HttpConfig {
            HttpConfig { follow_redirects: false, ..HttpConfig::default() }
        }
        assert!(kubernetes(|_| ()).is_ok());
        assert!(kubernetes(|c| c.namespaces.own_namespace = true).is_ok());
        assert!(kubernetes(|c| c.selectors = vec![selector(Role::Node), selector(Role::Pod)]).is_ok());
        fn with_server(c: &mut KubernetesConfig) {
            c.api_server = Some("https://localhost:1234".into());
        }
        assert!(kubernetes(with_server).is_ok());
        let bad: Vec<Change> = vec![
            Box::new(|c| {
                with_server(c);
                c.namespaces.own_namespace = true;
            }),
            Box::new(|c| c.http = own_http()),
            Box::new(|c| {
                c.kubeconfig_file = Some("/k".into());
                c.http = own_http();
            }),
            Box::new(|c| {
                c.kubeconfig_file = Some("/k".into());
                c.namespaces.own_namespace = true;
            }),
            Box::new(|c| {
                with_server(c);
                c.kubeconfig_file = Some("/k".into());
            }),
            Box::new(|c| c.api_server = Some("kubernetes:443".into())),
            Box::new(|c| c.selectors = vec![selector(Role::Pod), selector(Role::Pod)]),
            Box::new(|c| c.selectors = vec![selector(Role::Service)]),
            Box::new(|c| {
                c.role = Role::Ingress;
                c.selectors = vec![selector(Role::Node)];
            }),
            Box::new(|c| {
                c.selectors = vec![selector(Role::Pod)];
                c.selectors[0].label = "foo in (".into();
            }),
        ];
        for (i, change) in bad.into_iter().enumerate() {
            assert!(kubernetes(change).is_err(), "case {i}");
        }
    }

    #[test]
    fn roles_by_name() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
        }
        assert!("vacation".parse::<Role>().is_err());
    }

    #[test]
    fn file_patterns() {
        for good in ["a.json", "/x/*.yml", "dir.d/a-*-b.yaml", "A.JSON"] {
            assert!(is_target_file_pattern(good), "{good}");
        }
        for bad in ["a", "a.txt", "x/*/a.json", "*.json.bak", "*"] {
            assert!(!is_target_file_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn urls() {
        let check = |url: &str| check_url("`url`", url);
        assert!(check("https://example.com/x?y").is_ok());
        for bad in ["", "example.com", "ftp://x", "http://", "/path", "http:///x"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
