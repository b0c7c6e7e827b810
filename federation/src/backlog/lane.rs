//! The task that works through a backlog.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, StorageError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::local::LocalStore;
use super::range::Job;
use super::read::{Part, Promoted, WindowReader, promoted};
use super::{Backlog, BacklogMetrics};
use crate::delivery::{Delivered, Delivery};
use crate::sender::{Naming, Shared};

/// How often progress is stored while there is some.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the live lane is looked at while this one waits for it.
const YIELD_INTERVAL: Duration = Duration::from_millis(250);
/// Pause after the local store could not be read, doubled up to the second.
const ERROR_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Parts read ahead of sending.
const READ_AHEAD: usize = 2;
/// How much of the average a second replaces: about a minute is remembered.
const RATE_WEIGHT: f64 = 1.0 / 60.0;

/// A lane and what it works with.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    backlog: Arc<Backlog>,
    store: Arc<dyn LocalStore>,
    naming: Naming,
    metrics: Arc<BacklogMetrics>,
    stop: watch::Receiver<bool>,
    idle: Vec<Delivery>,
    /// The tagged series of the promotion that is worked on.
    promoted: Option<((u64, u64), Arc<Promoted>)>,
    pace: Pace,
    saved_at: Instant,
    rate: Rate,
    /// Samples per window, on average.
    per_window: f64,
    in_window: u64,
}

/// A request under way.
struct Sending {
    task: JoinHandle<(Delivery, Delivered)>,
    samples: u64,
    after: Option<Labels>,
}

impl Drop for Sending {
    /// A window that is given up leaves no request behind.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why the work on a window ended early.
enum Interrupted {
    Stopped,
    Failed(String),
}

impl From<StorageError> for Interrupted {
    fn from(e: StorageError) -> Self {
        Self::Failed(e.to_string())
    }
}

impl Lane {
    pub(crate) fn new(
        shared: Arc<Shared>,
        backlog: Arc<Backlog>,
        store: Arc<dyn LocalStore>,
        naming: Naming,
        metrics: Arc<BacklogMetrics>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let pace = Pace::new(shared.config.backlog.samples_per_second);
        Self {
            shared,
            backlog,
            store,
            naming,
            metrics,
            stop,
            idle: Vec::new(),
            promoted: None,
            pace,
            saved_at: Instant::now(),
            rate: Rate::default(),
            per_window: 0.0,
            in_window: 0,
        }
    }

    /// Works until told to stop.
    pub(crate) async fn run(mut self) {
        let mut pause = ERROR_PAUSE.0;
        loop {
            let job = self.next_job().await;
            self.show(0).await;
            let outcome = match job {
                Err(e) => Err(Interrupted::Failed(e)),
                Ok(Some(job)) => self.window(&job).await,
                Ok(None) => {
                    self.save().await;
                    match self.wait_for_work().await {
                        true => continue,
                        false => return,
                    }
                }
            };
            match outcome {
                Ok(()) => {
                    pause = ERROR_PAUSE.0;
                    self.backlog.with_status(|s| s.last_error.clear());
                }
                Err(Interrupted::Stopped) => {
                    self.save().await;
                    return;
                }
                Err(Interrupted::Failed(e)) => {
                    self.metrics.errors.inc();
                    tracing::error!(
                        destination = self.shared.config.name,
                        error = e,
                        "history cannot be read from the local store; trying again"
                    );
                    self.backlog.with_status(|s| s.last_error = e);
                    if !self.sleep(pause).await {
                        return;
                    }
                    pause = (pause * 2).min(ERROR_PAUSE.1);
                }
            }
        }
    }

    async fn next_job(&self) -> Result<Option<Job>, String> {
        if self.backlog.is_empty() {
            return Ok(None);
        }
        let (backlog, store) = (self.backlog.clone(), self.store.clone());
        tokio::task::spawn_blocking(move || backlog.next(store.min_time())).await.map_err(|e| e.to_string())
    }

    /// Returns false when told to stop.
    async fn wait_for_work(&mut self) -> bool {
        let backlog = self.backlog.clone();
        tokio::select! {
            () = backlog.changed.notified() => true,
            // Gauges that forget, such as the rate.
            () = tokio::time::sleep(Duration::from_secs(10)) => true,
            _ = self.stop.wait_for(|stop| *stop) => false,
        }
    }

