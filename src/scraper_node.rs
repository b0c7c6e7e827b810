//! The scraper node: discovery, scraping, the local store, the senders, and the query API over both tiers.
//!
//! Order of starting: configuration, local store, server, discovery and scraping; once the store has replayed its log, senders
//! and rules, and the node is ready. Of stopping: rules, alerts (what waits is sent), scraping (which writes stale markers),
//! senders (which send what they can), server, discovery, store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use api::sources::{
    AdminSource, BacklogRange, Deps, ExemplarSource, Lifecycle, LongtermSource, LongtermStatus, OtlpSettings,
    Preview, Readiness, ReadyState, TsdbStatus, WalReplayStatus,
};
use federation::audit::RemoteDigests;
use federation::backlog::{Backlog, LocalStore, NewRange, Reason};
use federation::config::{BacklogConfig, RemoteReadConfig, SenderConfig};
use federation::fanout::{Fanout, RemoteSource};
use federation::remote_read::RemoteRead;
use federation::sender::{RemoteSide, Sender, SenderHandle, SenderParts, selector_text};
use federation::store::ROLLUP_GRIDS_MS;
use federation::tiered::{OnUnavailable, Promoted, Tiered};
use model::trace::Tracer;
use model::{Clock, Exemplar, Labels, LabelsBuilder, Matcher, Queryable, StorageError};
use prometheus::Registry;
use rules::{RuleManager, RuleParts, TemplateContext};
use scraper::discovery::{DiscoveryManager, DiscoveryOptions};
use scraper::{ScrapeManager, ScrapeOptions};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify};
use tsdb::Db;

use crate::active_queries::ActiveQueryFile;
use crate::alerting::AlertSending;
use crate::cli::{AlertFlags, GeneralFlags, QueryFlags, ScrapeFlags, TsdbFlags, WebFlags};
use crate::config::Config;
use crate::config::global::FeatureDefaults;
use crate::config::settings::{Longterm, Settings};
use crate::longterm_node::blocking;
use crate::metrics::{self, ReloadMetrics};
use crate::query_log::QueryLogFile;
use crate::server::RunningServer;
use crate::status::{CurrentQueryable, NodeFacts, Rules, Status, StoreStatus, Targets};
use crate::web;

/// How often the local store looks whether a block is due or expired.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);
/// Name of the sender to the long-term node.
const LONGTERM_SENDER: &str = "longterm";
/// Retention when nothing is given.
const DEFAULT_RETENTION_MS: i64 = 15 * 86_400_000;

/// What a scraper node is started with.
pub struct Options {
    /// The configuration file.
    pub config_file: PathBuf,
    /// Folder of the local store.
    pub tsdb_path: PathBuf,
    /// Flags of the local store.
    pub tsdb: TsdbFlags,
    /// Addresses to listen on.
    pub listen: Vec<String>,
    /// Flags of the HTTP server.
    pub web: WebFlags,
    /// Flags of queries.
    pub query: QueryFlags,
    /// Flags of scraping.
    pub scrape: ScrapeFlags,
    /// Flags of alerts.
    pub alerts: AlertFlags,
    /// Features and logging.
    pub general: GeneralFlags,
    /// All flags, as the API shows them.
    pub flags: BTreeMap<String, String>,
    /// The long-term node to use when the file has no section `longterm`: in standalone mode, the one beside us.
    pub longterm_beside: Option<String>,
    /// Takes the spans of the process; its recorder is as the configuration has it.
    pub tracer: Tracer,
}

/// A running scraper node.
pub struct ScraperNode {
    core: Arc<Core>,
    server: RunningServer,
}

