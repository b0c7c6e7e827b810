//! The file of a backlog queue, drawn in docs/formats/federation.md: one line with version and checksum, then JSON.
//!
//! Written aside, synced and renamed, so that either the old or the new queue is there after a crash.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::{Labels, MatchOp, Matcher, StorageError};
use serde::{Deserialize, Serialize};

use super::range::{Range, Ranges, Reason};
use crate::queue::position::write_durably;

const MAGIC: &str = "almanac-backlog 1 ";
/// Ranges are few; anything longer is not ours.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// What is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stored {
    pub(super) ranges: Ranges,
    pub(super) verified_until_ms: Option<i64>,
    pub(super) promoted_until_ms: Option<i64>,
}

/// The file of one destination.
#[derive(Clone, Debug)]
pub(super) struct BacklogFile {
    destination: String,
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Content {
    destination: String,
    next_id: u64,
    verified_until_ms: Option<i64>,
    promoted_until_ms: Option<i64>,
    ranges: Vec<StoredRange>,
}

#[derive(Serialize, Deserialize)]
struct StoredRange {
    id: u64,
    reason: String,
    enqueued_ms: i64,
    selectors: Vec<Vec<(String, String, String)>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    strip: Vec<String>,
    mint: i64,
    maxt: i64,
    done_until: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Vec<(String, String)>>,
    samples: u64,
}

impl BacklogFile {
    /// The file of `destination` in `dir`, and what it holds: an empty queue when there is no file, `None` when it was
    /// damaged and is now kept aside.
    pub(super) fn open(dir: &Path, destination: &str) -> Result<(Self, Option<Stored>), StorageError> {
        fs::create_dir_all(dir).map_err(|e| StorageError::io("create directory", dir, &e))?;
        let hash = Labels::from_pairs([("destination", destination)]).hash64();
        let path = dir.join(format!("{hash:016x}.backlog"));
        let this = Self { destination: destination.to_owned(), path };
        let stored = this.load()?;
        Ok((this, stored))
    }

    fn load(&self) -> Result<Option<Stored>, StorageError> {
        let len = match fs::metadata(&self.path) {
            Ok(m) => m.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(Stored::default())),
            Err(e) => return Err(StorageError::io("stat", &self.path, &e)),
        };
        let parsed = if len > MAX_FILE_BYTES {
            Err("too long".to_owned())
        } else {
            let bytes = fs::read(&self.path).map_err(|e| StorageError::io("read", &self.path, &e))?;
            self.parse(&bytes)
        };
        match parsed {
            Ok(stored) => Ok(Some(stored)),
            Err(reason) => {
                let aside = self.path.with_extension("backlog.damaged");
                tracing::error!(
                    destination = self.destination,
                    file = %self.path.display(),
                    kept_as = %aside.display(),
                    reason,
                    "the backlog file is damaged: the whole local history of what is selected is sent again"
                );
                fs::rename(&self.path, &aside).map_err(|e| StorageError::io("rename", &self.path, &e))?;
                Ok(None)
            }
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<Stored, String> {
        let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
        let rest = text.strip_prefix(MAGIC).ok_or("does not begin as a backlog file of version 1")?;
        let (checksum, json) = rest.split_once('\n').ok_or("no end of the first line")?;
        if checksum != checksum_of(json) {
            return Err("checksum does not match".into());
        }
        let content: Content = serde_json::from_str(json).map_err(|e| e.to_string())?;
        if content.destination != self.destination {
            return Err(format!("belongs to destination {:?}", content.destination));
        }
        let ranges = content.ranges.into_iter().map(StoredRange::into_range).collect::<Result<_, _>>()?;
        Ok(Stored {
            ranges: Ranges::from_parts(ranges, content.next_id),
            verified_until_ms: content.verified_until_ms,
            promoted_until_ms: content.promoted_until_ms,
        })
    }

    /// Stores a queue; it is durable on return.
    pub(super) fn store(&self, stored: &Stored) -> Result<(), StorageError> {
        let content = Content {
            destination: self.destination.clone(),
            next_id: stored.ranges.next_id(),
            verified_until_ms: stored.verified_until_ms,
            promoted_until_ms: stored.promoted_until_ms,
            ranges: stored.ranges.list().iter().map(StoredRange::of).collect(),
        };
        let json = serde_json::to_string(&content).expect("numbers and strings serialise");
        write_durably(&self.path, format!("{MAGIC}{}\n{json}", checksum_of(&json)).as_bytes())
    }
}

fn checksum_of(json: &str) -> String {
    format!("{:08x}", crc32c::crc32c(json.as_bytes()))
}

impl StoredRange {
    fn of(r: &Range) -> Self {
        let matcher = |m: &Matcher| (m.name.clone(), m.op.as_str().to_owned(), m.value.clone());
        Self {
            id: r.id,
            reason: r.reason.as_str().to_owned(),
            enqueued_ms: r.enqueued_ms,
            selectors: r.selectors.iter().map(|set| set.iter().map(matcher).collect()).collect(),
            strip: r.strip.clone(),
            mint: r.mint,
            maxt: r.maxt,
            done_until: r.done_until,
            after: r.after.as_ref().map(|l| l.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()),
            samples: r.samples,
        }
    }

