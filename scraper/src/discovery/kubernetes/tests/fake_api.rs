//! An API server for tests: lists with pages, watches with bookmarks, and misbehaves on demand.
//!
//! It speaks plain HTTP/1.1 by hand, one request per connection, so that it can tear a connection in the middle of a
//! line. Its faults come from a seed. It keeps selectors in the request log but does not apply them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Objects in a page, whatever the client asks for.
const PAGE_MAX: usize = 3;

pub(super) struct FakeApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    /// Rings at every change, with a number that rises.
    bell: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// Versions below this are forgotten.
    oldest: u64,
    objects: BTreeMap<(String, String), Value>,
    log: Vec<Event>,
    requests: Vec<String>,
    faults: Option<Random>,
    down: bool,
    /// Rises when all connections must end.
    epoch: u64,
    gone_as_status: bool,
    status: Option<u16>,
}

#[derive(Clone)]
struct Event {
    version: u64,
    plural: String,
    kind: &'static str,
    object: Value,
}

/// A small generator of pseudo-random numbers (xorshift).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeApi {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { version: 100, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), bell: watch::Sender::new(0) });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Creates or changes an object.
    pub(super) fn put(&self, plural: &str, mut object: Value) {
        self.change(|state| {
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            let place = (plural.to_owned(), key(&object));
            let known = state.objects.insert(place, object.clone()).is_some();
            let kind = if known { "MODIFIED" } else { "ADDED" };
            state.log.push(Event { version: state.version, plural: plural.to_owned(), kind, object });
        });
    }

    pub(super) fn delete(&self, plural: &str, key: &str) {
        self.change(|state| {
            let Some(mut object) = state.objects.remove(&(plural.to_owned(), key.to_owned())) else { return };
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.log.push(Event {
                version: state.version,
                plural: plural.to_owned(),
                kind: "DELETED",
                object,
            });
        });
    }

    /// Forgets all past versions, and ends all watches, so that they cannot be resumed.
    pub(super) fn compact(&self, as_status: bool) {
        self.change(|state| {
            state.version += 10;
            state.oldest = state.version;
            state.log.clear();
            state.gone_as_status = as_status;
            state.epoch += 1;
        });
    }

    /// While down, every connection is closed at once.
    pub(super) fn set_down(&self, down: bool) {
        self.change(|state| {
            state.down = down;
            state.epoch += 1;
        });
    }

    /// Ends all connections.
    pub(super) fn disconnect(&self) {
        self.change(|state| state.epoch += 1);
    }

    /// Misbehave at random from now on, or no longer.
    pub(super) fn set_faults(&self, seed: Option<u64>) {
        self.shared.state.lock().faults = seed.map(Random::new);
    }

    /// Answer every request with this status.
    pub(super) fn set_status(&self, status: Option<u16>) {
        self.shared.state.lock().status = status;
    }

    /// Paths and queries asked for so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.shared.state.lock().requests.clone()
    }

    fn change(&self, f: impl FnOnce(&mut State)) {
        f(&mut self.shared.state.lock());
        self.shared.bell.send_modify(|n| *n += 1);
    }
}

fn key(object: &Value) -> String {
    let meta = &object["metadata"];
    match meta["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{}", meta["name"].as_str().unwrap()),
        None => meta["name"].as_str().unwrap().to_owned(),
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        if shared.state.lock().down {
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let epoch = shared.state.lock().epoch;
            let mut bell = shared.bell.subscribe();
            // A watch of the bell is enough: whoever raises the epoch rings it.
            let over = bell.wait_for(|_| shared.state.lock().epoch != epoch);
            tokio::select! {
                _ = serve(stream, &shared, epoch) => {}
                _ = over => {}
            }
        });
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared, epoch: u64) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (fault, status) = {
        let mut state = shared.state.lock();
        state.requests.push(target.clone());
        (state.faults.as_mut().map_or(0, |random| random.below(12)), state.status)
    };
    match (fault, status) {
        (_, Some(code)) => return respond(&mut stream, code, &status_object(code)).await,
        (1, _) => return respond(&mut stream, 500, &status_object(500)).await,
        (2, _) => return respond(&mut stream, 200, "{\"items\": [").await,
        (3, _) => return Ok(()),
        _ => {}
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let plural = (*parts.last().unwrap()).to_owned();
    let namespace = parts.iter().position(|part| *part == "namespaces").and_then(|i| parts.get(i + 1));
    let namespace = namespace.filter(|_| plural != "namespaces").map(|name| (*name).to_owned());
    if query.contains_key("watch") {
        let watched = Watched { plural, namespace, epoch };
        watch_objects(&mut stream, shared, &watched, &query).await
    } else {
        let page = list(&shared.state.lock(), &plural, namespace.as_deref(), &query);
        respond(&mut stream, 200, &page.to_string()).await
    }
}

