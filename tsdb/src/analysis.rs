//! What a block consists of: churn, cardinality, chunks. The counts that `promtool tsdb analyze` prints.

use std::cmp::Reverse;
use std::collections::HashMap;

use model::{ChunkEncoding, Matcher, Samples, StorageError};

use crate::block::Block;
use crate::block::index_read::RawSeries;
use crate::read_only::{BlockInfo, read_series, series_ids};

/// Counts of a block. The lists are sorted by count, greatest first, then by name.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The block.
    pub block: BlockInfo,
    /// Series that pass the matchers.
    pub matched_series: u64,
    /// Label names of those.
    pub label_names: u64,
    /// Different label pairs.
    pub label_pairs: u64,
    /// Label pairs of all series.
    pub entries: u64,
    /// Label pairs, `name=value`, by how many times the block's range their series do not cover.
    pub churning_pairs: Vec<(String, u64)>,
    /// The same by label name.
    pub churning_names: Vec<(String, u64)>,
    /// Label pairs by number of series.
    pub common_pairs: Vec<(String, u64)>,
    /// Label names by length of all their values.
    pub value_bytes: Vec<(String, u64)>,
    /// Label names by number of values.
    pub values: Vec<(String, u64)>,
    /// Metric names by number of series.
    pub metric_names: Vec<(String, u64)>,
    /// What is known of each chunk.
    pub chunks: Chunks,
}

/// Counts of each chunk of a block.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    /// Chunks of any kind.
    pub total: usize,
    /// Samples of chunks of floats.
    pub float_samples: Vec<usize>,
    /// Lengths of chunks of floats.
    pub float_bytes: Vec<usize>,
    /// Samples of chunks of histograms.
    pub histogram_samples: Vec<usize>,
    /// Lengths of chunks of histograms.
    pub histogram_bytes: Vec<usize>,
    /// Buckets over all samples of chunks of histograms.
    pub histogram_buckets: Vec<usize>,
}

#[derive(Default)]
struct Pair {
    series: u64,
    uncovered: u64,
}

pub(crate) fn analyze(block: &Block, matchers: &[Matcher]) -> Result<Analysis, StorageError> {
    let range = (block.meta.max_time - block.meta.min_time).max(1) as u64;
    let mut pairs: HashMap<(u32, u32), Pair> = HashMap::new();
    let mut chunks = Chunks::default();
    let mut raw = RawSeries::default();
    let (mut entries, ids) = (0, series_ids(block, matchers)?);
    for id in &ids {
        read_series(block, *id, &mut raw)?;
        let (Some(first), Some(last)) = (raw.chunks.first(), raw.chunks.last()) else { continue };
        let uncovered = range.wrapping_sub((last.maxt - first.mint) as u64);
        for pair in &raw.labels {
            let p = pairs.entry(*pair).or_default();
            p.series += 1;
            p.uncovered = p.uncovered.wrapping_add(uncovered);
            entries += 1;
        }
        raw.chunks.iter().try_for_each(|c| chunks.add(block, c.reference))?;
    }
    let symbol = |s: u32| block.index.symbols.get(s).unwrap_or_default();
    let text = |(n, v): &(u32, u32)| format!("{}={}", symbol(*n), symbol(*v));
    let ranges = |ms: u64| (ms as f64 / range as f64) as u64;
    let mut names: HashMap<u32, (u64, u64, u64)> = HashMap::new();
    for ((n, v), p) in &pairs {
        let (uncovered, bytes, values) = names.entry(*n).or_default();
        *uncovered = uncovered.wrapping_add(p.uncovered);
        *bytes += symbol(*v).len() as u64;
        *values += 1;
    }
    let by_name = |f: fn(&(u64, u64, u64)) -> u64| {
        sorted(names.iter().map(|(n, c)| (symbol(*n).to_owned(), f(c))).collect())
    };
    let metric_name = block.index.symbols.find(model::labels::METRIC_NAME);
    let metrics = pairs.iter().filter(|((n, _), _)| Some(*n) == metric_name);
    Ok(Analysis {
        block: BlockInfo::of(block),
        matched_series: ids.len() as u64,
        label_names: names.len() as u64,
        label_pairs: pairs.len() as u64,
        entries,
        churning_pairs: sorted(pairs.iter().map(|(k, p)| (text(k), ranges(p.uncovered))).collect()),
        churning_names: by_name(|c| c.0).into_iter().map(|(n, ms)| (n, ranges(ms))).collect(),
        common_pairs: sorted(pairs.iter().map(|(k, p)| (text(k), p.series)).collect()),
        value_bytes: by_name(|c| c.1),
        values: by_name(|c| c.2),
        metric_names: sorted(metrics.map(|((_, v), p)| (symbol(*v).to_owned(), p.series)).collect()),
        chunks,
    })
}

fn sorted(mut list: Vec<(String, u64)>) -> Vec<(String, u64)> {
    list.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
    list
}

impl Chunks {
    fn add(&mut self, block: &Block, reference: u64) -> Result<(), StorageError> {
        let stored = block.chunks.get(reference)?;
        let samples = usize::from(crate::chunk::sample_count(stored.encoding, stored.data));
        self.total += 1;
        if crate::block::meta::is_float(ChunkEncoding(stored.encoding)) {
            self.float_samples.push(samples);
            self.float_bytes.push(stored.data.len());
            return Ok(());
        }
        self.histogram_samples.push(samples);
        self.histogram_bytes.push(stored.data.len());
        let Some(codec) = crate::chunk::codec(stored.encoding) else { return Ok(()) };
        let mut decoded = Samples::new();
        codec.decode(stored.data, i64::MIN, i64::MAX, &mut decoded)?;
        let buckets = |h: &model::HistogramValue| match h {
            model::HistogramValue::Int(h) => h.positive_buckets.len() + h.negative_buckets.len(),
            model::HistogramValue::Float(h) => h.positive_buckets.len() + h.negative_buckets.len(),
        };
        self.histogram_buckets.push(decoded.histograms.iter().flatten().map(buckets).sum());
        Ok(())
    }
}
