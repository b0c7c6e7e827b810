//! `almanac check config`: loads files as a node would and says what is wrong, as promtool does.

use std::path::{Path, PathBuf};

use super::Verdict;
use super::rules::Lint;
use crate::config::http::Tls;
use crate::config::rules::Defaults;
use crate::config::scalar::Ms;
use crate::config::yaml::{ConfigError, Problem};
use crate::config::{Config, matching_files};

/// Checks each file and prints what promtool prints.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub fn run(files: &[PathBuf], syntax_only: bool, agent: bool, lint: &Lint, lookback: Option<Ms>) -> Verdict {
    let (mut failed, mut has_errors) = (false, false);
    for file in files {
        println!("Checking {}", file.display());
        let checked = config(file, syntax_only, agent);
        match &checked {
            Ok(found) => {
                found.notes.iter().for_each(|n| println!("  {n}"));
                if !found.rule_files.is_empty() {
                    println!("  SUCCESS: {} rule files found", found.rule_files.len());
                }
                println!(" SUCCESS: {} is valid prometheus config file syntax", file.display());
            }
            Err(e) => {
                eprintln!("  FAILED: {e}");
                (failed, has_errors) = (true, true);
            }
        }
        println!();
        if let Ok(found) = checked {
            failed |= found.too_long_interval(lookback);
            let (rules_failed, rules_wrong) = lint.files(&found.rule_files, &found.defaults);
            failed |= rules_failed;
            has_errors |= rules_wrong;
        }
    }
    lint.verdict(failed, has_errors)
}

/// What a good file leads to.
struct Found {
    notes: Vec<String>,
    rule_files: Vec<PathBuf>,
    defaults: Defaults,
    /// Names and intervals of jobs.
    intervals: Vec<(String, Ms)>,
}

/// # Errors
/// The first thing that is wrong.
fn config(file: &Path, syntax_only: bool, agent: bool) -> Result<Found, ConfigError> {
    let config = Config::load(file)?;
    if agent {
        refuse_in_agent_mode(&config).map_err(|p| p.in_file(file))?;
    }
    let mut found = Found {
        notes: Vec::new(),
        rule_files: Vec::new(),
        defaults: config.rule_defaults(),
        intervals: Vec::new(),
    };
    if syntax_only {
        return Ok(found);
    }
    found.rule_files = named_files(&config).map_err(|p| p.in_file(file))?;
    found.notes = config.settings().map_err(|p| p.in_file(file))?.notes;
    let jobs = config.scrape_configs.iter().flatten();
    found.intervals = jobs.map(|j| (j.job().to_owned(), j.scrape_interval.unwrap_or_default())).collect();
    Ok(found)
}

fn refuse_in_agent_mode(config: &Config) -> Result<(), Problem> {
    let some = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|l| !l.is_empty());
    let alerting = config.alerting.as_ref().is_some_and(|a| {
        a.alertmanagers.as_ref().is_some_and(|l| !l.is_empty()) || some(&a.alert_relabel_configs)
    });
    let sections = [
        (alerting, "alerting"),
        (config.rule_files.as_ref().is_some_and(|l| !l.is_empty()), "rule_files"),
        (config.remote_read.as_ref().is_some_and(|l| !l.is_empty()), "remote_read"),
    ];
    match sections.into_iter().find(|(set, _)| *set) {
        Some((_, name)) => Err(Problem::new(format!("field {name} is not allowed in agent mode"))),
        None => Ok(()),
    }
}

impl Found {
    fn too_long_interval(&self, lookback: Option<Ms>) -> bool {
        let Some(lookback) = lookback.filter(|l| l.0 > 0) else { return false };
        let Some((job, interval)) = self.intervals.iter().find(|(_, i)| *i >= lookback) else { return false };
        eprintln!(
            "  FAILED: too long scrape interval found, data point will be marked as stale - job: {job}, interval: {}",
            model::duration::format_ms(interval.ms())
        );
        true
    }
}

/// # Errors
/// When a file that the configuration names by its full name is missing.
fn named_files(config: &Config) -> Result<Vec<PathBuf>, Problem> {
    let mut rule_files = Vec::new();
    for pattern in config.rule_files.iter().flatten() {
        let found = matching_files(pattern).map_err(|e| Problem::new(e.to_string()))?;
        if found.is_empty() && !pattern.to_string_lossy().contains('*') {
            return Err(Problem::new(format!(
                "{:?} does not point to an existing file",
                pattern.display().to_string()
            )));
        }
        rule_files.extend(found);
    }
    for job in config.scrape_configs.iter().flatten() {
        let credentials = job.authorization.as_ref().and_then(|a| a.credentials_file.as_ref());
        let password = job.basic_auth.as_ref().and_then(|b| b.password_file.as_ref());
        for file in credentials.into_iter().chain(password).chain(tls_files(job.tls_config.as_ref())) {
            if !file.exists() {
                return Err(job.problem(format!(
                    "error checking file {:?}: it does not exist",
                    file.display().to_string()
                )));
            }
        }
        static_targets(job)?;
    }
    Ok(rule_files)
}

fn tls_files(tls: Option<&Tls>) -> impl Iterator<Item = &PathBuf> {
    tls.into_iter().flat_map(|t| [&t.ca_file, &t.cert_file, &t.key_file]).flatten()
}

/// # Errors
/// When a static target, relabeled, has no usable address.
fn static_targets(job: &crate::config::yaml::At<crate::config::scrape::Scrape>) -> Result<(), Problem> {
    let rules = job.rules(job.relabel_configs.as_ref())?;
    for group in job.static_configs.iter().flatten() {
        for target in &group.targets {
            let mut labels = model::LabelsBuilder::new();
            labels.set("job", job.job()).set("__scheme__", "http").set("__metrics_path__", "/metrics");
            group.labels.iter().for_each(|(n, v)| {
                labels.set(n, v);
            });
            labels.set("__address__", target);
            if model::relabel::process(&rules, &mut labels) && labels.get("__address__").contains('/') {
                return Err(group.problem(format!("{:?} is not a valid hostname", labels.get("__address__"))));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conformance_files_that_only_a_check_refuses() {
        let Some(root) = crate::testing::conformance_dir() else {
            eprintln!("check config conformance: skipped, no conformance data");
            return;
        };
        let dir = root.join("config");
        let index = std::fs::read_to_string(dir.join("index.tsv")).expect("index");
        let rows: Vec<_> = index.lines().filter(|l| l.contains("\tcheck-error\t")).collect();
        assert!(rows.len() >= 4, "the index lists files");
        for row in rows {
            let file = dir.join(row.split('\t').next().expect("a column"));
            assert!(config(&file, true, false).is_ok(), "{row}");
            let wrong = match config(&file, false, false) {
                Err(e) => e.to_string().contains(".yml"),
                Ok(found) => Lint::default().files(&found.rule_files, &found.defaults).1,
            };
            assert!(wrong, "{row}");
        }
    }
}
