//! The file that keeps the acknowledged position of a destination.
//!
//! One small JSON file per destination, named by a hash of the destination's name, written aside, synced and renamed,
//! so that either the old or the new position is there after a crash. A checksum covers its fields. A file
//! that is damaged is kept aside for inspection and counts as absent: sending starts from the begin of the log, which
//! repeats samples but loses none.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use model::StorageError;
use model::storage::WalPosition;
use serde::{Deserialize, Serialize};

use super::{Acknowledged, Times};

/// Version 1 had neither times nor selectors; it is read, and written anew as version 2.
const VERSION: u32 = 2;
/// A position file is far smaller; anything longer is not ours.
const MAX_FILE_BYTES: u64 = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    destination: String,
    segment: u32,
    offset: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    low_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    selectors: Option<Vec<String>>,
    /// CRC-32C of all fields before, see [`Content::checksum`].
    crc32c: u32,
}

impl Content {
    fn checksum(&self) -> u32 {
        let mut bytes = self.version.to_be_bytes().to_vec();
        bytes.extend_from_slice(self.destination.as_bytes());
        bytes.extend_from_slice(&WalPosition { segment: self.segment, offset: self.offset }.to_bytes());
        if self.version >= 2 {
            for time in [self.newest_ms, self.low_ms] {
                bytes.push(u8::from(time.is_some()));
                bytes.extend_from_slice(&time.unwrap_or_default().to_be_bytes());
            }
            bytes.push(u8::from(self.selectors.is_some()));
            for selector in self.selectors.iter().flatten() {
                bytes.extend_from_slice(&(selector.len() as u64).to_be_bytes());
                bytes.extend_from_slice(selector.as_bytes());
            }
        }
        crc32c::crc32c(&bytes)
    }
}

/// What is stored of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// How far everything is acknowledged.
    pub acknowledged: Acknowledged,
    /// The selectors that the position was reached with, sorted; an empty list selects everything. `None`: not known.
    pub selectors: Option<Vec<String>>,
}

/// The position file of one destination.
#[derive(Clone, Debug)]
pub struct PositionFile {
    destination: String,
    path: PathBuf,
}

impl PositionFile {
    /// The file of `destination` in `dir`, which is made when it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(dir: &Path, destination: &str) -> Result<Self, StorageError> {
        fs::create_dir_all(dir).map_err(|e| StorageError::io("create directory", dir, &e))?;
        // Names come from users and may hold anything; a hash is a valid file name. Equal hashes would be noticed when
        // reading, since the file holds the name.
        let hash = model::Labels::from_pairs([("destination", destination)]).hash64();
        Ok(Self { destination: destination.to_owned(), path: dir.join(format!("{hash:016x}.json")) })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The stored position; `None` when nothing (sound) is stored. Blocks on the disk.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn load(&self) -> Result<Option<Stored>, StorageError> {
        let len = match fs::metadata(&self.path) {
            Ok(m) => m.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StorageError::io("stat", &self.path, &e)),
        };
        let sound = if len > MAX_FILE_BYTES {
            Err("too long".to_owned())
        } else {
            let bytes = fs::read(&self.path).map_err(|e| StorageError::io("read", &self.path, &e))?;
            self.parse(&bytes)
        };
        match sound {
            Ok(stored) => Ok(Some(stored)),
            Err(reason) => {
                let aside = self.path.with_extension("json.damaged");
                tracing::error!(
                    destination = self.destination,
                    file = %self.path.display(),
                    kept_as = %aside.display(),
                    reason,
                    "the position file is damaged: sending starts from the begin of the write-ahead log, samples may be repeated"
                );
                fs::rename(&self.path, &aside).map_err(|e| StorageError::io("rename", &self.path, &e))?;
                Ok(None)
            }
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<Stored, String> {
        let content: Content = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if !(1..=VERSION).contains(&content.version) {
            return Err(format!("version {} is not known", content.version));
        }
        if content.crc32c != content.checksum() {
            return Err("checksum does not match".into());
        }
        if content.destination != self.destination {
            return Err(format!("belongs to destination {:?}", content.destination));
        }
        let times = match (content.newest_ms, content.low_ms) {
            (Some(newest_ms), Some(low_ms)) => Some(Times { newest_ms, low_ms }),
            _ => None,
        };
        let position = WalPosition { segment: content.segment, offset: content.offset };
        Ok(Stored { acknowledged: Acknowledged { position, times }, selectors: content.selectors })
    }

    /// Stores a position and what belongs to it; it is durable on return. Blocks on the disk.
    ///
    /// # Errors
    /// When it could not be made durable; the old position is there then, or the new one.
    pub fn store(&self, stored: &Stored) -> Result<(), StorageError> {
        let Acknowledged { position, times } = stored.acknowledged;
        let mut content = Content {
            version: VERSION,
            destination: self.destination.clone(),
            segment: position.segment,
            offset: position.offset,
            newest_ms: times.map(|t| t.newest_ms),
            low_ms: times.map(|t| t.low_ms),
            selectors: stored.selectors.clone(),
            crc32c: 0,
        };
        content.crc32c = content.checksum();
        let mut bytes = serde_json::to_vec(&content).expect("numbers and a string serialise");
        bytes.push(b'\n');
        write_durably(&self.path, &bytes)
    }

    /// Forgets the position, when a destination is gone for good.
    ///
    /// # Errors
    /// When the file is there and cannot be removed.
    pub fn remove(&self) -> Result<(), StorageError> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(StorageError::io("remove", &self.path, &e)),
        }
    }
}