fn list(state: &State, plural: &str, namespace: Option<&str>, query: &BTreeMap<String, String>) -> Value {
    let all = state.objects.iter().filter(|((p, _), object)| p == plural && is_in(object, namespace));
    let all: Vec<&Value> = all.map(|(_, object)| object).collect();
    // The token of a page is the position after it; objects may move between pages, as the tests must allow.
    let start: usize = query.get("continue").map_or(0, |token| token.parse().unwrap()).min(all.len());
    let limit: usize = query.get("limit").map_or(PAGE_MAX, |limit| limit.parse().unwrap()).min(PAGE_MAX);
    let end = (start + limit).min(all.len());
    let mut meta = json!({"resourceVersion": state.version.to_string()});
    if end < all.len() {
        meta["continue"] = json!(end.to_string());
    }
    json!({"kind": "List", "apiVersion": "v1", "metadata": meta, "items": &all[start..end]})
}

fn is_in(object: &Value, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|namespace| object["metadata"]["namespace"] == namespace)
}

fn status_object(code: u16) -> String {
    let reason = if code == 410 { "Expired" } else { "Failure" };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "as asked", "reason": reason, "code": code});
    status.to_string()
}

async fn respond(stream: &mut TcpStream, code: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await
}

struct Watched {
    plural: String,
    namespace: Option<String>,
    epoch: u64,
}

async fn watch_objects(
    stream: &mut TcpStream,
    shared: &Shared,
    watched: &Watched,
    query: &BTreeMap<String, String>,
) -> std::io::Result<()> {
    let Watched { plural, namespace, epoch } = watched;
    let mut cursor: u64 = query["resourceVersion"].parse().unwrap();
    let (gone, as_status) = {
        let state = shared.state.lock();
        (cursor < state.oldest, state.gone_as_status)
    };
    if gone && as_status {
        return respond(stream, 410, &status_object(410)).await;
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    if gone {
        let line = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status_object(410));
        return chunk(stream, &line).await;
    }
    let mut bell = shared.bell.subscribe();
    loop {
        bell.mark_unchanged();
        let (events, version) = {
            let state = shared.state.lock();
            // The task may run on for a moment after its connection was ended.
            if cursor < state.oldest || state.epoch != *epoch {
                return Ok(());
            }
            let new = state.log.iter().filter(|event| {
                event.version > cursor
                    && event.plural == *plural
                    && is_in(&event.object, namespace.as_deref())
            });
            (new.cloned().collect::<Vec<_>>(), state.version)
        };
        for event in events {
            let line = json!({"type": event.kind, "object": event.object}).to_string() + "\n";
            let fault = shared.state.lock().faults.as_mut().map_or(0, |random| random.below(20));
            match fault {
                1 => {
                    return stream
                        .write_all(format!("{:x}\r\n{}", line.len(), &line[..line.len() / 2]).as_bytes())
                        .await;
                }
                2 => return Ok(()),
                3 => chunk(stream, "{\"type\":\"ADDED\",\"object\":7}\n").await?,
                4 => chunk(stream, "not json\n").await?,
                5 => {
                    let line = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status_object(410));
                    return chunk(stream, &line).await;
                }
                6 => {
                    chunk(stream, &format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status_object(500)))
                        .await?
                }
                _ => chunk(stream, &line).await?,
            }
        }
        if version > cursor {
            cursor = version;
            let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "X", "apiVersion": "v1",
                "metadata": {"resourceVersion": version.to_string()}}});
            chunk(stream, &(bookmark.to_string() + "\n")).await?;
        }
        // The wait has an end so that a client that went away is noticed.
        let _ = tokio::time::timeout(Duration::from_secs(30), bell.changed()).await;
    }
}

async fn chunk(stream: &mut TcpStream, line: &str) -> std::io::Result<()> {
    stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await
}
