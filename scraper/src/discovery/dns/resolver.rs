//! Which servers are asked for which names, as `resolv.conf` says.
//!
//! - A name without a final dot is tried with each domain of the search list, and by itself: first when it has at
//!   least `ndots` dots, else last. The first one that exists is the answer.
//! - Servers are asked in order until one answers that the name exists or does not.
//! - That no server knows the name under any domain means that it has no records; any failure on the way means that
//!   nobody can say.
//! - UDP first, with EDNS; TCP when the answer did not fit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{self, Answer, Code, Record, UDP_LEN_BYTES_MAX};
use crate::discovery::config::DnsRecord;
use crate::discovery::error::DiscoveryError;

/// How long one server may take for one answer.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Resolves names. The file is read anew for each lookup, since nodes change theirs.
pub(super) struct Resolver {
    resolv_conf: PathBuf,
    port: u16,
    clock: Arc<dyn Clock>,
    asked: AtomicU64,
}

/// What a `resolv.conf` says.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    servers: Vec<String>,
    search: Vec<String>,
    ndots: usize,
}

impl Resolver {
    pub(super) fn new(resolv_conf: &Path, port: u16, clock: Arc<dyn Clock>) -> Self {
        Self { resolv_conf: resolv_conf.to_owned(), port, clock, asked: AtomicU64::new(0) }
    }

    /// The records of `name`, none when it does not exist.
    ///
    /// # Errors
    /// When the file cannot be read, or no server could say.
    pub(super) async fn look_up(&self, name: &str, record: DnsRecord) -> Result<Vec<Record>, DiscoveryError> {
        let text = tokio::fs::read_to_string(&self.resolv_conf).await.map_err(|source| {
            DiscoveryError::Io { path: self.resolv_conf.to_string_lossy().into_owned(), source }
        })?;
        let settings = Settings::parse(&text);
        let mut failure = None;
        for full in settings.names(name) {
            match self.ask_any(&settings, &full, record).await {
                Ok(Answer { code: Code::Success, records, .. }) => return Ok(records),
                Ok(_) => {}
                Err(why) => failure = Some(why),
            }
        }
        match failure {
            None => Ok(Vec::new()),
            Some(message) => Err(DiscoveryError::Request { url: format!("dns:{name}"), message }),
        }
    }

    async fn ask_any(&self, settings: &Settings, name: &str, record: DnsRecord) -> Result<Answer, String> {
        let mut why = format!("{} names no server", self.resolv_conf.display());
        for server in &settings.servers {
            let Some(address) = self.address(server) else {
                why = format!("server {server:?} is no IP address");
                continue;
            };
            why = match self.ask(address, name, record).await {
                Ok(answer) => match answer.code {
                    Code::Success | Code::NoSuchName => return Ok(answer),
                    Code::Failed(code) => format!("server {server} answered {name} with error {code}"),
                },
                Err(e) => format!("server {server}, {name}: {e}"),
            };
            tracing::debug!(why, "a DNS server did not answer");
        }
        Err(why)
    }

    fn address(&self, server: &str) -> Option<SocketAddr> {
        // `%eth0` after a link-local address: its number is not known here.
        let address: IpAddr = server.split('%').next()?.parse().ok()?;
        Some(SocketAddr::new(address, self.port))
    }

    async fn ask(&self, server: SocketAddr, name: &str, record: DnsRecord) -> Result<Answer, String> {
        let question = message::question(self.id(name), name, record, true)?;
        let answer = within_time(by_udp(server, &question)).await?;
        if !answer.truncated {
            return Ok(answer);
        }
        let question = message::question(self.id(name), name, record, false)?;
        let answer = within_time(by_tcp(server, &question)).await?;
        if answer.truncated {
            return Err("the answer is truncated even by TCP".to_owned());
        }
        Ok(answer)
    }

    /// A number that others cannot easily foresee; with the port it tells our answers from forged ones.
    fn id(&self, name: &str) -> u16 {
        let count = self.asked.fetch_add(1, Ordering::Relaxed);
        let seed = self.clock.monotonic().as_nanos() as u64 ^ count.rotate_left(32);
        xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), seed) as u16
    }
}

async fn within_time(asking: impl Future<Output = Result<Answer, String>>) -> Result<Answer, String> {
    timeout(SERVER_TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {SERVER_TIMEOUT:?}")))
}

async fn by_udp(server: SocketAddr, question: &[u8]) -> Result<Answer, String> {
    let io = |e: std::io::Error| e.to_string();
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await.map_err(io)?;
    socket.connect(server).await.map_err(io)?;
    socket.send(question).await.map_err(io)?;
    let mut buffer = vec![0; UDP_LEN_BYTES_MAX];
    loop {
        let len = socket.recv(&mut buffer).await.map_err(io)?;
        if let Some(answer) = message::answer(&buffer[..len], question)? {
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &[u8]) -> Result<Answer, String> {
    let io = |e: std::io::Error| e.to_string();
    let mut stream = TcpStream::connect(server).await.map_err(io)?;
    let mut framed = (question.len() as u16).to_be_bytes().to_vec();
    framed.extend(question);
    stream.write_all(&framed).await.map_err(io)?;
    let len = stream.read_u16().await.map_err(io)?;
    let mut buffer = vec![0; usize::from(len)];
    stream.read_exact(&mut buffer).await.map_err(io)?;
    message::answer(&buffer, question)?.ok_or_else(|| "an answer to something else".to_owned())
}

impl Settings {
    fn parse(text: &str) -> Self {
        let mut settings = Self { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => settings.servers.extend(words.next().map(str::to_owned)),
                Some("domain") => settings.search = words.next().map(str::to_owned).into_iter().collect(),
                Some("search") => settings.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let mut ndots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    settings.ndots = ndots.next_back().unwrap_or(settings.ndots).min(15);
                }
                _ => {}
            }
        }
        settings
    }

    /// The names to try, each with its final dot.
    fn names(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let itself = format!("{name}.");
        let searched = self.search.iter().map(|domain| format!("{name}.{}.", domain.trim_end_matches('.')));
        let mut names: Vec<String> = searched.collect();
        let first = name.split('.').count() > self.ndots;
        names.insert(if first { 0 } else { names.len() }, itself);
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_as_the_system_reads_it() {
        let text = "# nameserver 9.9.9.9\nnameserver 10.0.0.10\nnameserver fe80::1%eth0 x\ndomain old\n\
            search shop.svc.cluster.local  svc.cluster.local.\noptions timeout:1 ndots:5\n";
        let settings = Settings::parse(text);
        assert_eq!(settings.servers, ["10.0.0.10", "fe80::1%eth0"]);
        assert_eq!(settings.ndots, 5);
        assert_eq!(settings.names("web"), ["web.shop.svc.cluster.local.", "web.svc.cluster.local.", "web."]);
        assert_eq!(settings.names("a.b.c.d.e.f")[0], "a.b.c.d.e.f.");
        assert_eq!(settings.names("web."), ["web."]);
        let plain = Settings::parse("");
        assert_eq!(plain, Settings { servers: Vec::new(), search: Vec::new(), ndots: 1 });
        assert_eq!(plain.names("web.org"), ["web.org."]);
    }
}
