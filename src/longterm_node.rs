//! The long-term node: the store, the receiver in front of it, and the query API over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::sources::{
    AdminSource, Deps, ExemplarSource, Lifecycle, OtlpSettings, Readiness, ReadyState, TsdbStatus,
};
use federation::ha::HaPairs;
use federation::store::LongtermStore;
use model::trace::Tracer;
use model::{Appendable, Clock, Exemplar, Labels, Matcher, StorageError};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::active_queries::ActiveQueryFile;
use crate::cli::{GeneralFlags, LongtermStoreFlags, QueryFlags, WebFlags};
use crate::server::RunningServer;
use crate::status::{NoTargets, NodeFacts, Status, StoreStatus};
use crate::tasks::Periodic;
use crate::{metrics, web};

/// How often the store seals, cuts its journal and drops what has expired.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);

/// Most series that one selector of an exemplar query gives.
const MAX_EXEMPLAR_SERIES: usize = 10_000;

/// What a long-term node is started with.
pub struct Options {
    /// Folder of the store.
    pub path: std::path::PathBuf,
    /// What the store keeps.
    pub store: LongtermStoreFlags,
    /// Addresses to listen on.
    pub listen: Vec<String>,
    /// Flags of the HTTP server.
    pub web: WebFlags,
    /// Flags of queries.
    pub query: QueryFlags,
    /// Features and logging.
    pub general: GeneralFlags,
    /// All flags, as the API shows them.
    pub flags: BTreeMap<String, String>,
    /// Takes the spans of the process: a long-term node has no file that could say where they go, the one beside it may.
    pub tracer: Tracer,
}

/// A running long-term node.
pub struct LongtermNode {
    store: Arc<LongtermStore>,
    server: RunningServer,
    maintenance: Periodic,
    readiness: Readiness,
}

impl LongtermNode {
    /// Opens the store and answers requests from then on.
    ///
    /// # Errors
    /// One line that says what is in the way: a taken port, a locked or unwritable folder, a bad flag.
    pub async fn start(options: Options, clock: Arc<dyn Clock>, quit: Arc<Notify>) -> anyhow::Result<Self> {
        let registry = metrics::registry("longterm");
        let receivers = web::Receivers {
            remote_write: true,
            otlp: true,
            otlp_rules: api::OtlpConfig { starts_as_zeros: false, append_metadata: true },
        };
        let config = web::api_config(&options.listen, &options.web, receivers, "almanac long-term node")?;
        let store_config = options.store.store_config(&options.path);
        let store = {
            let (clock, registry) = (clock.clone(), registry.clone());
            blocking(move || LongtermStore::open(store_config, clock, &registry)).await?
        }
        .with_context(|| format!("cannot open the long-term store in {}", options.path.display()))?;

        let appendable: Arc<dyn Appendable> = match options.store.ha() {
            None => store.clone(),
            Some(ha) => {
                let pairs = HaPairs::new(ha, store.clone(), store.clone(), clock.clone(), &registry);
                Arc::new(pairs.context("cannot register metrics")?)
            }
        };
        let facts = Arc::new(NodeFacts::new(options.flags, clock.now_ms()));
        let retention = options.store.retention.to_string();
        facts.loaded(String::new(), Labels::empty(), retention, clock.now_ms());
        let engine_config = web::engine_config(&options.query, &options.general);
        let slots = engine_config.max_concurrency;
        // The store's lock is held: nobody else's queries are in the file.
        let active = ActiveQueryFile::open(&options.path, slots, clock.clone())?;
        let engine =
            promql::Engine::with_active_queries(engine_config, clock.clone(), &registry, Some(active));
        let readiness = Readiness::new();
        let deps = Deps {
            clock,
            registry,
            engine: Arc::new(engine),
            queryable: store.clone(),
            local_queryable: store.clone(),
            encode_chunks: tsdb::chunk::encode_common,
            appendable: Some(appendable),
            otlp: OtlpSettings::new(options.general.otlp(wire::otlp::Settings::default(), &options.query)),
            targets: Arc::new(NoTargets),
            status: Arc::new(Status::new(facts, Box::new(StoreOf(store.clone())))),
            rules: None,
            exemplars: Some(Arc::new(StoreExemplars(store.clone()))),
            admin: Some(Arc::new(StoreAdmin(store.clone()))),
            longterm: None,
            lifecycle: Arc::new(NothingToReload { quit }),
            readiness: readiness.clone(),
            tracer: options.tracer,
        };
        let server = RunningServer::start(config, deps).await?;
        let maintained = store.clone();
        let maintenance = Periodic::start("long-term store", MAINTENANCE_INTERVAL, move || {
            maintained.maintain().map(|_| ()).map_err(|e| e.to_string())
        });
        readiness.set(ReadyState::Ready);
        tracing::info!(address = %server.address(), path = %options.path.display(), "long-term node is ready to receive requests");
        Ok(Self { store, server, maintenance, readiness })
    }

