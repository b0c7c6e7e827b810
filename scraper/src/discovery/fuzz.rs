//! Foreign answers of every mechanism, down to target groups and what becomes of their targets.

use std::sync::Arc;

use super::config::DnsRecord;
use super::target_file::{self, Format};
use super::{consul, dns, kubernetes};
use crate::config::ScrapeConfig;
use crate::preview::preview;
use crate::target_group::TargetGroup;

/// Good bytes.
pub(crate) fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "target_groups" => [
            r#"[{"targets": ["a:1", "[::1]:2"], "labels": {"__scheme__": "https", "x": ""}}, {"targets": ["b"]}]"#,
            "- targets: ['a:1', b]\n  labels: {x: y, __scrape_interval__: 1m}\n- targets: &t [c]\n- targets: *t\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into(),
        "kubernetes" => vec![kubernetes::fuzz::SEED.as_bytes().to_vec()],
        "consul" => [
            r#"[{"Node": {"Node": "n", "Address": "10.0.0.1", "Meta": {"a-b": "c"}, "TaggedAddresses": {"lan": "1.1.1.1"}},
               "Service": {"ID": "i", "Address": "", "Port": 80, "Tags": ["a", "b"], "Meta": {"k": "v"}, "Namespace": "d"},
               "Checks": [{"CheckID": "c", "Status": "passing"}, {"CheckID": "_node_maintenance", "Status": "critical"}]}]"#,
            r#"{"web": ["a", "b"], "db": null}"#,
        ]
        .map(|text| text.as_bytes().to_vec())
        .into(),
        _ => dns_seeds(),
    }
}

const NAME: &str = "a.example.";

/// An SRV and an MX record after the question for them, names by pointers.
fn dns_seeds() -> Vec<Vec<u8>> {
    let records: [(DnsRecord, u8, &[u8]); 3] = [
        (DnsRecord::Srv, 33, b"\0\x01\0\x02\x1f\x90\x01b\xc0\x0c"),
        (DnsRecord::Mx, 15, b"\0\x0a\x01m\xc0\x0e"),
        (DnsRecord::A, 1, b"\x0a\0\0\x01"),
    ];
    let answers = records.into_iter().enumerate().map(|(n, (record, kind, data))| {
        let question = dns::question_of(NAME, record);
        let mut out = question.clone();
        (out[2], out[3], out[7], out[11]) = (0x81, 0x80, 1, 0);
        out.truncate(12 + NAME.len() + 1 + 4);
        out.extend_from_slice(&[0xc0, 0x0c, 0, kind, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        out.extend_from_slice(data);
        out.insert(0, n as u8);
        out
    });
    answers.collect()
}

/// Reads the bytes as a mechanism does.
pub(crate) fn check(target: &str, data: &[u8]) {
    let groups = match target {
        "target_groups" => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            let read =
                [Format::Json, Format::Yaml].map(|f| target_file::parse(text, f, "o", "__meta_origin"));
            read.into_iter().flat_map(Result::unwrap_or_default).collect()
        }
        "kubernetes" => kubernetes::fuzz::groups(data),
        "consul" => consul::groups_of(data).into_iter().collect(),
        _ => {
            let Some((choice, message)) = data.split_first() else { return };
            let record = [DnsRecord::Srv, DnsRecord::Mx, DnsRecord::A, DnsRecord::Aaaa, DnsRecord::Ns]
                [usize::from(choice % 5)];
            dns::group_of(NAME, record, message).into_iter().collect()
        }
    };
    become_targets(groups);
}

/// Labels of targets are valid, whatever they were found with.
fn become_targets(groups: Vec<TargetGroup>) {
    let config = Arc::new(ScrapeConfig { job_name: "j".into(), ..ScrapeConfig::default() });
    let groups: Vec<Arc<TargetGroup>> = groups.into_iter().map(Arc::new).collect();
    for target in preview(&config, &groups) {
        if target.error.is_none() {
            assert!(!target.labels.value("__address__").is_empty(), "{:?}", target.labels);
            assert!(!target.labels.value("instance").is_empty(), "{:?}", target.labels);
        }
    }
}
