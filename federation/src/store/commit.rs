//! Committing: batches become journal records, rows and open samples.
//!
//! Concurrent commits share one RocksDB write and one sync: each puts its batch into a queue and then asks for the
//! writer's lock; whoever gets it commits everything in the queue. Order of the queue is the order of sequences.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::{Exemplar, Labels, Metadata, Sample, StorageError};
use parking_lot::Mutex;
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use super::Inner;
use super::families::{EXEMPLARS, IDS, INDEX, JOURNAL, SERIES};
use super::journal;
use super::keys::{Month, MonthCursor, all_series_key, id_key, index_key, sample_key};
use super::open::Apply;
use super::postings;
use super::registry::SlotRef;
use super::rows::{encode_exemplar, encode_series, metadata_hash};
use super::write::Durable;

/// What an appender collects.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) floats: Vec<(SlotRef, i64, f64)>,
    pub(super) others: Vec<(SlotRef, Sample)>,
    pub(super) exemplars: Vec<(SlotRef, Exemplar)>,
    pub(super) metadata: Vec<(SlotRef, Metadata)>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.floats.is_empty()
            && self.others.is_empty()
            && self.exemplars.is_empty()
            && self.metadata.is_empty()
    }

    fn slots(&self) -> impl Iterator<Item = SlotRef> {
        let floats = self.floats.iter().map(|(s, ..)| *s);
        let others = self.others.iter().map(|(s, _)| *s);
        let rest = self.exemplars.iter().map(|(s, _)| *s).chain(self.metadata.iter().map(|(s, _)| *s));
        floats.chain(others).chain(rest)
    }
}

/// A batch in the queue and, later, what became of it.
pub(super) struct Ticket {
    batch: Mutex<Option<Batch>>,
    result: Mutex<Option<Result<(), StorageError>>>,
}

/// No month was indexed yet.
const NO_MONTH: Month = Month::MAX;

/// What the writer knows of a slot.
#[derive(Clone, Copy)]
struct WriterSeries {
    id: u64,
    /// Generation of the slot this is about.
    generation: u32,
    /// Month that is known to be indexed.
    month: Month,
    metadata_hash: u64,
}

const VACANT: WriterSeries = WriterSeries { id: 0, generation: u32::MAX, month: NO_MONTH, metadata_hash: 0 };

/// State of the one who writes.
pub(super) struct Writer {
    pub(super) next_id: u64,
    pub(super) next_seq: u64,
    /// All series of each month, as the index has them.
    pub(super) months: BTreeMap<Month, RoaringTreemap>,
    series: Vec<WriterSeries>,
}

/// What a group of batches adds besides samples, so that it can be taken back.
#[derive(Default)]
struct Additions {
    /// Series that get their first id: slot, id, labels.
    fresh: Vec<(u32, u64, Labels)>,
    /// Slots the open samples must learn: slot, id, labels.
    learned: Vec<(u32, u64, Labels)>,
    /// New (month, id), with the slot.
    months: Vec<(Month, u64, u32)>,
    /// Slots whose metadata changed: slot, hash before.
    metadata: Vec<(u32, u64)>,
}

impl Writer {
    pub(super) fn new(next_id: u64, next_seq: u64, months: BTreeMap<Month, RoaringTreemap>) -> Self {
        Self { next_id, next_seq, months, series: Vec::new() }
    }

    /// Makes a slot known that was filled at opening.
    pub(super) fn learn(&mut self, r: SlotRef, id: u64, metadata_hash: u64) {
        *self.entry(r.slot) = WriterSeries { id, generation: r.generation, month: NO_MONTH, metadata_hash };
    }

    /// Forgets a slot.
    pub(super) fn forget(&mut self, slot: u32) {
        *self.entry(slot) = VACANT;
    }

    /// The month of a slot's next sample is to be indexed.
    pub(super) fn forget_month(&mut self, slot: u32) {
        self.entry(slot).month = NO_MONTH;
    }

    fn entry(&mut self, slot: u32) -> &mut WriterSeries {
        if self.series.len() <= slot as usize {
            self.series.resize(slot as usize + 1, VACANT);
        }
        &mut self.series[slot as usize]
    }

    #[inline]
    fn id(&self, r: SlotRef) -> u64 {
        self.series[r.slot as usize].id
    }
}

