//! From sections of the file to the plain settings of the crates.

use std::collections::BTreeMap;
use std::time::Duration;

use httpclient::{GrantType, OAuth2Config, ProxyConfig, SignatureAlgorithm, TlsVersion};
use model::relabel::RelabelRule;
use scraper::SoftLimit;
use scraper::config::{
    Authorization, BasicAuth, EscapingScheme, HttpConfig, HttpHeader, ScrapeConfig, ScrapeProtocol, Secret,
    SecretSource, TlsConfig,
};
use scraper::discovery as sd;
use scraper::discovery::config::{AttachMetadata, Namespaces, Selector};
use scraper::target_group::{GroupLabels, TargetGroup};

use super::discovery::{ConsulSd, Discovery, DnsSd, KubernetesSd, StaticGroup};
use super::http::{self, HttpClient};
use super::scalar;
use super::scrape::Scrape;
use super::yaml::{At, Problem};

/// The settings of one job whose section has been completed by [`Scrape::finish`].
///
/// # Errors
/// What the scraper refuses.
pub fn scrape_config(job: &Scrape) -> Result<ScrapeConfig, Problem> {
    job.check_built_in()?;
    let mut job = job.clone();
    let rules = |list: &Option<Vec<At<super::relabel::Relabel>>>| -> Result<Vec<RelabelRule>, Problem> {
        job.rules(list.as_ref())
    };
    let (relabel_rules, metric_relabel_rules) =
        (rules(&job.relabel_configs)?, rules(&job.metric_relabel_configs)?);
    let protocols = job.scrape_protocols.iter().flatten().map(|p| ScrapeProtocol::parse(p));
    let scrape_protocols = protocols.collect::<Result<Vec<_>, _>>()?;
    let config = ScrapeConfig {
        job_name: job.job().to_owned(),
        scrape_interval_ms: job.scrape_interval.map_or(0, scalar::Ms::ms),
        scrape_timeout_ms: job.scrape_timeout.map_or(0, scalar::Ms::ms),
        metrics_path: job.metrics_path.clone().unwrap_or_default(),
        scheme: job.scheme.clone().unwrap_or_default(),
        params: job.params.clone().unwrap_or_default().into_iter().collect(),
        honor_labels: job.honor_labels.unwrap_or(false),
        honor_timestamps: job.honor_timestamps.unwrap_or(true),
        track_timestamps_staleness: job.track_timestamps_staleness.unwrap_or(false),
        sample_limit: limit(job.sample_limit),
        series_soft_limit: soft_limit(job.series_soft_limit, job.series_soft_limit_reserve),
        body_size_limit: job.body_size_limit.map_or(0, |b| b.0),
        label_limit: limit(job.label_limit),
        label_name_length_limit: limit(job.label_name_length_limit),
        label_value_length_limit: limit(job.label_value_length_limit),
        native_histogram_bucket_limit: limit(job.native_histogram_bucket_limit),
        native_histogram_min_bucket_factor: job.native_histogram_min_bucket_factor.unwrap_or(0.0),
        target_limit: limit(job.target_limit),
        keep_dropped_targets: limit(job.keep_dropped_targets),
        relabel_rules,
        metric_relabel_rules,
        enable_compression: job.enable_compression.unwrap_or(true),
        scrape_protocols,
        fallback_scrape_protocol: job
            .fallback_scrape_protocol
            .as_deref()
            .map(ScrapeProtocol::parse)
            .transpose()?,
        scrape_failure_log_file: job.scrape_failure_log_file.clone().filter(|p| !p.as_os_str().is_empty()),
        scrape_native_histograms: job.scrape_native_histograms.unwrap_or(false),
        always_scrape_classic_histograms: job.always_scrape_classic_histograms.unwrap_or(false),
        convert_classic_histograms_to_nhcb: job.convert_classic_histograms_to_nhcb.unwrap_or(false),
        metric_name_validation: job.name_validation(),
        metric_name_escaping: EscapingScheme::parse(
            job.metric_name_escaping_scheme.as_deref().unwrap_or("allow-utf-8"),
        )?,
        extra_scrape_metrics: job.extra_scrape_metrics.unwrap_or(false),
        discovery: discovery(job.discovery())?,
        http: http_config(&job.http())?,
    };
    config.check().map_err(|e| Problem::new(e.to_string()))?;
    Ok(config)
}