/// What a reload works on.
struct Core {
    config_file: PathBuf,
    feature_defaults: FeatureDefaults,
    tsdb_path: PathBuf,
    /// How long senders may take to send what is left when they stop.
    flush_deadline: Duration,
    longterm_beside: Option<String>,
    retention_flags: TsdbFlags,
    general: GeneralFlags,
    query: QueryFlags,
    otlp: OtlpSettings,
    clock: Arc<dyn Clock>,
    registry: Registry,
    runtime: Handle,
    db: Arc<Db>,
    discovery: DiscoveryManager,
    scraping: Arc<ScrapeManager>,
    rules: Arc<RuleManager>,
    alerts: Arc<AlertSending>,
    engine: promql::Engine,
    external_url: String,
    queryable: Arc<CurrentQueryable>,
    facts: Arc<NodeFacts>,
    reloads: ReloadMetrics,
    readiness: Readiness,
    quit: Arc<Notify>,
    spans: spans::Spans,
    tracer: Tracer,
    /// Also keeps reloads from overlapping.
    senders: Mutex<Vec<(SenderConfig, SenderHandle)>>,
    /// History on its way to the long-term node.
    backlog: Arc<RwLock<Option<Arc<Backlog>>>>,
    phase: Mutex<Phase>,
    /// Why the node cannot go on.
    failure: std::sync::Mutex<Option<anyhow::Error>>,
}

/// What of a configuration needs the store's past.
struct Later {
    settings: Settings,
    groups: Vec<rules::GroupConfig>,
}

/// Whether the store is there.
enum Phase {
    /// It replays its log; this is to be put in force then.
    Replaying(Option<Box<Later>>),
    Running,
    Stopping,
}

impl ScraperNode {
    /// Loads the configuration, opens the store and begins to scrape and to answer requests.
    ///
    /// # Errors
    /// One line that says what is in the way: a mistake in the configuration, a taken port, a locked or unwritable folder.
    pub async fn start(options: Options, clock: Arc<dyn Clock>, quit: Arc<Notify>) -> anyhow::Result<Self> {
        let (config, settings) =
            load(&options.config_file, options.longterm_beside.as_deref(), &options.general.defaults())?;
        let receivers = web::Receivers {
            remote_write: options.web.enable_remote_write_receiver,
            otlp: options.web.enable_otlp_receiver,
            otlp_rules: api::OtlpConfig {
                starts_as_zeros: options.general.starts().as_zeros,
                append_metadata: options.general.has("metadata-wal-records"),
            },
        };
        let api_config = web::api_config(&options.listen, &options.web, receivers, "almanac scraper node")?;
        let registry = metrics::registry("scraper");
        let db = open(&options, &settings, clock.clone(), registry.clone()).await?;
        let engine_config = web::engine_config(&options.query, &options.general);
        let slots = engine_config.max_concurrency;
        // The store's lock is held: nobody else's queries are in the file.
        let active = ActiveQueryFile::open(&options.tsdb_path, slots, clock.clone())?;
        let engine =
            promql::Engine::with_active_queries(engine_config, clock.clone(), &registry, Some(active));
        // As Prometheus has it, so that paths can be appended.
        let external_url = api_config.external_url.as_str().trim_end_matches('/').to_owned();
        let parts = Parts {
            clock: clock.clone(),
            registry: registry.clone(),
            db: db.clone(),
            engine: engine.clone(),
            external_url,
            quit,
        };
        let core = Arc::new(Core::new(&options, &settings, parts)?);
        let deps = Deps {
            clock,
            registry,
            engine: Arc::new(engine),
            queryable: core.queryable.clone(),
            local_queryable: db.clone(),
            encode_chunks: tsdb::chunk::encode_common,
            appendable: receivers.any().then(|| db.clone() as Arc<dyn model::Appendable>),
            otlp: core.otlp.clone(),
            targets: Arc::new(Targets(core.scraping.clone())),
            status: Arc::new(Status::new(core.facts.clone(), Box::new(StoreOf(db.clone())))),
            rules: Some(Arc::new(Rules { rules: core.rules.clone(), alerts: core.alerts.clone() })),
            exemplars: Some(Arc::new(DbExemplars(db.clone()))),
            admin: Some(Arc::new(DbAdmin(db.clone()))),
            longterm: Some(Arc::new(LongtermWay(core.clone()))),
            lifecycle: Arc::new(Reloading(core.clone())),
            readiness: core.readiness.clone(),
            tracer: options.tracer.clone(),
        };
        let server = RunningServer::start(api_config, deps).await?;
        core.apply(&config, settings).await?;
        tracing::info!(address = %server.address(), path = %options.tsdb_path.display(), "scraping; queries are answered once the local storage is replayed");
        tokio::spawn(core.clone().run_when_ready());
        Ok(Self { core, server })
    }

