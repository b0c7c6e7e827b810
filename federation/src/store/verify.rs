//! Reading everything there is and checking each checksum: RocksDB's of blocks and files, and ours of rows and chunks.
//!
//! What is checked beyond them: chunks hold what their heads and keys say, do not overlap, and belong to series that exist;
//! rollups are what the chunks give;
//! the journal has no hole; the table of hashes and the index name series that exist.

use std::borrow::Cow;
use std::path::PathBuf;

use model::{Samples, StorageError};
use roaring::RoaringTreemap;
use rocksdb::{DB, ReadOptions};

use super::chunk::{Shared, decode_stored};
use super::chunk_rows::{ChunkRows, column_hash, read_column};
use super::config::StoreConfig;
use super::error::StoreError;
use super::families::{
    self, AGG1H, AGG5M, EXEMPLARS, FAMILIES, IDS, INDEX, JOURNAL, META, RAW, SEALED, SERIES, TS,
};
use super::journal::Record;
use super::keys::{
    id_key, month_end_ms, month_name, month_start_ms, parse_index_key, parse_sample_key, parse_ts_key, ts_key,
};
use super::postings;
use super::rollup::{ROLLUPS, Row, read_sealed};
use super::rows::{COUNTERS_KEY, decode_counters, decode_exemplar, decode_series};

/// Problems that are described; more are only counted.
const DESCRIBED_MAX: usize = 1000;
/// Rows between two calls that tell how far it is.
const ROWS_PER_STEP: u64 = 4096;

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Rows read, and their bytes.
    pub rows: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Series.
    pub series: u64,
    /// Samples in sealed chunks.
    pub sealed_samples: u64,
    /// Rows of rollups that were compared with the chunks.
    pub rollups: u64,
    /// Samples in the journal.
    pub journal_samples: u64,
    /// Chunks that were found damaged before and lie aside.
    pub moved_aside: u64,
    /// All problems, counted.
    pub problem_count: u64,
    /// The first thousand problems: where, and what is wrong.
    pub problems: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, family: &str, place: &str, reason: impl std::fmt::Display) {
        self.problem_count += 1;
        if self.problems.len() < DESCRIBED_MAX {
            self.problems.push(format!("{family}: {place}: {reason}"));
        }
    }
}

/// Verifies the store in a directory that no process has open: a node that is stopped, a snapshot, or a backup. `go_on` hears
/// now and then how far it is, in rows and as a share of 1, and ends it by saying no.
///
/// # Errors
/// When it cannot be opened. What is wrong inside is in the report.
pub fn verify(
    dir: impl Into<PathBuf>,
    mut go_on: impl FnMut(u64, f64) -> bool,
) -> Result<VerifyReport, StoreError> {
    let config = StoreConfig::new(dir);
    if !config.dir.join("CURRENT").exists() {
        return Err(StoreError::Config(format!("{} holds none", config.dir.display())));
    }
    let db = families::open(&config)?;
    let mut check = Check { db: &db, report: VerifyReport::default(), series: RoaringTreemap::new() };
    let total: u64 = FAMILIES.iter().map(|f| check.estimate(f)).sum::<u64>().max(1);
    let mut step = |rows: u64| go_on(rows, (rows as f64 / total as f64).min(1.0));
    // Series first: the others name them.
    for family in [SERIES, IDS, META, JOURNAL, SEALED, INDEX, TS, RAW, EXEMPLARS, AGG5M, AGG1H] {
        if !check.family(family, &mut step) {
            break;
        }
    }
    Ok(check.report)
}

struct Check<'a> {
    db: &'a DB,
    report: VerifyReport,
    /// Series that have a row.
    series: RoaringTreemap,
}

/// What rows before tell of the next one.
#[derive(Default)]
struct Before {
    seq: Option<u64>,
    /// Month, series and end of the chunk before.
    chunk: Option<(u16, u64, i64)>,
    record: Record,
    samples: Samples,
}

