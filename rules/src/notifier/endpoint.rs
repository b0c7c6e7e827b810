//! From targets that discovery finds to the addresses of Alertmanagers.

use model::relabel;
use model::{Labels, LabelsBuilder};

use super::AlertmanagerConfig;

const SCHEME: &str = "__scheme__";
const ADDRESS: &str = "__address__";
/// Label of the path that alerts are sent to.
const PATH: &str = "__alerts_path__";

/// Targets that one source knows, with labels they share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetGroup {
    /// Labels of all targets of the group. A target's own label wins.
    pub labels: Vec<(String, String)>,
    /// Labels of each target; `__address__` says where it is.
    pub targets: Vec<Vec<(String, String)>>,
}

/// What became of the targets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Endpoints {
    /// Addresses; none twice.
    pub(super) active: Vec<String>,
    /// Addresses that relabeling dropped.
    pub(super) dropped: Vec<String>,
}

pub(super) fn endpoints(groups: &[TargetGroup], config: &AlertmanagerConfig) -> Endpoints {
    let mut out = Endpoints::default();
    for group in groups {
        match of_group(group, config) {
            Ok(found) => {
                out.dropped.extend(found.dropped);
                for url in found.active {
                    if !out.active.contains(&url) {
                        out.active.push(url);
                    }
                }
            }
            Err(error) => {
                tracing::error!(error, "the Alertmanagers of a discovered group are left out");
            }
        }
    }
    out
}

/// # Errors
/// When an address is none; the whole group is left out then, as Prometheus does.
fn of_group(group: &TargetGroup, config: &AlertmanagerConfig) -> Result<Endpoints, String> {
    let mut out = Endpoints::default();
    let path = push_path(&config.path_prefix);
    let mut labels = LabelsBuilder::new();
    for target in &group.targets {
        labels.reset(&Labels::empty());
        for (name, value) in target {
            labels.set(name, value);
        }
        labels.set(SCHEME, &config.scheme).set(PATH, &path);
        for (name, value) in &group.labels {
            if !target.iter().any(|(own, _)| own == name) {
                labels.set(name, value);
            }
        }
        let found = url(&labels);
        if !relabel::process(&config.relabel, &mut labels) {
            out.dropped.push(found);
            continue;
        }
        let address = labels.get(ADDRESS);
        if address.contains('/') {
            return Err(format!("{address:?} is not a valid hostname"));
        }
        out.active.push(url(&labels));
    }
    Ok(out)
}

fn url(labels: &LabelsBuilder) -> String {
    let (scheme, address, path) = (labels.get(SCHEME), labels.get(ADDRESS), labels.get(PATH));
    let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{address}{slash}{}", escape_path(path))
}

/// The path of the API below a prefix, without `.`, `..` and empty parts.
fn push_path(prefix: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in prefix.split('/').chain(["api", "v2", "alerts"]) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Escapes what may not stand in the path of a URL, as Go does.
fn escape_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::relabel::{RelabelAction, RelabelRule};

    fn config() -> AlertmanagerConfig {
        AlertmanagerConfig {
            scheme: "http".into(),
            path_prefix: "/am/".into(),
            timeout: std::time::Duration::from_secs(10),
            http: httpclient::ClientConfig::default(),
            relabel: Vec::new(),
            alert_relabel: Vec::new(),
        }
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    fn group(addresses: &[&str]) -> TargetGroup {
        TargetGroup {
            labels: Vec::new(),
            targets: addresses.iter().map(|a| vec![pair(ADDRESS, a)]).collect(),
        }
    }

    #[test]
    fn targets_become_addresses_once_each() {
        let found = endpoints(&[group(&["a:1", "b"]), group(&["a:1", "c/d"]), group(&["e"])], &config());
        assert_eq!(
            found.active,
            ["http://a:1/am/api/v2/alerts", "http://b/am/api/v2/alerts", "http://e/am/api/v2/alerts"]
        );
        assert_eq!(found.dropped, Vec::<String>::new());
    }

    #[test]
    fn the_groups_scheme_and_path_win_and_relabeling_decides() {
        let mut config = config();
        let drop = RelabelRule {
            source_labels: vec![ADDRESS.into()],
            regex: model::Regexp::new("no.*").unwrap(),
            action: RelabelAction::Drop,
            ..RelabelRule::default()
        };
        config.relabel = vec![drop];
        let mut group = group(&["yes", "no"]);
        group.labels = vec![pair(SCHEME, "https"), pair(PATH, "x y/ü?")];
        let found = endpoints(&[group], &config);
        assert_eq!(found.active, ["https://yes/x%20y/%C3%BC%3F"]);
        assert_eq!(found.dropped, ["https://no/x%20y/%C3%BC%3F"]);
    }

    #[test]
    fn prefixes_are_cleaned() {
        for (prefix, expect) in [
            ("", "/api/v2/alerts"),
            ("/", "/api/v2/alerts"),
            ("a//b/../c/.", "/a/c/api/v2/alerts"),
            ("..", "/api/v2/alerts"),
        ] {
            assert_eq!(push_path(prefix), expect);
        }
    }
}
