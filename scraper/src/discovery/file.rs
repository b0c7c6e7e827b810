//! File discovery: target groups from JSON and YAML files.
//!
//! Files are looked at every [`DiscoveryOptions::file_poll_ms`](super::DiscoveryOptions) and read again when their
//! inode, size or modification time changed, and in any case once per refresh interval. Polling sees what change
//! notifications miss (network file systems, replaced directories, mounted config maps) and is cheap for the few files
//! there are. A file that cannot be read or understood keeps its previous groups. A file must be missing from two
//! looks in a row before its groups go, because some editors replace a file by removing it first; a directory that
//! cannot be listed removes nothing.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::MissedTickBehavior;

use super::config::FileConfig;
use super::error::DiscoveryError;
use super::manager::ProviderContext;
use super::target_file::{self, Format};
use crate::target_group::TargetGroup;

/// Label with the path of the file a target is from.
const FILEPATH_LABEL: &str = "__meta_filepath";
/// Largest file that is read; ten times what a hundred thousand targets need.
const FILE_LEN_BYTES_MAX: u64 = 256 << 20;

/// What tells two versions of a file apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len_bytes: u64,
    inode: u64,
}

/// A file as it was last read.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    groups: usize,
    missing_looks: u32,
}

/// The files of one configuration.
struct Files {
    config: FileConfig,
    context: ProviderContext,
    known: BTreeMap<String, Known>,
    /// Patterns whose directory could not be listed at the last look, so that each is logged once.
    unlisted: Vec<String>,
}

/// Follows the files until the task is aborted.
pub(super) async fn run(config: FileConfig, context: ProviderContext) {
    let poll = Duration::from_millis(context.options.file_poll_ms.clamp(1, config.refresh_interval_ms));
    let refresh = Duration::from_millis(config.refresh_interval_ms);
    let mut ticks = tokio::time::interval(poll);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut files = Files { config, context, known: BTreeMap::new(), unlisted: Vec::new() };
    let mut last_refresh = None;
    loop {
        ticks.tick().await;
        let now = files.context.clock.monotonic();
        let everything = last_refresh.is_none_or(|last| now.saturating_sub(last) >= refresh);
        if everything {
            last_refresh = Some(now);
        }
        // Reading blocks; the files travel to a thread that may block and back.
        match tokio::task::spawn_blocking(move || files.look(everything)).await {
            Ok(back) => files = back,
            Err(error) => {
                tracing::error!(%error, "file discovery stopped");
                return;
            }
        }
    }
}

impl Files {
    /// Reads what changed, or every file.
    fn look(mut self, everything: bool) -> Self {
        let (paths, complete) = self.list();
        for path in &paths {
            self.look_at(path, everything);
        }
        let mut gone = Vec::new();
        for (path, known) in &mut self.known {
            if paths.contains(path) {
                known.missing_looks = 0;
            } else if complete {
                known.missing_looks += 1;
                if known.missing_looks >= 2 {
                    gone.push(path.clone());
                }
            }
        }
        for path in gone {
            self.forget(&path);
        }
        self.context.sink.mark_synced();
        self
    }

    /// Every file that matches, and whether all directories could be listed.
    fn list(&mut self) -> (Vec<String>, bool) {
        let mut paths = Vec::new();
        let mut unlisted = Vec::new();
        for pattern in &self.config.files {
            match expand(pattern) {
                Ok(found) => paths.extend(found),
                Err(error) => {
                    if !self.unlisted.contains(pattern) {
                        tracing::error!(pattern, %error, job = self.context.job, "cannot list target files");
                        self.context.metrics.file_read_errors.inc();
                    }
                    unlisted.push(pattern.clone());
                }
            }
        }
        paths.sort();
        paths.dedup();
        self.unlisted = unlisted;
        (paths, self.unlisted.is_empty())
    }

    fn look_at(&mut self, path: &str, everything: bool) {
        let stamp = match fs::metadata(path) {
            Ok(metadata) => stamp(&metadata),
            // Gone since the listing; the next look decides.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(source) => return self.fail(path, &DiscoveryError::Io { path: path.to_owned(), source }),
        };
        let known = self.known.get(path);
        if !everything && known.is_some_and(|known| known.stamp == stamp) {
            return;
        }
        let groups_before = known.map_or(0, |known| known.groups);
        let groups = match read(path, &stamp) {
            Ok(groups) => groups,
            Err(error) => {
                self.fail(path, &error);
                // Remembered, so that a broken file is reported once per version and refresh, not at every look.
                self.known.insert(path.to_owned(), Known { stamp, groups: groups_before, missing_looks: 0 });
                return;
            }
        };
        let count = groups.len();
        let found = groups.into_iter().map(|group| (group.source.clone(), Some(group)));
        let gone = (count..groups_before).map(|i| (format!("{path}:{i}").into(), None));
        self.context.sink.update(found.chain(gone));
        let modified = stamp.modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        self.context.metrics.file_mtime_seconds.with_label_values(&[path]).set(modified.as_secs() as f64);
        self.known.insert(path.to_owned(), Known { stamp, groups: count, missing_looks: 0 });
    }

    fn fail(&self, path: &str, error: &DiscoveryError) {
        tracing::error!(path, %error, job = self.context.job, "target file not read, its previous targets stay");
        self.context.metrics.file_read_errors.inc();
        self.context.metrics.refresh_failures.with_label_values(&["file", &self.context.job]).inc();
    }

    fn forget(&mut self, path: &str) {
        let Some(known) = self.known.remove(path) else { return };
        self.context.sink.update((0..known.groups).map(|i| (format!("{path}:{i}").into(), None)));
        // Absent when the file was never read with success.
        let _ = self.context.metrics.file_mtime_seconds.remove_label_values(&[path]);
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Stamp { modified: metadata.modified().ok(), len_bytes: metadata.len(), inode }
}

fn read(path: &str, stamp: &Stamp) -> Result<Vec<TargetGroup>, DiscoveryError> {
    let io_error = |source| DiscoveryError::Io { path: path.to_owned(), source };
    if stamp.len_bytes > FILE_LEN_BYTES_MAX {
        let message = format!("{} bytes are too many; split the file", stamp.len_bytes);
        return Err(io_error(io::Error::new(io::ErrorKind::FileTooLarge, message)));
    }
    let content = fs::read_to_string(path).map_err(io_error)?;
    let format = Format::of_path(path).ok_or_else(|| DiscoveryError::Groups {
        origin: path.to_owned(),
        message: "target files end in .json, .yml or .yaml".to_owned(),
    })?;
    target_file::parse(&content, format, path, FILEPATH_LABEL)
}

/// The files that `pattern` names: itself, or every match of the `*` in its last part. A file that is not there is no
/// match; a directory that cannot be listed is an error.
fn expand(pattern: &str) -> io::Result<Vec<String>> {
    let (dir, name) = match pattern.rfind('/') {
        Some(i) => pattern.split_at(i + 1),
        None => ("", pattern),
    };
    let listed = fs::read_dir(if dir.is_empty() { Path::new(".") } else { Path::new(dir) })?;
    let Some((prefix, suffix)) = name.split_once('*') else {
        return Ok(if fs::exists(pattern)? { vec![pattern.to_owned()] } else { Vec::new() });
    };
    let mut paths = Vec::new();
    for entry in listed {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let fits = name.len() >= prefix.len() + suffix.len();
        if fits && name.starts_with(prefix) && name.ends_with(suffix) {
            paths.push(format!("{dir}{name}"));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests;
