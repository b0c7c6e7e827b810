//! The configuration file: Prometheus's `prometheus.yml`, read strictly, and one section more, `longterm`.
//!
//! Reading order: [`yaml`] (the reader and positions), [`scalar`], [`http`] and [`relabel`] (parts of many sections),
//! then the sections [`global`], [`scrape`], [`discovery`], [`remote`]; [`convert`] turns a checked file into the plain
//! settings of the other crates. Spec: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/>.
//!
//! [`Config::load`] parses, fills every default, and checks; what it returns can be run. Unknown and repeated keys are
//! errors everywhere. Fields are named as in the file, so they carry no docs of their own.
#![allow(
    missing_docs,
    reason = "fields are named and documented as in the configuration file's specification"
)]

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub mod convert;
pub mod discovery;
pub mod global;
pub mod http;
pub mod relabel;
pub mod remote;
pub mod rules;
pub mod scalar;
pub mod scrape;
pub mod settings;
pub mod yaml;

use yaml::{At, ConfigError, Problem};

/// A whole configuration file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub global: Option<global::Global>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<global::Runtime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerting: Option<remote::Alerting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_files: Option<Vec<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_config_files: Option<Vec<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrape_configs: Option<Vec<At<scrape::Scrape>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<global::Storage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<global::Tracing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_write: Option<Vec<At<remote::RemoteWrite>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_read: Option<Vec<At<remote::RemoteRead>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<global::Otlp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longterm: Option<At<remote::Longterm>>,
}

