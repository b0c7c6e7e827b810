//! The fields of OTLP metrics messages by their JSON names: what [`super::json`] needs to write them as protobuf.
//!
//! Fields without meaning for samples are left out, and so passed over.

/// How a value stands in JSON and in protobuf.
#[derive(Clone, Copy, Debug)]
pub(super) enum Type {
    Text,
    Bool,
    /// An enumeration, by name or number.
    Enum(&'static [(&'static str, i32)]),
    /// `int32`.
    Int32,
    /// `sint32`.
    Sint32,
    /// `uint32`.
    Uint32,
    /// `int64`.
    Int64,
    /// `uint64`.
    Uint64,
    /// `fixed64`.
    Fixed64,
    /// `sfixed64`.
    Sfixed64,
    Double,
    /// So many bytes as hexadecimal digits.
    Id(usize),
    /// Bytes as base64.
    Bytes,
    Message(&'static Fields),
}

/// The fields of a message.
#[derive(Debug)]
pub(super) struct Fields(pub(super) &'static [Field]);

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Its name in camel case; the one with underscores is known too.
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) kind: Type,
    pub(super) repeated: bool,
}

const fn one(name: &'static str, number: u32, kind: Type) -> Field {
    Field { name, number, kind, repeated: false }
}

const fn many(name: &'static str, number: u32, kind: Type) -> Field {
    Field { name, number, kind, repeated: true }
}

impl Field {
    /// Whether `key` is its name in either form.
    pub(super) fn is_called(&self, key: &str) -> bool {
        let mut rest = key.chars();
        key == self.name
            || self.name.chars().all(|c| {
                let underscore = !c.is_ascii_uppercase() || rest.next() == Some('_');
                underscore && rest.next() == Some(c.to_ascii_lowercase())
            }) && rest.next().is_none()
    }
}

/// The request.
pub(super) static REQUEST: Fields = Fields(&[many("resourceMetrics", 1, Type::Message(&RESOURCE_METRICS))]);

static RESOURCE_METRICS: Fields = Fields(&[
    one("resource", 1, Type::Message(&RESOURCE)),
    many("scopeMetrics", 2, Type::Message(&SCOPE_METRICS)),
]);

static RESOURCE: Fields = Fields(&[many("attributes", 1, Type::Message(&KEY_VALUE))]);

static SCOPE_METRICS: Fields = Fields(&[
    one("scope", 1, Type::Message(&SCOPE)),
    many("metrics", 2, Type::Message(&METRIC)),
    one("schemaUrl", 3, Type::Text),
]);

static SCOPE: Fields = Fields(&[
    one("name", 1, Type::Text),
    one("version", 2, Type::Text),
    many("attributes", 3, Type::Message(&KEY_VALUE)),
]);

static METRIC: Fields = Fields(&[
    one("name", 1, Type::Text),
    one("description", 2, Type::Text),
    one("unit", 3, Type::Text),
    one("gauge", 5, Type::Message(&GAUGE)),
    one("sum", 7, Type::Message(&SUM)),
    one("histogram", 9, Type::Message(&HISTOGRAM)),
    one("exponentialHistogram", 10, Type::Message(&EXPONENTIAL_HISTOGRAM)),
    one("summary", 11, Type::Message(&SUMMARY)),
]);

static GAUGE: Fields = Fields(&[many("dataPoints", 1, Type::Message(&NUMBER))]);

static SUM: Fields = Fields(&[
    many("dataPoints", 1, Type::Message(&NUMBER)),
    one("aggregationTemporality", 2, Type::Enum(TEMPORALITY)),
    one("isMonotonic", 3, Type::Bool),
]);

static HISTOGRAM: Fields = Fields(&[
    many("dataPoints", 1, Type::Message(&HISTOGRAM_POINT)),
    one("aggregationTemporality", 2, Type::Enum(TEMPORALITY)),
]);

static EXPONENTIAL_HISTOGRAM: Fields = Fields(&[
    many("dataPoints", 1, Type::Message(&EXPONENTIAL_POINT)),
    one("aggregationTemporality", 2, Type::Enum(TEMPORALITY)),
]);

static SUMMARY: Fields = Fields(&[many("dataPoints", 1, Type::Message(&SUMMARY_POINT))]);

static TEMPORALITY: &[(&str, i32)] = &[
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", 0),
    ("AGGREGATION_TEMPORALITY_DELTA", 1),
    ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2),
];

