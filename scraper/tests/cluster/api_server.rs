//! A Kubernetes API server large enough to measure with: lists in pages, watches with bookmarks, changes at a steady
//! rate, connections that break at random, and versions that expire.
//!
//! It runs in a process of its own, so that what it needs is not counted as discovery's. Pods are not stored but
//! written anew from their number and revision whenever someone asks. `/changes` tells the truth to the test: a line
//! with number, revision and whether the pod exists, for each change as it happens.
//!
//! Plain HTTP/1.1, a thread and a connection for each request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::Size;

/// Objects in a page, whatever the client asks for.
const PAGE_MAX: usize = 500;

struct Shared {
    size: Size,
    state: Mutex<State>,
    changed: Condvar,
    random: AtomicU64,
}

struct State {
    version: u64,
    /// Watches from a version below this are refused with 410.
    oldest: u64,
    /// Revision of each pod; an odd one that is divisible by 7 means that the pod is away.
    revisions: Vec<u32>,
    /// (version, pod), oldest first.
    log: Vec<(u64, usize)>,
    /// Raised to end all watches.
    epoch: u64,
}

/// Whether a pod of this revision exists.
pub(crate) fn exists(revision: u32) -> bool {
    !(revision % 2 == 1 && revision.is_multiple_of(7))
}

/// `NAMESPACE/NAME` of a pod.
pub(crate) fn pod_key(pod: usize) -> String {
    format!("team-{}/{}", pod % 200, pod_name(pod))
}

fn pod_name(pod: usize) -> String {
    format!("{}-7c9d8b6f5{:x}-{:05x}", workload(pod), pod % 13, pod)
}

fn workload(pod: usize) -> String {
    format!("service-{}-backend", pod / 20)
}

/// Address of a pod, which changes with its revision.
pub(crate) fn pod_ip(pod: usize, revision: u32) -> String {
    format!("10.{}.{}.{}", (pod >> 8) & 0xff, pod & 0xff, revision % 250 + 1)
}

/// Serves until the process is killed; prints the port first.
pub(crate) fn serve(size: Size) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    writeln!(std::io::stdout(), "{port}").expect("the test reads it");
    let state = State { version: 1000, oldest: 0, revisions: vec![0; size.pods], log: Vec::new(), epoch: 0 };
    let random = AtomicU64::new(size.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let shared = Arc::new(Shared { size, state: Mutex::new(state), changed: Condvar::new(), random });
    for stream in listener.incoming().flatten() {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || {
            // A client that went away is no news.
            let _ = answer(stream, &shared);
        });
    }
}

impl Shared {
    fn below(&self, n: u64) -> u64 {
        let step = |mut x: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^ x << 17
        };
        let before = self.random.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |x| Some(step(x)));
        (before.unwrap_or(1) >> 11) % n.max(1)
    }
}

fn answer(stream: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    let mut target = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if target.is_empty() {
            target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        }
        if line == "\r\n" {
            break;
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    match path {
        "/changes" => return tell_changes(out, shared),
        "/expire" => {
            let mut state = shared.state.lock().expect("no panics");
            state.oldest = state.version + 1;
            state.version += 2;
            state.epoch += 1;
            shared.changed.notify_all();
            return respond(&mut out, "{}");
        }
        _ => {}
    }
    let plural = path.rsplit('/').next().unwrap_or_default();
    if query.contains_key("watch") {
        return watch(
            out,
            shared,
            plural,
            query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0),
        );
    }
    // A list is one version however many pages it has: changes since its first page come by the watch.
    let token = query.get("continue").and_then(|token| token.split_once('-'));
    let start: usize = token.and_then(|(start, _)| start.parse().ok()).unwrap_or(0);
    let listed: Option<u64> = token.and_then(|(_, version)| version.parse().ok());
    let total = if plural == "nodes" { shared.size.nodes } else { shared.size.pods };
    let end = (start + PAGE_MAX).min(total);
    let (version, revisions) = {
        let state = shared.state.lock().expect("no panics");
        let revisions = if plural == "nodes" { Vec::new() } else { state.revisions[start..end].to_vec() };
        (state.version, revisions)
    };
    let version = listed.unwrap_or(version);
    let mut body = format!(
        "{{\"kind\":\"List\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"{version}\"{}}},\"items\":[",
        if end < total { format!(",\"continue\":\"{end}-{version}\"") } else { String::new() }
    );
    let mut first = true;
    for i in start..end {
        let revision = revisions.get(i - start).copied().unwrap_or(0);
        if !exists(revision) {
            continue;
        }
        if !std::mem::take(&mut first) {
            body.push(',');
        }
        if plural == "nodes" {
            write_node(&mut body, i)
        } else {
            write_pod(&mut body, i, revision, version, &shared.size)
        }
    }
    body.push_str("]}");
    respond(&mut out, &body)
}

