//! Data points and exemplars, read in place. Lists of numbers go into buffers that are kept from point to point.
//!
//! Spec: <https://github.com/open-telemetry/opentelemetry-proto/tree/main/opentelemetry/proto>, `metrics/v1`.

use super::message::{Kind, Repeated};
use crate::error::Error;
use crate::proto::{Cursor, Tag, WireType, unzigzag};

/// Buckets of one sign of an exponential histogram.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    pub(crate) offset: i32,
    pub(crate) counts: Vec<u64>,
}

/// A data point of any kind: what does not belong to its kind stays empty. Reused from point to point.
#[derive(Debug)]
pub(crate) struct Point<'a> {
    pub(crate) attributes: Repeated<'a>,
    pub(crate) exemplars: Repeated<'a>,
    pub(crate) start_nanos: u64,
    pub(crate) time_nanos: u64,
    pub(crate) flags: u32,
    /// Of a gauge or sum.
    pub(crate) value: f64,
    pub(crate) count: u64,
    pub(crate) sum: Option<f64>,
    /// Of a histogram.
    pub(crate) bucket_counts: Vec<u64>,
    pub(crate) bounds: Vec<f64>,
    /// Of an exponential histogram.
    pub(crate) scale: i32,
    pub(crate) zero_count: u64,
    pub(crate) positive: Buckets,
    pub(crate) negative: Buckets,
    /// Of a summary: quantile and value.
    pub(crate) quantiles: Vec<(f64, f64)>,
}

impl<'a> Point<'a> {
    pub(crate) fn new() -> Self {
        Self {
            attributes: Repeated::none(),
            exemplars: Repeated::none(),
            start_nanos: 0,
            time_nanos: 0,
            flags: 0,
            value: 0.0,
            count: 0,
            sum: None,
            bucket_counts: Vec::new(),
            bounds: Vec::new(),
            scale: 0,
            zero_count: 0,
            positive: Buckets::default(),
            negative: Buckets::default(),
            quantiles: Vec::new(),
        }
    }