static NUMBER: Fields = Fields(&[
    one("startTimeUnixNano", 2, Type::Fixed64),
    one("timeUnixNano", 3, Type::Fixed64),
    one("asDouble", 4, Type::Double),
    many("exemplars", 5, Type::Message(&EXEMPLAR)),
    one("asInt", 6, Type::Sfixed64),
    many("attributes", 7, Type::Message(&KEY_VALUE)),
    one("flags", 8, Type::Uint32),
]);

static HISTOGRAM_POINT: Fields = Fields(&[
    one("startTimeUnixNano", 2, Type::Fixed64),
    one("timeUnixNano", 3, Type::Fixed64),
    one("count", 4, Type::Fixed64),
    one("sum", 5, Type::Double),
    many("bucketCounts", 6, Type::Fixed64),
    many("explicitBounds", 7, Type::Double),
    many("exemplars", 8, Type::Message(&EXEMPLAR)),
    many("attributes", 9, Type::Message(&KEY_VALUE)),
    one("flags", 10, Type::Uint32),
    one("min", 11, Type::Double),
    one("max", 12, Type::Double),
]);

static EXPONENTIAL_POINT: Fields = Fields(&[
    many("attributes", 1, Type::Message(&KEY_VALUE)),
    one("startTimeUnixNano", 2, Type::Fixed64),
    one("timeUnixNano", 3, Type::Fixed64),
    one("count", 4, Type::Fixed64),
    one("sum", 5, Type::Double),
    one("scale", 6, Type::Sint32),
    one("zeroCount", 7, Type::Fixed64),
    one("positive", 8, Type::Message(&BUCKETS)),
    one("negative", 9, Type::Message(&BUCKETS)),
    one("flags", 10, Type::Uint32),
    many("exemplars", 11, Type::Message(&EXEMPLAR)),
    one("min", 12, Type::Double),
    one("max", 13, Type::Double),
    one("zeroThreshold", 14, Type::Double),
]);

static BUCKETS: Fields = Fields(&[one("offset", 1, Type::Sint32), many("bucketCounts", 2, Type::Uint64)]);

static SUMMARY_POINT: Fields = Fields(&[
    one("startTimeUnixNano", 2, Type::Fixed64),
    one("timeUnixNano", 3, Type::Fixed64),
    one("count", 4, Type::Fixed64),
    one("sum", 5, Type::Double),
    many("quantileValues", 6, Type::Message(&QUANTILE)),
    many("attributes", 7, Type::Message(&KEY_VALUE)),
    one("flags", 8, Type::Uint32),
]);

static QUANTILE: Fields = Fields(&[one("quantile", 1, Type::Double), one("value", 2, Type::Double)]);

static EXEMPLAR: Fields = Fields(&[
    one("timeUnixNano", 2, Type::Fixed64),
    one("asDouble", 3, Type::Double),
    one("spanId", 4, Type::Id(8)),
    one("traceId", 5, Type::Id(16)),
    one("asInt", 6, Type::Sfixed64),
    many("filteredAttributes", 7, Type::Message(&KEY_VALUE)),
]);

static KEY_VALUE: Fields = Fields(&[one("key", 1, Type::Text), one("value", 2, Type::Message(&ANY_VALUE))]);

static ANY_VALUE: Fields = Fields(&[
    one("stringValue", 1, Type::Text),
    one("boolValue", 2, Type::Bool),
    one("intValue", 3, Type::Int64),
    one("doubleValue", 4, Type::Double),
    one("arrayValue", 5, Type::Message(&ARRAY)),
    one("kvlistValue", 6, Type::Message(&KEY_VALUE_LIST)),
    one("bytesValue", 7, Type::Bytes),
    one("stringValueStrindex", 8, Type::Int32),
]);

static ARRAY: Fields = Fields(&[many("values", 1, Type::Message(&ANY_VALUE))]);

static KEY_VALUE_LIST: Fields = Fields(&[many("values", 1, Type::Message(&KEY_VALUE))]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_two_forms() {
        let field = one("startTimeUnixNano", 2, Type::Fixed64);
        assert!(field.is_called("startTimeUnixNano") && field.is_called("start_time_unix_nano"));
        for other in
            ["starttimeunixnano", "start_time_unix_nano_", "start_time_unix", "StartTimeUnixNano", ""]
        {
            assert!(!field.is_called(other), "{other}");
        }
    }
}
