//! `almanac check config`: loads files as a node would and says what is wrong, as promtool does.

use std::path::{Path, PathBuf};

use crate::config::http::Tls;
use crate::config::yaml::{ConfigError, Problem};
use crate::config::{Config, matching_files};

/// Checks each file, prints what promtool prints, and says whether all are good.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub fn configs(files: &[PathBuf], syntax_only: bool) -> bool {
    let mut good = true;
    for file in files {
        println!("Checking {}", file.display());
        match config(file, syntax_only) {
            Ok(notes) => {
                notes.iter().for_each(|n| println!("  {n}"));
                println!(" SUCCESS: {} is valid prometheus config file syntax", file.display());
            }
            Err(e) => {
                eprintln!("  FAILED: {e}");
                good = false;
            }
        }
        println!();
    }
    good
}

/// # Errors
/// The first thing that is wrong.
fn config(file: &Path, syntax_only: bool) -> Result<Vec<String>, ConfigError> {
    let config = Config::load(file)?;
    if syntax_only {
        return Ok(Vec::new());
    }
    named_files(&config).map_err(|p| p.in_file(file))?;
    let settings = config.settings().map_err(|p| p.in_file(file))?;
    settings.rule_groups(promql::parser::ParserOptions::all())?;
    Ok(settings.notes)
}

/// # Errors
/// When a file that the configuration names by its full name is missing.
fn named_files(config: &Config) -> Result<(), Problem> {
    for pattern in config.rule_files.iter().flatten() {
        let found = matching_files(pattern).map_err(|e| Problem::new(e.to_string()))?;
        if found.is_empty() && !pattern.to_string_lossy().contains('*') {
            return Err(Problem::new(format!(
                "{:?} does not point to an existing file",
                pattern.display().to_string()
            )));
        }
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
    Ok(())
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
            assert!(config(&file, true).is_ok(), "{row}");
            let refused = config(&file, false).expect_err(row).to_string();
            assert!(refused.contains(".yml"), "{refused}");
        }
    }
}
