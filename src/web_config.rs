//! The file of `--web.config.file`: TLS, users, headers and limits of the server, read again when it changes.
//!
//! Texts of errors are those of Prometheus's exporter toolkit, whose format this is. TLS settings are turned into
//! rustls's in [`tls`]. Spec: <https://prometheus.io/docs/prometheus/latest/configuration/https/>.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::gate::{Gate, GateSource};
use model::Clock;
use serde::Deserialize;

use crate::config::scalar::Secret;
use crate::config::yaml;

mod tls;

/// How often the files are looked at.
const REREAD: Duration = Duration::from_secs(1);

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WebConfig {
    tls_server_config: Option<tls::TlsServer>,
    http_server_config: Option<HttpServer>,
    rate_limit: Option<RateLimit>,
    basic_auth_users: Option<BTreeMap<String, Secret>>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HttpServer {
    http2: bool,
    headers: BTreeMap<String, String>,
}

impl Default for HttpServer {
    fn default() -> Self {
        Self { http2: true, headers: BTreeMap::new() }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RateLimit {
    burst: u32,
    interval: Option<String>,
}

/// Checks a file as a server would at its start, certificates included.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(file: &Path) -> Result<(), String> {
    read(file).map(|_| ())
}

/// Headers that may be set, with the values they may have; an empty list takes any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// The file with the files it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Texts {
    own: Vec<u8>,
    named: Vec<Result<Vec<u8>, String>>,
}

fn read_texts(file: &Path, named: &[PathBuf]) -> Result<Texts, String> {
    let open = |f: &Path| {
        std::fs::read(f).map_err(|e| {
            let text = e.to_string();
            let text = text.rfind(" (os error ").map_or(text.as_str(), |i| &text[..i]).to_lowercase();
            format!("open {}: {text}", f.display())
        })
    };
    Ok(Texts { own: open(file)?, named: named.iter().map(|f| open(f)).collect() })
}

/// What a file asks for, and the files it names.
fn read(file: &Path) -> Result<(Gate, Vec<PathBuf>), String> {
    let own = read_texts(file, &[])?.own;
    let text = String::from_utf8(own).map_err(|_| "the file is not UTF-8".to_owned())?;
    let config: WebConfig = yaml::parse(&text).map_err(|p| p.in_file(file).to_string())?;
    let users: BTreeMap<String, String> =
        config.basic_auth_users.unwrap_or_default().into_iter().map(|(u, hash)| (u, hash.0)).collect();
    users.values().try_for_each(|hash| check_hash(hash))?;
    let http = config.http_server_config.unwrap_or_default();
    let mut headers = Vec::new();
    for (name, value) in &http.headers {
        headers.push(header(name, value)?);
    }
    let rate_limit = config.rate_limit.map(RateLimit::parse).transpose()?.flatten();
    let mut tls = config.tls_server_config.unwrap_or_default();
    let named = tls.set_directory(file.parent().unwrap_or(Path::new("")));
    let tls = tls.settings(http.http2)?.map(Arc::new);
    Ok((Gate { tls, users, headers, rate_limit }, named))
}

fn header(name: &str, value: &str) -> Result<(http::HeaderName, http::HeaderValue), String> {
    let Some((_, allowed)) = HEADERS.iter().find(|(n, _)| *n == name) else {
        return Err(format!("HTTP header {name:?} can not be configured"));
    };
    if !allowed.is_empty() && !allowed.contains(&value) {
        let list: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
        return Err(format!(
            "invalid value for {name}. Expected one of: [{}], but got: {value:?}",
            list.join(" ")
        ));
    }
    let bad = |_| format!("HTTP header {name:?} has a value that HTTP does not allow");
    let value = http::HeaderValue::try_from(value).map_err(bad)?;
    let name = http::HeaderName::try_from(name).map_err(|e| e.to_string())?;
    Ok((name, value))
}

impl RateLimit {
    fn parse(self) -> Result<Option<(Duration, u32)>, String> {
        let Some(text) = self.interval.filter(|t| t != "0") else { return Ok(None) };
        let ms = model::duration::parse_ms(&text).map_err(|e| format!("rate_limit.interval: {e}"))?;
        let ms = u64::try_from(ms).unwrap_or(0);
        Ok((ms > 0).then(|| (Duration::from_millis(ms), self.burst)))
    }
}

/// Whether a text is a bcrypt hash, in the words of Go's `bcrypt`.
fn check_hash(hash: &str) -> Result<(), String> {
    let bytes = hash.as_bytes();
    let problem = |text: String| Err(format!("crypto/bcrypt: {text}"));
    if bytes.len() < 59 {
        return problem("hashedSecret too short to be a bcrypted password".into());
    }
    if bytes[0] != b'$' {
        return problem(format!(
            "bcrypt hashes must start with '$', but hashedSecret started with '{}'",
            bytes[0] as char
        ));
    }
    if bytes[1] > b'2' {
        return problem(format!(
            "bcrypt algorithm version '{}' requested is newer than current version '2'",
            bytes[1] as char
        ));
    }
    let rest = &hash[if bytes[2] == b'$' { 3 } else { 4 }..];
    let cost = rest.get(..2).unwrap_or_default();
    match cost.parse::<u32>() {
        Ok(4..=31) => Ok(()),
        Ok(n) => problem(format!("cost {n} is outside allowed range (4,31)")),
        Err(_) => Err(format!("strconv.Atoi: parsing {cost:?}: invalid syntax")),
    }
}

/// The file as a running server sees it.
pub struct WebConfigFile {
    file: PathBuf,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    read_at: Duration,
    texts: Texts,
    named: Vec<PathBuf>,
    gate: Result<Arc<Gate>, String>,
}

impl std::fmt::Debug for WebConfigFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebConfigFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl WebConfigFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(file: PathBuf, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let (gate, named) = read(&file)?;
        let texts = read_texts(&file, &named)?;
        let state = State { read_at: clock.monotonic(), texts, named, gate: Ok(Arc::new(gate)) };
        Ok(Self { file, clock, state: Mutex::new(state) })
    }
}

impl GateSource for WebConfigFile {
    fn current(&self) -> Result<Arc<Gate>, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.monotonic();
        if now.saturating_sub(state.read_at) < REREAD {
            return state.gate.clone();
        }
        state.read_at = now;
        let texts = read_texts(&self.file, &state.named)?;
        if texts != state.texts || state.gate.is_err() {
            match read(&self.file) {
                Ok((gate, named)) => {
                    state.texts = read_texts(&self.file, &named)?;
                    state.named = named;
                    state.gate = Ok(Arc::new(gate));
                }
                Err(e) => state.gate = Err(e),
            }
        }
        state.gate.clone()
    }
}

#[cfg(test)]
mod tests;
