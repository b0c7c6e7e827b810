//! From ended spans to batches: a bounded queue, and the task that empties it.
//!
//! Sizes and times are those of OpenTelemetry's batch processor: 2,048 spans wait at most, 512 go in one request, and none
//! waits longer than five seconds for it.

use std::time::Duration;

use model::trace::{SpanData, SpanSink};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::Client;
use crate::metrics::Metrics;

/// Most spans that wait.
pub(crate) const QUEUE_SPANS_MAX: usize = 2048;
/// Most spans of a request.
pub(crate) const BATCH_SPANS_MAX: usize = 512;
/// How long a batch is waited for.
const BATCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes spans; never blocks.
pub(crate) struct Queue {
    spans: mpsc::Sender<SpanData>,
    metrics: Metrics,
}

impl SpanSink for Queue {
    fn take(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.metrics.dropped_queue.inc();
        }
    }
}

impl Queue {
    /// A queue and what empties it.
    pub(crate) fn start(client: Client, metrics: Metrics) -> (Self, Worker) {
        let (spans, waiting) = mpsc::channel(QUEUE_SPANS_MAX);
        let (stop, stopped) = oneshot::channel();
        let work = Work {
            client,
            waiting,
            failures: 0,
            dropped: metrics.dropped_queue.get(),
            metrics: metrics.clone(),
        };
        let task = tokio::spawn(work.run(stopped));
        (Self { spans, metrics }, Worker { stop, task })
    }
}

/// The task that empties a queue. Dropping it lets the task end by itself, once nobody adds spans.
pub(crate) struct Worker {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Worker {
    /// Sends what waits, for as long as `timeout`, and ends.
    pub(crate) async fn stop(self, timeout: Duration) {
        let abort = self.task.abort_handle();
        // The task may be over already.
        let _ = self.stop.send(());
        if tokio::time::timeout(timeout, self.task).await.is_err() {
            abort.abort();
            tracing::warn!("the last spans could not be sent in time and are given up");
        }
    }
}

struct Work {
    client: Client,
    waiting: mpsc::Receiver<SpanData>,
    metrics: Metrics,
    /// Batches in a row that were not taken.
    failures: u32,
    /// Spans that found the queue full, as far as the log knows.
    dropped: u64,
}

impl Work {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut batch = Vec::new();
        let mut stopping = false;
        while !stopping {
            stopping = self.gather(&mut batch, &mut stopped).await;
            if !stopping {
                self.send(&mut batch).await;
            }
        }
        // What is left. Whoever stops the task limits the time.
        loop {
            while batch.len() < BATCH_SPANS_MAX
                && let Ok(span) = self.waiting.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            self.send(&mut batch).await;
        }
    }

    /// Waits for a full batch, or until its first span has waited long enough. Tells whether it is time to stop.
    async fn gather(&mut self, batch: &mut Vec<SpanData>, stopped: &mut oneshot::Receiver<()>) -> bool {
        let mut deadline = None;
        while batch.len() < BATCH_SPANS_MAX {
            let timeout = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut *stopped => return true,
                () = timeout => return false,
                span = self.waiting.recv() => match span {
                    Some(span) => {
                        batch.push(span);
                        deadline = deadline.or_else(|| Some(Instant::now() + BATCH_TIMEOUT));
                    }
                    None => return true,
                },
            }
        }
        false
    }

    /// Sends a batch, or gives it up.
    async fn send(&mut self, batch: &mut Vec<SpanData>) {
        let sent = self.client.send(batch).await;
        let count = batch.len() as u64;
        batch.clear();
        match sent {
            Ok(None) => {
                self.metrics.sent.inc_by(count);
                self.failures = 0;
            }
            Ok(Some((rejected, reason))) => {
                let rejected = u64::try_from(rejected).unwrap_or(0).min(count);
                self.metrics.sent.inc_by(count - rejected);
                self.metrics.dropped_export.inc_by(rejected);
                tracing::warn!(rejected, reason, "the collector of spans took only a part");
            }
            Err(reason) => {
                self.metrics.dropped_export.inc_by(count);
                self.failures = self.failures.saturating_add(1);
                // An outage of days must not fill the log.
                if self.failures.is_power_of_two() {
                    tracing::error!(
                        spans = count,
                        reason,
                        failures = self.failures,
                        "spans could not be sent and are given up"
                    );
                }
            }
        }
        let dropped = self.metrics.dropped_queue.get();
        if dropped > self.dropped {
            tracing::warn!(
                spans = dropped - self.dropped,
                "spans were dropped: the queue is full, as the collector does not take them fast enough"
            );
            self.dropped = dropped;
        }
    }
}