fn respond(out: &mut TcpStream, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    out.write_all(head.as_bytes())?;
    out.write_all(body.as_bytes())
}

fn chunk(out: &mut TcpStream, line: &str) -> std::io::Result<()> {
    out.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())
}

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
const GONE: &str = "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":\"too old\",\"reason\":\"Expired\",\"code\":410}}\n";

fn watch(mut out: TcpStream, shared: &Shared, plural: &str, from: u64) -> std::io::Result<()> {
    out.set_nodelay(true)?;
    out.write_all(STREAM_HEAD)?;
    let mut cursor = from;
    let epoch = shared.state.lock().expect("no panics").epoch;
    // How many wake-ups this connection has to live; the last one is cut in the middle of a line.
    let mut life = 1 + shared.below(shared.size.connection_life);
    loop {
        let (events, version) = {
            let state = shared.state.lock().expect("no panics");
            let (state, _) = shared
                .changed
                .wait_timeout_while(state, Duration::from_millis(500), |state| {
                    state.version == cursor && state.epoch == epoch
                })
                .expect("no panics");
            if cursor < state.oldest {
                drop(state);
                return chunk(&mut out, GONE);
            }
            if state.epoch != epoch {
                return Ok(());
            }
            let first = state.log.partition_point(|(version, _)| *version <= cursor);
            let events: Vec<(u64, usize, u32)> = state.log[first..]
                .iter()
                .map(|(version, pod)| (*version, *pod, state.revisions[*pod]))
                .collect();
            (events, state.version)
        };
        life = life.saturating_sub(1);
        if plural == "pods" {
            for (version, pod, revision) in events {
                let kind = if exists(revision) { "MODIFIED" } else { "DELETED" };
                let mut line = format!("{{\"type\":\"{kind}\",\"object\":");
                write_pod(&mut line, pod, revision, version, &shared.size);
                line.push_str("}\n");
                if life == 0 {
                    let half = &line[..line.len() / 2];
                    return out.write_all(format!("{:x}\r\n{half}", line.len()).as_bytes());
                }
                chunk(&mut out, &line)?;
            }
        }
        if life == 0 {
            return Ok(());
        }
        if version > cursor {
            cursor = version;
            let bookmark = format!(
                "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"X\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"{version}\"}}}}}}\n"
            );
            chunk(&mut out, &bookmark)?;
        }
    }
}

/// Changes pods at the configured rate for as long as the listener listens.
fn tell_changes(mut out: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    out.set_nodelay(true)?;
    out.write_all(STREAM_HEAD)?;
    loop {
        std::thread::sleep(shared.size.between_changes);
        let pod = shared.below(shared.size.pods as u64) as usize;
        let line = {
            let mut state = shared.state.lock().expect("no panics");
            state.version += 1;
            state.revisions[pod] += 1;
            let version = state.version;
            state.log.push((version, pod));
            let revision = state.revisions[pod];
            format!("{pod} {revision} {}\n", exists(revision))
        };
        shared.changed.notify_all();
        chunk(&mut out, &line)?;
    }
}

