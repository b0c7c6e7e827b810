//! Scraping: the same series and values as a real `prometheus` beside us, and targets that mean harm.
#![allow(clippy::disallowed_methods, reason = "waiting for real processes takes real time")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::support::{Process, eventually, free_port, get, installed, number, query, ready, write};

/// A server whose paths are answered by a function of the path and of how often it was asked for.
pub(crate) struct Server {
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(
        answer: impl Fn(&str, u64, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (answer, asked) = (Arc::new(answer), Arc::new(Mutex::new(BTreeMap::<String, u64>::new())));
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (answer, asked) = (answer.clone(), asked.clone());
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
                    let mut out = stream;
                    while let Some(Ok(request)) = lines.next() {
                        while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
                        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                        let n = {
                            let mut asked = asked.lock().expect("no panic while it is held");
                            *asked.entry(path.clone()).and_modify(|n| *n += 1).or_insert(1)
                        };
                        if answer(&path, n, &mut out).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port }
    }
}

pub(crate) fn reply(out: &mut TcpStream, content_type: &str, body: &[u8]) -> std::io::Result<()> {
    let len = body.len();
    write!(out, "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len}\r\n\r\n")?;
    out.write_all(body)
}

pub(crate) fn almanac(dir: &std::path::Path, config: &str) -> (Process, u16) {
    let port = free_port();
    let process = Process::almanac(&[
        &format!("--config.file={config}"),
        &format!("--storage.tsdb.path={}", dir.join("almanac").display()),
        &format!("--web.listen-address=127.0.0.1:{port}"),
    ]);
    ready(&process, port);
    (process, port)
}

pub(crate) const TEXT: &str = "text/plain; version=0.0.4";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Series by their labels with their values; how long scrapes take is left out.
fn everything(port: u16, selector: &str) -> Option<BTreeMap<String, String>> {
    let rows = query(port, selector)?;
    let kept = rows.into_iter().filter(|(labels, _)| labels["__name__"] != "scrape_duration_seconds");
    Some(kept.map(|(labels, v)| (labels.to_string(), v.to_string())).collect())
}

#[test]
fn series_and_values_are_those_of_prometheus() {
    let Some(prometheus) = installed("prometheus") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    let server = Server::start(move |path, n, out| {
        let labels = "# HELP m help\n# TYPE m gauge\nm{job=\"own\",instance=\"i\",exported_job=\"e\",x=\"\"} 1\n\
                      m{job=\"\",a=\"b\\\"\\\\\\n\"} +Inf\ndrop_me 3\nkeep_me{le=\"x\",t=\"1\"} 4\nkeep_me{t=\"2\",} 5e-3\n";
        match path {
            "/labels" => reply(out, TEXT, labels.as_bytes()),
            "/histogram" => {
                let body = "# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 0.7\nh_count 2\n\
                            # TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 0\ns_count 0\n";
                reply(out, TEXT, body.as_bytes())
            }
            "/openmetrics" => {
                let body = format!(
                    "# TYPE c counter\n# UNIT c_seconds seconds\nc_total{{l=\"1\"}} 5 # {{trace=\"x\"}} 1 {}.5\n\
                     c_created{{l=\"1\"}} 1.5\n# TYPE g gauge\ng {n}.0\n# EOF\n",
                    now / 1000
                );
                reply(out, OPEN_METRICS, body.replace("# UNIT c_seconds seconds\n", "").as_bytes())
            }
            "/timestamps" => {
                let body = format!(
                    "t{{i=\"1\"}} 7 {now}\nt{{i=\"2\"}} 8 {}\nt{{i=\"far\"}} 1 {}\n",
                    now - 5_000,
                    now + 7_200_000
                );
                reply(out, TEXT, body.as_bytes())
            }
            // The series is there at first, and then for good no more.
            "/gone" if n <= 3 => reply(out, TEXT, b"stays 1\ngoes 1\n"),
            "/gone" => reply(out, TEXT, b"stays 1\n"),
            "/broken" if n <= 3 => reply(out, TEXT, b"before 1\n"),
            "/broken" => reply(out, TEXT, b"before 1\nand then {\n"),
            _ => reply(out, TEXT, b"twice 1\ntwice 2\n"),
        }
    });
    let jobs: String = [
        ("labels", "honor_labels: false"),
        ("honored", "honor_labels: true, metrics_path: /labels"),
        (
            "relabeled",
            "metrics_path: /labels, metric_relabel_configs: [{source_labels: [__name__], regex: drop_.*, action: drop}, \
             {source_labels: [t], regex: (.+), target_label: u, replacement: 'u$1'}, {regex: t, action: labeldrop}]",
        ),
        ("limited", "metrics_path: /labels, sample_limit: 3"),
        ("histogram", "honor_labels: false"),
        ("openmetrics", "honor_labels: false"),
        ("timestamps", "honor_timestamps: true"),
        ("unhonored", "metrics_path: /timestamps, honor_timestamps: false"),
        ("gone", "honor_labels: false"),
        ("broken", "honor_labels: false"),
        ("twice", "honor_labels: false"),
    ]
    .iter()
    .map(|(job, more)| {
        let path = if more.contains("metrics_path") { String::new() } else { format!("metrics_path: /{job}, ") };
        format!("- {{job_name: {job}, {path}{more}, static_configs: [{{targets: ['127.0.0.1:{}'], labels: {{exported_a: own}}}}]}}\n", server.port)
    })
    .collect();
    let config = write(
        dir.path(),
        "p.yml",
        &format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}"),
    );
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
    for port in [our_port, their_port] {
        eventually("a series that goes becomes stale", || {
            (number(port, "stays") == Some(1.0) && query(port, "goes")?.is_empty()).then_some(())
        });
        eventually("a broken body makes all stale", || {
            (number(port, "up{job=\"broken\"}") == Some(0.0) && query(port, "before")?.is_empty())
                .then_some(())
        });
        eventually("all jobs were scraped", || number(port, "count(up)").filter(|n| *n == 11.0));
        eventually("none is new any more", || number(port, "max(scrape_series_added)").filter(|n| *n == 0.0));
    }
    // What counts scrapes differs; all the rest is the same.
    let selector = "{job!=\"\",__name__!~\"g|scrape_duration_seconds\"}";
    let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..20 {
        ours = everything(our_port, selector).expect("an answer");
        theirs = everything(their_port, selector).expect("an answer");
        if ours == theirs {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(ours.len() > 60, "{}", ours.len());
    let differ = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| {
        a.iter().filter(|(k, v)| b.get(*k) != Some(v)).map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>()
    };
    assert_eq!(differ(&ours, &theirs), differ(&theirs, &ours), "ours beside theirs");
}

/// Every way to answer badly, with a part of the error that it must give.
const HARM: [(&str, &str); 16] = [
    ("endless", "body size limit exceeded"),
    ("slow", "context deadline exceeded"),
    ("silent", "context deadline exceeded"),
    (
        "type",
        "received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target",
    ),
    ("notype", "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol"),
    ("redirects", "stopped after 10 redirects"),
    ("line", "body size limit exceeded"),
    ("utf8", "UTF-8"),
    ("labels", "label_limit exceeded (metric: m, number of labels: 1000"),
    ("cut", "clientpb: insufficient length of buffer, expected at least 127 bytes, got 3 bytes"),
    ("groups", "unexpected EOF"),
    ("status", "server returned HTTP status 500 Internal Server Error"),
    ("gzip", "body size limit exceeded"),
    ("zstd", "body size limit exceeded"),
    ("trickle", "context deadline exceeded"),
    ("handshake", "context deadline exceeded"),
];

/// 128 MiB in a few kilobytes: blocks that repeat one byte (RFC 8878, section 3.1.1.2).
fn zstd_bomb() -> Vec<u8> {
    const BLOCK_LEN: u32 = 128 << 10;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x40];
    for i in 0..1024 {
        let header = u32::from(i == 1023) | 1 << 1 | BLOCK_LEN << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(b'#');
    }
    frame
}

fn gzip_bomb() -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..128 {
        gzip.write_all(&[b'#'; 1 << 20]).expect("memory");
    }
    gzip.finish().expect("memory")
}

