//! `queries.active`: the queries that run, on disk, so that the start after a crash can name those that may have caused
//! it. The file is Prometheus's: `[`, then one entry of 1,000 bytes for every query that may run at once, zeros where there
//! is none, each entry an object `{"query":…,"timestamp_sec":…}` filled up with zeros and ended by a comma.
//!
//! Entries are written with one call of the system each and not synced: they are to survive the process, not the machine.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use model::Clock;
use serde::{Deserialize, Serialize};

const FILE_NAME: &str = "queries.active";
const ENTRY_BYTES: usize = 1_000;
/// Entries that are read of the run before; more could not have run at once in earnest.
const ENTRIES_MAX: usize = 10_000;

/// The file of the queries that run.
pub struct ActiveQueryFile {
    file: File,
    clock: Arc<dyn Clock>,
    complained: AtomicBool,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    query: String,
    timestamp_sec: i64,
}

impl ActiveQueryFile {
    /// Names the queries of the run before that did not end, and begins a new file in `dir` with `slots` entries. `dir`
    /// is there and nobody else writes to it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(dir: &Path, slots: usize, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<Self>> {
        let path = dir.join(FILE_NAME);
        let context = || format!("cannot write {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(context)?;
        let mut bytes = Vec::new();
        let limit = (1 + ENTRIES_MAX * ENTRY_BYTES) as u64;
        Read::by_ref(&mut file).take(limit).read_to_end(&mut bytes).with_context(context)?;
        let unfinished = unfinished(&bytes);
        if !unfinished.is_empty() {
            tracing::warn!(
                queries = format!("[{}]", unfinished.join(",")),
                "these queries did not end in the last run"
            );
        }
        file.set_len(0)
            .and_then(|()| file.set_len(1 + (slots.max(1) * ENTRY_BYTES) as u64))
            .with_context(context)?;
        file.write_all_at(b"[", 0).with_context(context)?;
        Ok(Arc::new(Self { file, clock, complained: AtomicBool::new(false) }))
    }

    fn write(&self, slot: usize, entry: &[u8; ENTRY_BYTES]) {
        let at = 1 + (slot * ENTRY_BYTES) as u64;
        if let Err(e) = self.file.write_all_at(entry, at)
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(error = %e, "cannot write {FILE_NAME}; queries that do not end will not be named");
        }
    }
}

impl promql::ActiveQueries for ActiveQueryFile {
    fn insert(&self, slot: usize, query: &str) {
        let mut entry = [0; ENTRY_BYTES];
        let text = entry_text(query, self.clock.now_ms().div_euclid(1_000));
        entry[..text.len()].copy_from_slice(text.as_bytes());
        entry[ENTRY_BYTES - 1] = b',';
        self.write(slot, &entry);
    }

    fn remove(&self, slot: usize) {
        self.write(slot, &[0; ENTRY_BYTES]);
    }
}

/// The entry of a query, cut so that it leaves room for the comma.
fn entry_text(query: &str, timestamp_sec: i64) -> String {
    let mut keep = query.len().min(ENTRY_BYTES);
    loop {
        while !query.is_char_boundary(keep) {
            keep -= 1;
        }
        let entry = Entry { query: query[..keep].to_owned(), timestamp_sec };
        let text = serde_json::to_string(&entry).expect("strings and numbers are JSON");
        let Some(over) = text.len().checked_sub(ENTRY_BYTES - 1).filter(|over| *over > 0) else {
            return text;
        };
        // An escape is six bytes at most: this never cuts more than what has to go.
        keep = keep.saturating_sub(over.div_ceil(6));
    }
}

/// The entries of a file. What cannot be read as one is shown as it is.
fn unfinished(bytes: &[u8]) -> Vec<String> {
    let entries = bytes.get(1..).unwrap_or_default().chunks(ENTRY_BYTES);
    entries
        .filter_map(|entry| {
            let entry = entry.split(|b| *b == 0).find(|part| !part.is_empty() && *part != b",")?;
            let text = String::from_utf8_lossy(entry);
            Some(text.trim_end_matches(',').to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::clock::ManualClock;
    use promql::ActiveQueries;

    fn read(dir: &Path) -> Vec<u8> {
        std::fs::read(dir.join(FILE_NAME)).expect("a file")
    }

    #[test]
    fn what_did_not_end_is_found() {
        let dir = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::new(1_700_000_000_999));
        let log = ActiveQueryFile::open(dir.path(), 3, clock.clone()).expect("writable");
        assert_eq!(read(dir.path()).len(), 3_001);
        assert!(unfinished(&read(dir.path())).is_empty());
        log.insert(0, "up");
        log.insert(1, "sum(\"a<b\")");
        log.insert(2, &"\u{1}é".repeat(5_000));
        log.remove(0);
        let bytes = read(dir.path());
        assert_eq!(bytes.len(), 3_001);
        assert_eq!((bytes[0], bytes[2_000], bytes[3_000]), (b'[', b',', b','));
        let found = unfinished(&bytes);
        assert_eq!(found[0], r#"{"query":"sum(\"a<b\")","timestamp_sec":1700000000}"#);
        let long: Entry = serde_json::from_str(&found[1]).expect("valid although cut");
        assert!(long.query.len() > 300 && long.query.starts_with("\u{1}é"), "{}", long.query.len());
        // The next start forgets them.
        drop(log);
        ActiveQueryFile::open(dir.path(), 1, clock).expect("writable");
        assert_eq!(read(dir.path()).len(), 1_001);
        assert!(unfinished(&read(dir.path())).is_empty());
    }

    #[test]
    fn any_bytes_are_survived() {
        for bytes in [&b""[..], b"[", b"[,", b"\xff\xfe", &[0; 5_000], &[b','; 5_000], &[0xff; 2_500]] {
            let _ = unfinished(bytes);
        }
    }
}