    /// Sleeps; false when told to stop meanwhile.
    async fn sleep(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            _ = self.stop.wait_for(|stop| *stop) => false,
        }
    }

    /// Sends one window.
    async fn window(&mut self, job: &Job) -> Result<(), Interrupted> {
        self.in_window = 0;
        let (parts_in, mut parts) = mpsc::channel(READ_AHEAD);
        let reading = self.start_reading(job, parts_in).await?;
        let mut under_way: VecDeque<Sending> = VecDeque::new();
        loop {
            let part: Option<Part> = tokio::select! {
                part = parts.recv() => part,
                _ = self.stop.wait_for(|stop| *stop) => return Err(Interrupted::Stopped),
            };
            let Some(part) = part else { break };
            self.give_way().await?;
            let wait = self.pace.take(part.samples);
            if !wait.is_zero() && !self.sleep(wait).await {
                return Err(Interrupted::Stopped);
            }
            while under_way.len() >= self.shared.config.backlog.in_flight.max(1) {
                let first = under_way.pop_front().expect("there is one");
                self.settle(job, first).await?;
            }
            let mut delivery = self.idle.pop().unwrap_or_else(|| Delivery::new(self.shared.clone()));
            let Part { load, samples, after } = part;
            let task = tokio::spawn(async move {
                let delivered = delivery.deliver(load).await;
                (delivery, delivered)
            });
            under_way.push_back(Sending { task, samples, after });
        }
        while let Some(first) = under_way.pop_front() {
            self.settle(job, first).await?;
        }
        reading.await.map_err(|e| Interrupted::Failed(e.to_string()))??;
        self.backlog.finished(job);
        self.metrics.windows.with_label_values(&[job.reason.as_str()]).inc();
        let weight = if self.per_window == 0.0 { 1.0 } else { 0.2 };
        self.per_window += weight * (self.in_window as f64 - self.per_window);
        self.save_when_due().await;
        Ok(())
    }

    async fn start_reading(
        &mut self,
        job: &Job,
        parts: mpsc::Sender<Part>,
    ) -> Result<JoinHandle<Result<(), StorageError>>, Interrupted> {
        let (store, naming, shared, job) =
            (self.store.clone(), self.naming.clone(), self.shared.clone(), job.clone());
        let known =
            self.promoted.take().filter(|(of, _)| *of == (job.id, job.generation)).map(|(_, map)| map);
        let promoted = if job.strip.is_empty() {
            None
        } else if known.is_some() {
            known
        } else {
            let (store, naming, job) = (store.clone(), naming.clone(), job.clone());
            let found = tokio::task::spawn_blocking(move || promoted(&*store, &naming, &job));
            Some(Arc::new(found.await.map_err(|e| Interrupted::Failed(e.to_string()))??))
        };
        self.promoted = promoted.clone().map(|map| ((job.id, job.generation), map));
        Ok(tokio::task::spawn_blocking(move || {
            let config = &shared.config;
            let mut reader = WindowReader {
                store: &*store,
                naming,
                batch_samples: config.backlog.batch_samples.max(1),
                exemplars: config.send_exemplars,
                histograms: config.send_native_histograms,
                metadata: &|name| shared.metadata_of(name),
                promoted: promoted.as_deref(),
            };
            reader.read(&job, &mut |part| parts.blocking_send(part).is_ok())
        }))
    }

    /// Waits until the live lane is not behind.
    async fn give_way(&mut self) -> Result<(), Interrupted> {
        let limit = self.shared.config.backlog.yield_above;
        while self.shared.live_lag() > limit {
            self.backlog.with_status(|s| s.paused = true);
            self.metrics.paused.set(1);
            if !self.sleep(YIELD_INTERVAL).await {
                return Err(Interrupted::Stopped);
            }
            self.save_when_due().await;
        }
        self.backlog.with_status(|s| s.paused = false);
        self.metrics.paused.set(0);
        Ok(())
    }

