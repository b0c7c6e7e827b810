//! File discovery: target groups from JSON and YAML files.
//!
//! Files are looked at when something happens in their folders ([`watch`]) and every
//! [`DiscoveryOptions::file_poll_ms`](super::DiscoveryOptions), and read again when their inode, size or modification
//! time changed, and in any case once per refresh interval. The regular looks see what notifications miss (network file
//! systems, replaced folders) and are cheap for the few files there are.
//!
//! A file that cannot be read or understood keeps its previous groups, and so does one that was emptied a moment ago: it
//! is being written. A file must be missing for a while before its groups go, because some editors replace a file by
//! removing it first; a folder that cannot be listed removes nothing.

mod watch;

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::watch::Watcher;
use super::config::FileConfig;
use super::error::DiscoveryError;
use super::glob;
use super::manager::ProviderContext;
use super::target_file::{self, Format};
use crate::target_group::TargetGroup;

/// Label with the path of the file a target is from.
const FILEPATH_LABEL: &str = "__meta_filepath";
/// Largest file that is read; ten times what a hundred thousand targets need.
const FILE_LEN_BYTES_MAX: u64 = 256 << 20;

/// How long files are left alone after something happened: what happens comes in bursts, and folders may hold logs.
const SETTLE: Duration = Duration::from_millis(100);
/// A modification time this young may belong to two versions: clocks of file systems tick slowly.
const YOUNG_MS: i64 = 100;

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
    /// It may have changed since without showing it.
    young: bool,
    missing_since: Option<Duration>,
}

/// The files of one configuration.
struct Files {
    config: FileConfig,
    context: ProviderContext,
    known: BTreeMap<String, Known>,
    /// Patterns whose folder could not be listed at the last look, so that each is logged once.
    unlisted: Vec<String>,
    /// `None` when the system gives none, or no more watches: regular looks are all there is.
    watcher: Option<Arc<Watcher>>,
}

/// Follows the files until the task is aborted.
pub(super) async fn run(config: FileConfig, context: ProviderContext) {
    let poll = Duration::from_millis(context.options.file_poll_ms.clamp(1, config.refresh_interval_ms));
    let refresh = Duration::from_millis(config.refresh_interval_ms);
    let mut files = Files { config, context, known: BTreeMap::new(), unlisted: Vec::new(), watcher: None };
    match Watcher::new() {
        Ok(watcher) => files.watcher = Some(Arc::new(watcher)),
        Err(error) => files.not_watched(&error),
    }
    let mut last_refresh = None;
    loop {
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
        let pause = if files.is_unsure() { poll.min(2 * SETTLE) } else { poll };
        let Some(watcher) = files.watcher.clone() else {
            tokio::time::sleep(pause).await;
            continue;
        };
        match tokio::time::timeout(pause, watcher.changed()).await {
            Ok(Ok(())) => tokio::time::sleep(SETTLE.min(pause)).await,
            Ok(Err(error)) => files.not_watched(&error),
            Err(_) => {}
        }
    }
}

impl Files {
    /// Reads what changed, or every file.
    fn look(mut self, everything: bool) -> Self {
        let begun = self.context.clock.monotonic();
        // Before the look, so that nothing happens unseen between both.
        self.watch();
        let (paths, complete) = self.list();
        for path in &paths {
            self.look_at(path, everything);
        }
        // A removed file shows in two looks at least, the second of them after what `run` pauses then.
        let grace = Duration::from_millis(self.context.options.file_poll_ms).min(SETTLE);
        let mut gone = Vec::new();
        for (path, known) in &mut self.known {
            if paths.contains(path) {
                known.missing_since = None;
            } else if complete {
                let since = *known.missing_since.get_or_insert(begun);
                if begun.saturating_sub(since) >= grace {
                    gone.push(path.clone());
                }
            }
        }
        for path in gone {
            self.forget(&path);
        }
        self.context.sink.mark_synced();
        let took = self.context.clock.monotonic().saturating_sub(begun);
        self.context.metrics.file_scan_seconds.observe(took.as_secs_f64());
        self
    }

