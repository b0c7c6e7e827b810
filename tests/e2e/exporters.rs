//! Real exporters, scraped by a real `prometheus` and by almanac: the same series with the same values.
//!
//! A proxy between them and both servers hands out the same bodies to both, one generation after the other: whole ones, some
//! with families left out, whole ones again while targets vanish and fail. Each exporter is asked for each format.
//! Exporters that are not installed are left out, saying so; what they ask is there (`redis-server`), played (the status pages of
//! Apache and nginx), or away (PostgreSQL), when they have their own metrics only.
#![allow(clippy::disallowed_methods, reason = "waiting for real processes takes real time")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::scrape::{Server, TEXT, almanac, reply};
use crate::support::{Process, eventually, free_port, get, installed, query, ready, write};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Formats by the name that paths give them.
const FORMATS: [(&str, &str); 3] = [("text", TEXT), ("openmetrics", OPEN_METRICS), ("protobuf", PROTOBUF)];

const NGINX_STATUS: &str =
    "Active connections: 3 \nserver accepts handled requests\n 7 7 31 \nReading: 0 Writing: 1 Waiting: 2 \n";
const APACHE_STATUS: &str = "localhost\nServerVersion: Apache/2.4.57 (Debian)\nServerMPM: event\nTotal Accesses: 42\nTotal kBytes: 17\n\
    Total Duration: 4\nCPUUser: .01\nCPUSystem: .02\nCPULoad: .3\nUptime: 10\nServerUptimeSeconds: 10\nLoad1: 0.5\nReqPerSec: 4.2\n\
    BytesPerSec: 1740.8\nBusyWorkers: 1\nIdleWorkers: 49\nConnsTotal: 2\nScoreboard: _W__K....\n";

/// An exporter that runs, with what it asks.
struct Exporter {
    name: &'static str,
    port: u16,
    _processes: Vec<Process>,
}

/// Starts an exporter of Debian's, whose arguments have `PORT` in the place of its own port.
fn start(name: &'static str, args: &[&str], backend: Option<Process>) -> Option<Exporter> {
    start_program(&installed(&format!("prometheus-{name}-exporter"))?, name, args, backend)
}

fn start_program(
    program: &Path,
    name: &'static str,
    args: &[&str],
    backend: Option<Process>,
) -> Option<Exporter> {
    let port = free_port();
    let args: Vec<String> = args.iter().map(|a| a.replace("PORT", &port.to_string())).collect();
    // By way of `env`, so that an argument can be a variable of the environment.
    let (variables, args): (Vec<String>, Vec<String>) = args.into_iter().partition(|a| !a.starts_with('-'));
    let whole = variables.into_iter().chain([program.display().to_string()]).chain(args);
    let whole: Vec<String> = whole.collect();
    let own =
        Process::start(Path::new("/usr/bin/env"), &whole.iter().map(String::as_str).collect::<Vec<_>>());
    eventually(name, || get(port, "/metrics"));
    Some(Exporter { name, port, _processes: backend.into_iter().chain([own]).collect() })
}

fn redis(dir: &Path) -> (Option<Process>, u16) {
    let port = free_port();
    let server = installed("redis-server").map(|program| {
        let (port, dir) = (port.to_string(), dir.display().to_string());
        let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", &dir, "--daemonize", "no"];
        Process::start(&program, &args)
    });
    if server.is_some() {
        eventually("redis answers", || TcpStream::connect(("127.0.0.1", port)).ok());
    }
    (server, port)
}

/// All that are installed, and a Prometheus, which is one too.
fn exporters(dir: &Path, prometheus: &Path) -> Vec<Exporter> {
    let pages = Server::start(|path, _, out| {
        let page = if path.starts_with("/nginx") { NGINX_STATUS } else { APACHE_STATUS };
        reply(out, "text/plain", page.as_bytes())
    });
    let (nginx, apache) = (
        format!("-nginx.scrape-uri=http://127.0.0.1:{}/nginx", pages.port),
        format!("--scrape_uri=http://127.0.0.1:{}/apache?auto", pages.port),
    );
    let (redis, redis_port) = redis(dir);
    let redis_address = format!("-redis.addr=redis://127.0.0.1:{redis_port}");
    let listen = "--web.listen-address=127.0.0.1:PORT";
    let config = format!("--config.file={}", write(dir, "empty.yml", ""));
    let data = format!("--storage.tsdb.path={}", dir.join("exporter").display());
    let all = [
        start("node", &[listen], None),
        start("process", &["-web.listen-address=127.0.0.1:PORT", "-procnames=almanac,prometheus,e2e"], None),
        start(
            "postgres",
            &["DATA_SOURCE_NAME=postgresql://u:p@127.0.0.1:1/none?sslmode=disable", listen],
            None,
        ),
        start("redis", &["-web.listen-address=127.0.0.1:PORT", &redis_address], redis),
        start("nginx", &["-web.listen-address=127.0.0.1:PORT", &nginx], None),
        start_program(prometheus, "prometheus", &[listen, &config, &data], None),
        start("apache", &["--telemetry.address=127.0.0.1:PORT", &apache], None),
    ];
    all.into_iter().flatten().collect()
}

