//! A scrape target: from discovered labels to the URL that is fetched, and its state as the API shows it.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config>.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::duration::{format_ms, parse_ms};
use model::labels::{LabelsWriter, Quoted};
use model::relabel::process;
use model::{Labels, LabelsBuilder};
use parking_lot::Mutex;
use url::form_urlencoded;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cache::MetadataStore;
use crate::config::ScrapeConfig;
use crate::exposition::HistogramOptions;
use crate::manager::{ActiveTarget, TargetHealth};
use crate::target_group::{GroupLabels, TargetGroup};

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
/// A socket to scrape through instead of the address.
const UNIX_SOCKET: &str = "__unix_socket__";
const CONVERT_CLASSIC: &str = "__convert_classic_histograms_to_nhcb__";
const KEEP_CLASSIC: &str = "__always_scrape_classic_histograms__";
const NATIVE: &str = "__scrape_native_histograms__";
const PARAM_PREFIX: &str = "__param_";
const META_PREFIX: &str = "__meta_";
const RESERVED_PREFIX: &str = "__";

/// What relabeling made of a discovered target.
pub(crate) enum Outcome {
    Active(Box<Target>),
    Dropped,
    Invalid(String),
}

/// Where a target was discovered. Its discovered labels are put together from this when someone asks, since fifty
/// thousand targets would otherwise hold them all a second time.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) group: Arc<TargetGroup>,
    pub(crate) index: u32,
}

/// A target that is scraped.
pub(crate) struct Target {
    /// Labels of its series; none is empty. The names are those of many targets.
    labels: GroupLabels,
    /// What is fetched; path and query as the request line has them.
    pub(crate) url: Box<str>,
    /// Path of a unix socket; empty for none.
    pub(crate) unix_socket: Box<str>,
    pub(crate) interval_ms: i64,
    pub(crate) timeout_ms: i64,
    pub(crate) histograms: HistogramOptions,
    /// Identity: all labels and the URL.
    pub(crate) hash: u64,
    pub(crate) state: Mutex<TargetState>,
}

/// What changes while a target is scraped.
pub(crate) struct TargetState {
    pub(crate) origin: Origin,
    pub(crate) health: TargetHealth,
    pub(crate) last_error: Box<str>,
    pub(crate) last_scrape_ms: Option<i64>,
    pub(crate) last_duration_seconds: f64,
    pub(crate) metadata: Option<Arc<MetadataStore>>,
}

impl Target {
    /// Labels of its series.
    pub(crate) fn labels(&self) -> Labels {
        let mut writer = LabelsWriter::new();
        self.labels.iter().for_each(|(name, value)| writer.push(name, value));
        writer.build()
    }

    pub(crate) fn url(&self) -> String {
        self.url.to_string()
    }

    /// Milliseconds into each interval at which the target is scraped.
    pub(crate) fn offset_ms(&self, seed: u64) -> i64 {
        ((self.hash ^ seed) % self.interval_ms.unsigned_abs().max(1)) as i64
    }

    pub(crate) fn snapshot(&self, factory: &TargetFactory) -> ActiveTarget {
        let s = self.state.lock();
        ActiveTarget {
            discovered_labels: factory.discovered(&s.origin),
            labels: self.labels(),
            scrape_pool: factory.config.job_name.clone(),
            scrape_url: self.url(),
            last_error: s.last_error.to_string(),
            last_scrape_ms: s.last_scrape_ms,
            last_scrape_duration_seconds: s.last_duration_seconds,
            health: s.health,
            scrape_interval_ms: self.interval_ms,
            scrape_timeout_ms: self.timeout_ms,
        }
    }
}

/// Makes the targets of one job.
pub(crate) struct TargetFactory {
    config: Arc<ScrapeConfig>,
    /// Labels that a target has unless discovery says otherwise; none is empty.
    defaults: Vec<(String, String)>,
}

impl TargetFactory {
    pub(crate) fn new(config: Arc<ScrapeConfig>) -> Self {
        let mut defaults = vec![
            ("job".to_owned(), config.job_name.clone()),
            (INTERVAL.to_owned(), format_ms(config.scrape_interval_ms)),
            (TIMEOUT.to_owned(), format_ms(config.scrape_timeout_ms)),
            (METRICS_PATH.to_owned(), config.metrics_path.clone()),
            (SCHEME.to_owned(), config.scheme.clone()),
            (CONVERT_CLASSIC.to_owned(), config.convert_classic_histograms_to_nhcb.to_string()),
            (KEEP_CLASSIC.to_owned(), config.always_scrape_classic_histograms.to_string()),
            (NATIVE.to_owned(), config.scrape_native_histograms.to_string()),
        ];
        for (name, values) in &config.params {
            defaults.extend(values.first().map(|first| (format!("{PARAM_PREFIX}{name}"), first.clone())));
        }
        defaults.retain(|(_, value)| !value.is_empty());
        Self { config, defaults }
    }

