//! `almanac check service-discovery`: what discovery finds for a job, and what relabeling makes of it, as JSON.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use model::Labels;
use scraper::discovery::{DiscoveryManager, DiscoveryOptions};
use scraper::preview::{Preview, preview};
use serde_json::{Map, Value, json};

use super::Verdict;
use crate::cli::{GeneralFlags, LogFormat, LogLevel};
use crate::config::scalar::Ms;
use crate::config::{Config, convert};

/// Prints the targets of a job. Waits until all its sources have been seen, at most for `timeout`.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub fn run(file: &Path, job: &str, timeout: Ms) -> Verdict {
    crate::logging::init(&GeneralFlags {
        features: Vec::new(),
        log_level: LogLevel::Info,
        log_format: LogFormat::Logfmt,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let limit = Duration::from_millis(timeout.ms().unsigned_abs());
    let found =
        runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(discover(file, job, limit)));
    match found {
        Ok(targets) => {
            print!("{targets}");
            Verdict::Good
        }
        Err(e) => {
            eprintln!("{e:#}");
            Verdict::Bad
        }
    }
}

/// # Errors
/// When the file is not valid, does not have the job, or asks for a discovery that is not built in.
async fn discover(file: &Path, job: &str, limit: Duration) -> anyhow::Result<String> {
    let config = Config::load(file).context("Cannot load config")?;
    let jobs = config.scrape_configs.as_deref().unwrap_or_default();
    let Some(section) = jobs.iter().find(|known| known.job() == job) else {
        let names: String = jobs.iter().map(|known| format!("\n\t{}", known.job())).collect();
        bail!("Job {job} not found. Select one of:{names}");
    };
    let settings = convert::scrape_config(section).map_err(|p| p.or_at(section.position).in_file(file))?;
    let manager = DiscoveryManager::new(
        model::SystemClock::shared(),
        &prometheus::Registry::new(),
        DiscoveryOptions::default(),
    )?;
    manager.apply(vec![(job.to_owned(), settings.discovery.clone())]);
    let (groups, complete) = manager.settled(job, limit).await;
    if !complete {
        tracing::warn!(job, "not every source answered in time; more targets may be there");
    }
    manager.stop();
    let mut shown: Vec<Preview> = Vec::new();
    for target in preview(&Arc::new(settings), &groups) {
        if !shown.contains(&target) {
            shown.push(target);
        }
    }
    Ok(serde_json::to_string_pretty(&shown.iter().map(to_json).collect::<Vec<_>>())?)
}

fn to_json(target: &Preview) -> Value {
    let mut out = json!({
        "discoveredLabels": object(&target.discovered),
        "labels": object(&target.labels),
    });
    if let Some(error) = &target.error {
        out["error"] = json!(error);
    }
    out
}

fn object(labels: &Labels) -> Map<String, Value> {
    labels.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn targets_of_a_job_are_shown() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("p.yml");
        std::fs::write(dir.path().join("t.json"), r#"[{"targets": ["a:1", "a:1"]}]"#).expect("written");
        let text = "scrape_configs:\n- job_name: j\n  file_sd_configs: [{files: [t.json]}]\n";
        std::fs::write(&file, text).expect("written");
        let limit = Duration::from_secs(20);
        let shown = discover(&file, "j", limit).await.expect("found");
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(shown.as_array().map(Vec::len), Some(1), "{shown}");
        assert_eq!(shown[0]["labels"]["instance"], "a:1");
        assert_eq!(shown[0]["discoveredLabels"]["job"], "j");
        assert_eq!(shown[0].get("error"), None);
        let unknown = discover(&file, "k", limit).await.expect_err("not there");
        assert_eq!(unknown.to_string(), "Job k not found. Select one of:\n\tj");
    }
}