/// A body as an exporter gives it, and its content type.
fn fetch(port: u16, accept: &str) -> Option<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let head = format!("GET /metrics HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
    std::io::Write::write_all(&mut stream, head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..split]).into_owned();
    assert!(head.starts_with("HTTP/1.0 200") && !head.to_lowercase().contains("chunked"), "{head}");
    let content_type = head.lines().find_map(|l| {
        let (name, value) = l.split_once(": ")?;
        name.eq_ignore_ascii_case("content-type").then(|| value.to_owned())
    })?;
    Some((content_type, answer.split_off(split + 4)))
}

fn is_left_out(family: &str, generation: u64) -> bool {
    generation == 2 && family.bytes().map(u32::from).sum::<u32>().is_multiple_of(3)
}

/// Leaves families out, and says at the end which generation it is.
fn edit(content_type: &str, body: &[u8], generation: u64) -> Vec<u8> {
    if content_type.starts_with("application/vnd") {
        return edit_protobuf(body, generation);
    }
    let text = std::str::from_utf8(body).expect("exporters write UTF-8");
    let mut out = String::new();
    let mut left_out = false;
    for line in text.lines().filter(|l| *l != "# EOF") {
        if let Some(family) = line.strip_prefix("# HELP ").and_then(|rest| rest.split(' ').next()) {
            left_out = is_left_out(family, generation);
        }
        if !left_out {
            out.push_str(line);
            out.push('\n');
        }
    }
    out.push_str(&format!("# TYPE generation gauge\ngeneration {generation}\n"));
    if content_type.starts_with("application/openmetrics") {
        out.push_str("# EOF\n");
    }
    out.into_bytes()
}

