//! Relabeling of discovered targets: 50,000 endpoints of a cluster through the rules of one of twenty jobs, as operators
//! generate them from a monitor of a large chart: some twenty rules per job, most of which look at one label.
//!
//! Prints microseconds per target, best of five, for targets that are kept and for those that the job's first rules drop, which
//! are most; and the number of labels that came out, so that a wrong result shows.
//!
//! Exits at once without `--bench`; with `--test` it takes a hundredth of the targets.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use model::LabelsBuilder;
use model::regexp::Regexp;
use model::relabel::{RelabelAction, RelabelRule, process};

const TARGETS: usize = 50_000;
const JOBS: usize = 20;
const ROUNDS: usize = 5;

fn rule(sources: &[&str], regex: &str, target: &str, replacement: &str) -> RelabelRule {
    RelabelRule {
        source_labels: sources.iter().map(|s| (*s).to_owned()).collect(),
        regex: Regexp::new(regex).expect("valid"),
        target_label: target.into(),
        replacement: replacement.into(),
        ..RelabelRule::default()
    }
}

fn filter(action: RelabelAction, sources: &[&str], regex: &str) -> RelabelRule {
    RelabelRule { action, ..rule(sources, regex, "", "$1") }
}

/// The rules of one job.
fn rules(job: usize) -> Vec<RelabelRule> {
    use RelabelAction::{Drop, HashMod, Keep, LabelMap};
    const M: &str = "__meta_kubernetes_";
    let m = |name: &str| format!("{M}{name}");
    let app = m("service_label_app_kubernetes_io_name");
    let present = m("service_labelpresent_app_kubernetes_io_name");
    let (kind, name) = (m("endpoint_address_target_kind"), m("endpoint_address_target_name"));
    vec![
        rule(&["job"], "(.*)", "__tmp_prometheus_job_name", "$1"),
        filter(Keep, &[&app, &present], &format!("(app-{job});true")),
        filter(Keep, &[&m("endpoint_port_name")], "http-metrics"),
        rule(&[&kind, &name], "Node;(.*)", "node", "${1}"),
        rule(&[&kind, &name], "Pod;(.*)", "pod", "${1}"),
        rule(&[&m("namespace")], "(.*)", "namespace", "$1"),
        rule(&[&m("service_name")], "(.*)", "service", "$1"),
        rule(&[&m("pod_name")], "(.*)", "pod", "$1"),
        rule(&[&m("pod_container_name")], "(.*)", "container", "$1"),
        filter(Drop, &[&m("pod_phase")], "(Failed|Succeeded)"),
        rule(&[&m("service_name")], "(.*)", "job", "${1}"),
        rule(&[&m("service_label_job")], "(.+)", "job", "${1}"),
        rule(&[], "(.*)", "endpoint", "http-metrics"),
        rule(&[&m("pod_node_name")], "^(.*)$", "nodename", "$1"),
        rule(&[&m("pod_node_name")], r"ip-(\d+)-(\d+)-.*", "rack", "$1-$2"),
        RelabelRule { action: LabelMap, ..rule(&[], &format!("{M}pod_label_(.+)"), "", "$1") },
        rule(&[&m("pod_annotation_prometheus_io_path")], "(.+)", "__metrics_path__", "$1"),
        rule(&["__address__", "__tmp_hash"], "(.+);", "__tmp_hash", "$1"),
        RelabelRule { action: HashMod, modulus: 1, ..rule(&["__tmp_hash"], "(.*)", "__tmp_hash", "$1") },
        filter(Keep, &["__tmp_hash"], "0"),
    ]
}