    /// Whether the next look should come soon.
    fn is_unsure(&self) -> bool {
        self.known.values().any(|known| known.young || known.missing_since.is_some())
    }

    fn watch(&mut self) {
        let Some(watcher) = &self.watcher else { return };
        let folders = self.config.files.iter().map(|p| p.rfind('/').map_or("", |i| &p[..=i]));
        if let Some(error) = folders.filter_map(|folder| watcher.follow(folder).err()).next() {
            self.not_watched(&error);
        }
    }

    fn not_watched(&mut self, error: &io::Error) {
        tracing::error!(%error, job = self.context.job, "target files are not watched, only looked at regularly");
        self.context.metrics.file_watcher_errors.inc();
        self.watcher = None;
    }

    /// Every file that matches, and whether all directories could be listed.
    fn list(&mut self) -> (Vec<String>, bool) {
        let mut paths = Vec::new();
        let mut unlisted = Vec::new();
        for pattern in &self.config.files {
            let (found, error) = match glob::expand(pattern) {
                Ok(found) => (found.paths, found.unlisted.map(|e| e.to_string())),
                Err(error) => (Vec::new(), Some(error)),
            };
            paths.extend(found);
            if let Some(error) = error {
                if !self.unlisted.contains(pattern) {
                    tracing::error!(pattern, %error, job = self.context.job, "cannot list target files");
                    self.context.metrics.file_read_errors.inc();
                }
                unlisted.push(pattern.clone());
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
        let groups_before = known.map_or(0, |known| known.groups);
        let young = self.is_young(&stamp);
        let emptied = stamp.len_bytes == 0 && young && groups_before > 0;
        if !everything && known.is_some_and(|known| known.stamp == stamp && !known.young) {
            return;
        }
        if emptied {
            self.remember(path, stamp, groups_before, young);
            return;
        }
        let groups = match read(path, &stamp) {
            Ok(groups) => groups,
            Err(error) => {
                // A broken file is reported once per version and refresh, not at every look.
                if everything || known.is_none_or(|known| known.stamp != stamp) {
                    self.fail(path, &error);
                }
                self.remember(path, stamp, groups_before, young);
                return;
            }
        };
        let count = groups.len();
        let found = groups.into_iter().map(|group| (group.source.clone(), Some(group)));
        let gone = (count..groups_before).map(|i| (format!("{path}:{i}").into(), None));
        self.context.sink.update(found.chain(gone));
        let modified = stamp.modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        self.context.metrics.file_mtime_seconds.with_label_values(&[path]).set(modified.as_secs() as f64);
        self.remember(path, stamp, count, young);
    }

    fn remember(&mut self, path: &str, stamp: Stamp, groups: usize, young: bool) {
        self.known.insert(path.to_owned(), Known { stamp, groups, young, missing_since: None });
    }

    /// Whether a file was written so lately that it may be written again with the same stamp.
    fn is_young(&self, stamp: &Stamp) -> bool {
        let modified = stamp.modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified_ms = modified.and_then(|at| i64::try_from(at.as_millis()).ok());
        modified_ms.is_some_and(|at| (0..YOUNG_MS).contains(&(self.context.clock.now_ms() - at)))
    }

    fn fail(&self, path: &str, error: &DiscoveryError) {
        tracing::error!(path, %error, job = self.context.job, "target file not read, its previous targets stay");
        self.context.metrics.file_read_errors.inc();
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

/// The groups of a target file, as discovery would read them.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read_target_file(path: &str) -> Result<Vec<TargetGroup>, DiscoveryError> {
    let metadata =
        fs::metadata(path).map_err(|source| DiscoveryError::Io { path: path.to_owned(), source })?;
    read(path, &stamp(&metadata))
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

#[cfg(test)]
mod tests;
