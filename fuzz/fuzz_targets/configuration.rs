//! Configuration and rule files of any text: refused, or complete; what is printed of one that is accepted is accepted again, and
//! prints the same.
//!
//! Begins with good files, which it writes into the folder that `ALMANAC_FUZZ_SEEDS` names.
#![no_main]
#![allow(dead_code, reason = "a part of the program's source, of which only the parser is asked")]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

/// The program's modules that are looked at.
#[path = "../../src"]
mod almanac {
    pub mod config;
}

// Where the program's macros look for it.
use almanac::config;
use config::{Config, rules};

const RULES: &str = "groups:\n- name: g\n  interval: 1m\n  limit: 5\n  labels: {a: b}\n  rules:\n  - record: a:b\n    expr: sum by (a) (b)\n\
  - alert: A\n    expr: up == 0\n    for: 5m\n    keep_firing_for: 1m\n    annotations: {t: '{{ $value | humanize }}'}\n";
const JOBS: &str = "global: {scrape_interval: 15s, external_labels: {a: b}}\nscrape_configs:\n- job_name: a\n  scheme: https\n\
  static_configs: [{targets: ['a:1'], labels: {b: c}}]\n  file_sd_configs: [{files: ['*.json'], refresh_interval: 1m}]\n\
  http_sd_configs: [{url: 'http://a/b', basic_auth: {username: u, password: p}}]\n\
  dns_sd_configs: [{names: [a.b], type: A, port: 1}]\n  consul_sd_configs: [{server: 'a:1', services: [b], tags: [c]}]\n\
  kubernetes_sd_configs: [{role: pod, namespaces: {names: [n]}, selectors: [{role: pod, label: 'a=b'}], attach_metadata: {node: true}}]\n\
  relabel_configs: [{source_labels: [a, b], separator: ';', regex: '(.*)', target_label: c, replacement: '$1', action: replace}]\n\
  metric_relabel_configs: [{action: hashmod, source_labels: [a], target_label: t, modulus: 8}]\n  sample_limit: 5\n  body_size_limit: 1MB\n\
  tls_config: {insecure_skip_verify: true, min_version: TLS12}\n  scrape_protocols: [PrometheusProto, OpenMetricsText1.0.0]\n\
remote_write: [{url: 'http://a/b', queue_config: {capacity: 10}, oauth2: {client_id: i, client_secret: s, token_url: 'http://t'}}]\n\
remote_read: [{url: 'http://a/b', read_recent: true, required_matchers: {a: b}}]\n\
alerting: {alertmanagers: [{static_configs: [{targets: ['a:1']}]}], alert_relabel_configs: [{regex: a, action: labeldrop}]}\n\
tracing: {endpoint: 'a:1', client_type: http, sampling_fraction: 0.5, headers: {a: b}, compression: gzip, timeout: 5s}\n\
storage: {tsdb: {out_of_order_time_window: 30m}, exemplars: {max_exemplars: 5}}\nrule_files: ['a/*.yml']\nlongterm: {url: 'http://a'}\n";

fn write_seeds() {
    if let Some(folder) = std::env::var_os("ALMANAC_FUZZ_SEEDS").map(std::path::PathBuf::from) {
        for (name, text) in [("rules", RULES), ("jobs", JOBS)] {
            std::fs::write(folder.join(format!("seed-{name}")), text).expect("the folder is there");
        }
    }
}

fuzz_target!(init: write_seeds(), |data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let folder = Path::new("/folder");
    if let Ok(config) = Config::parse(text, folder) {
        let _ = config.settings();
        let printed = config.to_yaml();
        // Names of environment variables stand for something else each time.
        if !text.contains('$') {
            match Config::parse(&printed, folder) {
                Ok(again) => assert_eq!(again.to_yaml(), printed),
                Err(e) => panic!("what is printed is refused: {e:?}\n{printed}"),
            }
        }
    }
    let defaults = Config::parse("", folder).expect("defaults").rule_defaults();
    for unknown in [rules::UnknownFields::Refuse, rules::UnknownFields::Ignore] {
        if let Err(problems) = rules::parse(text, "f", &defaults, unknown) {
            assert!(!problems.is_empty());
        }
    }
});