    /// Loads the configuration again. A bad file changes nothing.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub async fn reload(&self) -> Result<(), String> {
        self.core.reload().await
    }

    /// Stops scraping, sends what is left, ends answering, closes the store.
    ///
    /// # Errors
    /// When the last bytes could not be written.
    pub async fn stop(self) -> anyhow::Result<()> {
        let core = self.core;
        core.readiness.set(ReadyState::Stopping);
        *core.phase.lock().await = Phase::Stopping;
        core.rules.stop();
        core.alerts.stop().await;
        core.scraping.stop().await;
        for (config, handle) in core.senders.lock().await.drain(..) {
            if !handle.stop(core.flush_deadline).await {
                tracing::warn!(
                    destination = config.name,
                    "not everything was sent; the rest follows after the next start"
                );
            }
        }
        self.server.stop().await;
        core.spans.stop().await;
        core.discovery.stop();
        let db = core.db.clone();
        let closed = blocking(move || db.close()).await?;
        let failure = core.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failure {
            Some(e) => Err(e),
            None => closed.context("cannot close the local storage"),
        }
    }
}

/// What a [`Core`] is made of.
struct Parts {
    clock: Arc<dyn Clock>,
    registry: Registry,
    db: Arc<Db>,
    engine: promql::Engine,
    external_url: String,
    quit: Arc<Notify>,
}

impl Core {
    fn new(options: &Options, settings: &Settings, parts: Parts) -> anyhow::Result<Self> {
        let Parts { clock, registry, db, engine, external_url, quit } = parts;
        let discovery = DiscoveryManager::new(clock.clone(), &registry, DiscoveryOptions::default())?;
        let scrape_options = ScrapeOptions {
            offset_seed: format!("{}{}", hostname(), settings.external_labels),
            type_and_unit_labels: options.general.has("type-and-unit-labels"),
            append_metadata: options.general.has("metadata-wal-records"),
            starts: options.general.starts(),
            tracer: options.tracer.clone(),
            timestamp_tolerance_ms: options.scrape.tolerance_ms(),
            // Discovery gathers changes itself; targets follow within a second.
            discovery_reload_interval_ms: 200,
            ..ScrapeOptions::default()
        };
        let scraping = ScrapeManager::new(db.clone(), clock.clone(), &registry, scrape_options)?;
        let queryable = Arc::new(CurrentQueryable::new(db.clone()));
        let alerts = Arc::new(AlertSending::new(&options.alerts, clock.clone(), &registry)?);
        let parts = RuleParts {
            engine: engine.clone(),
            queryable: queryable.clone(),
            appendable: db.clone(),
            clock: clock.clone(),
            timing: options.alerts.timing(),
            notify: alerts.notify(),
            tracer: options.tracer.clone(),
        };
        let rules = RuleManager::new(parts, &registry)?;
        // Named as Prometheus names itself, so that what was made for its traces finds these.
        let version = env!("CARGO_PKG_VERSION");
        let spans =
            spans::Spans::new(options.tracer.clone(), clock.clone(), &registry, "prometheus", version)?;
        Ok(Self {
            rules: Arc::new(rules),
            spans,
            tracer: options.tracer.clone(),
            alerts,
            engine,
            external_url,
            config_file: options.config_file.clone(),
            feature_defaults: options.general.defaults(),
            tsdb_path: options.tsdb_path.clone(),
            flush_deadline: web::span(options.scrape.flush_deadline),
            longterm_beside: options.longterm_beside.clone(),
            retention_flags: options.tsdb.clone(),
            general: options.general.clone(),
            query: options.query.clone(),
            otlp: OtlpSettings::default(),
            runtime: Handle::current(),
            discovery,
            scraping: Arc::new(scraping),
            queryable,
            facts: Arc::new(NodeFacts::new(options.flags.clone(), clock.now_ms())),
            reloads: ReloadMetrics::new(&registry),
            readiness: Readiness::new(),
            quit,
            senders: Mutex::default(),
            backlog: Arc::default(),
            phase: Mutex::new(Phase::Replaying(None)),
            failure: std::sync::Mutex::default(),
            clock,
            registry,
            db,
        })
    }