    /// Port of the first address.
    pub fn port(&self) -> u16 {
        self.server.address().port()
    }

    /// Ends answering, then closes the store.
    ///
    /// # Errors
    /// When the last bytes could not be written.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.readiness.set(ReadyState::Stopping);
        self.server.stop().await;
        self.maintenance.stop().await;
        let store = self.store;
        blocking(move || store.close()).await?.context("cannot close the long-term store")
    }
}

struct StoreOf(Arc<LongtermStore>);

impl StoreStatus for StoreOf {
    fn tsdb(&self, _limit: usize) -> Result<TsdbStatus, StorageError> {
        let stats = self.0.stats();
        Ok(TsdbStatus {
            num_series: stats.series,
            min_time_ms: stats.oldest_ms.unwrap_or(i64::MAX),
            ..TsdbStatus::default()
        })
    }
}

struct StoreExemplars(Arc<LongtermStore>);

impl ExemplarSource for StoreExemplars {
    fn select(
        &self,
        mint: i64,
        maxt: i64,
        sets: &[Vec<Matcher>],
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, StorageError> {
        // A series that several selectors match is shown once.
        let mut found: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        for matchers in sets {
            found.extend(self.0.exemplars(matchers, mint, maxt, MAX_EXEMPLAR_SERIES)?);
        }
        Ok(found.into_iter().collect())
    }
}

struct StoreAdmin(Arc<LongtermStore>);

impl AdminSource for StoreAdmin {
    fn count_series(&self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Result<(u64, u64), StorageError> {
        let found = federation::preview::preview(&*self.0, sets, mint, maxt)?;
        Ok((found.series, found.samples))
    }

    fn delete_series(&self, mint: i64, maxt: i64, matchers: &[Matcher]) -> Result<(), StorageError> {
        let deleted = self.0.delete(matchers, mint, maxt)?;
        tracing::info!(
            series = deleted.series,
            samples = deleted.samples,
            "deleted from the long-term store"
        );
        Ok(())
    }

    fn clean_tombstones(&self) -> Result<(), StorageError> {
        // Deleting leaves none, but the bytes are on the disk until files are written anew.
        self.0.compact()
    }

    fn snapshot(&self, skip_head: bool) -> Result<String, StorageError> {
        if skip_head {
            let what = "skip_head: the long-term store has no head that could be left out";
            return Err(StorageError::Unsupported(what.into()));
        }
        self.0.snapshot()
    }
}

struct NothingToReload {
    quit: Arc<Notify>,
}

impl Lifecycle for NothingToReload {
    fn reload(&self) -> Result<(), String> {
        // A long-term node has flags and no file.
        Ok(())
    }

    fn quit(&self) {
        self.quit.notify_one();
    }
}

/// Runs something that blocks beside the runtime.
///
/// # Errors
/// When it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    Handle::current().spawn_blocking(work).await.context("a background task failed")
}
