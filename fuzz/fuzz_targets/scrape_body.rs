//! Bodies of any bytes as any format, scraped twice: whole and cut short. No panic, bounded memory, and an end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{AppendError, Appender, Exemplar, Labels, Metadata, Sample, SeriesRef, StorageError};
use scraper::exposition::negotiation::BodyFormat;
use scraper::exposition::{Format, HistogramOptions};
use scraper::sample_labels::{SampleRules, StartRules};
use scraper::series_cache::SeriesCache;

/// Takes everything, keeps nothing, and gives references.
struct NullAppender(u64);

impl Appender for NullAppender {
    fn append(&mut self, _: SeriesRef, _: &Labels, _: Sample) -> Result<SeriesRef, AppendError> {
        self.0 += 1;
        Ok(SeriesRef(self.0))
    }
    fn append_float(&mut self, _: SeriesRef, _: i64, _: f64) -> Result<(), AppendError> {
        Ok(())
    }
    fn append_exemplar(&mut self, _: SeriesRef, _: &Exemplar) -> Result<(), AppendError> {
        Ok(())
    }
    fn append_metadata(&mut self, _: SeriesRef, _: &Metadata) -> Result<(), AppendError> {
        Ok(())
    }
    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        Ok(())
    }
    fn rollback(self: Box<Self>) {}
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let bit = |n: u8| choice & (1 << n) != 0;
    let format = match choice & 3 {
        0 => BodyFormat::Text(Format::Text),
        1 => BodyFormat::Text(Format::OpenMetrics),
        _ => BodyFormat::Protobuf,
    };
    let histograms = HistogramOptions { native: bit(2), keep_classic: bit(3), convert_classic: bit(4) };
    let rules = SampleRules {
        starts: StartRules { read: bit(5), as_zeros: false },
        type_and_unit_labels: bit(6),
        append_metadata: bit(7),
        honor_timestamps: true,
        bucket_limit: 10,
        ..SampleRules::default()
    };
    let mut cache = SeriesCache::default();
    let mut app = NullAppender(0);
    for (scrape, body) in [body, body, &body[..body.len() / 2], body].into_iter().enumerate() {
        let now_ms = 1000 * scrape as i64;
        if cache.append(body, format, histograms, now_ms, &rules, &mut app).result.is_err() {
            cache.append_stale(now_ms, &mut app).expect("the appender takes everything");
        }
    }
});
