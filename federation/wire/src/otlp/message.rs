//! OTLP metrics messages, read in place: nothing is copied, and no tree is built whose size a sender could choose.
//!
//! A message is a [`Cursor`] over its bytes; its repeated fields are [`Repeated`], which walks over the bytes again. Of a `oneof` the
//! last member counts. Fields that metrics do not need are passed over. Data points: `point.rs`. Values of attributes: `value.rs`.
//!
//! Spec: <https://github.com/open-telemetry/opentelemetry-proto/tree/main/opentelemetry/proto>, `metrics/v1`, `resource/v1`,
//! `common/v1`, `collector/metrics/v1`.

use crate::error::Error;
use crate::proto::{Cursor, WireType};

/// The name of the message in errors.
pub(crate) const MESSAGE: &str = "ExportMetricsServiceRequest";

/// The elements of a repeated message field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeated<'a> {
    rest: Cursor<'a>,
    field: u32,
}

impl<'a> Repeated<'a> {
    pub(crate) fn new(message: Cursor<'a>, field: u32) -> Self {
        Self { rest: message, field }
    }

    /// Without elements.
    pub(crate) fn none() -> Self {
        Self::new(Cursor::new(&[], MESSAGE), 1)
    }

    /// An error at the place where it stands.
    pub(crate) fn error(&self, reason: &'static str) -> Error {
        self.rest.error(reason)
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Cursor<'a>>, Error> {
        while let Some(tag) = self.rest.tag()? {
            if tag.field == self.field {
                self.rest.expect(tag, WireType::Bytes)?;
                return self.rest.message().map(Some);
            }
            self.rest.skip(tag.wire_type)?;
        }
        Ok(None)
    }
}

/// Metrics of one resource.
pub(crate) struct ResourceMetrics<'a> {
    /// The resource; its attributes stand in field 1.
    pub(crate) resources: Repeated<'a>,
    pub(crate) scopes: Repeated<'a>,
}

impl<'a> ResourceMetrics<'a> {
    pub(crate) fn read(message: Cursor<'a>) -> Result<Self, Error> {
        let scopes = Repeated::new(message, 2);
        // What instrumentation libraries were called before they were scopes.
        let older = Repeated::new(message, 1000);
        let scopes = if { scopes }.next()?.is_some() { scopes } else { older };
        Ok(Self { resources: Repeated::new(message, 1), scopes })
    }
}

/// Metrics of one scope, and what it is called.
pub(crate) struct ScopeMetrics<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) schema_url: &'a str,
    pub(crate) attributes: Repeated<'a>,
    pub(crate) metrics: Repeated<'a>,
}

impl<'a> ScopeMetrics<'a> {
    pub(crate) fn read(message: Cursor<'a>) -> Result<Self, Error> {
        let mut out = Self {
            name: "",
            version: "",
            schema_url: "",
            attributes: Repeated::none(),
            metrics: Repeated::new(message, 2),
        };
        let mut c = message;
        while let Some(tag) = c.tag()? {
            match tag.field {
                1 => {
                    c.expect(tag, WireType::Bytes)?;
                    out.scope(c.message()?)?;
                }
                3 => {
                    c.expect(tag, WireType::Bytes)?;
                    out.schema_url = c.str()?;
                }
                _ => c.skip(tag.wire_type)?,
            }
        }
        Ok(out)
    }

    fn scope(&mut self, mut c: Cursor<'a>) -> Result<(), Error> {
        self.attributes = Repeated::new(c, 3);
        while let Some(tag) = c.tag()? {
            let text = match tag.field {
                1 => &mut self.name,
                2 => &mut self.version,
                _ => {
                    c.skip(tag.wire_type)?;
                    continue;
                }
            };
            c.expect(tag, WireType::Bytes)?;
            *text = c.str()?;
        }
        Ok(())
    }
}

/// Kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No data at all.
    Empty,
    Gauge,
    Sum,
    Histogram,
    ExponentialHistogram,
    Summary,
}

/// What sums and histograms count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Temporality {
    /// From the point before.
    Delta,
    /// From the start.
    Cumulative,
    /// Not said, or not known.
    Other,
}

/// One metric.
pub(crate) struct Metric<'a> {
    pub(crate) name: &'a str,
    pub(crate) description: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) kind: Kind,
    pub(crate) temporality: Temporality,
    pub(crate) monotonic: bool,
    pub(crate) points: Repeated<'a>,
}

impl<'a> Metric<'a> {
    pub(crate) fn read(mut c: Cursor<'a>) -> Result<Self, Error> {
        let mut out = Self {
            name: "",
            description: "",
            unit: "",
            kind: Kind::Empty,
            temporality: Temporality::Other,
            monotonic: false,
            points: Repeated::none(),
        };
        let mut data = Cursor::new(&[], MESSAGE);
        while let Some(tag) = c.tag()? {
            if !matches!(tag.field, 1..=3 | 5 | 7 | 9..=11) {
                c.skip(tag.wire_type)?;
                continue;
            }
            c.expect(tag, WireType::Bytes)?;
            match tag.field {
                1 => out.name = c.str()?,
                2 => out.description = c.str()?,
                3 => out.unit = c.str()?,
                field => {
                    out.kind = match field {
                        5 => Kind::Gauge,
                        7 => Kind::Sum,
                        9 => Kind::Histogram,
                        10 => Kind::ExponentialHistogram,
                        _ => Kind::Summary,
                    };
                    data = c.message()?;
                }
            }
        }
        out.points = Repeated::new(data, 1);
        if matches!(out.kind, Kind::Sum | Kind::Histogram | Kind::ExponentialHistogram) {
            out.aggregation(data)?;
        }
        Ok(out)
    }

    fn aggregation(&mut self, mut c: Cursor<'a>) -> Result<(), Error> {
        while let Some(tag) = c.tag()? {
            match tag.field {
                2 => {
                    c.expect(tag, WireType::Varint)?;
                    self.temporality = match c.varint()? as i32 {
                        1 => Temporality::Delta,
                        2 => Temporality::Cumulative,
                        _ => Temporality::Other,
                    };
                }
                3 if self.kind == Kind::Sum => {
                    c.expect(tag, WireType::Varint)?;
                    self.monotonic = c.varint()? != 0;
                }
                _ => c.skip(tag.wire_type)?,
            }
        }
        Ok(())
    }

    /// Whether it has a temporality at all.
    pub(crate) fn aggregates(&self) -> bool {
        matches!(self.kind, Kind::Sum | Kind::Histogram | Kind::ExponentialHistogram)
    }
}
