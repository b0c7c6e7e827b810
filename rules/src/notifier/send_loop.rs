//! One Alertmanager: a bounded queue and a task that empties it in batches. A batch that fails is not tried again: what
//! still holds is sent by the rules after the resend delay.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Request};
use httpclient::{Client, body};
use model::Clock;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::metrics::OfOne;
use super::payload::payload;
use super::{Alert, NotifierOptions};

/// What is read of an answer, so that the connection can be used again.
const ANSWER_LEN_BYTES_MAX: usize = 64 << 10;

/// A running loop.
pub(super) struct SendLoop {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

pub(super) struct Shared {
    pub(super) url: String,
    pub(super) client: Client,
    pub(super) timeout: Duration,
    pub(super) options: Arc<NotifierOptions>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: OfOne,
    pub(super) queue: Queue,
}

/// What waits.
#[derive(Default)]
pub(super) struct Queue {
    alerts: Mutex<VecDeque<Arc<Alert>>>,
    wake: Notify,
    stopped: AtomicBool,
}

// === impl SendLoop ===

impl SendLoop {
    pub(super) fn start(shared: Shared, runtime: &Handle) -> Self {
        let shared = Arc::new(shared);
        let task = runtime.spawn(run(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// Appends to the queue. What is too much pushes the oldest out.
    pub(super) fn add(&self, alerts: &[Arc<Alert>]) {
        let shared = &self.shared;
        let capacity = shared.options.queue_capacity;
        let mut queue = shared.queue.alerts.lock();
        let too_long = alerts.len().saturating_sub(capacity);
        let alerts = &alerts[too_long..];
        let too_many = (queue.len() + alerts.len()).saturating_sub(capacity);
        queue.drain(..too_many);
        queue.extend(alerts.iter().cloned());
        shared.metrics.queue_length.set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
        drop(queue);
        shared.queue.wake.notify_one();
        let dropped = too_long + too_many;
        if dropped > 0 {
            tracing::warn!(
                alertmanager = shared.url,
                count = dropped,
                "the queue of alerts is full; the oldest are dropped"
            );
            shared.metrics.dropped.inc_by(dropped as u64);
        }
    }

    /// Lets the loop end, with what waits sent or dropped. The returned task ends with it; it need not be waited for.
    pub(super) fn stop(self) -> JoinHandle<()> {
        self.shared.queue.stopped.store(true, Ordering::Release);
        self.shared.queue.wake.notify_one();
        // Another loop to the same address may begin at once, and shows its own.
        self.shared.metrics.forget(&self.shared.url);
        self.task
    }
}

async fn run(shared: Arc<Shared>) {
    loop {
        shared.queue.wake.notified().await;
        loop {
            let stopped = shared.queue.stopped.load(Ordering::Acquire);
            if stopped && !shared.options.drain_on_shutdown {
                shared.drop_the_rest();
                return;
            }
            let batch = shared.next_batch();
            if batch.is_empty() {
                if stopped {
                    return;
                }
                break;
            }
            shared.send(&batch).await;
        }
    }
}

impl Shared {
    fn next_batch(&self) -> Vec<Arc<Alert>> {
        let mut queue = self.queue.alerts.lock();
        let count = queue.len().min(self.options.batch_size.max(1));
        let batch = queue.drain(..count).collect();
        self.metrics.queue_length.set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
        batch
    }

    fn drop_the_rest(&self) {
        let count = std::mem::take(&mut *self.queue.alerts.lock()).len();
        self.metrics.dropped.inc_by(count as u64);
        if count > 0 {
            tracing::warn!(alertmanager = self.url, count, "alerts that were not sent yet are dropped");
        }
    }

    async fn send(&self, batch: &[Arc<Alert>]) {
        let began = self.clock.monotonic();
        let count = batch.len() as u64;
        match self.request(payload(batch)).await {
            Ok(()) => {
                let seconds = self.clock.monotonic().saturating_sub(began).as_secs_f64();
                // A loop that ends shows nothing any more.
                if !self.queue.stopped.load(Ordering::Acquire) {
                    self.metrics.observe(&self.url, seconds);
                }
                self.metrics.sent.inc_by(count);
            }
            Err(error) => {
                tracing::error!(alertmanager = self.url, count, error, "error sending alerts");
                self.metrics.errors.inc_by(count);
                self.metrics.dropped.inc_by(count);
            }
        }
    }

    /// # Errors
    /// Why the Alertmanager has not taken the alerts.
    async fn request(&self, payload: Vec<u8>) -> Result<(), String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.url.as_str())
            .header(USER_AGENT, self.options.user_agent.as_str())
            .header(CONTENT_TYPE, "application/json")
            .body(Bytes::from(payload))
            .map_err(|e| e.to_string())?;
        let exchange = async {
            let response = self.client.send(request).await.map_err(|e| e.to_string())?;
            let status = response.status();
            // What it says beside the status is not asked for.
            let _ = body::collect_at_most(response.into_body(), ANSWER_LEN_BYTES_MAX).await;
            if status.is_success() { Ok(()) } else { Err(format!("bad response status {status}")) }
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("Post {:?}: context deadline exceeded", self.url)),
        }
    }
}