impl Inner {
    /// Makes a batch durable and visible.
    pub(super) fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        if batch.is_empty() {
            return Ok(());
        }
        let started = self.clock.monotonic();
        let ticket = Arc::new(Ticket { batch: Mutex::new(Some(batch)), result: Mutex::new(None) });
        self.queue.lock().push(ticket.clone());
        {
            let mut writer = self.writer.lock();
            if ticket.result.lock().is_none() {
                let tickets = std::mem::take(&mut *self.queue.lock());
                self.commit_group(&mut writer, &tickets);
            }
        }
        let result = ticket.result.lock().take().expect("whoever emptied the queue answered all of it");
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics.commit_seconds.observe(took.as_secs_f64());
        self.relieve();
        result
    }

    fn commit_group(&self, writer: &mut Writer, tickets: &[Arc<Ticket>]) {
        let mut batches = Vec::with_capacity(tickets.len());
        let mut additions = Additions::default();
        for ticket in tickets {
            let batch = ticket.batch.lock().take().expect("a ticket is taken from the queue once");
            match self.learn_slots(writer, &batch, &mut additions) {
                Ok(()) => batches.push((ticket, batch)),
                Err(e) => *ticket.result.lock() = Some(Err(e)),
            }
        }
        let written = self.write_group(writer, &batches, &mut additions);
        if written.is_err() {
            take_back(writer, &additions);
        }
        let samples: usize = batches.iter().map(|(_, b)| b.floats.len() + b.others.len()).sum();
        if written.is_ok() {
            self.apply_group(writer, &mut batches, additions);
            self.metrics.samples_appended.inc_by(samples as u64);
        }
        for (ticket, _) in &batches {
            *ticket.result.lock() = Some(written.clone());
        }
    }

    /// Sees to it that the writer knows all slots of a batch.
    fn learn_slots(
        &self,
        writer: &mut Writer,
        batch: &Batch,
        additions: &mut Additions,
    ) -> Result<(), StorageError> {
        for r in batch.slots() {
            if let Some(s) = writer.series.get(r.slot as usize)
                && s.generation == r.generation
            {
                continue;
            }
            let registry = self.registry.read();
            let Some((id, labels)) = registry.series(r) else {
                return Err(StorageError::Unavailable {
                    who: "long-term store".into(),
                    reason: "the batch was open for so long that a series was forgotten; send it again"
                        .into(),
                });
            };
            if id == 0 {
                additions.fresh.push((r.slot, 0, labels.clone()));
            } else {
                additions.learned.push((r.slot, id, labels.clone()));
            }
            *writer.entry(r.slot) =
                WriterSeries { id, generation: r.generation, month: NO_MONTH, metadata_hash: 0 };
        }
        Ok(())
    }

    fn write_group(
        &self,
        writer: &mut Writer,
        batches: &[(&Arc<Ticket>, Batch)],
        additions: &mut Additions,
    ) -> Result<(), StorageError> {
        give_ids(writer, &mut additions.fresh);
        let mut out = WriteBatch::default();
        let journal = self.cf(JOURNAL);
        let mut journal_bytes = 0;
        for (seq, (_, batch)) in (writer.next_seq..).zip(batches) {
            index_months(writer, batch, additions);
            let floats = batch.floats.iter().map(|(s, t, v)| (writer.id(*s), *t, *v));
            let others = batch.others.iter().map(|(s, sample)| (writer.id(*s), sample));
            let record = journal::encode(floats, others);
            journal_bytes += record.len();
            out.put_cf(&journal, seq.to_be_bytes(), record);
            self.put_exemplars(writer, batch, &mut out);
        }
        self.put_series(&additions.fresh, &mut out);
        self.put_metadata(writer, batches, additions, &mut out)?;
        self.put_index(writer, additions, &mut out)?;
        let durable = if self.config.sync { Durable::Now } else { Durable::Later };
        self.write("commit to", out, durable)?;
        self.metrics.journal_bytes.inc_by(journal_bytes as u64);
        Ok(())
    }

    fn put_exemplars(&self, writer: &Writer, batch: &Batch, out: &mut WriteBatch) {
        let mut month = MonthCursor::new();
        for (s, e) in &batch.exemplars {
            let t = e.timestamp_ms.expect("the appender gives exemplars a timestamp");
            let key = sample_key(month.month_of(t), writer.id(*s), t);
            out.put_cf(&self.cf(EXEMPLARS), key, encode_exemplar(e));
        }
    }

    fn put_series(&self, fresh: &[(u32, u64, Labels)], out: &mut WriteBatch) {
        if fresh.is_empty() {
            return;
        }
        let (series, ids) = (self.cf(SERIES), self.cf(IDS));
        for (_, id, labels) in fresh {
            out.put_cf(&series, id.to_be_bytes(), encode_series(labels, None));
            out.put_cf(&ids, id_key(labels.hash64(), *id), []);
        }
    }

    fn put_metadata(
        &self,
        writer: &mut Writer,
        batches: &[(&Arc<Ticket>, Batch)],
        additions: &mut Additions,
        out: &mut WriteBatch,
    ) -> Result<(), StorageError> {
        for (s, metadata) in batches.iter().flat_map(|(_, b)| &b.metadata) {
            let labels = self.labels_of(*s)?;
            let hash = metadata_hash(&labels, Some(metadata));
            let entry = writer.entry(s.slot);
            if entry.metadata_hash != hash {
                additions.metadata.push((s.slot, entry.metadata_hash));
                entry.metadata_hash = hash;
                out.put_cf(&self.cf(SERIES), entry.id.to_be_bytes(), encode_series(&labels, Some(metadata)));
            }
        }
        Ok(())
    }

    fn labels_of(&self, r: SlotRef) -> Result<Labels, StorageError> {
        let registry = self.registry.read();
        let series = registry.series(r).map(|(_, labels)| labels.clone());
        series.ok_or_else(|| StorageError::Unavailable {
            who: "long-term store".into(),
            reason: "a series of the batch was forgotten; send it again".into(),
        })
    }

    /// Index entries of series that are new in a month, one operand for each label pair.
    fn put_index(
        &self,
        writer: &Writer,
        additions: &Additions,
        out: &mut WriteBatch,
    ) -> Result<(), StorageError> {
        if additions.months.is_empty() {
            return Ok(());
        }
        let mut entries: HashMap<Vec<u8>, RoaringTreemap> = HashMap::new();
        for (month, id, slot) in &additions.months {
            let generation = writer.series[*slot as usize].generation;
            let labels = self.labels_of(SlotRef { slot: *slot, generation })?;
            for (name, value) in &labels {
                entries.entry(index_key(*month, name, value)).or_default().insert(*id);
            }
            entries.entry(all_series_key(*month).to_vec()).or_default().insert(*id);
        }
        let index = self.cf(INDEX);
        let mut entries: Vec<_> = entries.into_iter().collect();
        // Neighbours in the memtable are inserted faster, and equal input gives equal bytes.
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (key, ids) in entries {
            out.merge_cf(&index, key, postings::encode(&ids));
        }
        Ok(())
    }

    /// Makes written batches visible.
    fn apply_group(&self, writer: &mut Writer, batches: &mut [(&Arc<Ticket>, Batch)], additions: Additions) {
        if !additions.fresh.is_empty() {
            let mut registry = self.registry.write();
            additions.fresh.iter().for_each(|(slot, id, _)| registry.set_id(*slot, *id));
        }
        if !additions.months.is_empty() {
            self.months.write().extend(additions.months.iter().map(|(month, ..)| *month));
        }
        let now_ms = self.clock.now_ms();
        let mut open = self.open.write();
        for (slot, id, labels) in additions.fresh.into_iter().chain(additions.learned) {
            open.insert(slot, id, labels);
        }
        let oldest_reader = self.readers.oldest_seq();
        for (_, batch) in batches {
            let at = Apply { seq: writer.next_seq, now_ms, oldest_reader };
            for (s, t, v) in &batch.floats {
                open.push_float(&at, s.slot, *t, *v);
            }
            for (s, sample) in batch.others.drain(..) {
                open.push(&at, s.slot, sample);
            }
            open.published = writer.next_seq;
            writer.next_seq += 1;
        }
        self.metrics.show_open(&open);
    }
}

