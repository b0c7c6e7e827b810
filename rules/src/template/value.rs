//! Values of templates, with the names and the kinds that Go's types have.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{FloatHistogram, Labels};
use promql::{PointValue, VectorSample};

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing: what a missing key of a map without a type gives.
    Nil,
    /// What holds nothing but could hold anything; becomes [`Value::Nil`] when it is used.
    NilInterface,
    Bool(bool),
    Int(i64),
    /// An integer of a type of its own.
    Named(Named),
    Float(f64),
    Text(Arc<str>),
    /// A text that is safe in HTML.
    Html(Arc<str>),
    /// `map[string]string`
    Labels(Labels),
    /// `map[string]interface {}`
    Map(Arc<Map>),
    /// The answer of a query.
    Samples(Arc<[Arc<Sample>]>),
    Sample(Arc<Sample>),
    Histogram(Arc<FloatHistogram>),
    /// Milliseconds since the epoch.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
    /// What `.` is at first.
    Alert(Arc<AlertData>),
}

/// Values by names. Maps that hold each other are only so deep, so that they can be printed and dropped.
#[derive(Clone, Debug)]
pub(super) struct Map {
    entries: BTreeMap<String, Value>,
    depth: usize,
}

/// How deep maps may hold each other.
const MAP_DEPTH_MAX: usize = 32;

impl Map {
    /// # Errors
    /// When the maps among the values are too deep already.
    pub(super) fn new(entries: BTreeMap<String, Value>) -> Result<Self, String> {
        let depths = entries.values().map(|value| match value {
            Value::Map(map) => map.depth,
            _ => 0,
        });
        let depth = 1 + depths.max().unwrap_or(0);
        if depth > MAP_DEPTH_MAX {
            return Err(format!("maps in maps are more than {MAP_DEPTH_MAX} deep"));
        }
        Ok(Self { entries, depth })
    }
}

impl std::ops::Deref for Map {
    type Target = BTreeMap<String, Value>;

    fn deref(&self) -> &Self::Target {
        &self.entries
    }
}

/// An integer whose type has a name.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) type_name: &'static str,
    pub(super) value: i64,
    /// How it prints, unless as a number.
    pub(super) text: Option<&'static str>,
}

/// A series of a query's answer.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) labels: Labels,
    pub(super) value: Value,
}

/// What the templates of an alert are about.
#[derive(Clone, Debug)]
pub(super) struct AlertData {
    pub(super) labels: Labels,
    pub(super) external_labels: Labels,
    pub(super) external_url: Arc<str>,
    pub(super) value: Value,
}

/// Kinds that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Uint,
    Float,
    Text,
}

impl From<&PointValue> for Value {
    fn from(value: &PointValue) -> Self {
        match value {
            PointValue::Float(v) => Self::Float(*v),
            PointValue::Histogram(h) => Self::Histogram(Arc::clone(h)),
        }
    }
}

impl From<&VectorSample> for Sample {
    fn from(sample: &VectorSample) -> Self {
        Self { labels: sample.labels.clone(), value: (&sample.value).into() }
    }
}

impl Value {
    pub(super) fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// An integer of 64 bits, which is another type than a plain one.
    pub(super) fn int64(value: i64) -> Self {
        Self::Named(Named { type_name: "int64", value, text: None })
    }

    /// A byte of a text.
    pub(super) fn byte(value: u8) -> Self {
        Self::Named(Named { type_name: "uint8", value: i64::from(value), text: None })
    }

    pub(super) fn is_nil(&self) -> bool {
        matches!(self, Self::Nil | Self::NilInterface)
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::NilInterface => "interface {}",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Named(named) => named.type_name,
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Html(_) => "template.HTML",
            Self::Labels(_) => "map[string]string",
            Self::Map(_) => "map[string]interface {}",
            Self::Samples(_) => "template.queryResult",
            Self::Sample(_) => "*template.sample",
            Self::Histogram(_) => "*histogram.FloatHistogram",
            Self::Time(_) => "*time.Time",
            Self::Duration(_) => "*time.Duration",
            Self::Alert(_) => {
                "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }"
            }
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil | Self::NilInterface => false,
            Self::Bool(b) => *b,
            Self::Int(n) => *n != 0,
            Self::Named(named) => named.value != 0,
            Self::Float(v) => *v != 0.0,
            Self::Text(text) | Self::Html(text) => !text.is_empty(),
            Self::Labels(labels) => !labels.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Samples(samples) => !samples.is_empty(),
            Self::Sample(_) | Self::Histogram(_) | Self::Time(_) | Self::Duration(_) | Self::Alert(_) => true,
        }
    }

    /// The kind, if it can be compared.
    pub(super) fn kind(&self) -> Option<Kind> {
        match self {
            Self::Bool(_) => Some(Kind::Bool),
            Self::Int(_) => Some(Kind::Int),
            Self::Named(named) if named.type_name == "uint8" => Some(Kind::Uint),
            Self::Named(_) => Some(Kind::Int),
            Self::Float(_) => Some(Kind::Float),
            Self::Text(_) | Self::Html(_) => Some(Kind::Text),
            _ => None,
        }
    }

    /// The number of an integer of any type.
    pub(super) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Named(named) => Some(named.value),
            _ => None,
        }
    }

    pub(super) fn as_text(&self) -> Option<&Arc<str>> {
        match self {
            Self::Text(text) | Self::Html(text) => Some(text),
            _ => None,
        }
    }
}
