use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::discovery::config::DiscoveryConfig;
use crate::discovery::testing::{addresses, manager, metric, wait};
use crate::target_group::TargetGroupReceiver;

fn follow(
    patterns: &[String],
) -> (crate::discovery::DiscoveryManager, prometheus::Registry, TargetGroupReceiver) {
    let (manager, registry) = manager();
    let config = FileConfig { files: patterns.to_vec(), refresh_interval_ms: 60_000 };
    let mut receivers = manager.apply(vec![("job".to_owned(), vec![DiscoveryConfig::File(config)])]);
    (manager, registry, receivers.remove(0).1)
}

fn path_in(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).to_string_lossy().into_owned()
}

/// Puts a file in place at once, as configuration tools do.
fn replace(path: &str, content: &str) {
    let temporary = format!("{path}.tmp");
    fs::write(&temporary, content).unwrap();
    fs::rename(temporary, path).unwrap();
}

#[tokio::test]
async fn files_come_change_break_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let (_manager, registry, mut receiver) = follow(&[path_in(&dir, "t-*.json"), path_in(&dir, "u.yml")]);
    let (json, yaml) = (path_in(&dir, "t-1.json"), path_in(&dir, "u.yml"));

    replace(&json, r#"[{"targets": ["a:1"]}, {"targets": ["b:1"], "labels": {"x": "y"}}]"#);
    replace(&yaml, "- targets: [c:1]\n");
    replace(&path_in(&dir, "v-1.json"), r#"[{"targets": ["no:1"]}]"#);
    let groups = wait(&mut receiver, |groups| groups.len() == 3).await;
    assert_eq!(addresses(&groups), ["a:1", "b:1", "c:1"]);
    assert_eq!(&*groups[1].source, format!("{json}:1"));
    assert_eq!(&groups[1].labels["__meta_filepath"], json);
    assert_eq!(&groups[1].labels["x"], "y");

    // A broken file keeps its groups, and is counted.
    replace(&json, "[{");
    while metric(&registry, "prometheus_sd_file_read_errors_total", &[]) == 0.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(addresses(&receiver.borrow_and_update().clone()), ["a:1", "b:1", "c:1"]);

    // One group less.
    replace(&json, r#"[{"targets": ["a:2"]}]"#);
    let groups = wait(&mut receiver, |groups| addresses(groups).contains(&"a:2".to_owned())).await;
    assert_eq!(addresses(&groups), ["a:2", "c:1"]);

    fs::remove_file(&yaml).unwrap();
    let groups = wait(&mut receiver, |groups| groups.len() == 1).await;
    assert_eq!(addresses(&groups), ["a:2"]);
}

#[tokio::test]
async fn a_directory_that_is_away_takes_nothing_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let file = inner.join("a.yml");
    fs::write(&file, "- targets: [a:1]").unwrap();
    let (_manager, registry, mut receiver) = follow(&[inner.join("*.yml").to_string_lossy().into_owned()]);
    wait(&mut receiver, |groups| groups.len() == 1).await;
    fs::rename(&inner, dir.path().join("elsewhere")).unwrap();
    while metric(&registry, "prometheus_sd_file_read_errors_total", &[]) == 0.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(receiver.borrow().len(), 1);
}

/// The project's shared test data, when this machine has it.
fn conformance() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os("CONFORMANCE_DIR")?).join("config");
    dir.join("index.tsv").is_file().then_some(dir)
}

#[test]
fn conformance_target_files() {
    let Some(dir) = conformance() else { return };
    let index = fs::read_to_string(dir.join("index.tsv")).unwrap();
    let mut seen = 0;
    for line in index.lines().filter(|line| line.starts_with("sd/")) {
        let mut columns = line.split('\t');
        let (path, outcome) = (dir.join(columns.next().unwrap()), columns.next().unwrap());
        let path = path.to_string_lossy();
        let content = fs::read_to_string(&*path).unwrap();
        let groups = target_file::parse(&content, Format::of_path(&path).unwrap(), &path, FILEPATH_LABEL);
        assert_eq!(groups.is_ok(), outcome == "ok", "{line}: {groups:?}");
        let expect = match path.rsplit('/').next() {
            Some("valid.yml" | "valid3.yml") => Some(2),
            Some("valid2.yml") => Some(3),
            _ => None,
        };
        if let Some(expect) = expect {
            assert_eq!(groups.unwrap().len(), expect, "{line}");
        }
        seen += 1;
    }
    assert!(seen >= 7);
}