/// Gives new series their ids, in order of target, then labels, so that what is read together lies together.
fn give_ids(writer: &mut Writer, fresh: &mut [(u32, u64, Labels)]) {
    fresh.sort_by(|(_, _, a), (_, _, b)| {
        let target = |l: &Labels| (l.value("instance").to_owned(), l.value("job").to_owned());
        target(a).cmp(&target(b)).then_with(|| a.cmp(b))
    });
    for (slot, id, _) in fresh {
        *id = writer.next_id;
        writer.entry(*slot).id = *id;
        writer.next_id += 1;
    }
}

/// Notes which series of a batch are new in the month of a sample.
fn index_months(writer: &mut Writer, batch: &Batch, additions: &mut Additions) {
    let mut cursor = MonthCursor::new();
    let floats = batch.floats.iter().map(|(s, t, _)| (*s, *t));
    let others = batch.others.iter().map(|(s, sample)| (*s, sample.timestamp_ms));
    let exemplars = batch.exemplars.iter().map(|(s, e)| (*s, e.timestamp_ms.unwrap_or(0)));
    for (s, t) in floats.chain(others).chain(exemplars) {
        let month = cursor.month_of(t);
        let entry = &mut writer.series[s.slot as usize];
        if entry.month != month {
            entry.month = month;
            let id = entry.id;
            if writer.months.entry(month).or_default().insert(id) {
                additions.months.push((month, id, s.slot));
            }
        }
    }
}

/// Undoes what a group that could not be written left in the writer. Ids given are not used again.
fn take_back(writer: &mut Writer, additions: &Additions) {
    for (month, id, slot) in &additions.months {
        if let Some(ids) = writer.months.get_mut(month) {
            ids.remove(*id);
        }
        writer.entry(*slot).month = NO_MONTH;
    }
    for (slot, hash) in additions.metadata.iter().rev() {
        writer.entry(*slot).metadata_hash = *hash;
    }
    for (slot, ..) in additions.fresh.iter().chain(&additions.learned) {
        writer.forget(*slot);
    }
}
