//! Processes, ports, HTTP and a small exporter for the end-to-end tests.
#![allow(clippy::disallowed_methods, reason = "waiting for real processes takes real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// A running process; killed when dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts almanac with these arguments.
    pub fn almanac(args: &[&str]) -> Self {
        Self::start(Path::new(env!("CARGO_BIN_EXE_almanac")), args)
    }

    /// Starts a program; what it says on standard error is kept.
    pub fn start(program: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, kept) = (child.stderr.take().expect("piped"), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = kept.lock().expect("no panic while it is held");
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, log }
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic while it is held").clone()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success(), "kill -{name}");
    }

    /// Waits for its own end and gives the exit code.
    pub fn wait(mut self) -> (i32, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                // The reader of the log needs a moment to see the end of the pipe.
                std::thread::sleep(Duration::from_millis(100));
                return (status.code().unwrap_or(-1), self.log());
            }
            assert!(Instant::now() < deadline, "still running:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(self) -> (i32, String) {
        self.signal("TERM");
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the process\n{}", self.log());
        }
    }
}

/// Calls `f` until it gives something.
#[track_caller]
pub fn eventually<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = f() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Status and body of a request, or `None` when nobody answers.
pub fn http(method: &str, port: u16, path: &str, body: &[u8]) -> Option<(u16, String)> {
    http_with(method, port, path, "Content-Type: application/x-www-form-urlencoded\r\n", body)
}

/// [`http`] with other headers, each with its line's end.
pub fn http_with(method: &str, port: u16, path: &str, headers: &str, body: &[u8]) -> Option<(u16, String)> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..split]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = &answer[split + 4..];
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { dechunk(body) } else { body.to_vec() };
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

fn dechunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = body.windows(2).position(|w| w == b"\r\n") {
        let size =
            std::str::from_utf8(&body[..end]).ok().and_then(|s| usize::from_str_radix(s.trim(), 16).ok());
        let Some(size @ 1..) = size else { break };
        let data = &body[end + 2..];
        out.extend_from_slice(&data[..size.min(data.len())]);
        body = data.get(size + 2..).unwrap_or_default();
    }
    out
}

/// `GET`, which must be answered with 200.
pub fn get(port: u16, path: &str) -> Option<String> {
    http("GET", port, path, b"").filter(|(status, _)| *status == 200).map(|(_, body)| body)
}

/// Waits until a node says that it is ready.
#[track_caller]
pub fn ready(process: &Process, port: u16) {
    eventually(&format!("port {port} is ready\n{}", process.log()), || get(port, "/-/ready"));
}

/// An instant query's vector as `(labels, value)`, labels as JSON text; `None` when there is no good answer.
pub fn query(port: u16, promql: &str) -> Option<Vec<(serde_json::Value, f64)>> {
    let body = format!("query={}", percent(promql));
    let (status, text) = http("POST", port, "/api/v1/query", body.as_bytes())?;
    if status != 200 {
        return None;
    }
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    let rows = json["data"]["result"].as_array()?;
    rows.iter().map(|r| Some((r["metric"].clone(), r["value"][1].as_str()?.parse().ok()?))).collect()
}

/// A query whose answer is one number.
pub fn number(port: u16, promql: &str) -> Option<f64> {
    query(port, promql).filter(|rows| rows.len() == 1).map(|rows| rows[0].1)
}

/// Percent-encodes everything that is no letter or digit.
pub fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// A program on the path, or `None` after saying that the test is skipped.
pub fn installed(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&paths).map(|p| p.join(program)).find(|p| p.is_file());
    if found.is_none() {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Writes a file into a folder and gives its path.
pub fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("a writable folder");
    path.display().to_string()
}

/// What a target answers to its nth scrape; `None`: that it is broken.
type Body = dyn Fn(u64) -> Option<String> + Send + Sync;

/// A target.
pub struct Exporter {
    pub port: u16,
    scrapes: Arc<AtomicU64>,
}

impl Exporter {
    /// One counter that rises by one with each scrape, and some series beside it; serves until the test ends.
    pub fn start() -> Self {
        Self::serving(|n| {
            let mut body = format!("# TYPE scrapes_total counter\nscrapes_total {n}\n");
            for i in 0..20 {
                body.push_str(&format!("keep_me{{i=\"{i}\"}} {}\nleave_me{{i=\"{i}\"}} {n}\n", n * i));
            }
            Some(body)
        })
    }

    /// The same with another body.
    pub fn serving(body: impl Fn(u64) -> Option<String> + Send + Sync + 'static) -> Self {
        let body: Arc<Body> = Arc::new(body);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let scrapes = Arc::new(AtomicU64::new(0));
        let counter = scrapes.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (counter, body) = (counter.clone(), body.clone());
                std::thread::spawn(move || answer(stream, &counter, &*body));
            }
        });
        Self { port, scrapes }
    }

    /// How often it was scraped.
    pub fn scrapes(&self) -> u64 {
        self.scrapes.load(Ordering::SeqCst)
    }
}

fn answer(stream: TcpStream, counter: &AtomicU64, body: &Body) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut lines = BufReader::new(stream).lines();
    loop {
        // One request: lines up to an empty one.
        loop {
            match lines.next() {
                Some(Ok(line)) if line.is_empty() => break,
                Some(Ok(_)) => {}
                _ => return,
            }
        }
        let n = counter.fetch_add(1, Ordering::SeqCst) + 1;
        let (status, body) = match body(n) {
            Some(body) => ("200 OK", body),
            None => ("503 Service Unavailable", String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if out.write_all(head.as_bytes()).and_then(|()| out.write_all(body.as_bytes())).is_err() {
            return;
        }
    }
}
