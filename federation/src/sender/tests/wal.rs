//! A write-ahead log in memory: one record per ten bytes, a new segment after each hundred records.

use std::sync::{Arc, Mutex};

use model::StorageError;
use model::storage::{WalPosition, WalRecord, WalSource, WalTail};

const RECORD_BYTES: u64 = 10;
const RECORDS_PER_SEGMENT: usize = 100;

#[derive(Default)]
struct State {
    records: Vec<WalRecord>,
    /// Records before this one are gone, but for the series they name, as a checkpoint keeps them.
    truncated: usize,
    held: Option<WalPosition>,
    /// Reads fail so many times.
    failures: usize,
    opened: usize,
    /// A log opened anew does not name series from this reference on.
    forgotten_from: Option<u64>,
}

#[derive(Clone, Default)]
pub(crate) struct MemoryWal {
    state: Arc<Mutex<State>>,
}

fn position(record: usize) -> WalPosition {
    WalPosition {
        segment: (record / RECORDS_PER_SEGMENT) as u32,
        offset: (record % RECORDS_PER_SEGMENT) as u64 * RECORD_BYTES,
    }
}

fn record(position: WalPosition) -> usize {
    position.segment as usize * RECORDS_PER_SEGMENT + (position.offset / RECORD_BYTES) as usize
}

impl MemoryWal {
    pub(crate) fn append(&self, record: WalRecord) {
        self.state.lock().expect("sound").records.push(record);
    }

    pub(crate) fn truncate(&self, records: usize) {
        self.state.lock().expect("sound").truncated = records;
    }

    /// Truncates under readers that are further back, too.
    pub(crate) fn vanish(&self, records: usize) {
        self.truncate(records);
    }

    pub(crate) fn fail(&self, times: usize) {
        self.state.lock().expect("sound").failures = times;
    }

    pub(crate) fn forget_series_from(&self, reference: u64) {
        self.state.lock().expect("sound").forgotten_from = Some(reference);
    }

    pub(crate) fn held(&self) -> Option<WalPosition> {
        self.state.lock().expect("sound").held
    }

    pub(crate) fn opened(&self) -> usize {
        self.state.lock().expect("sound").opened
    }
}

impl WalSource for MemoryWal {
    fn tail(&self, from: Option<WalPosition>) -> Result<Box<dyn WalTail>, StorageError> {
        let mut s = self.state.lock().expect("sound");
        s.opened += 1;
        let asked = from.map_or(s.records.len(), record).min(s.records.len());
        let next = asked.max(s.truncated);
        let gap = (asked < next).then(|| position(asked));
        let forgotten = s.forgotten_from.unwrap_or(u64::MAX);
        let keep = |r: &WalRecord| match r {
            WalRecord::Series(list) => {
                let kept: Vec<_> = list.iter().filter(|(r, _)| r.0 < forgotten).cloned().collect();
                (!kept.is_empty()).then_some(WalRecord::Series(kept))
            }
            _ => None,
        };
        let names = s.records[..next].iter().filter_map(keep).collect();
        Ok(Box::new(Tail { wal: self.clone(), names, next, gap }))
    }

    fn end(&self) -> WalPosition {
        position(self.state.lock().expect("sound").records.len())
    }

    fn hold(&self, _reader: &str, position: Option<WalPosition>) {
        self.state.lock().expect("sound").held = position;
    }
}

struct Tail {
    wal: MemoryWal,
    names: Vec<WalRecord>,
    next: usize,
    gap: Option<WalPosition>,
}

impl WalTail for Tail {
    fn read(&mut self, max_records: usize, out: &mut Vec<WalRecord>) -> Result<WalPosition, StorageError> {
        let mut s = self.wal.state.lock().expect("sound");
        if s.failures > 0 {
            s.failures -= 1;
            return Err(StorageError::Closed);
        }
        if !self.names.is_empty() {
            let n = self.names.len().min(max_records);
            out.extend(self.names.drain(..n));
            return Ok(position(self.next));
        }
        if self.next < s.truncated {
            self.gap.get_or_insert(position(self.next));
            self.next = s.truncated;
        }
        let end = s.records.len().min(self.next + max_records);
        out.extend_from_slice(&s.records[self.next..end]);
        self.next = end;
        Ok(position(end))
    }

    fn position(&self) -> WalPosition {
        position(self.next)
    }

    fn gap(&self) -> Option<WalPosition> {
        self.gap
    }
}