    /// Waits for the store, then starts what needs its past. A failure ends the node.
    async fn run_when_ready(self: Arc<Self>) {
        let db = self.db.clone();
        let replayed = blocking(move || db.wait_ready()).await;
        let begun = match replayed {
            Err(e) => Err(e),
            Ok(Err(tsdb::Error::Storage(StorageError::Closed))) => return,
            Ok(Err(e)) => Err(anyhow::Error::new(e)),
            Ok(Ok(())) => self.begin().await,
        };
        if let Err(e) = begun {
            let e = e.context(format!("cannot open the local storage in {}", self.tsdb_path.display()));
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
            self.quit.notify_one();
        }
    }

    async fn begin(&self) -> anyhow::Result<()> {
        let mut phase = self.phase.lock().await;
        let Phase::Replaying(later) = &mut *phase else { return Ok(()) };
        if let Some(later) = later.take() {
            self.apply_later(*later).await?;
        }
        self.db.start_maintenance(MAINTENANCE_INTERVAL)?;
        *phase = Phase::Running;
        self.readiness.set(ReadyState::Ready);
        tracing::info!(path = %self.tsdb_path.display(), "scraper node is ready to receive requests");
        Ok(())
    }

    async fn apply_later(&self, later: Later) -> anyhow::Result<()> {
        self.apply_senders(&later.settings).await?;
        let context = TemplateContext {
            external_labels: later.settings.external_labels,
            external_url: self.external_url.clone(),
        };
        self.rules.apply(later.groups, &context)?;
        Ok(())
    }

    async fn reload(&self) -> Result<(), String> {
        let result = match load(&self.config_file, self.longterm_beside.as_deref(), &self.feature_defaults) {
            Ok((config, settings)) => self.apply(&config, settings).await,
            Err(e) => Err(e),
        };
        match result {
            Ok(()) => {
                tracing::info!(file = %self.config_file.display(), "configuration loaded");
                Ok(())
            }
            Err(e) => {
                let reason = format!("{e:#}");
                self.reloads.note(false, self.clock.now_ms());
                self.facts.reload_failed();
                tracing::error!(error = reason, "configuration not loaded; the one before stays in force");
                Err(reason)
            }
        }
    }

    /// Puts a checked configuration in force.
    async fn apply(&self, config: &Config, settings: Settings) -> anyhow::Result<()> {
        settings.notes.iter().for_each(|n| tracing::warn!("{n}"));
        let stores = self.stores(&settings)?;
        let groups = settings.rule_groups(self.engine.parser_options())?;
        let query_log = settings.query_log_file.as_deref().map(QueryLogFile::open).transpose()?;
        self.spans.apply(settings.tracing.clone()).await?;
        self.alerts.apply(&settings)?;
        let later = Later { settings: settings.clone(), groups };
        let mut phase = self.phase.lock().await;
        match &mut *phase {
            Phase::Replaying(waiting) => *waiting = Some(Box::new(later)),
            Phase::Running => self.apply_later(later).await?,
            Phase::Stopping => {}
        }
        drop(phase);
        let names = settings.jobs.iter().map(|j| (j.job_name.clone(), j.discovery.clone())).collect();
        let receivers = self.discovery.apply(names);
        let jobs =
            settings.jobs.into_iter().zip(receivers).map(|(job, (_, receiver))| (job, receiver)).collect();
        self.scraping.set_server_limit(settings.server_limit);
        self.scraping.apply(jobs).await?;
        self.queryable.set(stores);
        self.otlp.set(self.general.otlp(settings.otlp, &self.query));
        // Opened anew with every reload, so that the file can be moved away.
        self.engine.set_query_log(query_log);
        let now_ms = self.clock.now_ms();
        self.db.set_out_of_order_window(settings.out_of_order_window_ms);
        let (time, size) = retention(&self.retention_flags, &settings.retention);
        let retention = match (time, size) {
            (0, size) => crate::config::scalar::Bytes(size).to_string(),
            (time, 0) => model::duration::format_ms(time),
            (time, size) => {
                format!("{} or {}", model::duration::format_ms(time), crate::config::scalar::Bytes(size))
            }
        };
        self.facts.loaded(config.to_yaml(), settings.external_labels, retention, now_ms);
        self.reloads.note(true, now_ms);
        Ok(())
    }

