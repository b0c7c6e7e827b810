use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use super::*;
use model::relabel::RelabelAction;

/// An Alertmanager that answers with a status and keeps what it is told.
struct Fake {
    address: String,
    bodies: Arc<Mutex<Vec<serde_json::Value>>>,
}

/// Serves until the test ends. A status of 0 is none: the request gets no answer.
fn fake(status: u16) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let bodies: Arc<Mutex<Vec<serde_json::Value>>> = Arc::default();
    let kept = Arc::clone(&bodies);
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            if status == 0 {
                silent.push(stream);
                continue;
            }
            kept.lock().push(serde_json::from_slice(&body).unwrap());
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
    });
    Fake { address, bodies }
}

fn notifier(options: NotifierOptions) -> (Arc<Notifier>, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    let clock = model::SystemClock::shared();
    (Notifier::new(options, clock, &registry, Handle::current()).unwrap(), registry)
}

fn set() -> AlertmanagerConfig {
    AlertmanagerConfig {
        scheme: "http".into(),
        path_prefix: String::new(),
        timeout: Duration::from_secs(10),
        http: ClientConfig::default(),
        relabel: Vec::new(),
        alert_relabel: Vec::new(),
    }
}

fn at(addresses: &[&str]) -> [TargetGroup; 1] {
    let target = |a: &&str| vec![("__address__".to_owned(), (*a).to_owned())];
    [TargetGroup { labels: Vec::new(), targets: addresses.iter().map(target).collect() }]
}

fn alert(name: &str) -> Alert {
    Alert {
        labels: Labels::from_pairs([("alertname", name), ("who", "alert")]),
        annotations: Labels::empty(),
        starts_at_ms: 0,
        ends_at_ms: 1,
        generator_url: "http://p/graph".into(),
    }
}

fn names(fake: &Fake) -> Vec<Vec<String>> {
    let name = |a: &serde_json::Value| a["labels"]["alertname"].as_str().unwrap().to_owned();
    fake.bodies.lock().iter().map(|b| b.as_array().unwrap().iter().map(name).collect()).collect()
}

/// Value of a metric of one Alertmanager, or of one without labels.
fn value(registry: &prometheus::Registry, name: &str, address: &str) -> Option<f64> {
    let families = registry.gather();
    let family = families.iter().find(|f| f.name() == format!("prometheus_notifications_{name}"))?;
    let metric = family.get_metric().iter().find(|m| {
        m.get_label().is_empty() || m.get_label()[0].value() == format!("http://{address}/api/v2/alerts")
    })?;
    Some(metric.get_counter().get_value() + metric.get_gauge().get_value())
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn alerts_reach_all_alertmanagers_with_their_labels() {
    let (notifier, registry) = notifier(NotifierOptions { batch_size: 2, ..NotifierOptions::default() });
    let (good, bad) = (fake(200), fake(500));
    let drop = RelabelRule {
        source_labels: vec!["alertname".into()],
        regex: model::Regexp::new("dropped").unwrap(),
        action: RelabelAction::Drop,
        ..RelabelRule::default()
    };
    let only = RelabelRule {
        target_label: "only".into(),
        replacement: "for $1".into(),
        source_labels: vec!["alertname".into()],
        ..RelabelRule::default()
    };
    let config = NotifierConfig {
        external_labels: Labels::from_pairs([("region", "x"), ("who", "server")]),
        alert_relabel: vec![drop],
        alertmanagers: vec![set(), AlertmanagerConfig { alert_relabel: vec![only], ..set() }],
    };
    let handles = notifier.apply(config).unwrap();
    handles[0].sync(&at(&[&bad.address]));
    handles[1].sync(&at(&[&good.address]));
    assert_eq!(value(&registry, "alertmanagers_discovered", ""), Some(2.0));
    assert_eq!(value(&registry, "errors_total", &bad.address), Some(0.0));
    notifier.send(["a", "dropped", "b", "c"].map(alert).to_vec());
    until("all are sent", || names(&good).concat().len() == 3 && names(&bad).concat().len() == 3).await;
    assert_eq!(names(&good), [vec!["a", "b"], vec!["c"]]);
    let labels = |fake: &Fake| fake.bodies.lock()[0][0]["labels"].clone();
    assert_eq!(
        labels(&good),
        serde_json::json!({"alertname": "a", "who": "alert", "region": "x", "only": "for a"})
    );
    assert_eq!(labels(&bad), serde_json::json!({"alertname": "a", "who": "alert", "region": "x"}));
    until("all is counted", || {
        value(&registry, "sent_total", &good.address) == Some(3.0)
            && value(&registry, "errors_total", &bad.address) == Some(3.0)
            && value(&registry, "dropped_total", &bad.address) == Some(3.0)
    })
    .await;
    handles[0].sync(&[]);
    assert_eq!(value(&registry, "errors_total", &bad.address), None);
    assert_eq!(notifier.alertmanagers().0, [format!("http://{}/api/v2/alerts", good.address)]);
    notifier.stop().await;
}

#[tokio::test]
async fn a_silent_alertmanager_holds_nobody_up_and_its_queue_is_bounded() {
    let options = NotifierOptions { queue_capacity: 3, batch_size: 1, ..NotifierOptions::default() };
    let (notifier, registry) = notifier(NotifierOptions { drain_on_shutdown: false, ..options });
    let (good, silent) = (fake(200), fake(0));
    let config = NotifierConfig {
        alertmanagers: vec![AlertmanagerConfig { timeout: Duration::from_secs(2), ..set() }],
        ..NotifierConfig::default()
    };
    let handles = notifier.apply(config.clone()).unwrap();
    handles[0].sync(&at(&[&good.address, &silent.address]));
    for n in 0..6 {
        notifier.send(vec![alert(&n.to_string())]);
        until("the other one has it", || names(&good).len() == n + 1).await;
    }
    // One is on its way, three wait.
    assert_eq!(value(&registry, "queue_length", &silent.address), Some(3.0));
    assert_eq!(value(&registry, "dropped_total", &silent.address), Some(2.0));
    // A reload keeps the queue.
    let handles_after = notifier.apply(config).unwrap();
    assert_eq!(value(&registry, "queue_length", &silent.address), Some(3.0));
    handles[0].sync(&[]);
    assert_eq!(notifier.alertmanagers().0.len(), 2, "an old handle says nothing any more");
    handles_after[0].sync(&at(&[&silent.address, &good.address]));
    assert_eq!(value(&registry, "queue_length", &silent.address), Some(3.0));
    until("it is given up in time", || value(&registry, "errors_total", &silent.address) >= Some(1.0)).await;
    notifier.stop().await;
    notifier.send(vec![alert("late")]);
    assert_eq!(names(&good).len(), 6);
}

#[tokio::test]
async fn what_waits_at_the_end_is_sent() {
    let (notifier, _) = notifier(NotifierOptions { batch_size: 10, ..NotifierOptions::default() });
    let good = fake(200);
    let config = NotifierConfig { alertmanagers: vec![set()], ..NotifierConfig::default() };
    let handles = notifier.apply(config).unwrap();
    handles[0].sync(&at(&[&good.address]));
    notifier.send((0..25).map(|n| alert(&n.to_string())).collect());
    notifier.stop().await;
    assert_eq!(names(&good).concat().len(), 25);
}
