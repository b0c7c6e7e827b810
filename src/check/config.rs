//! `almanac check config`: loads files as a node would and says what is wrong, as promtool does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use scraper::discovery::{DiscoveryConfig, glob, read_target_file};
use scraper::preview::preview;
use scraper::{ScrapeConfig, TargetGroup};

use super::Verdict;
use super::rules::Lint;
use crate::config::global::FeatureDefaults;
use crate::config::http::Tls;
use crate::config::rules::Defaults;
use crate::config::scalar::Ms;
use crate::config::scrape::Scrape;
use crate::config::yaml::{At, ConfigError, Problem};
use crate::config::{Config, convert, matching_files};

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
    let config = if syntax_only {
        Config::load_alone(file, &FeatureDefaults::default())?
    } else {
        Config::load(file)?
    };
    if agent {
        refuse_in_agent_mode(&config).map_err(|p| p.in_file(file))?;
    }
    let mut found = Found {
        notes: Vec::new(),
        rule_files: Vec::new(),
        defaults: config.rule_defaults(),
        intervals: Vec::new(),
    };
    for job in config.scrape_configs.iter().flatten() {
        targets(job, syntax_only, &mut found.notes).map_err(|p| p.or_at(job.position).in_file(file))?;
    }
    if syntax_only {
        return Ok(found);
    }
    found.rule_files = named_files(&config, &mut found.notes).map_err(|p| p.in_file(file))?;
    found.notes.extend(config.settings().map_err(|p| p.in_file(file))?.notes);
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
/// When a file that the configuration names by its full name, and that must be there, is missing.
fn named_files(config: &Config, notes: &mut Vec<String>) -> Result<Vec<PathBuf>, Problem> {
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
        let tls = job.tls_config.as_ref();
        for (what, file) in [
            ("authorization credentials or bearer token file", credentials),
            ("client cert file", tls.and_then(|t| t.cert_file.as_ref())),
            ("client key file", tls.and_then(|t| t.key_file.as_ref())),
        ] {
            if let Some(file) = file.filter(|f| is_missing(f)) {
                let name = file.display();
                return Err(job.problem(format!(
                    "error checking {what} {:?}: stat {name}: no such file or directory",
                    name.to_string()
                )));
            }
        }
        // Such a file may come later: it is read again for each request.
        let password = job.basic_auth.as_ref().and_then(|b| b.password_file.as_ref());
        let ca = tls.and_then(|t: &Tls| t.ca_file.as_ref());
        for file in password.into_iter().chain(ca).filter(|f| is_missing(f)) {
            let name = file.display().to_string();
            notes.push(format!("WARNING: file {name:?} of scrape job {:?} does not exist", job.job()));
        }
    }
    for am in config.alerting.iter().flat_map(|a| a.alertmanagers.iter().flatten()) {
        for pattern in am.file_sd_configs.iter().flatten().flat_map(|f| &f.files) {
            let pattern = pattern.display().to_string();
            if glob::expand(&pattern).map_err(Problem::new)?.paths.is_empty() {
                notes.push(format!(
                    "WARNING: file {pattern:?} for file_sd in alertmanager config does not exist"
                ));
            }
        }
    }
    Ok(rule_files)
}

fn is_missing(file: &Path) -> bool {
    !file.as_os_str().is_empty() && !file.exists()
}

/// Looks at static targets, and at those of files unless only the syntax counts.
///
/// # Errors
/// When a target, relabeled, cannot be scraped, or a file cannot be understood.
fn targets(job: &At<Scrape>, syntax_only: bool, notes: &mut Vec<String>) -> Result<(), Problem> {
    let settings = match convert::scrape_config(job) {
        // Said where the whole file is looked at.
        Err(p) if p.not_built_in => return Ok(()),
        settings => Arc::new(settings?),
    };
    for discovery in &settings.discovery {
        match discovery {
            DiscoveryConfig::Static(groups) => scrapable(&settings, groups)?,
            DiscoveryConfig::File(files) if !syntax_only => {
                for pattern in &files.files {
                    let found = glob::expand(pattern)?.paths;
                    if found.is_empty() {
                        let job = job.job();
                        notes.push(format!(
                            "WARNING: file {pattern:?} for file_sd in scrape job {job:?} does not exist"
                        ));
                    }
                    for file in found {
                        let groups = read_target_file(&file)
                            .map_err(|e| Problem::new(format!("checking SD file {file:?}: {e}")))?;
                        scrapable(&settings, &groups)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// # Errors
/// When a target of a group cannot be scraped.
fn scrapable(settings: &Arc<ScrapeConfig>, groups: &[TargetGroup]) -> Result<(), Problem> {
    for group in groups {
        let shown = preview(settings, &[Arc::new(group.clone())]);
        if let Some((i, error)) = shown.iter().enumerate().find_map(|(i, t)| Some((i, t.error.as_ref()?))) {
            return Err(Problem::new(format!("instance {i} in group {}: {error}", group.source)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_looked_at_as_a_node_would() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("p.yml");
        std::fs::write(dir.path().join("good.json"), r#"[{"targets": ["a:1"]}]"#).expect("written");
        std::fs::write(dir.path().join("bad.json"), "[null]").expect("written");
        let check = |job: &str, syntax_only| {
            std::fs::write(&file, format!("scrape_configs: [{{job_name: j, {job}}}]")).expect("written");
            config(&file, syntax_only, false).map(|found| found.notes).map_err(|e| e.reason)
        };
        assert_eq!(check("file_sd_configs: [{files: [good.json]}]", false), Ok(Vec::new()));
        let bad = check("file_sd_configs: [{files: ['bad*.json']}]", false).expect_err("a null group");
        assert!(bad.starts_with("checking SD file"), "{bad}");
        assert_eq!(check("file_sd_configs: [{files: ['bad*.json']}]", true), Ok(Vec::new()));
        let missing = check("file_sd_configs: [{files: [c.json]}]", false).expect("a warning only");
        assert!(missing[0].contains("for file_sd in scrape job \"j\" does not exist"), "{missing:?}");
        let missing = check("basic_auth: {username: a, password_file: none}", false).expect("a warning only");
        assert!(missing[0].starts_with("WARNING: file"), "{missing:?}");
        let relabeled =
            "static_configs: [{targets: [a]}], relabel_configs: [{action: labeldrop, regex: __address__}]";
        for syntax_only in [false, true] {
            assert_eq!(check(relabeled, syntax_only), Err("instance 0 in group 0: no address".into()));
        }
    }

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
            // Static targets are looked at in either case.
            assert_eq!(config(&file, true, false).is_ok(), row.contains("syntax-only"), "{row}");
            let wrong = match config(&file, false, false) {
                Err(e) => e.to_string().contains(".yml"),
                Ok(found) => Lint::default().files(&found.rule_files, &found.defaults).1,
            };
            assert!(wrong, "{row}");
        }
    }
}