/// The same for families one after the other, each behind its length; the name is the first field.
fn edit_protobuf(mut body: &[u8], generation: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while !body.is_empty() {
        let mut len = 0;
        let mut at = 0;
        loop {
            let byte = body[at];
            len |= usize::from(byte & 0x7f) << (7 * at);
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (whole, rest) = body.split_at(at + len);
        let family = &whole[at..];
        assert_eq!(family[0], 0x0a, "the name comes first");
        let name = std::str::from_utf8(&family[2..2 + usize::from(family[1])]).expect("a name");
        if !is_left_out(name, generation) {
            out.extend_from_slice(whole);
        }
        body = rest;
    }
    // Name, type gauge, and one metric with a value.
    let mut family = b"\x0a\x0ageneration\x18\x01\x22\x0b\x12\x09\x09".to_vec();
    family.extend_from_slice(&(generation as f64).to_le_bytes());
    out.push(family.len() as u8);
    out.extend_from_slice(&family);
    out
}

/// What both servers get, by `/format/exporter`.
type Bodies = BTreeMap<String, (String, Vec<u8>)>;

fn bodies(exporters: &[Exporter], generation: u64) -> Bodies {
    let mut bodies = Bodies::new();
    for exporter in exporters {
        for (format, accept) in FORMATS {
            let (content_type, body) = fetch(exporter.port, accept).expect("an answer");
            // Not all of them know all formats.
            if content_type.split(';').next() == accept.split(';').next() {
                let body = edit(&content_type, &body, generation);
                bodies.insert(format!("/{format}/{}", exporter.name), (content_type, body));
            }
        }
    }
    bodies
}

/// A job for each body: one that honours the labels of the exporter, one that relabels, one as it is.
fn jobs(bodies: &Bodies, dir: &Path) -> String {
    let mut out = String::new();
    for path in bodies.keys() {
        let more = match path.split('/').nth(1) {
            Some("protobuf") => "honor_labels: true,",
            Some("text") => {
                "metric_relabel_configs: [{source_labels: [__name__], regex: 'go_gc_.*', action: drop}, \
                 {source_labels: [__name__, mode], regex: '(node)_(.+);(.*)', target_label: origin, replacement: '$1-${2}_$3'}, \
                 {source_labels: [__name__], regex: 'process_(.*)', target_label: __name__, replacement: 'p_$1'}, \
                 {source_labels: [device], modulus: 4, target_label: shard, action: hashmod}, {regex: 'fstype|short.*', action: labeldrop}, \
                 {regex: 'mount(.*)', replacement: 'at_$1', action: labelmap}],"
            }
            _ => "",
        };
        let name = path[1..].replace('/', "-");
        out.push_str(&format!(
            "- {{job_name: {name}, metrics_path: {path}, {more} file_sd_configs: [{{files: ['{}/{name}.json']}}]}}\n",
            dir.display()
        ));
    }
    out
}

/// Targets of a job: the proxy under two names, with labels that exporters have too.
fn write_targets(dir: &Path, path: &str, port: u16, names: &[&str]) {
    let targets: Vec<String> = names
        .iter()
        .map(|name| {
            format!(r#"{{"targets": ["{name}:{port}"], "labels": {{"mode": "target", "version": "target", "cmd": "target"}}}}"#)
        })
        .collect();
    let name = format!("{}.json", path[1..].replace('/', "-"));
    // Renamed into its place, so that nobody reads half of it.
    let new = write(dir, &format!("{name}.new"), &format!("[{}]", targets.join(",")));
    std::fs::rename(new, dir.join(name)).expect("a writable folder");
}

/// Series by their labels with their values, but for how long scrapes take and how many series each added. Prometheus 2
/// writes bounds of buckets as the exporter does, Prometheus 3 as floats.
fn everything(port: u16) -> Option<BTreeMap<String, String>> {
    let rows = query(port, "{job!=\"\",__name__!~\"scrape_duration_seconds|scrape_series_added\"}")?;
    let series = rows.into_iter().map(|(mut labels, value)| {
        for name in ["le", "quantile"] {
            let bound = labels[name].as_str().and_then(|text| text.parse::<f64>().ok());
            if let Some(bound) = bound {
                labels[name] = bound.to_string().into();
            }
        }
        (labels.to_string(), value.to_string())
    });
    Some(series.collect())
}

fn differ(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    a.iter().filter(|(k, v)| b.get(*k) != Some(v)).map(|(k, v)| format!("{k} {v}")).collect()
}

#[test]
fn exporters_look_as_in_prometheus() {
    let Some(prometheus) = installed("prometheus") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let exporters = exporters(dir.path(), &prometheus);
    let served = Arc::new(Mutex::new(bodies(&exporters, 1)));
    let generation = Arc::new(AtomicU64::new(1));
    let proxy = {
        let (served, generation) = (served.clone(), generation.clone());
        Server::start(move |path, _, out| {
            let (content_type, body) = served.lock().expect("no panic while it is held")[path].clone();
            // One of them is out of order at the end.
            if generation.load(Ordering::SeqCst) == 3 && path.ends_with("/node") {
                return std::io::Write::write_all(
                    out,
                    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
                );
            }
            reply(out, &content_type, &body)
        })
    };
    let paths: Vec<String> = served.lock().expect("no panic while it is held").keys().cloned().collect();
    for path in &paths {
        write_targets(dir.path(), path, proxy.port, &["127.0.0.1", "localhost"]);
    }
    let jobs = jobs(&served.lock().expect("no panic while it is held"), dir.path());
    let config = format!("global: {{scrape_interval: 2s, scrape_timeout: 2s}}\nscrape_configs:\n{jobs}");
    let config = write(dir.path(), "p.yml", &config);
    let (_ours, our_port) = almanac(dir.path(), &config);
    let their_port = free_port();
    let theirs = Process::start(
        &prometheus,
        &[
            &format!("--config.file={config}"),
            &format!("--storage.tsdb.path={}", dir.path().join("theirs").display()),
            &format!("--web.listen-address=127.0.0.1:{their_port}"),
        ],
    );
    ready(&theirs, their_port);
    let mut seen = BTreeSet::new();
    for now in 1..=3 {
        if now > 1 {
            let new = bodies(&exporters, now);
            *served.lock().expect("no panic while it is held") = new;
            generation.store(now, Ordering::SeqCst);
        }
        if now == 3 {
            paths.iter().for_each(|path| write_targets(dir.path(), path, proxy.port, &["127.0.0.1"]));
        }
        let same = agree(our_port, their_port, now);
        assert!(same.len() > 30 * paths.len(), "{} series of {} jobs", same.len(), paths.len());
        seen.extend(same.into_keys());
    }
    eprintln!("{} series are the same, of {}", seen.len(), paths.join(" "));
}

/// Waits until both servers have scraped everything that there is now, and have the same; gives that.
fn agree(our_port: u16, their_port: u16, generation: u64) -> BTreeMap<String, String> {
    for port in [our_port, their_port] {
        eventually(&format!("generation {generation} on port {port}"), || {
            let up = query(port, "sum(up)")?.first()?.1;
            let new = query(port, &format!("count(generation == {generation})"))?.first()?.1;
            let old = query(port, &format!("generation != {generation}"))?.is_empty();
            // Bodies and targets come at different times.
            (old && up == new && up > 0.0).then_some(())
        });
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (ours, theirs) =
            (everything(our_port).expect("an answer"), everything(their_port).expect("an answer"));
        if ours == theirs {
            return ours;
        }
        let (a, b) = (differ(&ours, &theirs), differ(&theirs, &ours));
        assert!(
            Instant::now() < deadline,
            "generation {generation}: {} and {} differ\n{a:#?}\n{b:#?}",
            a.len(),
            b.len()
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}
