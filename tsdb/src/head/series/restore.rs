//! Puts a series back into the state that files have of it, before any newer sample is added.

use model::{SampleValue, Samples, StorageError};

use super::{Bounds, ChunkForm, HeadChunk, HeadChunks, SeriesState, StoredChunk, to_model};

impl SeriesState {
    /// Takes over chunks that are in files. Gives the time up to which these have all samples, and whether the chunks fit each
    /// other; of those that do not, the first ones are taken. A series that has newer samples in memory takes none.
    pub(in crate::head) fn restore_stored(&mut self, chunks: &[StoredChunk]) -> (i64, bool) {
        if self.open.is_some() || !self.unstored().is_empty() {
            return (i64::MIN, true);
        }
        let mut all = std::mem::take(&mut self.stored).into_vec();
        // The log may name a series twice.
        let known = all.len();
        let is_new = |c: &&StoredChunk| !all[..known].iter().any(|k| k.place == c.place);
        let new: Vec<_> = chunks.iter().filter(is_new).copied().collect();
        all.reserve_exact(new.len());
        all.extend(new);
        all.sort_by_key(|c| c.mint);
        let fit = all.iter().all(|c| c.mint <= c.maxt)
            && all.is_sorted_by(|a: &StoredChunk, b: &StoredChunk| a.maxt < b.mint);
        if !fit {
            let follows =
                |i: &usize| all[*i].mint <= all[*i].maxt && (*i == 0 || all[*i - 1].maxt < all[*i].mint);
            let good = (0..all.len()).take_while(follows).count();
            all.truncate(good);
        }
        self.stored = all.into_boxed_slice();
        (self.stored.last().map_or(i64::MIN, |c| c.maxt), fit)
    }

    /// Adds the samples of the chunk that was open, unless a file has them by now.
    pub(in crate::head) fn restore_open(
        &mut self,
        chunk: HeadChunk,
        min_valid: i64,
        form: ChunkForm,
        scratch: &mut Samples,
    ) -> Result<(), StorageError> {
        if chunk.maxt < min_valid || self.stored.last().is_some_and(|c| c.maxt >= chunk.mint) {
            return Ok(());
        }
        let (mint, maxt) = (chunk.mint, chunk.maxt);
        let wrong = || StorageError::decode("open chunk of a snapshot", "it is not what is said of it");
        scratch.clear();
        to_model(chunk).ok_or_else(wrong)?.decode(i64::MIN, i64::MAX, scratch)?;
        let times = &scratch.timestamps_ms;
        if times.first() != Some(&mint) || times.last() != Some(&maxt) || !times.is_sorted_by(|a, b| a < b) {
            return Err(wrong());
        }
        let is_good = |s: &model::Sample| match &s.value {
            SampleValue::Histogram(h) => crate::chunk::validate(h).is_ok(),
            SampleValue::Float(_) => true,
        };
        if !scratch.iter().all(|s| is_good(&s)) {
            return Err(wrong());
        }
        for s in scratch.iter().filter(|s| s.timestamp_ms >= min_valid) {
            let sample = (s.timestamp_ms, s.start_timestamp_ms, s.value);
            self.append(sample, form, &Bounds::NONE, (0, 0));
        }
        Ok(())
    }

    /// Drops all samples in order, as if there had never been any.
    pub(in crate::head) fn evict(&mut self) {
        (self.open, self.last) = (None, None);
        self.stored = Box::default();
        if let Some(rare) = &mut self.rare {
            rare.finished = Vec::new();
        }
        self.tidy();
    }

    /// The open chunk as it is now, and its newest value.
    pub(in crate::head) fn open_now(&self) -> Option<(HeadChunk, &SampleValue)> {
        let (open, (maxt, newest)) = (self.open.as_ref()?, self.last.as_ref()?);
        Some((HeadChunk::of(open, self.cut.mint(), *maxt), newest))
    }

    /// Whether the newest sample is in a file, and not known.
    pub(in crate::head) fn lacks_last(&self) -> bool {
        self.last.is_none() && !self.stored.is_empty()
    }

    /// Reads the newest sample from its file.
    pub(in crate::head) fn restore_last(&mut self, files: &HeadChunks) -> Result<(), StorageError> {
        let Some(c) = self.stored.last().filter(|_| self.last.is_none()) else { return Ok(()) };
        let Some(chunk) = to_model(files.get(c)?) else { return Ok(()) };
        let mut samples = Samples::new();
        chunk.decode(i64::MIN, i64::MAX, &mut samples)?;
        if let Some(newest) = samples.len().checked_sub(1) {
            let s = samples.get(newest);
            self.last = Some((s.timestamp_ms, s.value));
        }
        Ok(())
    }

    /// Takes over a chunk of late samples.
    pub(in crate::head) fn restore_late(&mut self, chunk: HeadChunk) {
        self.rare.get_or_insert_default().late.get_or_insert_default().restore(chunk);
    }
}
