//! Sends spans to an OpenTelemetry collector, over gRPC or HTTP: the section `tracing` of the configuration.
//!
//! [`Spans`] installs a recorder in the program's `model::trace::Tracer` and stops the one before. Ended spans wait in a
//! bounded queue ([`queue`]), which one task empties in batches; a batch that the collector does not take in time is
//! given up. Nothing ever waits for the collector: what finds the queue full is dropped and counted.
//!
//! Read in this order: [`config`], [`queue`], [`client`], [`grpc`] (the framing of unary calls).

#![forbid(unsafe_code)]

mod client;
mod config;
mod grpc;
mod metrics;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use model::Clock;
use model::trace::{Recorder, Tracer};
use prometheus::Registry;
use tokio::sync::Mutex;
use wire::trace::Source;

pub use config::{Protocol, SpansConfig};

use crate::client::Client;
use crate::metrics::Metrics;
use crate::queue::{Queue, Worker};

/// How long the last spans may take to be sent.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why spans cannot be sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpansError {
    /// A setting that cannot be used.
    #[error("tracing: {0}")]
    Config(String),
    /// Metrics that are registered already.
    #[error("metrics of tracing: {0}")]
    Metrics(String),
}

/// What sends spans, as the configuration in force has it. Lives on a tokio runtime.
pub struct Spans {
    tracer: Tracer,
    clock: Arc<dyn Clock>,
    source: Arc<Source>,
    metrics: Metrics,
    running: Mutex<Option<Running>>,
}

struct Running {
    config: SpansConfig,
    worker: Worker,
}

impl Spans {
    /// Sends nothing yet. `service` is the name and `version` the version that spans carry.
    ///
    /// # Errors
    /// [`SpansError::Metrics`].
    pub fn new(
        tracer: Tracer,
        clock: Arc<dyn Clock>,
        registry: &Registry,
        service: &'static str,
        version: &'static str,
    ) -> Result<Self, SpansError> {
        let metrics = Metrics::new(registry).map_err(|e| SpansError::Metrics(e.to_string()))?;
        let resource = [
            ("service.name", service),
            ("service.version", version),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.name", "almanac"),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ];
        let source = Source {
            resource: resource.map(|(k, v)| (k, v.to_owned())).to_vec(),
            scope: "almanac",
            scope_version: env!("CARGO_PKG_VERSION"),
        };
        Ok(Self { tracer, clock, source: Arc::new(source), metrics, running: Mutex::default() })
    }

    /// Puts a section in force; `None` ends tracing. The same section again changes nothing. What the one before has not
    /// sent yet is sent meanwhile, without anybody waiting for it.
    ///
    /// # Errors
    /// [`SpansError::Config`]; what was in force stays.
    pub async fn apply(&self, config: Option<SpansConfig>) -> Result<(), SpansError> {
        let mut running = self.running.lock().await;
        if running.as_ref().map(|r| &r.config) == config.as_ref() {
            return Ok(());
        }
        let new = match config {
            Some(config) => Some(self.start(config)?),
            None => None,
        };
        if new.is_none() {
            self.tracer.install(None);
            tracing::info!("tracing switched off");
        }
        if let Some(old) = std::mem::replace(&mut *running, new) {
            tokio::spawn(old.worker.stop(STOP_TIMEOUT));
        }
        Ok(())
    }

    fn start(&self, config: SpansConfig) -> Result<Running, SpansError> {
        let client =
            Client::new(&config, self.source.clone(), self.clock.clone()).map_err(SpansError::Config)?;
        let (queue, worker) = Queue::start(client, self.metrics.clone());
        // Random from process to process, and from one recorder to the next.
        let seed = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u64);
        let fraction = config.sampling_fraction;
        let recorder = Recorder::new(Arc::new(queue), self.clock.clone(), fraction, [seed(), seed()]);
        self.tracer.install(Some(recorder));
        tracing::info!(endpoint = config.endpoint, sampling_fraction = fraction, "tracing switched on");
        Ok(Running { config, worker })
    }

    /// Ends tracing, and sends what waits if that works within five seconds.
    pub async fn stop(&self) {
        self.tracer.install(None);
        if let Some(old) = self.running.lock().await.take() {
            old.worker.stop(STOP_TIMEOUT).await;
        }
    }
}

#[cfg(test)]
mod tests;
