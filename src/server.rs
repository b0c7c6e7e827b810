//! One HTTP server of a node: bound, run, and drained at the end.

use std::net::SocketAddr;

use api::config::ApiConfig;
use api::sources::Deps;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server that answers requests.
pub struct RunningServer {
    addresses: Vec<SocketAddr>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl RunningServer {
    /// Binds the addresses of `config` and answers requests from then on.
    ///
    /// # Errors
    /// One line that names the address that cannot be listened on.
    pub async fn start(config: ApiConfig, deps: Deps) -> anyhow::Result<Self> {
        let server = api::Server::bind(config, deps).await?;
        let addresses = server.local_addrs();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(async {
            // A sender that is gone asks to stop as well.
            let _ = stopped.await;
        }));
        Ok(Self { addresses, stop, task })
    }

    /// First address in use.
    pub fn address(&self) -> SocketAddr {
        self.addresses.first().copied().unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Takes no new connection, lets requests under way finish, and returns.
    pub async fn stop(self) {
        // A receiver that is gone has stopped already.
        let _ = self.stop.send(());
        if let Err(e) = self.task.await {
            tracing::error!(error = %e, "the HTTP server failed");
        }
    }
}