/// Labels of an endpoint before relabeling.
fn discovered(i: usize) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut put = |name: &str, value: String| pairs.push((name.to_owned(), value));
    put("__address__", format!("10.{}.{}.{}:9090", (i >> 16) & 255, (i >> 8) & 255, i & 255));
    put("__metrics_path__", "/metrics".into());
    put("__scheme__", "http".into());
    put("__scrape_interval__", "30s".into());
    put("__scrape_timeout__", "10s".into());
    put("job", "serviceMonitor/monitoring/app/0".into());
    let node = format!("ip-10-{}-{}-7.eu-central-1.compute.internal", (i % 5_000) >> 8, i % 256);
    for (name, value) in [
        ("endpoint_address_target_kind", "Pod".to_owned()),
        ("endpoint_address_target_name", format!("app-{}-7c9d8b6f5-{i:05x}", i % JOBS)),
        ("endpoint_port_name", "http-metrics".into()),
        ("endpoint_ready", "true".into()),
        ("namespace", format!("team-{}", i % 200)),
        ("pod_annotation_checksum_config", format!("{i:064x}")),
        ("pod_annotation_prometheus_io_scrape", "true".into()),
        ("pod_container_name", "app".into()),
        ("pod_container_image", "registry.example.com/shop/app:1.2.3".into()),
        ("pod_host_ip", "10.1.2.3".into()),
        ("pod_ip", format!("10.{}.{}.{}", (i >> 16) & 255, (i >> 8) & 255, i & 255)),
        ("pod_name", format!("app-{}-7c9d8b6f5-{i:05x}", i % JOBS)),
        ("pod_node_name", node),
        ("pod_phase", "Running".into()),
        ("pod_ready", "true".into()),
        ("pod_uid", format!("8f0f3b1e-77aa-4c5d-9e2b-{i:012x}")),
        ("service_label_app_kubernetes_io_name", format!("app-{}", i % JOBS)),
        ("service_labelpresent_app_kubernetes_io_name", "true".into()),
        ("service_name", format!("app-{}", i % JOBS)),
    ] {
        put(&format!("__meta_kubernetes_{name}"), value);
    }
    for name in ["instance", "version", "component", "part_of", "managed_by"] {
        put(&format!("__meta_kubernetes_pod_label_app_kubernetes_io_{name}"), format!("{name}-{}", i % 50));
        put(&format!("__meta_kubernetes_pod_labelpresent_app_kubernetes_io_{name}"), "true".into());
    }
    pairs.sort();
    pairs
}

/// Microseconds per target, best of some rounds, and labels of what was kept.
fn measure(rules: &[RelabelRule], targets: &[&Vec<(String, String)>]) -> (f64, usize) {
    let mut builder = LabelsBuilder::new();
    let (mut best, mut labels) = (f64::INFINITY, 0);
    for _ in 0..ROUNDS {
        labels = 0;
        #[allow(clippy::disallowed_methods, reason = "a bench measures time")]
        let start = Instant::now();
        for target in targets {
            builder.clear();
            for (name, value) in *target {
                builder.set(name, value);
            }
            if process(rules, &mut builder) {
                labels += black_box(&builder).iter().count();
            }
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e6 / targets.len() as f64);
    }
    (best, labels)
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|a| a == "--bench") {
        return;
    }
    let n = if arguments.iter().any(|a| a == "--test") { TARGETS / 100 } else { TARGETS };
    let all: Vec<_> = (0..n).map(discovered).collect();
    let rules = rules(7);
    let (kept, dropped): (Vec<_>, Vec<_>) = all.iter().enumerate().partition(|(i, _)| i % JOBS == 7);
    let of = |part: Vec<(usize, _)>| part.into_iter().map(|(_, target)| target).collect::<Vec<_>>();
    for (what, rules, targets) in [
        ("labels alone, without rules", &[][..], of(kept.clone())),
        ("kept by twenty rules", &rules[..], of(kept)),
        ("dropped by the second rule", &rules[..], of(dropped)),
    ] {
        let (us, labels) = measure(rules, &targets);
        let per_target = labels as f64 / targets.len() as f64;
        writeln!(std::io::stdout(), "relabel/{what:<30} {us:7.2} µs per target, {per_target:.1} labels")
            .expect("stdout");
    }
}