impl Check<'_> {
    fn estimate(&self, family: &str) -> u64 {
        let cf = self.db.cf_handle(family).expect("all families were opened");
        let keys = self.db.property_int_value_cf(&cf, "rocksdb.estimate-num-keys");
        keys.ok().flatten().unwrap_or(0)
    }

    /// Reads a family; false when it shall end.
    fn family(&mut self, family: &str, step: &mut impl FnMut(u64) -> bool) -> bool {
        let cf = self.db.cf_handle(family).expect("all families were opened");
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.fill_cache(false);
        options.set_readahead_size(2 << 20);
        let mut rows = self.db.raw_iterator_cf_opt(&cf, options);
        rows.seek_to_first();
        let mut before = Before::default();
        while let Some((key, value)) = rows.item() {
            self.report.rows += 1;
            self.report.bytes += (key.len() + value.len()) as u64;
            if let Err(e) = self.row(family, key, value, &mut before) {
                self.report.problem(family, &place(family, key), e);
            }
            if self.report.rows.is_multiple_of(ROWS_PER_STEP) && !step(self.report.rows) {
                return false;
            }
            rows.next();
        }
        if let Err(e) = rows.status() {
            self.report.problem(family, "the rest cannot be read", e);
        }
        step(self.report.rows)
    }

    fn row(
        &mut self,
        family: &str,
        key: &[u8],
        value: &[u8],
        before: &mut Before,
    ) -> Result<(), StorageError> {
        let wrong = |reason: &str| StorageError::decode("row", reason.to_owned());
        let number =
            |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).map_err(|_| wrong("not 8 bytes"));
        match family {
            SERIES => {
                let id = number(key)?;
                let (labels, _) = decode_series(value)?;
                self.series.insert(id);
                self.report.series += 1;
                let ids = self.db.cf_handle(IDS).expect("all families were opened");
                let found = self.db.get_pinned_cf(&ids, id_key(labels.hash64(), id));
                match found {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => Err(wrong("the table of hashes has not got it")),
                    Err(e) => Err(wrong(e.as_ref())),
                }
            }
            IDS => {
                let id = key.split_last_chunk::<8>().map(|(_, id)| u64::from_be_bytes(*id));
                self.known(id.filter(|_| key.len() == 16).ok_or_else(|| wrong("not 16 bytes"))?)
            }
            META if key == COUNTERS_KEY => decode_counters(value).map(drop),
            META => {
                self.report.moved_aside += u64::from(key.starts_with(b"damaged"));
                Ok(())
            }
            JOURNAL => {
                let seq = number(key)?;
                let hole = before.seq.replace(seq).is_some_and(|last| last + 1 != seq);
                before.record.decode(value)?;
                self.report.journal_samples +=
                    (before.record.floats.len() + before.record.others.len()) as u64;
                if hole { Err(wrong("records before it are missing")) } else { Ok(()) }
            }
            SEALED => number(value).and_then(|_| self.known(number(key)?)),
            INDEX => {
                let mut ids = RoaringTreemap::new();
                postings::decode(value, &mut ids)?;
                if key.len() != 4 && parse_index_key(key).is_none() {
                    return Err(wrong("its key is no label pair"));
                }
                match (ids - &self.series).min() {
                    Some(id) => self.known(id),
                    None => Ok(()),
                }
            }
            RAW => self.chunk(key, value, before),
            TS => {
                let (_, hash) = parse_ts_key(key).ok_or_else(|| wrong("its key is none"))?;
                let column = read_column(value)?;
                if column_hash(column) == hash { Ok(()) } else { Err(wrong("it is not what its key says")) }
            }
            AGG5M | AGG1H => self.rollup(family, key, value, before),
            _ => {
                let (_, id, t) = parse_sample_key(key).ok_or_else(|| wrong("its key is none"))?;
                decode_exemplar(value, t)?;
                self.known(id)
            }
        }
    }

    fn known(&self, id: u64) -> Result<(), StorageError> {
        if self.series.contains(id) {
            return Ok(());
        }
        Err(StorageError::decode("row", format!("there is no series {id}")))
    }

    /// Compares a row with what the chunks of its part give.
    fn rollup(
        &mut self,
        family: &str,
        key: &[u8],
        value: &[u8],
        before: &mut Before,
    ) -> Result<(), StorageError> {
        let wrong = |reason: &str| StorageError::decode("rollup", reason.to_owned());
        let (month, id, start) = parse_sample_key(key).ok_or_else(|| wrong("its key is none"))?;
        let family =
            ROLLUPS.iter().find(|f| f.name == family).ok_or_else(|| wrong("there is no such family"))?;
        if start < month_start_ms(month) || start >= month_end_ms(month) {
            return Err(wrong("it is not about its month"));
        }
        let part = family.part_of(month, start);
        if part.start != start {
            return Err(wrong("no part begins there"));
        }
        let row = Row::decode(family, part, value)?;
        let mut raw = self.chunk_rows();
        let samples = &mut before.samples;
        if let Err((start, _)) = read_sealed(&mut raw, (month, id), part.start, part.end - 1, samples) {
            return Err(wrong(&format!("it cannot be compared: the chunk at {start} is damaged")));
        }
        raw.status().map_err(|e| wrong(e.as_ref()))?;
        drop(raw);
        self.report.rollups += 1;
        row.check_against(&Row::of(family, part, samples)).map_err(|reason| wrong(&reason))?;
        self.known(id)
    }

    fn chunk_rows(&self) -> ChunkRows<'_> {
        let db = self.db;
        let rows = |family| db.raw_iterator_cf(&db.cf_handle(family).expect("all families were opened"));
        ChunkRows::new(rows(RAW), move || rows(TS))
    }

    fn chunk(&mut self, key: &[u8], value: &[u8], before: &mut Before) -> Result<(), StorageError> {
        let wrong = |reason: &str| StorageError::decode("chunk", reason.to_owned());
        let (month, id, start) = parse_sample_key(key).ok_or_else(|| wrong("its key is none"))?;
        before.samples.clear();
        let whole = match Shared::parse(value)? {
            None => Cow::Borrowed(value),
            Some(chunk) => {
                let hash = chunk.column;
                let ts = self.db.cf_handle(TS).expect("all families were opened");
                let column =
                    self.db.get_pinned_cf(&ts, ts_key(month, hash)).map_err(|e| wrong(e.as_ref()))?;
                let column =
                    column.ok_or_else(|| wrong(&format!("its timestamps, {hash:016x}, are missing")))?;
                Cow::Owned(chunk.with(read_column(&column)?))
            }
        };
        let head = decode_stored(&whole, &mut before.samples)?;
        let ts = &before.samples.timestamps_ms;
        self.report.sealed_samples += ts.len() as u64;
        let last = before.chunk.replace((month, id, head.maxt));
        if (ts.len(), ts.first(), ts.last()) != (head.samples, Some(&head.mint), Some(&head.maxt)) {
            return Err(wrong("its samples are not those that its head tells of"));
        }
        if start != head.mint || head.mint < month_start_ms(month) || head.maxt >= month_end_ms(month) {
            return Err(wrong("its samples are not where its key puts them"));
        }
        if !ts.is_sorted_by(|a, b| a < b) {
            return Err(wrong("its timestamps do not rise"));
        }
        if last.is_some_and(|(m, i, maxt)| (m, i) == (month, id) && maxt >= head.mint) {
            return Err(wrong("it overlaps the one before"));
        }
        self.known(id)
    }
}

/// A row's key for people.
fn place(family: &str, key: &[u8]) -> String {
    match (family, parse_sample_key(key)) {
        (RAW | EXEMPLARS | AGG5M | AGG1H, Some((month, id, t))) => {
            format!("month {}, series {id}, {t}", month_name(month))
        }
        (SERIES | SEALED | JOURNAL, _) if key.len() == 8 => {
            format!("{}", u64::from_be_bytes(key.try_into().expect("eight bytes")))
        }
        (INDEX, _) => match parse_index_key(key) {
            Some((month, name, value)) => format!("month {}, {name}={value:?}", month_name(month)),
            None => format!("key {}", hex(key)),
        },
        _ => format!("key {}", hex(key)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
