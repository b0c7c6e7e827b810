//! Work that repeats for as long as a node runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A blocking call that is made again and again. Calls never overlap; a failed one is logged, and the next tries again.
pub struct Periodic {
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Periodic {
    /// Calls `work` every `interval`, first after one `interval`, on a blocking thread.
    pub fn start(
        what: &'static str,
        interval: Duration,
        work: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let work = Arc::new(work);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopped.notified() => return,
                    () = tokio::time::sleep(interval) => {}
                }
                let work = work.clone();
                match tokio::task::spawn_blocking(move || work()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => tracing::error!(what, error = e, "maintenance failed; it is tried again"),
                    Err(e) => tracing::error!(what, error = %e, "maintenance panicked; it is tried again"),
                }
            }
        });
        Self { stop, task }
    }

    /// Waits for a call under way and makes no more.
    pub async fn stop(self) {
        self.stop.notify_one();
        if let Err(e) = self.task.await {
            tracing::error!(error = %e, "a maintenance task failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn goes_on_after_a_failure_and_stops() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let periodic = Periodic::start("test", Duration::from_millis(1), move || {
            if counted.fetch_add(1, Ordering::SeqCst) == 0 { Err("first".into()) } else { Ok(()) }
        });
        while calls.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        periodic.stop().await;
        let after = calls.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(calls.load(Ordering::SeqCst), after);
    }
}
