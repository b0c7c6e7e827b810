//! Histograms as text: for people ([`FloatHistogram`]'s `Display`), and in the notation of the test scripts.

use std::fmt::{self, Display, Formatter, Write};

use super::buckets::Bucket;
use super::{CounterResetHint, FloatHistogram, Span};

/// A float as Go's `%g` prints it: the shortest digits that read back as the same number; the exponent is written out when
/// it is below -4 or above 5.
pub struct GoFloat(pub f64);

impl Display for GoFloat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let v = self.0;
        if v.is_nan() {
            return f.write_str("NaN");
        }
        if v.is_infinite() {
            return f.write_str(if v > 0.0 { "+Inf" } else { "-Inf" });
        }
        let text = format!("{v:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        if !(-4..6).contains(&exponent) {
            let sign = if exponent < 0 { '-' } else { '+' };
            return write!(f, "{mantissa}e{sign}{:02}", exponent.abs());
        }
        write!(f, "{v}")
    }
}

/// `[lower,upper):count`, with square brackets at inclusive bounds.
impl Display for Bucket {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char(if self.lower_inclusive { '[' } else { '(' })?;
        write!(f, "{},{}", GoFloat(self.lower), GoFloat(self.upper))?;
        f.write_char(if self.upper_inclusive { ']' } else { ')' })?;
        write!(f, ":{}", GoFloat(self.count))
    }
}

/// `{count:…, sum:…, BUCKETS}`, without empty buckets.
impl Display for FloatHistogram {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", GoFloat(self.count), GoFloat(self.sum))?;
        let mut put = |b: Bucket| if b.count == 0.0 { Ok(()) } else { write!(f, ", {b}") };
        self.negative().rev().try_for_each(&mut put)?;
        put(self.zero_bucket())?;
        self.positive().try_for_each(&mut put)?;
        f.write_char('}')
    }
}

impl FloatHistogram {
    /// The notation of the test scripts: `{{schema:1 count:2 …}}`. Buckets far apart cannot be written in it; then it is
    /// the text of `Display`.
    #[must_use]
    pub fn test_expression(&self) -> String {
        /// Most empty buckets that are written out.
        const GAP_MAX: usize = 1 << 12;
        let mut h = self.clone();
        h.compact(GAP_MAX);
        if h.positive_spans.len() > 1 || h.negative_spans.len() > 1 {
            return self.to_string();
        }
        let mut parts = Vec::new();
        if h.schema != 0 {
            parts.push(format!("schema:{}", h.schema));
        }
        for (name, value) in
            [("count", h.count), ("sum", h.sum), ("z_bucket", h.zero_count), ("z_bucket_w", h.zero_threshold)]
        {
            if value != 0.0 {
                parts.push(format!("{name}:{}", GoFloat(value)));
            }
        }
        if h.uses_custom_buckets() {
            parts.push(format!("custom_values:{}", list(&h.custom_values)));
        }
        match h.counter_reset_hint {
            CounterResetHint::Unknown => {}
            CounterResetHint::CounterReset => parts.push("counter_reset_hint:reset".into()),
            CounterResetHint::NotCounterReset => parts.push("counter_reset_hint:not_reset".into()),
            CounterResetHint::Gauge => parts.push("counter_reset_hint:gauge".into()),
        }
        push_side(&mut parts, "", &h.positive_spans, &h.positive_buckets);
        push_side(&mut parts, "n_", &h.negative_spans, &h.negative_buckets);
        format!("{{{{{}}}}}", parts.join(" "))
    }
}

fn push_side(parts: &mut Vec<String>, prefix: &str, spans: &[Span], buckets: &[f64]) {
    if let Some(span) = spans.first().filter(|s| s.offset != 0) {
        parts.push(format!("{prefix}offset:{}", span.offset));
    }
    if !buckets.is_empty() {
        parts.push(format!("{prefix}buckets:{}", list(buckets)));
    }
}

fn list(values: &[f64]) -> String {
    let texts: Vec<String> = values.iter().map(|v| GoFloat(*v).to_string()).collect();
    format!("[{}]", texts.join(" "))
}
