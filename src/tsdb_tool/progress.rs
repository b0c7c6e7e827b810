//! For commands that run long: where they are, on a terminal ([`Progress`]), and that somebody wants them to end
//! ([`Interrupt`]).

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use model::{Clock, SystemClock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::go_text;

/// Status of a process that was ended by SIGINT, as shells have it.
const STATUS_INTERRUPTED: i32 = 130;
/// Time between two lines of progress.
const INTERVAL: Duration = Duration::from_millis(200);

/// The user ended the command.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted; nothing unfinished is left behind")]
pub(crate) struct Interrupted;

/// Whether the user wants the command to end. Cheap to ask and to clone.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    wanted: Arc<AtomicBool>,
    told: Arc<Notify>,
}

impl Interrupt {
    /// Takes over SIGINT and SIGTERM: the first asks the command to end by itself, the second ends the process.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let mine = interrupt.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut int, mut term) = {
            let _inside = runtime.enter();
            let int = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
            (int, signal(SignalKind::terminate()).context("cannot handle SIGTERM")?)
        };
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                let mut next = async || {
                    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
                };
                next().await;
                mine.raise();
                next().await;
                std::process::exit(STATUS_INTERRUPTED);
            });
        })?;
        Ok(interrupt)
    }

    pub(crate) fn raise(&self) {
        self.wanted.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }

    /// # Errors
    /// [`Interrupted`] once the command shall end.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.wanted.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }

    /// Returns when the command shall end. One waiter.
    pub(crate) async fn raised(&self) {
        if self.check().is_ok() {
            self.told.notified().await;
        }
    }
}

/// A line on standard error that says how far a command is; nothing where that is no terminal.
pub(crate) struct Progress {
    clock: Option<SystemClock>,
    last: Duration,
}

impl Progress {
    /// Progress from now on, unless it would be `unwanted`.
    pub(crate) fn new(unwanted: bool) -> Self {
        let shown = !unwanted && std::io::stderr().is_terminal();
        Self { clock: shown.then(SystemClock::new), last: Duration::ZERO }
    }

    /// Shows that the `share`, of 1, is done, `count` things of a kind. Returns at once when it was called just before.
    pub(crate) fn show(&mut self, share: Option<f64>, count: u64, what: &str) {
        let Some(clock) = &self.clock else { return };
        let elapsed = clock.monotonic();
        if elapsed < self.last + INTERVAL {
            return;
        }
        self.last = elapsed;
        eprint!("\r\x1b[K{}", line(share, count, what, elapsed));
    }

    /// Takes the line away, so that something else can be written.
    pub(crate) fn clear(&mut self) {
        if self.clock.is_some() && self.last > Duration::ZERO {
            eprint!("\r\x1b[K");
            let _ = std::io::stderr().flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(share: Option<f64>, count: u64, what: &str, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = (count as f64 / seconds) as u64;
    let amount = format!("{count} {what}, {rate} {what}/s");
    match share.filter(|s| *s > 0.0) {
        Some(share) => {
            let left = (seconds * (1.0 - share.min(1.0)) / share) as i64;
            format!("{:3.0} %, {amount}, {} left", share.min(1.0) * 100.0, go_text::duration_ms(left * 1000))
        }
        None => amount,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_rate_and_time_left() {
        let at = Duration::from_secs(30);
        assert_eq!(line(Some(0.25), 600, "samples", at), " 25 %, 600 samples, 20 samples/s, 1m30s left");
        assert_eq!(line(Some(0.0), 600, "samples", at), "600 samples, 20 samples/s");
        assert_eq!(line(None, 0, "series", Duration::ZERO), "0 series, 0 series/s");
    }

    #[test]
    fn an_interrupt_is_seen_by_all() {
        let interrupt = Interrupt::default();
        let other = interrupt.clone();
        assert!(other.check().is_ok());
        interrupt.raise();
        assert!(other.check().is_err());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(other.raised());
    }
}
