//! What stands before every request: TLS, users with passwords, headers of all answers, a limit of requests per time.
//!
//! The settings come from a [`GateSource`], which is asked for each connection and each request, so that they change
//! without a restart. Whether TLS is spoken at all is decided when the server starts. Passwords are kept as bcrypt
//! hashes; since those are slow on purpose, one is computed at a time, and verdicts are remembered.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/https/>.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use tokio::time::Instant;
use tokio_rustls::rustls::ServerConfig;

use crate::body::Body;

/// A hash of no user's password: names that do not exist take as long as those that do.
const NOBODY: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
/// Most verdicts that are remembered.
const VERDICTS_MAX: usize = 100;

/// Settings of the gate at one moment.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// Certificates and client authentication; `None` for plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// bcrypt hashes by user; empty for everyone.
    pub users: BTreeMap<String, String>,
    /// Set on every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// One request per interval, and how many may come at once; as they were when the server started.
    pub rate_limit: Option<(Duration, u32)>,
}

/// Knows the settings that hold now.
pub trait GateSource: Debug + Send + Sync {
    /// The settings.
    ///
    /// # Errors
    /// Why they cannot be read; connections and requests are refused until they can.
    fn current(&self) -> Result<Arc<Gate>, String>;
}

/// The gate of a running server.
pub(crate) struct Gatekeeper {
    source: Arc<dyn GateSource>,
    verdicts: Mutex<HashMap<(String, String, String), bool>>,
    hashing: tokio::sync::Mutex<()>,
    tokens: Option<Mutex<Tokens>>,
}

struct Tokens {
    interval: Duration,
    burst: u32,
    left: f64,
    at: Instant,
}

impl Tokens {
    fn take(&mut self, now: Instant) -> bool {
        let gained = (now - self.at).as_secs_f64() / self.interval.as_secs_f64().max(f64::MIN_POSITIVE);
        self.left = (self.left + gained).min(f64::from(self.burst));
        self.at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

impl Gatekeeper {
    pub(crate) fn new(source: Arc<dyn GateSource>) -> Self {
        let rate = source.current().ok().and_then(|g| g.rate_limit);
        let tokens = rate.map(|(interval, burst)| {
            Mutex::new(Tokens { interval, burst, left: f64::from(burst), at: Instant::now() })
        });
        Self { source, verdicts: Mutex::default(), hashing: tokio::sync::Mutex::default(), tokens }
    }

    /// Settings for a new connection.
    pub(crate) fn tls(&self) -> Result<Option<Arc<ServerConfig>>, String> {
        self.source.current().map(|g| g.tls.clone())
    }

    /// Lets a request pass, with the headers of its answer, or answers it.
    pub(crate) async fn pass(&self, headers: &HeaderMap) -> Result<Arc<Gate>, Response<Body>> {
        let gate = match self.source.current() {
            Ok(gate) => gate,
            Err(e) => {
                tracing::error!(error = e, "Unable to parse configuration");
                return Err(plain(StatusCode::INTERNAL_SERVER_ERROR));
            }
        };
        let allowed =
            |t: &Mutex<Tokens>| t.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        if !self.tokens.as_ref().is_none_or(allowed) {
            return Err(plain(StatusCode::TOO_MANY_REQUESTS));
        }
        if gate.users.is_empty() || self.knows(&gate, headers).await {
            return Ok(gate);
        }
        let mut refused = plain(StatusCode::UNAUTHORIZED);
        refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
        gate.put_headers(refused.headers_mut());
        Err(refused)
    }

    async fn knows(&self, gate: &Gate, headers: &HeaderMap) -> bool {
        let Some((user, password)) = headers.get(AUTHORIZATION).and_then(basic) else { return false };
        let own = gate.users.get(&user);
        let hash = own.map_or(NOBODY, String::as_str).to_owned();
        let key = (user, hash, password);
        let known = |key| self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied();
        if let Some(verdict) = known(&key) {
            return verdict;
        }
        let _one_at_a_time = self.hashing.lock().await;
        if let Some(verdict) = known(&key) {
            return verdict;
        }
        let (hash, password) = (key.1.clone(), key.2.clone());
        let checked =
            tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
        let verdict = own.is_some() && checked.unwrap_or(false);
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if verdicts.len() >= VERDICTS_MAX {
            verdicts.clear();
        }
        verdicts.insert(key, verdict);
        verdict
    }
}

impl Gate {
    /// Sets the headers of all answers.
    pub(crate) fn put_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }
}

/// An answer that is its status.
fn plain(status: StatusCode) -> Response<Body> {
    let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
    let mut response = Response::new(Body::full(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// User and password of a `Basic` header.
fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, coded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(decode_base64(coded)?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Base64 with padding (RFC 4648, section 4).
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::with_capacity(text.len() / 4 * 3));
    for c in digits.bytes() {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(Gate);

    impl GateSource for Fixed {
        fn current(&self) -> Result<Arc<Gate>, String> {
            Ok(Arc::new(self.0.clone()))
        }
    }

    fn header(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(text).expect("a value"))])
    }

    #[test]
    fn basic_credentials_are_read() {
        let read = |t: &str| basic(&HeaderValue::from_str(t).expect("a value"));
        assert_eq!(read("Basic dTpwOnE="), Some(("u".into(), "p:q".into())));
        assert_eq!(read("basic Og=="), Some((String::new(), String::new())));
        for bad in ["Bearer dTpw", "Basic", "Basic dTp", "Basic d=pw", "Basic dQ=="] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn only_users_with_their_password_pass() {
        let hash = bcrypt::hash("pw", 4).expect("a hash");
        let users = BTreeMap::from([("u".to_owned(), hash)]);
        let header_of_all = (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("deny"));
        let gate = Gate { users, headers: vec![header_of_all], ..Gate::default() };
        let keeper = Gatekeeper::new(Arc::new(Fixed(gate)));
        // "u:pw", and again from memory.
        assert!(keeper.pass(&header("Basic dTpwdw==")).await.is_ok());
        assert!(keeper.pass(&header("Basic dTpwdw==")).await.is_ok());
        // "u:px", "v:pw", nobody.
        for headers in [header("Basic dTpweA=="), header("Basic djpwdw=="), HeaderMap::new()] {
            let refused = keeper.pass(&headers).await.expect_err("refused");
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(refused.headers()[WWW_AUTHENTICATE], "Basic");
            assert_eq!(refused.headers()["x-frame-options"], "deny");
        }
    }

    #[test]
    fn requests_are_limited() {
        let start = Instant::now();
        let mut tokens = Tokens { interval: Duration::from_secs(1), burst: 2, left: 2.0, at: start };
        let after = [0, 0, 0, 900, 1000, 1001, 60_000, 60_000, 60_000];
        let passed = after.map(|ms| tokens.take(start + Duration::from_millis(ms)));
        assert_eq!(passed, [true, true, false, false, true, false, true, true, false]);
    }
}