    /// Waits for a request and notes what it has done.
    async fn settle(&mut self, job: &Job, sending: Sending) -> Result<(), Interrupted> {
        let mut sending = sending;
        let joined = tokio::select! {
            joined = &mut sending.task => joined,
            _ = self.stop.wait_for(|stop| *stop) => return Err(Interrupted::Stopped),
        };
        let (samples, after) = (sending.samples, sending.after.take());
        let (delivery, delivered) = joined.map_err(|e| Interrupted::Failed(e.to_string()))?;
        self.idle.push(delivery);
        let reason = job.reason.as_str();
        self.metrics.samples.with_label_values(&[reason]).inc_by(delivered.accepted);
        self.metrics.not_sent.with_label_values(&[reason]).inc_by(delivered.not_sent);
        self.backlog.advanced(job, after, samples);
        self.in_window += samples;
        self.show(samples).await;
        self.save_when_due().await;
        Ok(())
    }

    async fn save_when_due(&mut self) {
        if self.saved_at.elapsed() >= SAVE_INTERVAL {
            self.save().await;
        }
    }

    async fn save(&mut self) {
        self.saved_at = Instant::now();
        let backlog = self.backlog.clone();
        let error = match tokio::task::spawn_blocking(move || backlog.save()).await {
            Ok(Ok(())) => return,
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        };
        self.metrics.errors.inc();
        let destination = &self.shared.config.name;
        tracing::error!(destination, error, "cannot store the progress of the backlog; trying again");
    }

    /// Brings status and gauges up to date.
    async fn show(&mut self, sent: u64) {
        let per_second = self.rate.add(sent);
        let (per_window, in_window) = (self.per_window, self.in_window);
        let store = self.store.clone();
        let local_min = if self.backlog.is_empty() {
            None
        } else {
            tokio::task::spawn_blocking(move || store.min_time()).await.unwrap_or_default()
        };
        let now_ms = self.shared.clock.now_ms();
        let ranges = self.backlog.status().ranges;
        // A range may reach into the future; there is nothing yet.
        let left =
            |r: &super::Range| super::Range { maxt: r.maxt.min(now_ms), ..r.clone() }.windows_left(local_min);
        let windows: u64 = ranges.iter().map(left).fold(0, u64::saturating_add);
        self.backlog.with_status(|s| {
            s.samples_per_second = per_second;
            s.windows_left = windows;
            s.samples_left = (windows as f64 * per_window.max(in_window as f64)) as u64;
        });
        self.metrics.show(&self.backlog.status());
    }
}

/// Keeps the pace: at most so many samples per second, a second's worth at once.
struct Pace {
    per_second: f64,
    /// Samples that may go at `at`; negative when more have gone than may.
    free: f64,
    at: Instant,
}

impl Pace {
    fn new(per_second: f64) -> Self {
        Self { per_second, free: per_second, at: Instant::now() }
    }

    /// Takes so many samples, and says how long to wait before they go.
    fn take(&mut self, samples: u64) -> Duration {
        if self.per_second <= 0.0 {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let earned = now.duration_since(self.at).as_secs_f64() * self.per_second;
        self.at = now;
        self.free = (self.free + earned).min(self.per_second) - samples as f64;
        Duration::from_secs_f64((-self.free / self.per_second).max(0.0))
    }
}

/// Samples per second, forgetting slowly.
struct Rate {
    per_second: f64,
    since: Instant,
    samples: u64,
}

impl Default for Rate {
    fn default() -> Self {
        Self { per_second: 0.0, since: Instant::now(), samples: 0 }
    }
}

impl Rate {
    fn add(&mut self, samples: u64) -> f64 {
        self.samples += samples;
        let elapsed = self.since.elapsed().as_secs_f64();
        if elapsed >= 1.0 {
            let now = self.samples as f64 / elapsed;
            // Several seconds at once weigh as much as one by one.
            let weight = if self.per_second == 0.0 { 1.0 } else { 1.0 - (1.0 - RATE_WEIGHT).powf(elapsed) };
            self.per_second += weight * (now - self.per_second);
            self.samples = 0;
            self.since = Instant::now();
        }
        self.per_second
    }
}