fn limit(n: Option<u64>) -> usize {
    usize::try_from(n.unwrap_or(0)).unwrap_or(usize::MAX)
}

/// A soft limit of series. Without a word about the reserve it is a tenth.
pub fn soft_limit(series: Option<u64>, reserve: Option<u64>) -> SoftLimit {
    let series = limit(series);
    SoftLimit { series, reserve: reserve.map_or(series / 10, |reserve| limit(Some(reserve))) }
}

/// What finds targets.
///
/// # Errors
/// What discovery refuses.
pub fn discovery(job: Discovery<'_>) -> Result<Vec<sd::DiscoveryConfig>, Problem> {
    let mut out = Vec::new();
    if let Some(groups) = job.static_configs {
        let groups = groups.iter().enumerate().map(|(i, g)| target_group(i, g)).collect();
        out.push((sd::DiscoveryConfig::Static(groups), Default::default()));
    }
    for f in job.file_sd_configs.iter().flatten() {
        let files = f.files.iter().map(|f| f.to_string_lossy().into_owned()).collect();
        let refresh_interval_ms = refresh(f.refresh_interval);
        out.push((sd::DiscoveryConfig::File(sd::FileConfig { files, refresh_interval_ms }), f.position));
    }
    for h in job.http_sd_configs.iter_mut().flatten() {
        let config = sd::HttpDiscoveryConfig {
            url: h.url.clone(),
            refresh_interval_ms: refresh(h.refresh_interval),
            http: http_config(&h.http())?,
        };
        out.push((sd::DiscoveryConfig::Http(config), h.position));
    }
    for d in job.dns_sd_configs.iter().flatten() {
        let config = dns(d).map_err(|e| Problem::new(e.to_string()).or_at(d.position))?;
        out.push((sd::DiscoveryConfig::Dns(config), d.position));
    }
    for c in job.consul_sd_configs.iter_mut().flatten() {
        let position = c.position;
        let config = consul(&mut c.value).map_err(|p| p.or_at(position))?;
        out.push((sd::DiscoveryConfig::Consul(Box::new(config)), position));
    }
    for k in job.kubernetes_sd_configs.iter_mut().flatten() {
        let position = k.position;
        let config = kubernetes(&mut k.value).map_err(|p| p.or_at(position))?;
        out.push((sd::DiscoveryConfig::Kubernetes(config), position));
    }
    for (config, position) in &out {
        config.validate().map_err(|e| Problem::new(e.to_string()).or_at(*position))?;
    }
    Ok(out.into_iter().map(|(c, _)| c).collect())
}

fn refresh(interval: Option<scalar::Ms>) -> u64 {
    interval.map_or(0, |i| u64::try_from(i.ms()).unwrap_or(0))
}

fn target_group(index: usize, group: &StaticGroup) -> TargetGroup {
    let address = |t: &String| GroupLabels::from_pairs([("__address__", t)]);
    TargetGroup {
        source: index.to_string().into(),
        labels: group.labels.clone().into(),
        targets: group.targets.iter().map(address).collect(),
    }
}

fn dns(d: &DnsSd) -> Result<sd::DnsConfig, sd::DiscoveryError> {
    Ok(sd::DnsConfig {
        names: d.names.clone(),
        record: d.kind.as_deref().unwrap_or("SRV").parse()?,
        port: d.port,
        refresh_interval_ms: refresh(d.refresh_interval),
    })
}

fn consul(c: &mut ConsulSd) -> Result<sd::ConsulConfig, Problem> {
    Ok(sd::ConsulConfig {
        server: c.server.clone().unwrap_or_default(),
        scheme: c.scheme.clone().unwrap_or_default(),
        path_prefix: c.path_prefix.clone(),
        token: c.token.as_ref().filter(|t| !t.0.is_empty()).map(|t| Secret::new(&t.0)),
        datacenter: c.datacenter.clone(),
        namespace: c.namespace.clone(),
        partition: c.partition.clone(),
        tag_separator: c.tag_separator.clone().unwrap_or_default(),
        allow_stale: c.allow_stale.unwrap_or(true),
        refresh_interval_ms: refresh(c.refresh_interval),
        services: c.services.clone(),
        tags: c.tags.clone(),
        node_meta: c.node_meta.clone(),
        filter: c.filter.clone(),
        health_filter: c.health_filter.clone(),
        http: http_config(&c.http())?,
    })
}

