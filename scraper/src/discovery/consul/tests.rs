//! Consul discovery against an agent of our own, with blocking queries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::client::Check;
use super::health;
use crate::config::Secret;
use crate::discovery::config::{ConsulConfig, DiscoveryConfig};
use crate::discovery::testing::{addresses, manager, metric, wait};

struct Agent {
    address: String,
    state: Arc<Mutex<State>>,
    bell: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    down: bool,
    /// By path: what is answered, and since which index.
    answers: BTreeMap<String, (u64, Value)>,
    requests: Vec<String>,
}

impl Agent {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (state, bell) = (Arc::<Mutex<State>>::default(), watch::Sender::new(1));
        let (served, ringing) = (Arc::clone(&state), bell.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client may go away at any time.
                tokio::spawn(serve(stream, Arc::clone(&served), ringing.subscribe()));
            }
        });
        let agent = Self { address, state, bell };
        agent.put("/v1/agent/self", json!({"Config": {"Datacenter": "dc7"}}));
        agent
    }

    fn put(&self, path: &str, answer: Value) {
        self.bell.send_modify(|index| {
            *index += 1;
            self.state.lock().answers.insert(path.to_owned(), (*index, answer));
        });
    }

    fn set_down(&self, down: bool) {
        self.state.lock().down = down;
        self.bell.send_modify(|index| *index += 1);
    }

    fn config(&self) -> ConsulConfig {
        ConsulConfig { server: self.address.clone(), refresh_interval_ms: 20, ..ConsulConfig::default() }
    }

    fn requests(&self, path: &str) -> Vec<String> {
        self.state.lock().requests.iter().filter(|request| request.contains(path)).cloned().collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    state: Arc<Mutex<State>>,
    mut bell: watch::Receiver<u64>,
) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        state.lock().requests.push(head.clone());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let seen: u64 = query.get("index").map_or(0, |index| index.parse().unwrap());
        let (index, answer) = loop {
            let known = {
                let state = state.lock();
                if state.down {
                    return Ok(());
                }
                state.answers.get(path).cloned().unwrap_or((1, json!([])))
            };
            if known.0 > seen {
                break known;
            }
            if bell.changed().await.is_err() {
                return Ok(());
            }
        };
        let body = answer.to_string();
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nX-Consul-Index: {index}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
    }
}

