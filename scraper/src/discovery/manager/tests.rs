use std::sync::Arc;

use super::*;
use crate::discovery::config::FileConfig;
use crate::discovery::testing::{addresses, group, manager, metric, wait};

fn job(name: &str, configs: Vec<DiscoveryConfig>) -> (String, Vec<DiscoveryConfig>) {
    (name.to_owned(), configs)
}

#[tokio::test]
async fn static_groups_are_there_at_once() {
    let (manager, registry) = manager();
    let config = DiscoveryConfig::Static(vec![group(&["a:1", "b:1"]), group(&["c:1"])]);
    let receivers = manager.apply(vec![job("one", vec![config])]);
    let groups = receivers[0].1.borrow().clone();
    assert_eq!(addresses(&groups), ["a:1", "b:1", "c:1"]);
    assert_eq!(groups.iter().map(|group| &*group.source).collect::<Vec<_>>(), ["0", "1"]);
    assert_eq!(
        metric(&registry, "prometheus_sd_discovered_targets", &[("config", "one"), ("name", "scrape")]),
        3.0
    );
}

#[tokio::test]
async fn a_reload_keeps_what_did_not_change() {
    let (manager, registry) = manager();
    let (a, b) =
        (DiscoveryConfig::Static(vec![group(&["a:1"])]), DiscoveryConfig::Static(vec![group(&["b:1"])]));
    let before = manager.apply(vec![job("one", vec![a.clone()]), job("two", vec![a.clone(), b.clone()])]);
    let groups = before[0].1.borrow().clone();
    let mut second = before[1].1.clone();
    second.mark_unchanged();
    let after = manager.apply(vec![job("two", vec![a.clone(), b]), job("three", vec![a])]);
    assert!(!second.has_changed().unwrap());
    assert!(after[0].1.same_channel(&second));
    // The group is the very same for a job that came later.
    assert!(Arc::ptr_eq(&groups[0], &after[1].1.borrow()[0]));
    assert_eq!(metric(&registry, "prometheus_sd_discovered_targets", &[("config", "one")]), 0.0);
    assert_eq!(metric(&registry, "prometheus_sd_discovered_targets", &[]), 3.0);
}

#[tokio::test]
async fn a_changed_setting_replaces_targets_without_a_gap() {
    let (manager, _registry) = manager();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.json").to_string_lossy().into_owned();
    std::fs::write(&path, r#"[{"targets": ["b:1"]}]"#).unwrap();
    let old = DiscoveryConfig::Static(vec![group(&["a:1"])]);
    let new = DiscoveryConfig::File(FileConfig { files: vec![path], refresh_interval_ms: 60_000 });
    manager.apply(vec![job("one", vec![old])]);
    let mut receivers = manager.apply(vec![job("one", vec![new])]);
    let receiver = &mut receivers[0].1;
    assert_eq!(addresses(&receiver.borrow().clone()), ["a:1"], "kept until the file was read");
    let groups = wait(receiver, |groups| addresses(groups) != ["a:1"]).await;
    assert_eq!(addresses(&groups), ["b:1"]);
}

#[tokio::test]
async fn a_setting_that_cannot_work_is_counted_and_left_out() {
    let (manager, registry) = manager();
    let bad =
        DiscoveryConfig::File(FileConfig { files: vec!["targets.txt".to_owned()], refresh_interval_ms: 1 });
    let good = DiscoveryConfig::Static(vec![group(&["a:1"])]);
    let receivers = manager.apply(vec![job("one", vec![bad, good])]);
    assert_eq!(addresses(&receivers[0].1.borrow().clone()), ["a:1"]);
    assert_eq!(metric(&registry, "prometheus_sd_failed_configs", &[]), 1.0);
}

#[tokio::test]
async fn stopping_leaves_the_last_list() {
    let (manager, _registry) = manager();
    let receivers = manager.apply(vec![job("one", vec![DiscoveryConfig::Static(vec![group(&["a:1"])])])]);
    manager.stop();
    assert_eq!(addresses(&receivers[0].1.borrow().clone()), ["a:1"]);
}

#[tokio::test]
async fn two_managers_on_one_registry() {
    let (_manager, registry) = manager();
    let again = DiscoveryManager::new(model::SystemClock::shared(), &registry, DiscoveryOptions::default());
    assert!(again.is_ok());
}
