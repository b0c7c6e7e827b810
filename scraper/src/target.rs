//! A scrape target: from discovered labels to the URL that is fetched, and its state as the API shows it.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config>.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::duration::{format_ms, parse_ms};
use model::labels::Quoted;
use model::relabel::process;
use model::{Labels, LabelsBuilder};
use parking_lot::Mutex;
use url::form_urlencoded;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cache::MetadataStore;
use crate::config::ScrapeConfig;
use crate::manager::{ActiveTarget, TargetHealth};
use crate::target_group::TargetGroup;

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const PARAM_PREFIX: &str = "__param_";
const META_PREFIX: &str = "__meta_";
const RESERVED_PREFIX: &str = "__";

/// What relabeling made of a discovered target.
pub(crate) enum Outcome {
    Active(Box<Target>),
    Dropped(BTreeMap<String, String>),
    Invalid(String),
}

/// A target that is scraped.
pub(crate) struct Target {
    /// Labels of its series.
    pub(crate) labels: Labels,
    pub(crate) scheme: String,
    pub(crate) address: String,
    /// Path and query, as the request line has them.
    pub(crate) path_and_query: String,
    pub(crate) interval_ms: i64,
    pub(crate) timeout_ms: i64,
    /// Identity: all labels and the URL.
    pub(crate) hash: u64,
    pub(crate) state: Mutex<TargetState>,
}

/// What changes while a target is scraped.
#[derive(Default)]
pub(crate) struct TargetState {
    pub(crate) discovered: BTreeMap<String, String>,
    pub(crate) health: TargetHealth,
    pub(crate) last_error: String,
    pub(crate) last_scrape_ms: Option<i64>,
    pub(crate) last_duration_seconds: f64,
    pub(crate) metadata: Option<Arc<MetadataStore>>,
}

impl Target {
    pub(crate) fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.address, self.path_and_query)
    }

    /// Milliseconds into each interval at which the target is scraped.
    pub(crate) fn offset_ms(&self, seed: u64) -> i64 {
        ((self.hash ^ seed) % self.interval_ms.unsigned_abs().max(1)) as i64
    }

    pub(crate) fn snapshot(&self, pool: &str) -> ActiveTarget {
        let s = self.state.lock();
        ActiveTarget {
            discovered_labels: s.discovered.clone(),
            labels: self.labels.clone(),
            scrape_pool: pool.to_owned(),
            scrape_url: self.url(),
            last_error: s.last_error.clone(),
            last_scrape_ms: s.last_scrape_ms,
            last_scrape_duration_seconds: s.last_duration_seconds,
            health: s.health,
            scrape_interval_ms: self.interval_ms,
            scrape_timeout_ms: self.timeout_ms,
        }
    }
}

/// Makes targets of all members of a group.
pub(crate) fn from_group(group: &TargetGroup, config: &ScrapeConfig) -> Vec<Outcome> {
    group
        .targets
        .iter()
        .map(|own| from_labels(discovered_labels(own, &group.labels, config), config))
        .collect()
}

fn discovered_labels(
    own: &BTreeMap<String, String>,
    group: &BTreeMap<String, String>,
    config: &ScrapeConfig,
) -> BTreeMap<String, String> {
    let mut all = group.clone();
    all.extend(own.iter().map(|(n, v)| (n.clone(), v.clone())));
    all.retain(|_, v| !v.is_empty());
    let mut default = |name: &str, value: String| {
        if !value.is_empty() {
            all.entry(name.to_owned()).or_insert(value);
        }
    };
    default("job", config.job_name.clone());
    default(INTERVAL, format_ms(config.scrape_interval_ms));
    default(TIMEOUT, format_ms(config.scrape_timeout_ms));
    default(METRICS_PATH, config.metrics_path.clone());
    default(SCHEME, config.scheme.clone());
    for (name, values) in &config.params {
        if let Some(first) = values.first() {
            default(&format!("{PARAM_PREFIX}{name}"), first.clone());
        }
    }
    all
}

fn from_labels(discovered: BTreeMap<String, String>, config: &ScrapeConfig) -> Outcome {
    let mut b = LabelsBuilder::new();
    for (n, v) in &discovered {
        b.set(n, v);
    }
    if !process(&config.relabel_rules, &mut b) {
        return Outcome::Dropped(discovered);
    }
    match build(&mut b, config, &discovered) {
        // Without a single public label there is nothing to tell its series by.
        Ok(target) if target.labels.is_empty() => Outcome::Dropped(discovered),
        Ok(target) => Outcome::Active(Box::new(target)),
        Err(reason) => Outcome::Invalid(reason),
    }
}

fn build(
    b: &mut LabelsBuilder,
    config: &ScrapeConfig,
    discovered: &BTreeMap<String, String>,
) -> Result<Target, String> {
    let address = b.get(ADDRESS).to_owned();
    if address.is_empty() {
        return Err("no address".into());
    }
    if address.contains('/') {
        return Err(format!("{} is not a valid hostname", Quoted(&address)));
    }
    let positive = |name: &str, what: &str| match parse_ms(b.get(name)) {
        Err(e) => Err(format!("error parsing {what}: {e}")),
        Ok(0) => Err(format!("{what} cannot be 0")),
        Ok(ms) => Ok(ms),
    };
    let interval_ms = positive(INTERVAL, "scrape interval")?;
    let timeout_ms = positive(TIMEOUT, "scrape timeout")?;
    if timeout_ms > interval_ms {
        return Err(format!(
            "scrape timeout cannot be greater than scrape interval ({} > {})",
            Quoted(b.get(TIMEOUT)),
            Quoted(b.get(INTERVAL))
        ));
    }
    let scheme = b.get(SCHEME).to_owned();
    if scheme != "http" && scheme != "https" {
        return Err(format!("unsupported scheme {}: use http or https", Quoted(&scheme)));
    }
    b.retain(|n, _| !n.starts_with(META_PREFIX));
    if b.get("instance").is_empty() {
        b.set("instance", &address);
    }
    let all = b.build();
    let path_and_query = path_and_query(&all, config);
    let url = format!("{scheme}://{address}{path_and_query}");
    Ok(Target {
        labels: all.filter(|n| !n.starts_with(RESERVED_PREFIX)),
        hash: xxh3_64_with_seed(url.as_bytes(), all.hash64()),
        scheme,
        address,
        path_and_query,
        interval_ms,
        timeout_ms,
        state: Mutex::new(TargetState { discovered: discovered.clone(), ..TargetState::default() }),
    })
}

/// Characters that a path keeps as they are.
const PATH: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@')
    .remove(b'!')
    .remove(b'*')
    .remove(b'(')
    .remove(b')');

fn path_and_query(labels: &Labels, config: &ScrapeConfig) -> String {
    let path = labels.value(METRICS_PATH);
    let mut out = String::new();
    if !path.starts_with('/') {
        out.push('/');
    }
    out.extend(percent_encoding::utf8_percent_encode(path, PATH));
    let mut params: BTreeMap<&str, Vec<&str>> =
        config.params.iter().map(|(n, v)| (n.as_str(), v.iter().map(String::as_str).collect())).collect();
    for (n, v) in labels.iter() {
        let Some(name) = n.strip_prefix(PARAM_PREFIX) else { continue };
        let values = params.entry(name).or_default();
        match values.first_mut() {
            Some(first) => *first = v,
            None => values.push(v),
        }
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (n, values) in params {
        for v in values {
            query.append_pair(n, v);
        }
    }
    let query = query.finish();
    if !query.is_empty() {
        out.push('?');
        out.push_str(&query);
    }
    out
}
