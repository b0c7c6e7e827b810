//! `--config.auto-reload`: the configuration is loaded again when its file, or a file of rules or scrape configurations that it
//! names, has changed.
//!
//! Files are read at an interval, as Prometheus does: contents count, not times, so that replaced links are noticed too. What does
//! not load is tried again at each interval until it does.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::cli::AutoReloadFlags;
use crate::config::{matching_files, yaml};

/// Shortest interval.
const LEAST: Duration = Duration::from_secs(1);

/// What is known of the files.
pub struct AutoReload {
    file: PathBuf,
    interval: Duration,
    loaded: Option<u64>,
}

/// The part of the file that names others.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    rule_files: Option<Vec<PathBuf>>,
    scrape_config_files: Option<Vec<PathBuf>>,
}

impl AutoReload {
    /// Follows the files that were just loaded; `None` when that is not wanted.
    pub fn new(flags: &AutoReloadFlags, feature: bool, file: &Path) -> Option<Self> {
        if !flags.enabled && !feature {
            return None;
        }
        let millis = u64::try_from(flags.interval.ms()).unwrap_or(0);
        let interval = Duration::from_millis(millis).max(LEAST);
        tracing::info!(?interval, "automatic reloading of the configuration is enabled");
        let mut this = Self { file: file.to_owned(), interval, loaded: None };
        this.loaded();
        Some(this)
    }

    /// Returns once the files are not as they were when they were loaded last. May be dropped at any time.
    pub async fn changed(&self) {
        loop {
            tokio::time::sleep(self.interval).await;
            if self.look().is_none_or(|now| Some(now) != self.loaded) {
                tracing::info!("a change of the configuration's files is seen, they are loaded again");
                return;
            }
        }
    }

    /// To be called when the files have been loaded.
    pub fn loaded(&mut self) {
        self.loaded = self.look();
    }

    fn look(&self) -> Option<u64> {
        fingerprint(&self.file)
            .inspect_err(|e| tracing::error!(error = %e, "cannot tell whether the configuration has changed"))
            .ok()
    }
}

/// A number that names and contents of all files go into.
fn fingerprint(file: &Path) -> Result<u64, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let bytes = read(file)?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let named: Named =
        yaml::parse(&String::from_utf8_lossy(&bytes)).map_err(|p| p.in_file(file).to_string())?;
    let dir = file.parent().unwrap_or(Path::new(""));
    for (kind, patterns) in [(0_u8, named.rule_files), (1, named.scrape_config_files)] {
        for pattern in patterns.into_iter().flatten() {
            for path in matching_files(&dir.join(pattern)).map_err(|e| e.to_string())? {
                (kind, &path, read(&path)?).hash(&mut hasher);
            }
        }
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_that_counts_changes_the_fingerprint() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
        let file = dir.path().join("p.yml");
        write(
            "p.yml",
            "rule_files: ['r*.yml']\nscrape_config_files: [s.yml]\nglobal: {scrape_interval: 1s}\n",
        );
        let mut seen = vec![fingerprint(&file).expect("reads")];
        let mut differs = |what: &str| {
            let now = fingerprint(&file).expect("reads");
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        write("r1.yml", "groups: []");
        differs("a file of rules that is new");
        write("r1.yml", "groups: []\n");
        differs("a file of rules");
        write("s.yml", "scrape_configs: []");
        differs("a file of scrape configurations");
        std::fs::rename(dir.path().join("r1.yml"), dir.path().join("r2.yml")).expect("renamed");
        differs("a name");
        write("p.yml", "rule_files: ['r*.yml']\nscrape_config_files: [s.yml]\n");
        differs("the file");
        write("other.yml", "x");
        assert_eq!(fingerprint(&file), Ok(seen[5]), "what nobody names does not count");
        write("p.yml", "rule_files: {");
        assert!(fingerprint(&file).is_err_and(|e| e.contains("p.yml")), "YAML that does not read");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_once_until_it_is_loaded() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("p.yml");
        std::fs::write(&file, "global: {}\n").expect("written");
        let flags = AutoReloadFlags { enabled: true, interval: crate::config::scalar::Ms(30_000) };
        assert!(
            AutoReload::new(&AutoReloadFlags { enabled: false, ..flags.clone() }, false, &file).is_none()
        );
        let mut auto = AutoReload::new(&flags, false, &file).expect("wanted");
        let within = |secs| Duration::from_secs(secs);
        assert!(tokio::time::timeout(within(100), auto.changed()).await.is_err(), "nothing has changed");
        std::fs::write(&file, "global: {scrape_interval: 5s}\n").expect("written");
        assert!(tokio::time::timeout(within(31), auto.changed()).await.is_ok());
        assert!(tokio::time::timeout(within(31), auto.changed()).await.is_ok(), "it was not loaded");
        auto.loaded();
        assert!(tokio::time::timeout(within(100), auto.changed()).await.is_err());
    }
}
