//! What Grafana is given: the files load, and every expression of the dashboard is one that the server takes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use promql::parser::{ParserOptions, parse};
use serde_json::Value;

fn grafana() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/grafana")
}

fn yaml(name: &str) -> Value {
    let text = std::fs::read_to_string(grafana().join(name)).expect(name);
    serde_saphyr::from_str(&text).expect(name)
}

#[test]
fn provisioning_names_both_nodes_and_the_dashboards() {
    let sources = yaml("provisioning/datasources/almanac.yml");
    let urls: Vec<_> =
        sources["datasources"].as_array().expect("a list").iter().map(|d| (&d["type"], &d["url"])).collect();
    assert_eq!(urls[0], (&Value::from("prometheus"), &Value::from("http://localhost:9090")));
    assert_eq!(urls[1], (&Value::from("prometheus"), &Value::from("http://localhost:9201")));
    let dashboards = yaml("provisioning/dashboards/almanac.yml");
    assert_eq!(dashboards["providers"][0]["type"], "file");
}

#[test]
fn every_expression_of_the_dashboard_parses() {
    let text = std::fs::read_to_string(grafana().join("dashboards/pipeline.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    let mut names = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "ids are unique");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().expect("an expression");
            let concrete = expr.replace("$__rate_interval", "1m").replace("$instance", ".*");
            let tree = parse(&concrete, &ParserOptions::default()).unwrap_or_else(|e| panic!("{expr}: {e}"));
            names.extend(tree.selectors().iter().filter_map(|s| s.name.clone()));
        }
    }
    assert!(names.len() > 40, "{names:?}");
    let known = ["prometheus_", "almanac_", "process_", "scrape_", "up"];
    assert!(names.iter().all(|n| known.iter().any(|k| n.starts_with(k))), "{names:?}");
}
