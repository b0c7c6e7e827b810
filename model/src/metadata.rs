//! Type, unit and help of a metric family.

use std::fmt;
use std::sync::Arc;

/// What a metric family says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Type of the family.
    pub metric_type: MetricType,
    /// Unit, empty when not given.
    pub unit: Arc<str>,
    /// Help text, unescaped.
    pub help: Arc<str>,
}

/// Types as the exposition formats and the metadata API name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum MetricType {
    /// No type, or one we do not know.
    #[default]
    Unknown,
    /// Only rises, but for resets.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Classic or native histogram.
    Histogram,
    /// Histogram of a gauge.
    GaugeHistogram,
    /// Quantiles computed by the target.
    Summary,
    /// Constant 1 with labels that tell something.
    Info,
    /// A set of states.
    StateSet,
}

impl MetricType {
    /// The name in the API and in OpenMetrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }

    /// The type of a name; `untyped` is the text format's word for unknown. `None` for other words.
    #[must_use]
    pub fn parse(s: &str) -> Option<Self> {
        Some(match s {
            "unknown" | "untyped" => Self::Unknown,
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "gaugehistogram" => Self::GaugeHistogram,
            "summary" => Self::Summary,
            "info" => Self::Info,
            "stateset" => Self::StateSet,
            _ => return None,
        })
    }
}

impl fmt::Display for MetricType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