    /// What queries see: the local store, the long-term node for what is older, and the remote stores of the file.
    fn stores(&self, settings: &Settings) -> anyhow::Result<Arc<dyn Queryable>> {
        let local = self.tiers(settings)?;
        if settings.remote_read.is_empty() {
            return Ok(local);
        }
        let sources = settings.remote_read.iter().map(|store| {
            let name = store.config.name.clone();
            let remote = RemoteRead::new(store.config.clone(), self.runtime.clone())
                .with_context(|| format!("remote_read {name:?}"))?
                .with_chunks(tsdb::chunk::codec);
            Ok(RemoteSource {
                name,
                remote: Arc::new(remote),
                external_labels: store.external_labels.clone(),
                required_matchers: store.required_matchers.clone(),
                read_recent: store.read_recent,
            })
        });
        let (db, margin_ms) = (self.db.clone(), 2 * self.retention_flags.min_block_duration.ms());
        Ok(Arc::new(Fanout {
            local,
            // As Prometheus: it takes a while until a new store has all that there is to have.
            local_start: Arc::new(move || db.min_time().map(|start| start.saturating_add(margin_ms))),
            sources: sources.collect::<anyhow::Result<_>>()?,
        }))
    }

    /// The local store, and the long-term node for what is older.
    fn tiers(&self, settings: &Settings) -> anyhow::Result<Arc<dyn Queryable>> {
        let Some(longterm) = &settings.longterm else { return Ok(self.db.clone()) };
        let config = RemoteReadConfig::new(LONGTERM_SENDER, format!("{}/api/v1/read", longterm.url));
        let remote = RemoteRead::new(config, self.runtime.clone()).context("longterm.url")?;
        let remote = remote.with_chunks(tsdb::chunk::codec).with_rollups(&ROLLUP_GRIDS_MS);
        let db = self.db.clone();
        let backlog = self.backlog.clone();
        let promoted = Promoted {
            tags: federation::backlog::tag_label_names(&longterm.matchers),
            until: Arc::new(move || {
                let backlog = backlog.read().unwrap_or_else(PoisonError::into_inner);
                backlog.as_ref()?.promoted_until_ms()
            }),
        };
        Ok(Arc::new(Tiered {
            promoted: Some(promoted),
            local: self.db.clone(),
            local_min_time: Arc::new(move || db.min_time()),
            remote: Arc::new(remote),
            external_labels: without(&settings.external_labels, longterm.replica_label.as_deref()),
            on_unavailable: OnUnavailable::WarnLocalOnly,
        }))
    }