fn encoded(out: &mut TcpStream, encoding: &str, body: &[u8]) -> std::io::Result<()> {
    let len = body.len();
    write!(
        out,
        "HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nContent-Encoding: {encoding}\r\nContent-Length: {len}\r\n\r\n"
    )?;
    out.write_all(body)
}

/// Accepts connections and says nothing.
fn mute() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let mut held: Vec<_> = Vec::new();
        listener.incoming().flatten().for_each(|stream| held.push(stream));
    });
    port
}

#[test]
fn targets_that_mean_harm_harm_nobody_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let protobuf =
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let (gzip, zstd) = (gzip_bomb(), zstd_bomb());
    let server = Server::start(move |path, n, out| match path.trim_start_matches('/') {
        "endless" => {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                write!(out, "2000\r\n{}\r\n", "x 1\n".repeat(0x800))?;
            }
        }
        "slow" => {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nContent-Length: 1000\r\n\r\n")?;
            loop {
                out.write_all(b"x")?;
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        "silent" => {
            std::thread::sleep(Duration::from_secs(600));
            Ok(())
        }
        "type" => reply(out, "text/html", b"<html>"),
        "notype" => out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nx 1\n"),
        "redirects" => {
            out.write_all(b"HTTP/1.1 302 Found\r\nLocation: /redirects\r\nContent-Length: 0\r\n\r\n")
        }
        "line" => {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nContent-Length: 1000000000\r\n\r\n")?;
            let piece = [b'x'; 1 << 16];
            loop {
                out.write_all(&piece)?;
            }
        }
        "utf8" => reply(out, TEXT, b"m{a=\"\xff\"} 1\n"),
        "labels" => {
            let labels: Vec<String> = (0..9_999).map(|i| format!("l{i}=\"v\"")).collect();
            reply(out, TEXT, format!("m{{{}}} 1\n", labels.join(",")).as_bytes())
        }
        "cut" => reply(out, protobuf, &[0x7e, 0x0a, 0x01]),
        "gzip" => encoded(out, "gzip", &gzip),
        "zstd" => encoded(out, "zstd", &zstd),
        // Each byte in a chunk of its own, and soon enough for any timeout between two reads.
        "trickle" => {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                out.write_all(b"1\r\n#\r\n")?;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        "future" => {
            let now =
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
            let far = [now + 3_600_000, now + 1_000_000_000_000, i64::MAX as u128];
            let lines: Vec<String> = far.iter().map(|t| format!("far{{t=\"{t}\"}} 1 {t}\n")).collect();
            reply(out, TEXT, format!("near 1\n{}", lines.concat()).as_bytes())
        }
        "groups" => reply(out, protobuf, &[&[0xc0, 0x84, 0x3d][..], &[0x7b; 1_000_000]].concat()),
        "status" => out.write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"),
        _ => reply(out, TEXT, format!("good {n}\n").as_bytes()),
    });
    let mute = mute();
    let job = |name: &str| {
        let port = if name == "handshake" { mute } else { server.port };
        let scheme = if name == "handshake" { "https" } else { "http" };
        format!(
            "- {{job_name: {name}, scheme: {scheme}, metrics_path: /{name}, body_size_limit: 4MB, label_limit: 100, \
             static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
        )
    };
    let jobs: String = HARM.iter().map(|(name, _)| job(name)).chain([job("future"), job("good")]).collect();
    let config = write(
        dir.path(),
        "p.yml",
        &format!("global: {{scrape_interval: 1s, scrape_timeout: 900ms}}\nscrape_configs:\n{jobs}"),
    );
    let (process, port) = almanac(dir.path(), &config);
    for (name, words) in HARM {
        let mut last = String::new();
        eventually(name, || {
            let text = get(port, &format!("/api/v1/targets?scrapePool={name}"))?;
            let json: serde_json::Value = serde_json::from_str(&text).ok()?;
            last = json["data"]["activeTargets"][0]["lastError"].as_str()?.to_owned();
            if last.is_empty() { None } else { Some(()) }
        });
        assert!(last.contains(words), "{name}: {last}");
    }
    eventually("the good target was scraped for a while", || number(port, "good").filter(|n| *n >= 8.0));
    assert_eq!(number(port, "min_over_time(up{job=\"good\"}[1h])"), Some(1.0));
    assert_eq!(number(port, "sum(up)"), Some(2.0));
    assert_eq!(number(port, "near"), Some(1.0));
    assert_eq!(number(port, "min_over_time(up{job=\"future\"}[1h])"), Some(1.0));
    assert_eq!(
        query(port, "count_over_time(far[5m] offset -2h)"),
        Some(Vec::new()),
        "no sample of the future"
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("Linux");
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("a peak");
    let peak_mib = peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024;
    assert!(peak_mib < 300, "{peak_mib} MiB");
}
