//! What ends a process or makes it load its configuration again: signals, and the HTTP API's `quit`.

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// Why [`Signals::next`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGHUP: load the configuration again.
    Reload,
    /// SIGTERM, SIGINT or a request to quit.
    Stop,
}

/// The process's signals.
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    quit: Arc<Notify>,
}

impl Signals {
    /// Takes over the process's signals. `quit` asks to stop as well.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub fn new(quit: Arc<Notify>) -> anyhow::Result<Self> {
        let handler = |kind, name| signal(kind).with_context(|| format!("cannot handle {name}"));
        Ok(Self {
            term: handler(SignalKind::terminate(), "SIGTERM")?,
            int: handler(SignalKind::interrupt(), "SIGINT")?,
            hup: handler(SignalKind::hangup(), "SIGHUP")?,
            quit,
        })
    }

    /// Waits for the next event.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.term.recv() => { tracing::warn!("received SIGTERM, stopping"); Event::Stop }
            _ = self.int.recv() => { tracing::warn!("received SIGINT, stopping"); Event::Stop }
            () = self.quit.notified() => { tracing::warn!("asked to quit through the API, stopping"); Event::Stop }
            _ = self.hup.recv() => Event::Reload,
        }
    }
}