    /// Starts senders that are new, stops those that are gone; a changed one is stopped and started again from its
    /// acknowledged position.
    async fn apply_senders(&self, settings: &Settings) -> anyhow::Result<()> {
        let positions_dir = self.tsdb_path.join("remote-write");
        let mut wanted: Vec<SenderConfig> = settings.remote_write.clone();
        wanted.extend(settings.longterm.as_ref().map(|l| longterm_sender(l, settings)));
        wanted.iter_mut().for_each(|w| w.positions_dir.clone_from(&positions_dir));
        let mut senders = self.senders.lock().await;
        let mut keep = Vec::new();
        for (config, handle) in senders.drain(..) {
            let same_name = wanted.iter().any(|w| w.name == config.name);
            if wanted.contains(&config) {
                keep.push((config, handle));
            } else if same_name {
                handle.stop(self.flush_deadline).await;
            } else {
                handle.stop_and_release(self.flush_deadline).await;
            }
        }
        *senders = keep;
        for config in wanted {
            if senders.iter().any(|(running, _)| *running == config) {
                continue;
            }
            // Third parties get what the log has, in order; the long-term node gets history too.
            let is_longterm = config.name == LONGTERM_SENDER;
            let local = is_longterm.then(|| Arc::new(LocalHistory(self.db.clone())) as Arc<dyn LocalStore>);
            let parts = SenderParts {
                source: self.db.clone(),
                local,
                remote: is_longterm.then(|| self.longterm_side(&config)).transpose()?,
                transport: None,
                clock: self.clock.clone(),
                registry: self.registry.clone(),
                runtime: self.runtime.clone(),
                tracer: self.tracer.clone(),
            };
            let settings = config.clone();
            let handle = blocking(move || Sender::start_with(settings, parts)).await??;
            senders.push((config, handle));
        }
        let longterm = senders.iter().find(|(config, _)| config.name == LONGTERM_SENDER);
        *self.backlog.write().unwrap_or_else(PoisonError::into_inner) =
            longterm.and_then(|(_, handle)| handle.backlog().cloned());
        Ok(())
    }
}

impl Core {
    /// The long-term node as the audit reads it.
    fn longterm_side(&self, config: &SenderConfig) -> anyhow::Result<RemoteSide> {
        let base = config.url.trim_end_matches("/api/v1/write");
        let read = RemoteReadConfig {
            http: config.http.clone(),
            ..RemoteReadConfig::new(LONGTERM_SENDER, format!("{base}/api/v1/read"))
        };
        let digests = RemoteDigests::new(base, read.clone(), self.runtime.clone()).context("longterm.url")?;
        let samples = RemoteRead::new(read, self.runtime.clone()).context("longterm.url")?;
        Ok(RemoteSide { digests: Arc::new(digests), samples: Arc::new(samples) })
    }
}

/// The labels that the long-term node has for this node's series: it takes a replica's name off.
fn without(labels: &Labels, name: Option<&str>) -> Labels {
    let mut builder = LabelsBuilder::from_labels(labels);
    name.map(|name| builder.del(name));
    builder.build()
}

fn longterm_sender(longterm: &Longterm, settings: &Settings) -> SenderConfig {
    let url = format!("{}/api/v1/write", longterm.url);
    let late_ms = u64::try_from(settings.out_of_order_window_ms).unwrap_or(0);
    SenderConfig {
        external_labels: settings.external_labels.clone(),
        replica_label: longterm.replica_label.clone(),
        backlog: BacklogConfig { late_window: Duration::from_millis(late_ms), ..BacklogConfig::default() },
        ..SenderConfig::longterm(LONGTERM_SENDER, url, "", longterm.matchers.clone())
    }
}

/// Reads and checks the file.
///
/// # Errors
/// One line with file, line, column and reason.
fn load(
    file: &Path,
    longterm_beside: Option<&str>,
    features: &FeatureDefaults,
) -> anyhow::Result<(Config, Settings)> {
    let config = Config::load_with(file, features)?;
    let mut settings = config.settings().map_err(|p| p.in_file(file))?;
    if let (None, Some(url)) = (&settings.longterm, longterm_beside) {
        let matchers = crate::config::remote::default_matchers();
        let replica_label = crate::config::settings::replica_label(None, &settings.external_labels);
        settings.longterm = Some(Longterm { url: url.to_owned(), matchers, replica_label });
    }
    Ok((config, settings))
}

