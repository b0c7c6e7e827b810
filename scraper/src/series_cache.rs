//! The memory of a target between scrapes: by lines for plain text, by samples for everything else.
//!
//! Which one it is follows the body. When a target changes over, the cache before is handed out, so that series that do
//! not go on become stale.

use std::collections::HashSet;
use std::sync::Arc;

use model::{Appender, SeriesRef};

use crate::cache::{MetadataStore, ScrapeCache, ScrapeCounts};
use crate::error::ScrapeFailure;
use crate::exposition::negotiation::BodyFormat;
use crate::exposition::protobuf::Protobuf;
use crate::exposition::text_samples::{TextOptions, TextSamples};
use crate::exposition::{Format, HistogramOptions};
use crate::sample_cache::SampleCache;
use crate::sample_labels::SampleRules;

/// What a target exposed, and how to know it again.
#[derive(Default)]
pub struct SeriesCache(Kind);

enum Kind {
    Lines(ScrapeCache),
    Samples(SampleCache),
}

impl Default for Kind {
    fn default() -> Self {
        Kind::Lines(ScrapeCache::default())
    }
}

/// What a body brought.
pub struct Appended {
    /// What it brought; also when the scrape failed.
    pub counts: ScrapeCounts,
    /// Why the scrape must fail.
    pub result: Result<(), ScrapeFailure>,
    /// The cache before, when this body could not go on with it.
    pub outdated: Option<SeriesCache>,
}

impl SeriesCache {
    /// Metadata of the target, shared.
    #[must_use]
    pub fn metadata(&self) -> Arc<MetadataStore> {
        match &self.0 {
            Kind::Lines(c) => c.metadata(),
            Kind::Samples(c) => c.metadata(),
        }
    }

    /// How often entries of failed scrapes had to be dropped.
    #[must_use]
    pub fn forced_flushes(&self) -> u64 {
        match &self.0 {
            Kind::Lines(c) => c.forced_flushes(),
            Kind::Samples(c) => c.forced_flushes(),
        }
    }

    /// Series that it holds, and those that it leaves out for want of a seat.
    pub(crate) fn seated(&self) -> (usize, usize) {
        match &self.0 {
            Kind::Lines(c) => c.seated(),
            Kind::Samples(c) => c.seated(),
        }
    }

    /// Appends the samples of a body that is not empty, and stale markers for what is gone.
    pub fn append(
        &mut self,
        body: &[u8],
        format: BodyFormat,
        histograms: HistogramOptions,
        timestamp_ms: i64,
        rules: &SampleRules,
        app: &mut dyn Appender,
    ) -> Appended {
        let plain = match format {
            BodyFormat::Text(_) if histograms.convert_classic => None,
            BodyFormat::Text(Format::OpenMetrics) if rules.starts.read => None,
            BodyFormat::Text(format) => Some(format),
            BodyFormat::Protobuf => None,
        };
        let outdated = self.change_over(plain.is_some());
        let (counts, result) = match (&mut self.0, plain, format) {
            (Kind::Lines(c), Some(format), _) => c.append(body, format, timestamp_ms, rules, app),
            (Kind::Samples(c), _, BodyFormat::Text(format)) => {
                let options = TextOptions {
                    convert_classic: histograms.convert_classic,
                    keep_classic: histograms.keep_classic,
                    starts: rules.starts.read,
                };
                let source = TextSamples::new(format, body, options);
                c.append(source, Some(format), timestamp_ms, rules, app)
            }
            (Kind::Samples(c), _, BodyFormat::Protobuf) => {
                c.append(Protobuf::new(body, histograms), None, timestamp_ms, rules, app)
            }
            (Kind::Lines(_), None, _) => unreachable!("the cache was changed over just now"),
        };
        Appended { counts, result, outdated }
    }

    fn change_over(&mut self, to_lines: bool) -> Option<Self> {
        let next = match &self.0 {
            Kind::Lines(c) if !to_lines => {
                Kind::Samples(SampleCache::new(c.metadata(), c.scrape(), c.forced_flushes()))
            }
            Kind::Samples(c) if to_lines => {
                Kind::Lines(ScrapeCache::successor(c.metadata(), c.scrape(), c.forced_flushes()))
            }
            _ => return None,
        };
        Some(std::mem::replace(self, Self(next)))
    }

    /// Appends a stale marker for every series that counts, as when the target is gone.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub fn append_stale(&mut self, timestamp_ms: i64, app: &mut dyn Appender) -> Result<(), ScrapeFailure> {
        match &mut self.0 {
            Kind::Lines(c) => c.append_stale(timestamp_ms, app),
            Kind::Samples(c) => c.append_stale(timestamp_ms, &HashSet::new(), app),
        }
    }

    /// Appends stale markers for the series of this cache that the last scrape of `successor` did not go on with.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub fn append_stale_except(
        &mut self,
        successor: &Self,
        timestamp_ms: i64,
        app: &mut dyn Appender,
    ) -> Result<(), ScrapeFailure> {
        let going_on = successor.tracked_refs();
        match &mut self.0 {
            Kind::Lines(c) => c.append_stale_except(timestamp_ms, &going_on, app),
            Kind::Samples(c) => c.append_stale(timestamp_ms, &going_on, app),
        }
    }

    fn tracked_refs(&self) -> HashSet<SeriesRef> {
        match &self.0 {
            Kind::Lines(c) => c.tracked_refs(),
            Kind::Samples(c) => c.tracked_refs(),
        }
    }
}
