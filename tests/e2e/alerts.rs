//! Alerts: what Alertmanagers are told, beside what the installed `prometheus` tells them of the same rules and data.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::{Exporter, Process, eventually, free_port, get, installed, number, ready, write};

/// An Alertmanager that takes everything and keeps it.
struct Alertmanager {
    port: u16,
    received: Arc<Mutex<Vec<Value>>>,
}

impl Alertmanager {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let received: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let kept = kept.clone();
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
                    while let Some((head, body)) = request(&mut reader) {
                        assert!(head.starts_with("POST /prefix/api/v2/alerts HTTP/1.1"), "{head}");
                        assert!(
                            head.to_ascii_lowercase().contains("content-type: application/json"),
                            "{head}"
                        );
                        let alerts: Value = serde_json::from_slice(&body).expect("JSON");
                        kept.lock().expect("no panic").extend(alerts.as_array().expect("a list").clone());
                        if (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, received }
    }

    fn all(&self) -> Vec<Value> {
        self.received.lock().expect("no panic").clone()
    }

    /// The first that passes, by the alert's name.
    fn first(&self, passes: impl Fn(&Value) -> bool) -> BTreeMap<String, Value> {
        let mut out = BTreeMap::new();
        for alert in self.all().into_iter().filter(|a| passes(a)) {
            let name = alert["labels"]["alertname"].as_str().expect("every alert has a name").to_owned();
            out.entry(name).or_insert(alert);
        }
        out
    }
}

fn request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    loop {
        let start = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        if head[start..].trim().is_empty() {
            break;
        }
    }
    let length = head
        .to_ascii_lowercase()
        .lines()
        .find_map(|l| l.strip_prefix("content-length:").and_then(|v| v.trim().parse::<usize>().ok()))?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

const RULES: &str = r#"
groups:
- name: g
  interval: 1s
  rules:
  - alert: Hot
    expr: temperature{job="app"}  >  20
    for: 2s
    labels: {severity: page, room: "{{ $labels.room | toUpper }}", gone: "x"}
    annotations:
      summary: "{{ $labels.room }} has {{ $value }} degrees, {{ humanize $value }} <&>"
      where: "{{ $externalURL }} in {{ $externalLabels.region }}"
      number: '{{ printf "%.2f" $value }} {{ $value | humanizePercentage }} {{ 3661 | humanizeDuration }}'
      asked: '{{ with query "temperature" }}{{ . | first | label "room" }} {{ . | first | value }}{{ end }}'
      all: '{{ range $k, $v := $labels }}{{ if ne $k "__name__" }}{{ $k }}={{ $v }}, {{ end }}{{ end }}'
      links: '{{ graphLink "up" }} {{ tableLink "a b" }} {{ externalURL }}{{ pathPrefix }}'
      texts: '{{ reReplaceAll "(k)i" "$1a" $labels.room }} {{ stripPort "h:1" }} {{ title "x" }} {{ $labels.none }}'
      wrong: '{{ $labels.room | humanize }}'
  - alert: Dropped
    expr: vector(1)
  - alert: Always
    expr: vector(7) * 2
    annotations: {text: "line\nand \"quotes\" ü"}
"#;

fn milliseconds(alert: &Value, field: &str) -> i64 {
    let text = alert[field].as_str().expect("a time");
    assert!(text.ends_with('Z') && text.len() == "2006-01-02T15:04:05.000Z".len(), "{field}: {text}");
    chrono::DateTime::parse_from_rfc3339(text).expect("RFC 3339").timestamp_millis()
}

fn server(program: Option<&Path>, dir: &Path, name: &str, exporter: u16, am: u16) -> (Process, u16) {
    let rules = write(dir, "rules.yml", RULES);
    let config = write(
        dir,
        &format!("{name}.yml"),
        &format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, external_labels: {{region: r1}}}}
rule_files: ['{rules}']
scrape_configs: [{{job_name: app, static_configs: [{{targets: ['127.0.0.1:{exporter}'], labels: {{instance: i}}}}]}}]
alerting:
  alert_relabel_configs:
  - {{regex: gone, action: labeldrop}}
  - {{source_labels: [alertname], regex: Dropped, action: drop}}
  alertmanagers:
  - path_prefix: /prefix/
    static_configs: [{{targets: ['127.0.0.1:{am}', 'nowhere:1']}}]
    relabel_configs: [{{source_labels: [__address__], regex: 'nowhere.*', action: drop}}]