fn kubernetes(k: &mut KubernetesSd) -> Result<sd::KubernetesConfig, Problem> {
    let role = |text: &str| text.parse::<sd::Role>().map_err(|e| Problem::new(e.to_string()));
    let namespaces = k.namespaces.clone().unwrap_or_default();
    let attach = k.attach_metadata.clone().unwrap_or_default();
    let selectors = k.selectors.iter().map(|s| {
        Ok(Selector {
            role: role(&s.role)?,
            label: s.label.clone().unwrap_or_default(),
            field: s.field.clone().unwrap_or_default(),
        })
    });
    Ok(sd::KubernetesConfig {
        role: role(k.role.as_ref().map_or("", |r| r.value.as_str()))?,
        api_server: k.api_server.as_ref().map(|u| u.0.to_string()),
        kubeconfig_file: k.kubeconfig_file.as_ref().map(|f| f.to_string_lossy().into_owned()),
        namespaces: Namespaces { own_namespace: namespaces.own_namespace, names: namespaces.names },
        selectors: selectors.collect::<Result<_, Problem>>()?,
        attach_metadata: AttachMetadata {
            node: attach.node,
            namespace: attach.namespace,
            deployment: attach.deployment,
            job: attach.job,
            cronjob: attach.cronjob,
        },
        http: http_config(&k.http())?,
    })
}

/// Settings of an HTTP client.
///
/// # Errors
/// Names what is not built in.
pub fn http_config(h: &HttpClient<'_>) -> Result<HttpConfig, Problem> {
    if h.has_references() {
        return Err(no_secret_manager());
    }
    let config = HttpConfig {
        basic_auth: h.basic_auth.as_ref().map(|b| BasicAuth {
            username: source(b.username.as_ref(), b.username_file.as_ref())
                .unwrap_or(SecretSource::Inline(Secret::new(""))),
            password: source(b.password.as_ref().map(|p| &p.0), b.password_file.as_ref()),
        }),
        authorization: h.authorization.as_ref().map(|a| Authorization {
            kind: a.kind.clone().unwrap_or_else(|| "Bearer".into()),
            credentials: source(a.credentials.as_ref().map(|p| &p.0), a.credentials_file.as_ref()),
        }),
        oauth2: h.oauth2.as_ref().map(oauth2).transpose()?,
        headers: h.http_headers.iter().flatten().map(|(n, v)| header(n, v)).collect(),
        tls: h.tls_config.as_ref().map(tls).transpose()?.unwrap_or_default(),
        proxy: proxy(
            h.proxy_url.as_ref(),
            h.no_proxy.as_ref(),
            *h.proxy_from_environment,
            h.proxy_connect_header.as_ref(),
        ),
        follow_redirects: h.follow_redirects.unwrap_or(true),
        enable_http2: h.enable_http2.unwrap_or(true),
    };
    config.check()?;
    Ok(config)
}

fn oauth2(o: &http::OAuth2) -> Result<OAuth2Config, Problem> {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let grant = if o.grant_type.as_deref() == Some(http::GRANT_JWT_BEARER) {
        GrantType::JwtBearer {
            key: source(
                o.client_certificate_key.as_ref().map(|k| &k.0),
                o.client_certificate_key_file.as_ref(),
            ),
            key_id: text(&o.client_certificate_key_id),
            algorithm: match o.signature_algorithm.as_deref() {
                Some("RS384") => SignatureAlgorithm::Rs384,
                Some("RS512") => SignatureAlgorithm::Rs512,
                _ => SignatureAlgorithm::Rs256,
            },
            issuer: text(&o.iss),
            audience: text(&o.audience),
            claims: o.claims.clone().unwrap_or_default(),
        }
    } else {
        let secret = source(o.client_secret.as_ref().map(|s| &s.0), o.client_secret_file.as_ref());
        GrantType::ClientCredentials { secret }
    };
    Ok(OAuth2Config {
        client_id: o.client_id.clone(),
        grant,
        token_url: o.token_url.clone(),
        scopes: o.scopes.clone().unwrap_or_default(),
        endpoint_params: o.endpoint_params.clone().unwrap_or_default().into_iter().collect(),
        tls: o.tls_config.as_ref().map(tls).transpose()?.unwrap_or_default(),
        proxy: proxy(
            o.proxy_url.as_ref(),
            o.no_proxy.as_ref(),
            o.proxy_from_environment,
            o.proxy_connect_header.as_ref(),
        ),
    })
}