    /// Whether the series ends here.
    pub(crate) fn no_recorded_value(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn timestamp_ms(&self) -> i64 {
        self.time_nanos as i64 / 1_000_000
    }

    /// Milliseconds since the Unix epoch, 0 when it is not known.
    pub(crate) fn start_timestamp_ms(&self) -> i64 {
        self.start_nanos as i64 / 1_000_000
    }

    /// Reads the next point into this one.
    pub(crate) fn read(&mut self, kind: Kind, message: Cursor<'a>) -> Result<(), Error> {
        self.clear();
        let (attributes, exemplars) = match kind {
            Kind::Gauge | Kind::Sum => (7, 5),
            Kind::Histogram => (9, 8),
            Kind::ExponentialHistogram => (1, 11),
            Kind::Summary | Kind::Empty => (7, 0),
        };
        self.attributes = Repeated::new(message, attributes);
        if exemplars != 0 {
            self.exemplars = Repeated::new(message, exemplars);
        }
        let mut c = message;
        while let Some(tag) = c.tag()? {
            match tag.field {
                2 => {
                    c.expect(tag, WireType::Fixed64)?;
                    self.start_nanos = c.fixed64()?;
                }
                3 => {
                    c.expect(tag, WireType::Fixed64)?;
                    self.time_nanos = c.fixed64()?;
                }
                field => {
                    let known = match kind {
                        Kind::Gauge | Kind::Sum => self.number(field, tag, &mut c)?,
                        Kind::Histogram => self.histogram(field, tag, &mut c)?,
                        Kind::ExponentialHistogram => self.exponential(field, tag, &mut c)?,
                        Kind::Summary => self.summary(field, tag, &mut c)?,
                        Kind::Empty => false,
                    };
                    if !known {
                        c.skip(tag.wire_type)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Only the time of a point.
    pub(crate) fn time_of(mut c: Cursor<'_>) -> Result<u64, Error> {
        let mut nanos = 0;
        while let Some(tag) = c.tag()? {
            if tag.field == 3 {
                c.expect(tag, WireType::Fixed64)?;
                nanos = c.fixed64()?;
            } else {
                c.skip(tag.wire_type)?;
            }
        }
        Ok(nanos)
    }

    fn clear(&mut self) {
        self.start_nanos = 0;
        self.time_nanos = 0;
        self.flags = 0;
        self.value = 0.0;
        self.count = 0;
        self.sum = None;
        self.bucket_counts.clear();
        self.bounds.clear();
        self.scale = 0;
        self.zero_count = 0;
        for buckets in [&mut self.positive, &mut self.negative] {
            buckets.offset = 0;
            buckets.counts.clear();
        }
        self.quantiles.clear();
    }

    fn number(&mut self, field: u32, tag: Tag, c: &mut Cursor<'a>) -> Result<bool, Error> {
        match field {
            4 | 6 => {
                c.expect(tag, WireType::Fixed64)?;
                let bits = c.fixed64()?;
                self.value = if field == 4 { f64::from_bits(bits) } else { bits as i64 as f64 };
            }
            8 => self.flags = uint(tag, c)? as u32,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Count and sum, which stand in the same fields of all that is not a number.
    fn count_and_sum(&mut self, field: u32, tag: Tag, c: &mut Cursor<'a>) -> Result<(), Error> {
        c.expect(tag, WireType::Fixed64)?;
        if field == 4 {
            self.count = c.fixed64()?;
        } else {
            self.sum = Some(c.double()?);
        }
        Ok(())
    }

    fn histogram(&mut self, field: u32, tag: Tag, c: &mut Cursor<'a>) -> Result<bool, Error> {
        match field {
            4 | 5 => self.count_and_sum(field, tag, c)?,
            6 => {
                let counts = &mut self.bucket_counts;
                c.repeated(tag, WireType::Fixed64, |c| c.fixed64().map(|n| counts.push(n)))?;
            }
            7 => {
                let bounds = &mut self.bounds;
                c.repeated(tag, WireType::Fixed64, |c| c.double().map(|n| bounds.push(n)))?;
            }
            10 => self.flags = uint(tag, c)? as u32,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn exponential(&mut self, field: u32, tag: Tag, c: &mut Cursor<'a>) -> Result<bool, Error> {
        match field {
            4 | 5 => self.count_and_sum(field, tag, c)?,
            6 => self.scale = unzigzag(uint(tag, c)?) as i32,
            7 => {
                c.expect(tag, WireType::Fixed64)?;
                self.zero_count = c.fixed64()?;
            }
            8 | 9 => {
                c.expect(tag, WireType::Bytes)?;
                let buckets = if field == 8 { &mut self.positive } else { &mut self.negative };
                read_buckets(buckets, c.message()?)?;
            }
            10 => self.flags = uint(tag, c)? as u32,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn summary(&mut self, field: u32, tag: Tag, c: &mut Cursor<'a>) -> Result<bool, Error> {
        match field {
            4 | 5 => self.count_and_sum(field, tag, c)?,
            6 => {
                c.expect(tag, WireType::Bytes)?;
                self.quantiles.push(read_quantile(c.message()?)?);
            }
            8 => self.flags = uint(tag, c)? as u32,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn uint(tag: Tag, c: &mut Cursor<'_>) -> Result<u64, Error> {
    c.expect(tag, WireType::Varint)?;
    c.varint()
}

fn read_buckets(buckets: &mut Buckets, mut c: Cursor<'_>) -> Result<(), Error> {
    while let Some(tag) = c.tag()? {
        match tag.field {
            1 => buckets.offset = unzigzag(uint(tag, &mut c)?) as i32,
            2 => {
                let counts = &mut buckets.counts;
                c.repeated(tag, WireType::Varint, |c| c.varint().map(|n| counts.push(n)))?;
            }
            _ => c.skip(tag.wire_type)?,
        }
    }
    Ok(())
}

fn read_quantile(mut c: Cursor<'_>) -> Result<(f64, f64), Error> {
    let (mut quantile, mut value) = (0.0, 0.0);
    while let Some(tag) = c.tag()? {
        match tag.field {
            1 | 2 => {
                c.expect(tag, WireType::Fixed64)?;
                let number = c.double()?;
                *(if tag.field == 1 { &mut quantile } else { &mut value }) = number;
            }
            _ => c.skip(tag.wire_type)?,
        }
    }
    Ok((quantile, value))
}

/// An exemplar.
pub(crate) struct ExemplarMessage<'a> {
    pub(crate) attributes: Repeated<'a>,
    pub(crate) time_nanos: u64,
    pub(crate) value: Option<f64>,
    /// Empty, or 16 bytes.
    pub(crate) trace_id: &'a [u8],
    /// Empty, or 8 bytes.
    pub(crate) span_id: &'a [u8],
}

impl<'a> ExemplarMessage<'a> {
    pub(crate) fn read(message: Cursor<'a>) -> Result<Self, Error> {
        let mut out = Self {
            attributes: Repeated::new(message, 7),
            time_nanos: 0,
            value: None,
            trace_id: &[],
            span_id: &[],
        };
        let mut c = message;
        while let Some(tag) = c.tag()? {
            match tag.field {
                2 | 3 | 6 => {
                    c.expect(tag, WireType::Fixed64)?;
                    let bits = c.fixed64()?;
                    match tag.field {
                        2 => out.time_nanos = bits,
                        3 => out.value = Some(f64::from_bits(bits)),
                        _ => out.value = Some(bits as i64 as f64),
                    }
                }
                4 | 5 => {
                    c.expect(tag, WireType::Bytes)?;
                    let id = c.bytes()?;
                    let len = if tag.field == 4 { 8 } else { 16 };
                    if !id.is_empty() && id.len() != len {
                        return Err(c.error("id of a trace or span has the wrong length"));
                    }
                    *(if tag.field == 4 { &mut out.span_id } else { &mut out.trace_id }) = id;
                }
                _ => c.skip(tag.wire_type)?,
            }
        }
        Ok(out)
    }
}