"
        ),
    );
    let port = free_port();
    let args = [
        format!("--config.file={config}"),
        format!("--storage.tsdb.path={}", dir.join(name).display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--web.external-url=http://prom.example/p".to_owned(),
        "--web.route-prefix=/".to_owned(),
        "--rules.alert.resend-delay=2s".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let process = match program {
        Some(program) => Process::start(program, &args),
        None => Process::almanac(&args),
    };
    ready(&process, port);
    (process, port)
}

/// An alert without its times, which are looked at: it holds for four resend delays after the evaluation that sent it,
/// and evaluations are a second apart.
fn meaning(alert: &Value) -> Value {
    let mut alert = alert.clone();
    let length = milliseconds(&alert, "endsAt") - milliseconds(&alert, "startsAt");
    assert!(length >= 8000 && length % 1000 == 0, "{alert}");
    alert["startsAt"] = Value::Null;
    alert["endsAt"] = Value::Null;
    alert
}

#[test]
fn alertmanagers_are_told_what_prometheus_tells_them() {
    let Some(prometheus) = installed("prometheus") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let degrees = Arc::new(AtomicU64::new(25));
    let now = degrees.clone();
    let exporter = Exporter::serving(move |_| {
        Some(format!("temperature{{room=\"kitchen\"}} {}.5\n", now.load(Ordering::SeqCst)))
    });
    let (ours, theirs) = (Alertmanager::start(), Alertmanager::start());
    let (_almanac, port) = server(None, dir.path(), "almanac", exporter.port, ours.port);
    let (_peer, peer_port) = server(Some(&prometheus), dir.path(), "peer", exporter.port, theirs.port);
    let firing = |am: &Alertmanager| {
        eventually("two alerts are sent", || Some(am.first(|_| true)).filter(|found| found.len() == 2))
    };
    let (one, two) = (firing(&ours), firing(&theirs));
    for name in ["Hot", "Always"] {
        assert_eq!(meaning(&one[name]), meaning(&two[name]), "{name}");
    }
    for path in ["/api/v1/alertmanagers", "/api/v1/alerts"] {
        let strip = |port| {
            let text = get(port, path).expect("an answer");
            let mut json: Value = serde_json::from_str(&text).expect("JSON");
            for alert in json["data"]["alerts"].as_array_mut().into_iter().flatten() {
                alert["activeAt"] = Value::Null;
            }
            if let Some(alerts) = json["data"]["alerts"].as_array_mut() {
                alerts.sort_by_key(|a| a["labels"]["alertname"].to_string());
            }
            json.to_string().replace(&ours.port.to_string(), "PORT").replace(&theirs.port.to_string(), "PORT")
        };
        assert_eq!(strip(port), strip(peer_port), "{path}");
    }
    degrees.store(10, Ordering::SeqCst);
    for am in [&ours, &theirs] {
        let resolved = eventually("an alert is resolved", || {
            let over = |a: &Value| {
                let last = am.all().iter().map(|a| milliseconds(a, "startsAt")).max();
                let length = milliseconds(a, "endsAt") - milliseconds(a, "startsAt");
                a["labels"]["alertname"] == "Hot" && last.is_some() && length % 1000 == 0 && {
                    // What holds is told again with a later end; what is over keeps its end.
                    let ends = am.all().iter().filter(|b| b["endsAt"] == a["endsAt"]).count();
                    ends > 1 && length > 0
                }
            };
            am.first(over).remove("Hot")
        });
        assert_eq!(resolved["labels"], one["Hot"]["labels"]);
    }
    let sent = "prometheus_notifications_sent_total";
    let metrics = get(port, "/metrics").expect("metrics");
    let line = format!("{sent}{{alertmanager=\"http://127.0.0.1:{}/prefix/api/v2/alerts\"}}", ours.port);
    assert!(metrics.contains(&line), "{line}");
}

#[test]
fn pending_alerts_survive_a_restart_and_alerts_reach_an_alertmanager_that_comes_late() {
    let dir = tempfile::tempdir().expect("a folder");
    let exporter = Exporter::start();
    let am_port = free_port();
    let rules = write(
        dir.path(),
        "r.yml",
        "groups: [{name: g, interval: 1s, rules: [{alert: Slow, expr: vector(1), for: 1h}, {alert: Now, expr: vector(1)}]}]",
    );
    let config = write(
        dir.path(),
        "p.yml",
        &format!(
            "global: {{scrape_interval: 1s}}
rule_files: ['{rules}']
scrape_configs: [{{job_name: app, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{am_port}']}}]}}]}}
",
            exporter.port
        ),
    );
    let start = || {
        let port = free_port();
        let process = Process::almanac(&[
            &format!("--config.file={config}"),
            &format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            &format!("--web.listen-address=127.0.0.1:{port}"),
            "--rules.alert.resend-delay=1s",
        ]);
        ready(&process, port);
        (process, port)
    };
    let (process, port) = start();
    let began = eventually("the alert is pending and stored", || {
        number(port, "ALERTS_FOR_STATE{alertname=\"Slow\"}").filter(|n| *n > 0.0)
    });
    eventually("nobody listens, which is said", || {
        process.log().contains("error sending alerts").then_some(())
    });
    let (code, log) = process.terminate();
    assert_eq!(code, 0, "{log}");
    std::thread::sleep(std::time::Duration::from_secs(3));
    let (_process, port) = start();
    let after = eventually("the alert goes on", || {
        number(port, "max_over_time(ALERTS_FOR_STATE{alertname=\"Slow\"}[1m])").filter(|n| *n > began)
    });
    // What it spent pending counts; the time without a server does not.
    assert!(after - began >= 2.0 && after - began < 60.0, "{began} {after}");
    assert!(get(port, "/api/v1/alerts").expect("an answer").contains("\"state\":\"firing\""));
}
