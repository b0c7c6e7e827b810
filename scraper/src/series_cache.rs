//! The memory of a target between scrapes: by lines for plain text, by samples for everything else.
//!
//! Which one it is follows the body. When a target changes over, the cache before is handed out, so that series that do
//! not go on become stale.

use std::collections::HashSet;
use std::sync::Arc;

use model::{Appender, SeriesRef};

use crate::cache::{MetadataStore, ScrapeCache, ScrapeCounts};
use crate::error::ScrapeFailure;
use crate::exposition::Format;
use crate::exposition::HistogramOptions;
use crate::exposition::negotiation::BodyFormat;
use crate::exposition::protobuf::Protobuf;
use crate::exposition::text_samples::{TextOptions, TextSamples};
use crate::sample_cache::SampleCache;
use crate::sample_labels::SampleRules;

pub(crate) enum SeriesCache {
    Lines(ScrapeCache),
    Samples(SampleCache),
}

impl Default for SeriesCache {
    fn default() -> Self {
        Self::Lines(ScrapeCache::default())
    }
}

/// What a body brought.
pub(crate) struct Appended {
    pub(crate) counts: ScrapeCounts,
    pub(crate) result: Result<(), ScrapeFailure>,
    /// The cache before, when this body could not go on with it.
    pub(crate) outdated: Option<SeriesCache>,
}

impl SeriesCache {
    pub(crate) fn metadata(&self) -> Arc<MetadataStore> {
        match self {
            Self::Lines(c) => c.metadata(),
            Self::Samples(c) => c.metadata(),
        }
    }

    /// How often entries of failed scrapes had to be dropped.
    pub(crate) fn forced_flushes(&self) -> u64 {
        match self {
            Self::Lines(c) => c.forced_flushes(),
            Self::Samples(c) => c.forced_flushes(),
        }
    }

    /// Appends the samples of a body that is not empty, and stale markers for what is gone.
    pub(crate) fn append(
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
        let (counts, result) = match (self, plain, format) {
            (Self::Lines(c), Some(format), _) => c.append(body, format, timestamp_ms, rules, app),
            (Self::Samples(c), _, BodyFormat::Text(format)) => {
                let options = TextOptions {
                    convert_classic: histograms.convert_classic,
                    keep_classic: histograms.keep_classic,
                    starts: rules.starts.read,
                };
                let source = TextSamples::new(format, body, options);
                c.append(source, Some(format), timestamp_ms, rules, app)
            }
            (Self::Samples(c), _, BodyFormat::Protobuf) => {
                c.append(Protobuf::new(body, histograms), None, timestamp_ms, rules, app)
            }
            (Self::Lines(_), None, _) => unreachable!("the cache was changed over just now"),
        };
        Appended { counts, result, outdated }
    }

    fn change_over(&mut self, to_lines: bool) -> Option<Self> {
        let next = match self {
            Self::Lines(c) if !to_lines => {
                Self::Samples(SampleCache::new(c.metadata(), c.scrape(), c.forced_flushes()))
            }
            Self::Samples(c) if to_lines => {
                Self::Lines(ScrapeCache::successor(c.metadata(), c.scrape(), c.forced_flushes()))
            }
            _ => return None,
        };
        Some(std::mem::replace(self, next))
    }

    /// Appends a stale marker for every series that counts, as when the target is gone.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub(crate) fn append_stale(
        &mut self,
        timestamp_ms: i64,
        app: &mut dyn Appender,
    ) -> Result<(), ScrapeFailure> {
        match self {
            Self::Lines(c) => c.append_stale(timestamp_ms, app),
            Self::Samples(c) => c.append_stale(timestamp_ms, &HashSet::new(), app),
        }
    }

    /// Appends stale markers for the series of this cache that the last scrape of `successor` did not go on with.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub(crate) fn append_stale_except(
        &mut self,
        successor: &Self,
        timestamp_ms: i64,
        app: &mut dyn Appender,
    ) -> Result<(), ScrapeFailure> {
        let going_on = successor.tracked_refs();
        match self {
            Self::Lines(c) => c.append_stale_except(timestamp_ms, &going_on, app),
            Self::Samples(c) => c.append_stale(timestamp_ms, &going_on, app),
        }
    }

    fn tracked_refs(&self) -> HashSet<SeriesRef> {
        match self {
            Self::Lines(c) => c.tracked_refs(),
            Self::Samples(c) => c.tracked_refs(),
        }
    }
}