    fn into_range(self) -> Result<Range, String> {
        let matcher = |(name, op, value): (String, String, String)| {
            let op = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regexp, MatchOp::NotRegexp]
                .into_iter()
                .find(|o| o.as_str() == op)
                .ok_or_else(|| format!("unknown matcher {op:?}"))?;
            Matcher::new(op, name, value).map_err(|e| e.to_string())
        };
        let selectors = self
            .selectors
            .into_iter()
            .map(|set| set.into_iter().map(matcher).collect::<Result<Vec<_>, _>>())
            .collect::<Result<_, _>>()?;
        Ok(Range {
            id: self.id,
            reason: Reason::parse(&self.reason).ok_or_else(|| format!("unknown reason {:?}", self.reason))?,
            enqueued_ms: self.enqueued_ms,
            selectors,
            strip: self.strip,
            mint: self.mint,
            maxt: self.maxt,
            done_until: self.done_until,
            after: self.after.map(Labels::from_pairs),
            samples: self.samples,
            generation: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::range::NewRange;
    use super::*;

    fn example() -> Stored {
        let mut ranges = Ranges::default();
        let regexp = Matcher::new(MatchOp::Regexp, "__name__", "a|b.*").expect("valid");
        for (mint, strip) in [(i64::MIN, vec![]), (5, vec!["longterm".to_owned()])] {
            ranges.add(
                NewRange {
                    reason: Reason::Promotion,
                    selectors: vec![vec![regexp.clone(), Matcher::not_equal("longterm", "")], vec![]],
                    strip,
                    mint,
                    maxt: 100,
                },
                7,
            );
        }
        let job = ranges.next(Some(5)).expect("work");
        ranges.advanced(&job, Some(Labels::from_pairs([("a", "\"\u{1F30D}\n")])), 3);
        Stored { ranges, verified_until_ms: Some(-5), promoted_until_ms: None }
    }

    #[test]
    fn stores_and_loads() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (f, loaded) = BacklogFile::open(&dir.path().join("x"), "a").expect("made");
        assert_eq!(loaded, Some(Stored::default()));
        let stored = example();
        f.store(&stored).expect("writable");
        let (_, loaded) = BacklogFile::open(&dir.path().join("x"), "a").expect("readable");
        let loaded = loaded.expect("sound");
        let plain = |s: &Stored| {
            let list = s.ranges.list().iter().map(|r| Range { generation: 0, ..r.clone() });
            (list.collect::<Vec<_>>(), s.ranges.next_id(), s.verified_until_ms, s.promoted_until_ms)
        };
        assert_eq!(plain(&loaded), plain(&stored));
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (f, _) = BacklogFile::open(dir.path(), "a").expect("made");
        f.store(&example()).expect("writable");
        let good = fs::read(&f.path).expect("readable");
        for i in 0..good.len() {
            let mut bytes = good.clone();
            bytes[i] ^= 1;
            fs::write(&f.path, &bytes).expect("writable");
            assert_eq!(f.load().expect("readable"), None, "flipped at {i}");
            assert!(!f.path.exists());
        }
        fs::write(&f.path, &good[..good.len() / 2]).expect("writable");
        assert_eq!(f.load().expect("readable"), None);
    }
}
