//! Reads target groups from JSON and YAML, as strictly as Prometheus does.
//!
//! A document is a list of groups; a group has `targets`, a list of addresses, and `labels`, a map. Any other key, a
//! null group, or a label without a name refuses the whole document, so that half a typing error never removes half
//! the targets. Spec: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config>.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::DiscoveryError;
use crate::target_group::{GroupLabels, TargetGroup};

/// The two ways to write target groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
}

impl Format {
    /// The format of a file by its extension, in any case.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        match path.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "yml" | "yaml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    #[serde(default)]
    targets: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, Option<String>>>,
}

/// Most values a YAML document may hold: a file for some hundred thousand targets, yet no bomb.
const YAML_NODES_MAX: usize = 4_000_000;

/// The groups in `content`, each with `source` `ORIGIN:INDEX` and the label `origin_label` saying `origin`.
///
/// # Errors
/// [`DiscoveryError::Groups`] when the document is not what the format asks for.
pub(super) fn parse(
    content: &str,
    format: Format,
    origin: &str,
    origin_label: &str,
) -> Result<Vec<TargetGroup>, DiscoveryError> {
    let fail = |message: String| DiscoveryError::Groups { origin: origin.to_owned(), message };
    let raw: Option<Vec<Option<RawGroup>>> = match format {
        Format::Json => serde_json::from_str(content).map_err(|e| fail(e.to_string()))?,
        Format::Yaml => parse_yaml(content).map_err(fail)?,
    };
    let mut groups = Vec::new();
    for (i, group) in raw.unwrap_or_default().into_iter().enumerate() {
        let Some(group) = group else {
            return Err(fail(format!("group {i} is null; remove it or give it targets")));
        };
        let mut labels = BTreeMap::new();
        for (name, value) in group.labels.unwrap_or_default() {
            if name.is_empty() {
                return Err(fail(format!("group {i} has a label with an empty name")));
            }
            if value.is_none() && format == Format::Json {
                return Err(fail(format!("group {i}: label {name:?} is null; give it a text")));
            }
            labels.insert(name, value.unwrap_or_default());
        }
        labels.insert(origin_label.to_owned(), origin.to_owned());
        let targets = group.targets.unwrap_or_default();
        groups.push(TargetGroup {
            source: format!("{origin}:{i}").into(),
            labels: labels.into(),
            targets: targets.into_iter().map(|a| GroupLabels::from_pairs([("__address__", a)])).collect(),
        });
    }
    Ok(groups)
}

fn parse_yaml(content: &str) -> Result<Option<Vec<Option<RawGroup>>>, String> {
    if content.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(None);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: YAML_NODES_MAX, max_events: 4 * YAML_NODES_MAX },
    };
    serde_saphyr::from_str_with_options(content, options).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(content: &str) -> Result<Vec<TargetGroup>, DiscoveryError> {
        parse(content, Format::Yaml, "f.yml", "__meta_filepath")
    }

    fn json(content: &str) -> Result<Vec<TargetGroup>, DiscoveryError> {
        parse(content, Format::Json, "f.json", "__meta_filepath")
    }

    #[test]
    fn groups_carry_their_origin() {
        let groups =
            yaml("- targets: ['a:1', b]\n  labels: {x: y, n: 1, empty: , yes_: yes}\n- targets: [c]\n")
                .unwrap();
        assert_eq!(groups.len(), 2);
        assert_eq!(&*groups[0].source, "f.yml:0");
        assert_eq!(&*groups[1].source, "f.yml:1");
        let expect = [("__meta_filepath", "f.yml"), ("empty", ""), ("n", "1"), ("x", "y"), ("yes_", "yes")];
        let expect: BTreeMap<String, String> = expect.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(groups[0].labels, expect);
        assert_eq!(&groups[0].targets[1]["__address__"], "b");
    }

    #[test]
    fn empty_documents_hold_no_groups() {
        assert!(yaml("").unwrap().is_empty());
        assert!(yaml("# nothing yet\n").unwrap().is_empty());
        assert!(yaml("[]").unwrap().is_empty());
        assert!(json("null").unwrap().is_empty());
        assert!(json("[]").unwrap().is_empty());
    }

    #[test]
    fn anything_unexpected_refuses_the_document() {
        for bad in [
            "- targats: [a]",
            "targets: [a]",
            "- ",
            "- targets: a",
            "- targets: [a]\n  labels: [b]",
            "- [",
            "\u{1}",
        ] {
            assert!(yaml(bad).is_err(), "{bad:?}");
        }
        for bad in
            ["", "{", "[{\"targets\": [1]}]", "[null]", "[{\"labels\": {\"a\": 1}}]", "[{\"x\": 1}]", "[] []"]
        {
            assert!(json(bad).is_err(), "{bad:?}");
        }
    }
}