fn instance(address: &str) -> Value {
    json!({
        "Node": {"Node": "n1", "Address": "10.0.0.1", "Meta": {"rack-id": "r1"}, "TaggedAddresses": {"wan": "1.2.3.4"}},
        "Service": {"ID": "web-1", "Address": address, "Port": 80, "Tags": ["a", "b"], "Meta": {"v.x": "2"},
            "Namespace": "ns", "Partition": "p"},
        "Checks": [{"CheckID": "c", "Status": "passing"}, {"CheckID": "d", "Status": "warning"}],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_followed_with_all_their_labels() {
    let agent = Agent::start().await;
    agent.put("/v1/catalog/services", json!({"web": ["a", "b"], "db": ["b"], "other": []}));
    agent.put("/v1/health/service/web", json!([instance(""), instance("fd00::2")]));
    agent.put("/v1/health/service/db", json!([instance("10.0.0.3")]));
    let config = ConsulConfig {
        tags: vec!["b".into()],
        token: Some(Secret::new("t0ken")),
        node_meta: BTreeMap::from([("os".to_owned(), "linux".to_owned())]),
        filter: "x == y".into(),
        health_filter: "z == 1".into(),
        namespace: "ns".into(),
        ..agent.config()
    };
    let (manager, registry) = manager();
    let mut receiver =
        manager.apply(vec![("job".to_owned(), vec![DiscoveryConfig::Consul(Box::new(config))])]).remove(0).1;
    let groups = wait(&mut receiver, |groups| groups.len() == 2).await;
    assert_eq!(addresses(&groups), ["10.0.0.1:80", "10.0.0.3:80", "[fd00::2]:80"]);
    let web = groups.iter().find(|group| &*group.source == "web").unwrap();
    let shared: Vec<_> = web.labels.iter().collect();
    assert_eq!(shared, [("__meta_consul_dc", "dc7"), ("__meta_consul_service", "web")]);
    let own: Vec<_> = web.targets[0].iter().collect();
    let wanted = [
        ("__address__", "10.0.0.1:80"),
        ("__meta_consul_address", "10.0.0.1"),
        ("__meta_consul_health", "warning"),
        ("__meta_consul_metadata_rack_id", "r1"),
        ("__meta_consul_namespace", "ns"),
        ("__meta_consul_node", "n1"),
        ("__meta_consul_partition", "p"),
        ("__meta_consul_service_address", ""),
        ("__meta_consul_service_id", "web-1"),
        ("__meta_consul_service_metadata_v_x", "2"),
        ("__meta_consul_service_port", "80"),
        ("__meta_consul_tagged_address_wan", "1.2.3.4"),
        ("__meta_consul_tags", ",a,b,"),
    ];
    assert_eq!(own, wanted);
    let catalog = &agent.requests("/v1/catalog/services")[0];
    for part in [
        "x-consul-token: t0ken",
        "stale=",
        "node-meta=os%3Alinux",
        "filter=x+%3D%3D+y",
        "ns=ns",
        "wait=120000ms",
    ] {
        assert!(catalog.contains(part), "{part} in {catalog}");
    }
    assert!(!catalog.contains("dc="), "the datacenter is not asked for unless configured");
    let health = &agent.requests("/v1/health/service/web")[0];
    assert!(health.contains("filter=z+%3D%3D+1") && health.contains("tag=b"), "{health}");
    assert!(agent.requests("/v1/health/service/other").is_empty());

    // Away: nothing goes. Back: what changed meanwhile arrives.
    agent.set_down(true);
    while metric(&registry, "prometheus_sd_consul_rpc_failures_total", &[]) < 2.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(receiver.borrow().len(), 2);
    agent.put("/v1/catalog/services", json!({"web": ["b"]}));
    agent.put("/v1/health/service/web", json!([instance("10.0.0.9")]));
    agent.set_down(false);
    wait(&mut receiver, |groups| addresses(groups) == ["10.0.0.9:80"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_services_need_no_catalog() {
    let agent = Agent::start().await;
    agent.put("/pre/v1/health/service/a%2Fb", json!([instance("")]));
    let config = ConsulConfig {
        services: vec!["a/b".into()],
        datacenter: "dc1".into(),
        path_prefix: "/pre/".into(),
        allow_stale: false,
        tag_separator: "|".into(),
        ..agent.config()
    };
    let (manager, _registry) = manager();
    let mut receiver =
        manager.apply(vec![("job".to_owned(), vec![DiscoveryConfig::Consul(Box::new(config))])]).remove(0).1;
    let groups = wait(&mut receiver, |groups| groups.len() == 1).await;
    assert_eq!(&groups[0].targets[0]["__meta_consul_tags"], "|a|b|");
    assert_eq!(&groups[0].labels["__meta_consul_dc"], "dc1");
    assert!(agent.requests("/v1/catalog").is_empty() && agent.requests("/v1/agent").is_empty());
    let request = &agent.requests("/v1/health")[0];
    assert!(request.contains("dc=dc1") && !request.contains("stale"), "{request}");
    agent.put("/pre/v1/health/service/a%2Fb", json!([instance("10.0.0.5")]));
    wait(&mut receiver, |groups| addresses(groups) == ["10.0.0.5:80"]).await;
}

#[test]
fn health_is_the_worst_check() {
    let check = |id: &str, status: &str| Check { id: id.into(), status: status.into() };
    assert_eq!(health(&[]), "passing");
    assert_eq!(health(&[check("a", "passing"), check("b", "critical"), check("c", "warning")]), "critical");
    assert_eq!(health(&[check("_node_maintenance", "critical"), check("b", "critical")]), "maintenance");
    assert_eq!(health(&[check("_service_maintenance:x", "critical")]), "maintenance");
    assert_eq!(health(&[check("a", "odd")]), "");
}
