//! A network that loses, delays, doubles and reorders, by seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use federation::http::{HttpError, Outgoing, Response};
use federation::transport::{Answer, Transport};
use http::{HeaderMap, HeaderValue, StatusCode};
use model::rng;

use crate::receiver::Receiver;

/// All randomness of a simulation comes from one seed; its parts share this.
pub(crate) struct Rng(AtomicU64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed.wrapping_mul(rng::STEP) ^ 0x5851_f42d_4c95_7f2d))
    }

    /// A number below `n`.
    pub(crate) fn below(&self, n: u64) -> u64 {
        rng::mix(self.0.fetch_add(rng::STEP, Ordering::Relaxed)) % n
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Most requests that the network holds.
const STRAYS_MAX: usize = 4;

/// How the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Everything arrives within milliseconds.
    Fine,
    /// Each kind of fault now and then.
    Storm,
    /// Nothing arrives.
    Cut,
}

/// The way from sender to receiver.
pub(crate) struct Network {
    pub(crate) receiver: Arc<Receiver>,
    rng: Rng,
    weather: Mutex<Weather>,
    /// Requests that the network still holds, to deliver them (again) later, in any order.
    strays: Mutex<Vec<(bool, Bytes)>>,
    pub(crate) requests: AtomicU64,
}

impl Network {
    pub(crate) fn new(receiver: Arc<Receiver>, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            receiver,
            rng: Rng::new(seed),
            weather: Mutex::new(Weather::Fine),
            strays: Mutex::default(),
            requests: AtomicU64::new(0),
        })
    }

    pub(crate) fn set(&self, weather: Weather) {
        *self.weather.lock().expect("sound") = weather;
    }

    fn weather(&self) -> Weather {
        *self.weather.lock().expect("sound")
    }

    /// Something that was under way arrives at last.
    fn deliver_stray(&self) {
        let mut strays = self.strays.lock().expect("sound");
        if !strays.is_empty() {
            let any = self.rng.below(strays.len() as u64) as usize;
            let (is_v2, body) = strays.swap_remove(any);
            drop(strays);
            self.receiver.receive(is_v2, &body);
        }
    }

    /// Keeps a request for later; it overtakes nothing then, but is overtaken.
    fn hold(&self, is_v2: bool, body: Bytes) {
        let mut strays = self.strays.lock().expect("sound");
        if strays.len() == STRAYS_MAX {
            let any = self.rng.below(STRAYS_MAX as u64) as usize;
            strays.swap_remove(any);
        }
        strays.push((is_v2, body));
    }

    async fn carry(&self, is_v2: bool, body: Bytes) -> Result<Response, HttpError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let lost = |why: &str| Err(HttpError::Transport(why.into()));
        let delay = |ms: u64| tokio::time::sleep(Duration::from_millis(ms));
        match self.weather() {
            Weather::Cut => {
                delay(1).await;
                return lost("no route to host");
            }
            Weather::Fine => delay(2).await,
            Weather::Storm => {
                delay(1 + self.rng.below(300)).await;
                match self.rng.below(18) {
                    0 => return lost("connection reset before the request arrived"),
                    1 => {
                        self.receiver.receive(is_v2, &body);
                        return lost("connection reset within the answer");
                    }
                    2 => {
                        self.hold(is_v2, body);
                        return lost("no answer");
                    }
                    3 => return Ok(status(500, None)),
                    4 => return Ok(status(503, Some("1"))),
                    5 => return Ok(status(429, Some("20"))),
                    6 => return Ok(status(429, None)),
                    7 => {
                        self.receiver.receive(is_v2, &body);
                    }
                    8 => self.hold(is_v2, body.clone()),
                    9 | 10 => self.deliver_stray(),
                    11 => delay(60_000).await,
                    12 => {
                        // A proxy says that all is wrong when all is well.
                        self.receiver.receive(is_v2, &body);
                        return Ok(status(502, None));
                    }
                    // Starting takes the simulation longest.
                    13 if self.rng.one_in(4) => {
                        self.receiver.receive(is_v2, &body);
                        self.receiver.restart();
                        return lost("connection reset by a process that ended");
                    }
                    14 if self.rng.one_in(4) => {
                        // The answer is on its way when the process ends.
                        let (answer, samples) = self.receiver.receive(is_v2, &body);
                        self.receiver.note_acknowledged(samples);
                        self.receiver.restart();
                        return Ok(answer);
                    }
                    15 if body.len() > 2000 => return Ok(status(413, None)),
                    _ => {}
                }
            }
        }
        let (answer, samples) = self.receiver.receive(is_v2, &body);
        self.receiver.note_acknowledged(samples);
        Ok(answer)
    }
}

fn status(code: u16, retry_after: Option<&'static str>) -> Response {
    let mut headers = HeaderMap::new();
    if let Some(after) = retry_after {
        headers.insert("retry-after", HeaderValue::from_static(after));
    }
    Response { status: StatusCode::from_u16(code).expect("a status"), headers, body: Bytes::new() }
}

impl Transport for Network {
    fn send<'a>(&'a self, outgoing: Outgoing<'a>) -> Answer<'a> {
        let is_v2 = outgoing
            .headers
            .iter()
            .any(|(n, v)| n == "content-type" && v.to_str().is_ok_and(|v| v.contains("v2.Request")));
        let body = outgoing.body.clone();
        Box::pin(self.carry(is_v2, body))
    }
}