/// Puts `bytes` in place of a file: written aside, synced, renamed, and the directory synced.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    let mut file = File::create(&tmp).map_err(|e| StorageError::io("create", &tmp, &e))?;
    file.write_all(bytes).map_err(|e| StorageError::io("write", &tmp, &e))?;
    file.sync_all().map_err(|e| StorageError::io("fsync", &tmp, &e))?;
    drop(file);
    fs::rename(&tmp, path).map_err(|e| StorageError::io("rename", &tmp, &e))?;
    let dir = path.parent().expect("the file lies in a directory");
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| StorageError::io("fsync", dir, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(offset: u64, times: Option<Times>, selectors: Option<&[&str]>) -> Stored {
        let position = WalPosition { segment: 7, offset };
        let selectors = selectors.map(|list| list.iter().map(|s| (*s).to_owned()).collect());
        Stored { acknowledged: Acknowledged { position, times }, selectors }
    }

    #[test]
    fn stores_and_loads() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let a = PositionFile::open(&dir.path().join("positions"), "a/../b").expect("made");
        let b = PositionFile::open(&dir.path().join("positions"), "b").expect("made");
        assert_eq!(a.load().expect("readable"), None);
        let times = Some(Times { newest_ms: -1, low_ms: i64::MIN });
        for p in [
            stored(0, None, None),
            stored(5, times, Some(&[])),
            stored(u64::MAX, None, Some(&["{a=\"b\"}", "{}"])),
        ] {
            a.store(&p).expect("writable");
            assert_eq!(a.load().expect("readable"), Some(p));
        }
        assert_eq!(b.load().expect("readable"), None);
        a.remove().expect("removable");
        a.remove().expect("gone already");
        assert_eq!(a.load().expect("readable"), None);
    }

    #[test]
    fn version_1_is_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let f = PositionFile::open(dir.path(), "a").expect("made");
        let mut content = Content {
            version: 1,
            destination: "a".into(),
            segment: 7,
            offset: 9,
            newest_ms: None,
            low_ms: None,
            selectors: None,
            crc32c: 0,
        };
        content.crc32c = content.checksum();
        fs::write(f.path(), serde_json::to_vec(&content).expect("serialises")).expect("writable");
        assert_eq!(f.load().expect("readable"), Some(stored(9, None, None)));
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let f = PositionFile::open(dir.path(), "a").expect("made");
        let times = Some(Times { newest_ms: 1234, low_ms: 567 });
        f.store(&stored(123_456, times, Some(&["{}"]))).expect("writable");
        let good = fs::read(f.path()).expect("readable");
        for i in 0..good.len() - 1 {
            let mut bytes = good.clone();
            bytes[i] ^= 1;
            fs::write(f.path(), &bytes).expect("writable");
            assert_eq!(f.load().expect("readable"), None, "{}", String::from_utf8_lossy(&bytes));
            assert!(!f.path().exists());
        }
        fs::write(f.path(), &good[..good.len() / 2]).expect("writable");
        assert_eq!(f.load().expect("readable"), None);
    }
}
