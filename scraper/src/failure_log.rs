//! Files that failed scrapes are logged to (`scrape_failure_log_file`): a JSON object a line.
//!
//! Each file is opened once, however many jobs name it, and anew at each reload, so that it can be rotated.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Clock;
use model::calendar::DateTime;
use parking_lot::Mutex;

use crate::error::ScraperError;

/// An open file.
pub(crate) type FailureLog = Arc<Mutex<File>>;

/// Opens the files of all jobs.
///
/// # Errors
/// When one cannot be opened for appending.
pub(crate) fn open_all<'p>(
    paths: impl Iterator<Item = &'p PathBuf>,
) -> Result<HashMap<PathBuf, FailureLog>, ScraperError> {
    let mut out = HashMap::new();
    for path in paths {
        if !out.contains_key(path) {
            out.insert(path.clone(), open(path)?);
        }
    }
    Ok(out)
}

fn open(path: &Path) -> Result<FailureLog, ScraperError> {
    let file = OpenOptions::new().append(true).create(true).open(path).map_err(|e| ScraperError::File {
        what: "can't create json log file",
        path: path.to_owned(),
        reason: e.to_string(),
    })?;
    Ok(Arc::new(Mutex::new(file)))
}

/// Writes why a target could not be fetched.
pub(crate) fn write(log: &FailureLog, clock: &dyn Clock, job: &str, target_url: &str, error: &str) {
    let text = |s: &str| serde_json::Value::from(s);
    let now_ms = clock.now_ms();
    let d = DateTime::from_ms(now_ms);
    let time = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        d.year,
        d.month,
        d.day,
        d.hour,
        d.minute,
        d.second,
        now_ms.rem_euclid(1000)
    );
    let mut line = format!(
        "{{\"time\":\"{time}\",\"level\":\"ERROR\",\"source\":\"failure_log.rs:{}\",\"msg\":{},\"job_name\":{},\"target\":{}}}",
        line!(),
        text(error),
        text(job),
        text(target_url),
    );
    line.push('\n');
    if let Err(e) = log.lock().write_all(line.as_bytes()) {
        tracing::warn!(error = %e, scrape_pool = job, "scrape_failure_log_file cannot be written");
    }
}