/// Retention by time in milliseconds and by size in bytes; 0 is none. Flags win over the file.
fn retention(flags: &TsdbFlags, file: &crate::config::global::Retention) -> (i64, u64) {
    let time = flags.retention_time.or(file.time).map_or(0, |t| t.ms());
    let size = flags.retention_size.or(file.size).map_or(0, |s| s.0);
    let limited = time != 0 || size != 0 || file.percentage.is_some_and(|p| p > 0.0);
    if limited { (time, size) } else { (DEFAULT_RETENTION_MS, 0) }
}

async fn open(
    options: &Options,
    settings: &Settings,
    clock: Arc<dyn Clock>,
    registry: Registry,
) -> anyhow::Result<Arc<Db>> {
    let (retention_ms, retention_bytes) = retention(&options.tsdb, &settings.retention);
    let defaults = tsdb::Config::new(&options.tsdb_path);
    let config = tsdb::Config {
        retention_ms,
        retention_bytes,
        retention_percentage: settings.retention.percentage.unwrap_or(0.0),
        min_block_ms: options.tsdb.min_block_duration.ms(),
        max_block_ms: options.tsdb.max_block_duration.map_or(0, |d| d.ms()),
        delay_compact_file: options.tsdb.delay_compact_file.clone(),
        wal_segment_bytes: options.tsdb.wal_segment_size.map_or(defaults.wal_segment_bytes, |s| s.0),
        wal_compression: options.tsdb.wal_compression_used(),
        fsync_on_commit: options.tsdb.wal_fsync_on_commit,
        out_of_order_window_ms: settings.out_of_order_window_ms,
        // As Prometheus: the file names the encoding, or else the feature does.
        float_encoding: settings.float_encoding.unwrap_or(if options.general.has("xor2-encoding") {
            tsdb::FloatEncoding::Xor2
        } else {
            tsdb::FloatEncoding::Xor
        }),
        histogram_start_encoding: options.general.has("histograms-st-encoding"),
        snapshot_on_close: options.general.has("memory-snapshot-on-shutdown"),
        store_start_timestamps: options.general.has("st-storage"),
        exemplars_max: settings.exemplars_max.unwrap_or(defaults.exemplars_max),
        ..defaults
    };
    let path = options.tsdb_path.clone();
    blocking(move || Db::start(config, clock, &registry))
        .await?
        .with_context(|| format!("cannot open the local storage in {}", path.display()))
}

fn db_status(db: &Db, limit: usize) -> TsdbStatus {
    let stats = db.stats(limit);
    TsdbStatus {
        num_series: stats.series,
        num_label_pairs: stats.label_pairs,
        chunk_count: stats.chunks,
        min_time_ms: stats.min_time.unwrap_or(i64::MAX),
        max_time_ms: stats.max_time.unwrap_or(i64::MIN),
        series_count_by_metric_name: stats.series_by_metric_name,
        label_value_count_by_label_name: stats.values_by_label_name,
        memory_in_bytes_by_label_name: stats.value_bytes_by_label_name,
        series_count_by_label_value_pair: stats.series_by_label_pair,
    }
}

struct StoreOf(Arc<Db>);

impl StoreStatus for StoreOf {
    fn tsdb(&self, limit: usize) -> Result<TsdbStatus, StorageError> {
        Ok(db_status(&self.0, limit))
    }

    fn wal_replay(&self) -> WalReplayStatus {
        let (min, max, current) = self.0.replay_progress();
        WalReplayStatus { min, max, current }
    }
}

/// The local store as a source of history for the backlog lane.
struct LocalHistory(Arc<Db>);

impl Queryable for LocalHistory {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn model::Querier>, StorageError> {
        self.0.querier(mint, maxt)
    }
}

impl LocalStore for LocalHistory {
    fn min_time(&self) -> Option<i64> {
        self.0.min_time()
    }