    /// What a member of a group becomes. `labels` is a buffer.
    pub(crate) fn make(&self, group: &Arc<TargetGroup>, index: u32, labels: &mut LabelsBuilder) -> Outcome {
        self.discover(group, index, labels);
        if !process(&self.config.relabel_rules, labels) {
            return Outcome::Dropped;
        }
        match build(labels, &self.config, Origin { group: Arc::clone(group), index }) {
            // Without a single public label there is nothing to tell its series by.
            Ok(target) if target.labels.is_empty() => Outcome::Dropped,
            Ok(target) => Outcome::Active(Box::new(target)),
            Err(reason) => Outcome::Invalid(reason),
        }
    }

    /// Labels of a member of a group after relabeling, those included that only say how to scrape it. `None` when it is
    /// dropped.
    ///
    /// # Errors
    /// Why it cannot be scraped.
    pub(crate) fn relabeled(&self, group: &Arc<TargetGroup>, index: u32) -> Result<Option<Labels>, String> {
        let mut labels = LabelsBuilder::new();
        self.discover(group, index, &mut labels);
        if !process(&self.config.relabel_rules, &mut labels) {
            return Ok(None);
        }
        settle(&mut labels, &self.config)?;
        Ok(Some(labels.build()))
    }

    /// Labels of a target before relabeling.
    pub(crate) fn discovered(&self, origin: &Origin) -> Labels {
        let mut labels = LabelsBuilder::new();
        self.discover(&origin.group, origin.index, &mut labels);
        labels.build()
    }

    fn discover(&self, group: &TargetGroup, index: u32, labels: &mut LabelsBuilder) {
        labels.clear();
        let Some(own) = group.targets.get(index as usize) else { return };
        // Both are sorted, so that the builder only ever appends.
        let (mut own, mut shared) = (own.iter().peekable(), group.labels.iter().peekable());
        loop {
            let (name, value) = match (own.peek(), shared.peek()) {
                (None, None) => break,
                (Some(_), None) => own.next(),
                (None, Some(_)) => shared.next(),
                (Some((a, _)), Some((b, _))) if a < b => own.next(),
                (Some((a, _)), Some((b, _))) if a > b => shared.next(),
                (Some(_), Some(_)) => {
                    shared.next();
                    own.next()
                }
            }
            .expect("what was peeked at is there");
            labels.set(name, value);
        }
        for (name, value) in &self.defaults {
            if labels.get(name).is_empty() {
                labels.set(name, value);
            }
        }
    }
}

/// How a target is scraped, as its labels say.
struct Settled {
    url: String,
    interval_ms: i64,
    timeout_ms: i64,
    histograms: HistogramOptions,
}

/// Reads what labels say about scraping, takes off what discovery had said and sets the label `instance`.
fn settle(b: &mut LabelsBuilder, config: &ScrapeConfig) -> Result<Settled, String> {
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
    let choice = |name: &str, what: &str, default: bool| match b.get(name) {
        "" => Ok(default),
        text => parse_bool(text).ok_or_else(|| {
            format!("error parsing {what}: strconv.ParseBool: parsing {}: invalid syntax", Quoted(text))
        }),
    };
    let histograms = HistogramOptions {
        convert_classic: choice(
            CONVERT_CLASSIC,
            "convert classic histograms to nhcb",
            config.convert_classic_histograms_to_nhcb,
        )?,
        keep_classic: choice(
            KEEP_CLASSIC,
            "always scrape classic histograms",
            config.always_scrape_classic_histograms,
        )?,
        native: choice(NATIVE, "scrape native histograms", config.scrape_native_histograms)?,
    };
    let scheme = b.get(SCHEME);
    let url = format!("{scheme}://{address}{}", path_and_query(b, config));
    b.retain(|n, _| !n.starts_with(META_PREFIX));
    if b.get("instance").is_empty() {
        b.set("instance", &address);
    }
    Ok(Settled { url, interval_ms, timeout_ms, histograms })
}

fn build(b: &mut LabelsBuilder, config: &ScrapeConfig, origin: Origin) -> Result<Target, String> {
    let unix_socket: Box<str> = b.get(UNIX_SOCKET).into();
    let Settled { url, interval_ms, timeout_ms, histograms } = settle(b, config)?;
    let hash = xxh3_64_with_seed(url.as_bytes(), b.build().hash64());
    b.retain(|n, _| !n.starts_with(RESERVED_PREFIX));
    Ok(Target {
        labels: GroupLabels::from_pairs(b.iter()),
        hash,
        url: url.into(),
        unix_socket,
        interval_ms,
        timeout_ms,
        histograms,
        state: Mutex::new(TargetState {
            origin,
            health: TargetHealth::default(),
            last_error: Box::default(),
            last_scrape_ms: None,
            last_duration_seconds: 0.0,
            metadata: None,
        }),
    })
}

/// The words that Go takes for a truth value.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
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

fn path_and_query(labels: &LabelsBuilder, config: &ScrapeConfig) -> String {
    let path = labels.get(METRICS_PATH);
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