fn proxy(
    url: Option<&scalar::Url>,
    no_proxy: Option<&String>,
    from_environment: Option<bool>,
    connect_header: Option<&BTreeMap<String, Vec<scalar::Secret>>>,
) -> ProxyConfig {
    let header = |(name, values): (&String, &Vec<scalar::Secret>)| {
        (name.clone(), values.iter().map(|v| Secret::new(&v.0)).collect())
    };
    ProxyConfig {
        url: url.map(|u| u.0.to_string()),
        no_proxy: no_proxy.cloned().unwrap_or_default(),
        from_environment: from_environment.unwrap_or(false),
        connect_headers: connect_header.into_iter().flatten().map(header).collect(),
    }
}

/// As Prometheus: the file is good, but there is nothing that knows such secrets.
fn no_secret_manager() -> Problem {
    Problem::not_built_in(
        "cannot use secret ref without manager: no secret manager is built in; use the `*_file` form",
    )
}

/// The section `tracing`.
///
/// # Errors
/// What is valid and not built in.
pub fn tracing(t: &super::global::Tracing) -> Result<spans::SpansConfig, Problem> {
    let insecure = t.insecure.unwrap_or(false);
    // What is said about TLS counts only where it is spoken.
    let tls_config = t.tls_config.as_ref().filter(|_| !insecure);
    if tls_config.is_some_and(http::Tls::has_references) {
        return Err(no_secret_manager());
    }
    Ok(spans::SpansConfig {
        protocol: match t.client_type.as_deref() {
            Some("http") => spans::Protocol::Http,
            _ => spans::Protocol::Grpc,
        },
        endpoint: t.endpoint.clone(),
        sampling_fraction: t.sampling_fraction.unwrap_or(0.0),
        insecure,
        tls: tls_config.map(tls).transpose()?.unwrap_or_default(),
        headers: t.headers.iter().flatten().map(|(k, v)| (k.clone(), Secret::new(v))).collect(),
        gzip: t.compression.as_deref() == Some("gzip"),
        timeout: Duration::from_millis(t.timeout.map_or(0, |ms| ms.0.unsigned_abs())),
    })
}

fn header(name: &str, h: &http::Header) -> HttpHeader {
    let inline =
        h.values.iter().chain(h.secrets.iter().map(|s| &s.0)).map(|v| SecretSource::Inline(Secret::new(v)));
    let files = h.files.iter().cloned().map(SecretSource::File);
    HttpHeader { name: name.to_owned(), values: inline.chain(files).collect() }
}

fn tls(t: &http::Tls) -> Result<TlsConfig, Problem> {
    let version = |v: &Option<String>| match v.as_deref() {
        Some("TLS13") => Some(TlsVersion::Tls13),
        Some("TLS12") => Some(TlsVersion::Tls12),
        _ => None,
    };
    if t.max_version.as_deref().is_some_and(|v| v == "TLS10" || v == "TLS11") {
        return Err(Problem::not_built_in(
            "tls_config.max_version below TLS12 is not built in: such versions are broken",
        ));
    }
    Ok(TlsConfig {
        ca: source(t.ca.as_ref(), t.ca_file.as_ref()),
        cert: source(t.cert.as_ref(), t.cert_file.as_ref()),
        key: source(t.key.as_ref().map(|k| &k.0), t.key_file.as_ref()),
        server_name: t.server_name.clone().unwrap_or_default(),
        insecure_skip_verify: t.insecure_skip_verify.unwrap_or(false),
        // An older version than is built in asks for nothing that could be refused.
        min_version: version(&t.min_version),
        max_version: version(&t.max_version),
    })
}

/// What is not empty, be it here or in a file.
fn source(inline: Option<&String>, file: Option<&std::path::PathBuf>) -> Option<SecretSource> {
    let inline = inline.filter(|s| !s.is_empty()).map(|s| SecretSource::Inline(Secret::new(s)));
    inline.or_else(|| file.filter(|f| !f.as_os_str().is_empty()).map(|f| SecretSource::File(f.clone())))
}
