//! What a body says, sample by sample, whatever its format: for bodies of which a sample is more than a line, such as
//! protobuf messages, and text whose histograms are converted or whose start timestamps are read.

use model::{Exemplar, HistogramValue, MetricType};

use super::{Entry, Pair, ParseError};

/// What comes next in a body.
#[derive(Clone, Debug)]
pub(crate) enum Item<'a> {
    /// A metric family begins: everything it says of itself.
    Family(FamilyFacts<'a>),
    /// A line of metadata, as text formats have it.
    Fact(Entry<'a>),
    /// A sample. Key, labels, exemplars and start are at hand until the next item.
    Sample {
        value: Value,
        /// Explicit timestamp.
        timestamp_ms: Option<i64>,
    },
}

/// The head of a metric family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FamilyFacts<'a> {
    pub(crate) name: &'a str,
    pub(crate) metric_type: MetricType,
    pub(crate) help: &'a str,
    pub(crate) unit: &'a str,
}

/// What a sample carries. Floats keep their bits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Float(f64),
    Histogram(HistogramValue),
}

/// Which sample of a metric: a summary and a classic histogram have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// The only one.
    Whole,
    Count,
    Sum,
    /// The bucket up to the bound of these bits.
    Bucket(u64),
    /// The quantile of these bits.
    Quantile(u64),
    /// The native histogram.
    Native,
    /// The native histogram that was made from the classic one.
    Converted,
}

/// Identity of a sample's series within its target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'k> {
    /// Bytes of name and labels, or of the labels alone where samples belong to a family that [`Item::Family`] named.
    pub(crate) labels: &'k [u8],
    pub(crate) part: Part,
    /// The metric of the sample before.
    pub(crate) same_metric: bool,
}

/// Walks a body.
pub(crate) trait SampleSource<'a> {
    /// The next item, `None` at the end.
    ///
    /// # Errors
    /// When the body breaks its format.
    fn next(&mut self) -> Result<Option<Item<'a>>, ParseError>;

    /// Key of the last sample.
    fn key(&self) -> Key<'_>;

    /// Appends the labels of the last sample, the metric name first.
    ///
    /// # Errors
    /// When names or values are not valid.
    fn labels(&self, out: &mut Vec<Pair<'a>>) -> Result<(), ParseError>;

    /// Type of the last sample's metric.
    fn metric_type(&self) -> MetricType;

    /// Appends the exemplars of the last sample. Those of a histogram all have timestamps.
    fn exemplars(&mut self, out: &mut Vec<Exemplar>);

    /// When the counter of the last sample began, in milliseconds; 0 when unknown.
    fn start_ms(&mut self) -> i64;
}