/// A pod as a mid-sized cluster has them: a side car, a dozen labels and annotations, and the managed fields that are
/// half of the bytes on the wire.
fn write_pod(out: &mut String, pod: usize, revision: u32, version: u64, size: &Size) {
    let (name, workload, namespace) = (pod_name(pod), workload(pod), format!("team-{}", pod % 200));
    let node = format!(
        "ip-10-1-{}-{}.eu-central-1.compute.internal",
        pod % size.nodes / 250,
        pod % size.nodes % 250
    );
    let ip = pod_ip(pod, revision);
    let hash = format!("{:064x}", (pod as u128 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C834));
    let part_of = pod / 200;
    out.push_str(&format!(
        concat!(
            r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"{namespace}","#,
            r#""uid":"8f0f3b1e-77aa-4c5d-9e2b-{pod:012x}","resourceVersion":"{version}","#,
            r#""generateName":"{workload}-7c9d8b6f5-","creationTimestamp":"2026-01-01T00:00:00Z","#,
            r#""labels":{{"app.kubernetes.io/name":"{workload}","app.kubernetes.io/instance":"{workload}-prod","#,
            r#""app.kubernetes.io/version":"1.{part_of}.3","app.kubernetes.io/component":"backend","#,
            r#""app.kubernetes.io/part-of":"shop-{part_of}","app.kubernetes.io/managed-by":"Helm","#,
            r#""helm.sh/chart":"backend-2.{part_of}.0","pod-template-hash":"7c9d8b6f5","team":"{namespace}"}},"#,
            r#""annotations":{{"prometheus.io/scrape":"true","prometheus.io/port":"8080","prometheus.io/path":"/metrics","#,
            r#""checksum/config":"{hash}","kubectl.kubernetes.io/restartedAt":"2026-01-01T00:00:00Z","#,
            r#""cni.projectcalico.org/podIP":"{ip}/32"}},"#,
            r#""ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"{workload}-7c9d8b6f5","uid":"x","controller":true}}],"#,
            r#""managedFields":[{{"manager":"kube-controller-manager","operation":"Update","fieldsV1":{{"f:metadata":{{"f:labels":{{"f:a":{{}},"f:b":{{}},"f:c":{{}},"f:d":{{}}}}}},"f:spec":{{"f:containers":{{"k":{{"f:env":{{}},"f:image":{{}},"f:ports":{{}},"f:resources":{{}}}}}}}}}}}}]}},"#,
            r#""spec":{{"nodeName":"{node}","serviceAccountName":"default","volumes":[{{"name":"v","configMap":{{"name":"c"}}}}],"#,
            r#""containers":[{{"name":"backend","image":"registry.example.com/shop/{workload}:1.{part_of}.3","#,
            r#""env":[{{"name":"A","value":"1"}},{{"name":"B","value":"2"}},{{"name":"C","value":"3"}}],"resources":{{"limits":{{"memory":"1Gi"}}}},"#,
            r#""ports":[{{"name":"metrics","containerPort":8080,"protocol":"TCP"}},{{"name":"http","containerPort":80,"protocol":"TCP"}}]}},"#,
            r#"{{"name":"proxy","image":"registry.example.com/mesh/proxy:3.1.4","ports":[{{"name":"admin","containerPort":15000,"protocol":"TCP"}}]}}]}},"#,
            r#""status":{{"phase":"Running","podIP":"{ip}","hostIP":"10.1.{host}.7","podIPs":[{{"ip":"{ip}"}}],"#,
            r#""conditions":[{{"type":"Initialized","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}},"#,
            r#"{{"type":"Ready","status":"True"}},{{"type":"ContainersReady","status":"True"}},{{"type":"PodScheduled","status":"True"}}],"#,
            r#""containerStatuses":[{{"name":"backend","ready":true,"containerID":"containerd://{hash}"}},{{"name":"proxy","ready":true,"containerID":"containerd://{hash}"}}]}}}}"#,
        ),
        name = name,
        namespace = namespace,
        pod = pod,
        version = version,
        workload = workload,
        part_of = part_of,
        hash = hash,
        ip = ip,
        node = node,
        host = pod % 250,
    ));
}

fn write_node(out: &mut String, node: usize) {
    let name = format!("ip-10-1-{}-{}.eu-central-1.compute.internal", node / 250, node % 250);
    let mut labels = String::new();
    for i in 0..18 {
        labels.push_str(&format!(r#""node.example.com/property-{i}":"value-{}","#, node % (i + 1)));
    }
    out.push_str(&format!(
        concat!(
            r#"{{"metadata":{{"name":"{name}","uid":"n-{node}","resourceVersion":"1","labels":{{{labels}"kubernetes.io/hostname":"{name}"}},"#,
            r#""annotations":{{"node.alpha.kubernetes.io/ttl":"0"}}}},"spec":{{"providerID":"aws:///eu-central-1a/i-{node:017x}"}},"#,
            r#""status":{{"addresses":[{{"type":"InternalIP","address":"10.1.{high}.{low}"}},{{"type":"Hostname","address":"{name}"}}],"#,
            r#""conditions":[{{"type":"MemoryPressure","status":"False"}},{{"type":"DiskPressure","status":"False"}},{{"type":"PIDPressure","status":"False"}},{{"type":"Ready","status":"True"}}],"#,
            r#""daemonEndpoints":{{"kubeletEndpoint":{{"Port":10250}}}}}}}}"#,
        ),
        name = name,
        node = node,
        labels = labels,
        high = node / 250,
        low = node % 250,
    ));
}
