//! Targets follow the cluster, whatever the connection does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::fake_api::{FakeApi, Random};
use crate::discovery::config::{DiscoveryConfig, KubernetesConfig, Namespaces, Role, Selector};
use crate::discovery::testing::{PATIENCE, addresses, manager, metric, wait};

fn config(api: &FakeApi, role: Role) -> KubernetesConfig {
    KubernetesConfig { api_server: Some(api.url()), ..KubernetesConfig::in_cluster(role) }
}

fn job(name: &str, config: KubernetesConfig) -> (String, Vec<DiscoveryConfig>) {
    (name.to_owned(), vec![DiscoveryConfig::Kubernetes(config)])
}

fn pod(namespace: &str, name: &str, ip: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}, "status": {"podIP": ip}})
}

fn count(api: &FakeApi, watch: bool, part: &str) -> usize {
    api.requests().iter().filter(|r| r.contains(part) && r.contains("watch=true") == watch).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_change_and_go() {
    let api = FakeApi::start().await;
    for i in 0..10 {
        api.put("pods", pod("a", &format!("p{i}"), &format!("10.0.0.{i}")));
    }
    let (manager, registry) = manager();
    let mut receiver = manager.apply(vec![job("pods", config(&api, Role::Pod))]).remove(0).1;
    let groups = wait(&mut receiver, |groups| groups.len() == 10).await;
    assert_eq!(&*groups[0].source, "pod/a/p0");
    assert!(count(&api, false, "/api/v1/pods") >= 4, "the list came in pages: {:?}", api.requests());

    api.put("pods", pod("b", "new", "10.0.1.1"));
    api.put("pods", pod("a", "p0", "10.0.2.2"));
    api.delete("pods", "a/p1");
    let done = |groups: &crate::target_group::TargetGroups| {
        let found = addresses(groups);
        found.contains(&"10.0.1.1:80".to_owned())
            && found.contains(&"10.0.2.2:80".to_owned())
            && !found.contains(&"10.0.0.1:80".to_owned())
    };
    let after = wait(&mut receiver, done).await;
    assert_eq!(after.len(), 10);
    // What did not change is the very same group.
    let unchanged = groups.iter().find(|group| &*group.source == "pod/a/p5").unwrap();
    assert!(after.iter().any(|group| Arc::ptr_eq(group, unchanged)));
    let events = |event| {
        metric(&registry, "prometheus_sd_kubernetes_events_total", &[("role", "pod"), ("event", event)])
    };
    assert_eq!((events("add"), events("update"), events("delete")), (11.0, 1.0, 1.0));
    assert_eq!(metric(&registry, "prometheus_sd_kubernetes_failures_total", &[]), 0.0);
    let of = |name: &str, label: (&str, &str)| metric(&registry, name, &[label]);
    let queue = ("queue_name", "pod");
    assert_eq!(of("prometheus_sd_kubernetes_workqueue_items_total", queue), 13.0);
    assert_eq!(of("prometheus_sd_kubernetes_workqueue_depth", queue), 0.0);
    // Pages of the list and one watch, of which the watch has no duration.
    let asked = of("prometheus_sd_kubernetes_http_request_total", ("status_code", "200"));
    assert!(asked >= 5.0, "{asked}");
    // Waiting for a pod that loses its address: it exists, but is no target.
    api.put("pods", pod("b", "new", ""));
    wait(&mut receiver, |groups| groups.len() == 9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_away_takes_nothing_with_it() {
    let api = FakeApi::start().await;
    api.put("pods", pod("a", "p", "10.0.0.1"));
    let (manager, registry) = manager();
    let mut receiver = manager.apply(vec![job("pods", config(&api, Role::Pod))]).remove(0).1;
    wait(&mut receiver, |groups| groups.len() == 1).await;
    api.set_down(true);
    api.put("pods", pod("a", "q", "10.0.0.2"));
    api.delete("pods", "a/p");
    while metric(&registry, "prometheus_sd_kubernetes_failures_total", &[]) < 3.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(addresses(&receiver.borrow().clone()), ["10.0.0.1:80"]);
    api.set_down(false);
    wait(&mut receiver, |groups| addresses(groups) == ["10.0.0.2:80"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_connection_is_resumed_and_not_listed_again() {
    let api = FakeApi::start().await;
    api.put("pods", pod("a", "p0", "10.0.0.0"));
    let (manager, _registry) = manager();
    let mut receiver = manager.apply(vec![job("pods", config(&api, Role::Pod))]).remove(0).1;
    wait(&mut receiver, |groups| groups.len() == 1).await;
    let lists = count(&api, false, "/pods");
    for i in 1..5 {
        api.disconnect();
        api.put("pods", pod("a", &format!("p{i}"), &format!("10.0.0.{i}")));
        wait(&mut receiver, |groups| groups.len() == i + 1).await;
    }
    assert_eq!(count(&api, false, "/pods"), lists);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_too_old_leads_to_a_new_list() {
    for as_status in [true, false] {
        let api = FakeApi::start().await;
        api.put("pods", pod("a", "stays", "10.0.0.1"));
        api.put("pods", pod("a", "goes", "10.0.0.2"));
        let (manager, _registry) = manager();
        let mut receiver = manager.apply(vec![job("pods", config(&api, Role::Pod))]).remove(0).1;
        wait(&mut receiver, |groups| groups.len() == 2).await;
        // Both changes are lost to the watch.
        api.set_down(true);
        api.put("pods", pod("a", "comes", "10.0.0.3"));
        api.delete("pods", "a/goes");
        api.compact(as_status);
        api.set_down(false);
        let groups = wait(&mut receiver, |groups| addresses(groups) == ["10.0.0.1:80", "10.0.0.3:80"]).await;
        assert_eq!(groups.len(), 2, "as status: {as_status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn being_refused_is_survived() {
    let api = FakeApi::start().await;
    api.put("pods", pod("a", "p", "10.0.0.1"));
    api.set_status(Some(403));
    let (manager, registry) = manager();
    let mut receiver = manager.apply(vec![job("pods", config(&api, Role::Pod))]).remove(0).1;
    while metric(&registry, "prometheus_sd_kubernetes_failures_total", &[]) < 2.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    api.set_status(None);
    wait(&mut receiver, |groups| groups.len() == 1).await;
}

/// One seed of the storm; a failure prints it.
async fn storm(seed: u64) {
    let api = FakeApi::start().await;
    let (manager, _registry) = manager();
    let mut random = Random::new(seed);
    let mut expect = BTreeSet::new();
    api.put("pods", pod("a", "rock", "10.9.9.9"));
    let rock = "10.9.9.9:80".to_owned();
    let mut receiver = manager.apply(vec![job("pods", config(&api, Role::Pod))]).remove(0).1;
    wait(&mut receiver, |groups| groups.len() == 1).await;
    api.set_faults(Some(seed));
    for step in 0..150 {
        let i = random.below(20);
        let (name, ip) = (format!("p{i}"), format!("10.0.{i}.{}", random.below(3)));
        expect.retain(|(known, _)| *known != name);
        if random.below(3) == 0 {
            api.delete("pods", &format!("a/{name}"));
        } else {
            api.put("pods", pod("a", &name, &ip));
            expect.insert((name, format!("{ip}:80")));
        }
        if random.below(40) == 0 {
            api.compact(random.below(2) == 0);
        }
        if step % 4 == 0 {
            tokio::time::sleep(Duration::from_millis(random.below(10))).await;
        }
        assert!(
            addresses(&receiver.borrow_and_update().clone()).contains(&rock),
            "seed {seed}: a target was lost"
        );
    }
    let mut wanted: Vec<String> = expect.into_iter().map(|(_, address)| address).collect();
    wanted.push(rock);
    wanted.sort();
    // Even with the faults going on.
    let found = tokio::time::timeout(PATIENCE, receiver.wait_for(|groups| addresses(groups) == wanted)).await;
    assert!(found.is_ok(), "seed {seed}: wanted {wanted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storms_of_faults_end_with_the_right_targets() {
    futures_util::future::join_all((1..=6).map(storm)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_share_watches_and_a_reload_keeps_them() {
    let api = FakeApi::start().await;
    api.put("pods", pod("a", "p", "10.0.0.1"));
    let (manager, _registry) = manager();
    // Equal settings share a provider; different roles share the watches they have in common.
    let one = job("one", config(&api, Role::Pod));
    let two = job("two", config(&api, Role::Pod));
    let slices = job("slices", config(&api, Role::EndpointSlice));
    let mut with_nodes = config(&api, Role::Pod);
    with_nodes.attach_metadata.namespace = true;
    let nodes = job("nodes", with_nodes);
    let mut receivers = manager.apply(vec![one.clone(), two, slices.clone(), nodes]);
    for i in [0, 1, 3] {
        wait(&mut receivers[i].1, |groups| groups.len() == 1).await;
    }
    let lists = || {
        (count(&api, false, "/pods"), count(&api, false, "/services"), count(&api, false, "/endpointslices"))
    };
    wait_until(|| lists() == (1, 1, 1)).await;
    let mut receivers = manager.apply(vec![one, slices]);
    api.put("pods", pod("a", "q", "10.0.0.2"));
    wait(&mut receivers[0].1, |groups| groups.len() == 2).await;
    assert_eq!(lists(), (1, 1, 1));
    assert_eq!(count(&api, true, "/pods"), 1);
}

async fn wait_until(mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("waited in vain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_and_selectors_reach_the_server() {
    let api = FakeApi::start().await;
    for namespace in ["a", "b", "c"] {
        api.put("pods", pod(namespace, "p", "10.0.0.1"));
    }
    let mut config = config(&api, Role::Pod);
    config.namespaces = Namespaces { own_namespace: false, names: vec!["a".into(), "c".into(), "a".into()] };
    config.selectors = vec![Selector {
        role: Role::Pod,
        label: "app in (x,y)".into(),
        field: "status.phase=Running".into(),
    }];
    let (manager, _registry) = manager();
    let mut receiver = manager.apply(vec![job("pods", config)]).remove(0).1;
    let groups = wait(&mut receiver, |groups| groups.len() == 2).await;
    assert_eq!(groups.iter().map(|group| &*group.source).collect::<Vec<_>>(), ["pod/a/p", "pod/c/p"]);
    wait_until(|| count(&api, true, "/pods") == 2).await;
    for request in api.requests() {
        assert!(request.starts_with("/api/v1/namespaces/"), "{request}");
        let query = request.split_once('?').unwrap().1;
        let query: std::collections::BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
        assert_eq!(query["labelSelector"], "app in (x,y)");
        assert_eq!(query["fieldSelector"], "status.phase=Running");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubeconfig_file_may_come_late() {
    let api = FakeApi::start().await;
    api.put("pods", pod("a", "p", "10.0.0.1"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let config = KubernetesConfig {
        kubeconfig_file: Some(path.to_string_lossy().into_owned()),
        ..KubernetesConfig::in_cluster(Role::Pod)
    };
    let (manager, registry) = manager();
    let mut receiver = manager.apply(vec![job("pods", config)]).remove(0).1;
    while metric(&registry, "prometheus_sd_kubernetes_failures_total", &[]) == 0.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": api.url()}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    wait(&mut receiver, |groups| groups.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_follows_everything_it_is_made_of() {
    let api = FakeApi::start().await;
    let service = |tag: &str| json!({"metadata": {"name": "s", "namespace": "a", "labels": {"tag": tag}}});
    let slice = json!({"metadata": {"name": "s-1", "namespace": "a", "labels": {"kubernetes.io/service-name": "s"}},
        "ports": [{"port": 80}],
        "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "namespace": "a", "name": "p"}}]});
    api.put("endpointslices", slice);
    let (manager, _registry) = manager();
    let mut receiver = manager.apply(vec![job("slices", config(&api, Role::EndpointSlice))]).remove(0).1;
    wait(&mut receiver, |groups| groups.len() == 1).await;
    let label = |groups: &crate::target_group::TargetGroups, name: &str| {
        let name = format!("__meta_kubernetes_{name}");
        groups[0].targets[0].get(&name).or_else(|| groups[0].labels.get(&name)).map(str::to_owned)
    };
    api.put("services", service("one"));
    wait(&mut receiver, |groups| label(groups, "service_label_tag").as_deref() == Some("one")).await;
    api.put("services", service("two"));
    wait(&mut receiver, |groups| label(groups, "service_label_tag").as_deref() == Some("two")).await;
    let mut behind = pod("a", "p", "10.0.0.1");
    api.put("pods", behind.clone());
    wait(&mut receiver, |groups| label(groups, "pod_name").as_deref() == Some("p")).await;
    behind["status"]["phase"] = json!("Failed");
    api.put("pods", behind);
    wait(&mut receiver, |groups| label(groups, "pod_phase").as_deref() == Some("Failed")).await;
    api.delete("services", "a/s");
    api.delete("pods", "a/p");
    wait(&mut receiver, |groups| {
        label(groups, "service_label_tag").is_none() && label(groups, "pod_name").is_none()
    })
    .await;
    assert_eq!(addresses(&receiver.borrow().clone()), ["10.0.0.1:80"]);
}

/// Prints how long a change takes to arrive; the limit is loose because test machines are busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_arrive_soon() {
    let api = FakeApi::start().await;
    let (manager, _registry) = manager();
    let mut receiver = manager.apply(vec![job("pods", config(&api, Role::Pod))]).remove(0).1;
    let mut slowest = Duration::ZERO;
    for i in 0..40 {
        if i >= 20 {
            api.disconnect();
        }
        api.put("pods", pod("a", &format!("p{i}"), "10.0.0.1"));
        let begun = tokio::time::Instant::now();
        wait(&mut receiver, |groups| groups.len() == i + 1).await;
        slowest = slowest.max(begun.elapsed());
    }
    eprintln!("slowest change: {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}
