use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::discovery::DiscoveryOptions;
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

/// Follows files without regular looks, so that only notifications tell of changes.
fn follow_by_notification(pattern: &str) -> (crate::discovery::DiscoveryManager, TargetGroupReceiver) {
    let registry = prometheus::Registry::new();
    let options = DiscoveryOptions { debounce_ms: 10, file_poll_ms: 600_000, ..DiscoveryOptions::default() };
    let manager =
        crate::discovery::DiscoveryManager::new(model::SystemClock::shared(), &registry, options).unwrap();
    let config = FileConfig { files: vec![pattern.to_owned()], refresh_interval_ms: 600_000 };
    let mut receivers = manager.apply(vec![("job".to_owned(), vec![DiscoveryConfig::File(config)])]);
    (manager, receivers.remove(0).1)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn notifications_tell_of_files_that_come_change_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let (_manager, mut receiver) = follow_by_notification(&path_in(&dir, "*.yml"));
    let (file, other) = (path_in(&dir, "a.yml"), path_in(&dir, "b.yml"));
    for n in 1..4 {
        replace(&file, &format!("- targets: [a:{n}]"));
        wait(&mut receiver, |groups| addresses(groups) == [format!("a:{n}")]).await;
    }
    // In place, too, where the file is empty for a moment.
    fs::write(&file, "- targets: [a:5, a:6]").unwrap();
    wait(&mut receiver, |groups| addresses(groups) == ["a:5", "a:6"]).await;
    fs::rename(&file, &other).unwrap();
    wait(&mut receiver, |groups| groups.len() == 1 && groups[0].labels["__meta_filepath"] == *other).await;
    fs::remove_file(&other).unwrap();
    wait(&mut receiver, |groups| groups.is_empty()).await;
}

/// How the kubelet mounts a config map: files are links through `..data`, which is itself a link that is replaced.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_config_map_changes_through_a_link() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let version = |n: u32| {
        fs::create_dir(path_in(&dir, &format!("..v{n}"))).unwrap();
        fs::write(path_in(&dir, &format!("..v{n}/t.json")), format!(r#"[{{"targets": ["a:{n}"]}}]"#))
            .unwrap();
        symlink(format!("..v{n}"), path_in(&dir, "..data_tmp")).unwrap();
        fs::rename(path_in(&dir, "..data_tmp"), path_in(&dir, "..data")).unwrap();
    };
    version(1);
    symlink("..data/t.json", path_in(&dir, "t.json")).unwrap();
    let (_manager, mut receiver) = follow_by_notification(&path_in(&dir, "*.json"));
    wait(&mut receiver, |groups| addresses(groups) == ["a:1"]).await;
    version(2);
    wait(&mut receiver, |groups| addresses(groups) == ["a:2"]).await;
    fs::remove_dir_all(path_in(&dir, "..v1")).unwrap();
    version(3);
    wait(&mut receiver, |groups| addresses(groups) == ["a:3"]).await;
}

#[tokio::test]
async fn a_file_that_is_being_written_keeps_its_groups() {
    let dir = tempfile::tempdir().unwrap();
    let file = path_in(&dir, "a.yml");
    fs::write(&file, "- targets: [a:1]").unwrap();
    let (context, _registry) = crate::discovery::testing::context();
    let sink = Arc::clone(&context.sink);
    let config = FileConfig { files: vec![file.clone()], refresh_interval_ms: 60_000 };
    let files = Files { config, context, known: BTreeMap::new(), unlisted: Vec::new(), watcher: None };
    let files = files.look(true);
    fs::write(&file, "").unwrap();
    let files = files.look(false);
    // Unless this machine took so long that the file is not new any more.
    let young = files.known[&file].young;
    assert_eq!(addresses(&sink.list()).len(), usize::from(young));
    std::thread::sleep(Duration::from_millis(YOUNG_MS.unsigned_abs()) + Duration::from_millis(10));
    let files = files.look(false);
    assert!(sink.list().is_empty(), "an empty file is one without groups");
    fs::write(&file, "- targets: [").unwrap();
    let files = files.look(false);
    fs::write(&file, "- targets: [b:1]").unwrap();
    files.look(false);
    assert_eq!(addresses(&sink.list()), ["b:1"]);
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