    fn exemplars(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Vec<(Labels, Vec<Exemplar>)> {
        self.0.exemplars(sets, mint, maxt)
    }
}

struct DbExemplars(Arc<Db>);

impl ExemplarSource for DbExemplars {
    fn select(
        &self,
        mint: i64,
        maxt: i64,
        sets: &[Vec<Matcher>],
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, StorageError> {
        Ok(self.0.exemplars(sets, mint, maxt))
    }
}

/// The sender to the long-term node, for the API. Called on blocking threads.
struct LongtermWay(Arc<Core>);

impl LongtermWay {
    fn with<T>(&self, use_it: impl FnOnce(&SenderConfig, &SenderHandle, &Backlog) -> T) -> Option<T> {
        let senders = self.0.senders.blocking_lock();
        let (config, handle) = senders.iter().find(|(config, _)| config.name == LONGTERM_SENDER)?;
        Some(use_it(config, handle, handle.backlog()?))
    }

    fn backlog<T>(
        &self,
        use_it: impl FnOnce(&Backlog) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let none = || StorageError::Unavailable {
            who: "long-term node".into(),
            reason: "the configuration names none".into(),
        };
        self.with(|_, _, backlog| use_it(backlog)).ok_or_else(none)?
    }
}

impl LongtermSource for LongtermWay {
    fn status(&self) -> Option<LongtermStatus> {
        self.with(|config, handle, backlog| {
            let (sender, queue) = (handle.status(), backlog.status());
            let text = |sets: &[Vec<Matcher>]| sets.iter().map(|set| selector_text(set)).collect();
            let ranges = queue.ranges.iter().map(|r| BacklogRange {
                id: r.id,
                reason: r.reason.as_str().to_owned(),
                selectors: text(&r.selectors),
                start_ms: r.mint,
                end_ms: r.maxt,
                done_until_ms: r.done_until,
                samples: r.samples,
            });
            LongtermStatus {
                url: config.url.trim_end_matches("/api/v1/write").to_owned(),
                selectors: text(&config.matchers),
                replica_label: config.replica_label.clone(),
                live_lag_seconds: sender.live_lag.as_secs_f64(),
                complete_until_ms: queue.verified_until_ms,
                paused: queue.paused,
                last_error: queue.last_error.clone(),
                samples_sent: queue.sent,
                windows_left: queue.windows_left,
                samples_left: queue.samples_left,
                samples_per_second: queue.samples_per_second,
                ranges: ranges.collect(),
            }
        })
    }

    fn enqueue(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Result<u64, StorageError> {
        let (selectors, strip) = (sets.to_vec(), Vec::new());
        self.backlog(|b| b.enqueue(NewRange { reason: Reason::Manual, selectors, strip, mint, maxt }))
    }

    fn cancel(&self, id: u64) -> Result<bool, StorageError> {
        self.backlog(|b| b.cancel(id))
    }

    fn preview(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Result<Preview, StorageError> {
        let found = federation::preview::preview(&*self.0.db, sets, mint, maxt)?;
        Ok(Preview {
            seconds: found.span_ms as f64 / 1000.0,
            series: found.series,
            samples: found.samples,
            bytes: found.bytes,
        })
    }
}

struct DbAdmin(Arc<Db>);

impl AdminSource for DbAdmin {
    fn count_series(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Result<(u64, u64), StorageError> {
        let found = federation::preview::preview(&*self.0, sets, mint, maxt)?;
        Ok((found.series, found.samples))
    }

    fn delete_series(&self, mint: i64, maxt: i64, matchers: &[Matcher]) -> Result<(), StorageError> {
        self.0.delete(matchers, mint, maxt)
    }

    fn clean_tombstones(&self) -> Result<(), StorageError> {
        self.0.clean_tombstones()
    }

    fn snapshot(&self, skip_head: bool) -> Result<String, StorageError> {
        self.0.snapshot(skip_head)
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

struct Reloading(Arc<Core>);

impl Lifecycle for Reloading {
    /// Called on a blocking thread.
    fn reload(&self) -> Result<(), String> {
        self.0.runtime.block_on(self.0.reload())
    }

    fn quit(&self) {
        self.0.quit.notify_one();
    }
}