impl Config {
    /// Reads, completes and checks a file, the files of `scrape_config_files` included.
    ///
    /// # Errors
    /// The first thing that is wrong, with file, line and column.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::load_with(file, &global::FeatureDefaults::default())
    }

    /// Like [`Config::load`], with the defaults that features of the command line change.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load_with(file: &Path, features: &global::FeatureDefaults) -> Result<Self, ConfigError> {
        let mut config = Self::load_alone(file, features)?;
        config.include_scrape_files()?;
        Ok(config)
    }

    /// Like [`Config::load_with`], without the files of `scrape_config_files`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load_alone(file: &Path, features: &global::FeatureDefaults) -> Result<Self, ConfigError> {
        let text = yaml::read_file(file)?;
        let dir = file.parent().unwrap_or(Path::new("")).to_owned();
        Self::parse_with(&text, &dir, features).map_err(|p| p.in_file(file))
    }

    /// Parses, completes and checks a text whose relative file names belong to `dir`. Included files are not read.
    ///
    /// # Errors
    /// The first thing that is wrong.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn parse(text: &str, dir: &Path) -> Result<Self, Problem> {
        Self::parse_with(text, dir, &global::FeatureDefaults::default())
    }

    fn parse_with(text: &str, dir: &Path, features: &global::FeatureDefaults) -> Result<Self, Problem> {
        let mut config: Self = yaml::parse(text)?;
        features.apply(config.global.get_or_insert_default());
        config.finish(dir)?;
        Ok(config)
    }

    /// The global section; parsing made sure that there is one.
    pub fn global(&self) -> &global::Global {
        self.global.as_ref().expect("filled in when the file was parsed")
    }

    /// The file as it is in force, defaults written out and secrets hidden: the text of `/api/v1/status/config`.
    pub fn to_yaml(&self) -> String {
        serde_yaml::to_string(self)
            .unwrap_or_else(|e| format!("# the configuration cannot be written: {e}\n"))
    }

    fn finish(&mut self, dir: &Path) -> Result<(), Problem> {
        let global = self.global.get_or_insert_default();
        global.finish(dir, &|name| std::env::var(name).ok())?;
        let global = global.clone();
        let names = scrape::name_validation(global.metric_name_validation_scheme.as_deref());
        for (files, what) in
            [(&mut self.rule_files, "rule"), (&mut self.scrape_config_files, "scrape config")]
        {
            for f in files.iter_mut().flatten() {
                check_pattern(f, what)?;
                *f = dir.join(&*f);
            }
        }
        for job in self.scrape_configs.iter_mut().flatten() {
            let at = job.position;
            job.value.finish(&global, dir).map_err(|p| p.or_at(at))?;
        }
        unique_jobs(self.scrape_configs.as_deref().unwrap_or_default())?;
        self.storage.get_or_insert_default().check()?;
        if let Some(t) = &mut self.tracing {
            t.finish(dir)?;
        }
        if let Some(o) = &mut self.otlp {
            o.finish(&global)?;
        }
        if let Some(a) = &mut self.alerting {
            a.finish(dir, names)?;
        }
        let mut seen: Vec<String> = Vec::new();
        for rw in self.remote_write.iter_mut().flatten() {
            let at = rw.position;
            rw.value.finish(dir, names).map_err(|p| p.or_at(at))?;
            if let Some(name) = rw.name.clone().filter(|n| !n.is_empty()) {
                if seen.contains(&name) {
                    return Err(
                        rw.problem(format!("found multiple remote write configs with job name {name:?}"))
                    );
                }
                seen.push(name);
            }
        }
        for rr in self.remote_read.iter_mut().flatten() {
            let at = rr.position;
            rr.value.finish(dir).map_err(|p| p.or_at(at))?;
        }
        if let Some(l) = &mut self.longterm {
            let at = l.position;
            l.value.finish().map_err(|p| p.or_at(at))?;
        }
        Ok(())
    }

    fn include_scrape_files(&mut self) -> Result<(), ConfigError> {
        let global = self.global().clone();
        let mut origin: Vec<(String, String)> = Vec::new();
        for job in self.scrape_configs.iter().flatten() {
            origin.push((job.job().to_owned(), "main config file".into()));
        }
        for pattern in self.scrape_config_files.clone().iter().flatten() {
            for file in matching_files(pattern)? {
                let dir = file.parent().unwrap_or(Path::new("")).to_owned();
                let text = yaml::read_file(&file)?;
                let included: scrape::ScrapeFile = yaml::parse(&text).map_err(|p| p.in_file(&file))?;
                for mut job in included.scrape_configs {
                    let at = job.position;
                    job.value.finish(&global, &dir).map_err(|p| p.or_at(at).in_file(&file))?;
                    if let Some((_, first)) = origin.iter().find(|(name, _)| name == job.job()) {
                        let text = format!(
                            "found multiple scrape configs with job name {:?}, first found in {first}",
                            job.job()
                        );
                        return Err(job.problem(text).in_file(&file));
                    }
                    origin.push((job.job().to_owned(), format!("{:?}", file.display().to_string())));
                    self.scrape_configs.get_or_insert_default().push(job);
                }
            }
        }
        Ok(())
    }
}

fn unique_jobs(jobs: &[At<scrape::Scrape>]) -> Result<(), Problem> {
    let mut seen = std::collections::BTreeSet::new();
    for job in jobs {
        if !seen.insert(job.job()) {
            let text = format!("found multiple scrape configs with job name {:?}", job.job());
            return Err(job
                .job_name
                .as_ref()
                .map_or_else(|| job.problem(text.clone()), |n| n.problem(text.clone())));
        }
    }
    Ok(())
}

/// A `*` is allowed in the last part of the path only.
fn check_pattern(file: &Path, what: &str) -> Result<(), Problem> {
    let bad = file.parent().is_some_and(|p| p.to_string_lossy().contains('*'));
    if bad {
        Err(Problem::new(format!("invalid {what} file path {:?}", file.display().to_string())))
    } else {
        Ok(())
    }
}

/// Files that match a pattern, sorted. No file is no error.
///
/// # Errors
/// When the pattern is malformed.
pub fn matching_files(pattern: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let text = pattern.to_string_lossy();
    let found = scraper::discovery::glob::expand(&text).map_err(|e| ConfigError::whole(pattern, e))?;
    Ok(found.paths.into_iter().map(PathBuf::from).collect())
}

#[cfg(test)]
mod tests;
