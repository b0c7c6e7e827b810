//! What is handed from one program to the next: the headers `traceparent` and `tracestate`.
//!
//! Specification: W3C Trace Context (<https://www.w3.org/TR/trace-context/>). A header that does not follow it counts as
//! none. Of the flags, "sampled" and "random" are kept.

use std::fmt;
use std::sync::Arc;

/// Names a trace: all that was done for one request. Never all zeros in a valid context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// Names a span of a trace. Never all zeros in a valid context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;
/// All flags that are kept.
const KNOWN_FLAGS: u8 = 3;
/// Longest `tracestate` that is handed on.
const STATE_LEN_BYTES_MAX: usize = 512;
/// Most members of a `tracestate`.
const STATE_MEMBERS_MAX: usize = 32;

/// Where in which trace something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// Flags of the trace.
    flags: u8,
    /// What systems on the way noted, as it came; empty for nothing.
    pub state: Arc<str>,
    /// It came from another program.
    pub remote: bool,
}

impl SpanContext {
    /// A context of this program.
    #[must_use]
    pub fn new(trace_id: TraceId, span_id: SpanId, sampled: bool) -> Self {
        let flags = if sampled { SAMPLED } else { 0 };
        Self { trace_id, span_id, flags, state: "".into(), remote: false }
    }

    /// Reads what another program sent. `state` is an empty text where there is no such header.
    #[must_use]
    pub fn parse(traceparent: &str, state: &str) -> Option<Self> {
        let mut parts = traceparent.splitn(5, '-');
        let mut hex = |len: usize| parts.next().filter(|p| p.len() == len);
        let [version] = decode(hex(2)?)?;
        let (trace_id, span_id) = (decode(hex(32)?)?, decode(hex(16)?)?);
        let [flags] = decode(hex(2)?)?;
        let more = parts.next();
        let broken = version == 0xff || version == 0 && (more.is_some() || flags > KNOWN_FLAGS);
        if broken || trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        Some(Self {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            flags: flags & KNOWN_FLAGS,
            state: if is_state(state) { state.into() } else { "".into() },
            remote: true,
        })
    }

    /// The value of `traceparent` for what is asked of others.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }

    /// Whether the trace is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags of the trace.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// The same trace, another span, of this program.
    #[must_use]
    pub(crate) fn with_span(&self, span_id: SpanId) -> Self {
        Self { span_id, remote: false, ..self.clone() }
    }

    pub(crate) fn set_sampled(&mut self, sampled: bool) {
        self.flags = self.flags & !SAMPLED | u8::from(sampled);
    }
}

/// Bytes of exactly as many lower-case hexadecimal digits as are needed.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// Whether a `tracestate` can be handed on: pairs with commas between them, of printable characters.
fn is_state(text: &str) -> bool {
    let member = |m: &str| {
        m.trim().split_once('=').is_some_and(|(key, value)| {
            let key_fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/@".contains(&b);
            !key.is_empty() && key.bytes().all(key_fits) && !value.is_empty() && !value.contains('=')
        })
    };
    !text.is_empty()
        && text.len() <= STATE_LEN_BYTES_MAX
        && text.bytes().all(|b| (b' '..=b'~').contains(&b))
        && text.split(',').count() <= STATE_MEMBERS_MAX
        && text.split(',').all(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn headers_round_trip() {
        for text in [GOOD, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"] {
            let context = SpanContext::parse(text, "vendor=x,b=1").expect(text);
            assert_eq!(context.traceparent(), text);
            assert_eq!(context.is_sampled(), text == GOOD);
            assert!(context.remote && &*context.state == "vendor=x,b=1");
        }
        let newer = SpanContext::parse("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-more", "");
        assert_eq!(newer.expect("later versions may have more").flags(), 3);
    }

    #[test]
    fn what_is_no_context_is_none() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-04",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473ü-00f067aa0ba902b7-01",
        ] {
            assert_eq!(SpanContext::parse(bad, ""), None, "{bad}");
        }
    }

    #[test]
    fn a_broken_state_is_left_out() {
        for bad in ["novalue", "A=1", "a=1,,b=2", "a=\u{7f}", "=1", &"a=1,".repeat(200)] {
            assert_eq!(&*SpanContext::parse(GOOD, bad).expect("a context").state, "", "{bad}");
        }
    }
}
