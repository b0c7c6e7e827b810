//! Messages between almanac, Prometheus and everything that speaks their protocols: remote write 1.0 and 2.0, remote
//! read, OTLP metrics and traces, and the snappy block format around them.
//!
//! Nothing here does I/O or knows HTTP; headers and status codes belong to the sender and to the API. All bytes that
//! come in are foreign: every length is checked against what is there before it is used, memory stays proportional to
//! the input, and a malformed message is an [`Error`] with its offset, never a panic.
//!
//! Read in this order:
//!
//! 1. [`snappy`]: bodies are snappy blocks; sizes are limited before memory is taken.
//! 2. [`write_v1`]: zero-copy reader and writer of `prometheus.WriteRequest`, the hot path of federation.
//!    [`label_cache`] is what a receiver remembers of its series.
//! 3. [`write_v2`]: reader and writer of `io.prometheus.write.v2.Request`.
//! 4. [`read`]: remote read requests and their answers in samples; [`chunked`] writes answers that are streamed as chunks,
//!    [`read_chunks`] reads them.
//!    [`rollup`]: an extension of it, sums in place of samples.
//! 5. [`otlp`]: metrics of OpenTelemetry exporters, and what they become here.
//! 6. [`trace`]: spans on their way to an OpenTelemetry collector.
//! 7. [`digest`]: what a node says of its samples, so that two nodes can be compared.
//!
//! Specs: <https://prometheus.io/docs/specs/prw/remote_write_spec/>,
//! <https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>,
//! <https://prometheus.io/docs/prometheus/latest/querying/remote_read_api/>.

#![forbid(unsafe_code)]

pub mod chunked;
pub mod digest;
pub mod error;
pub mod label_cache;
pub mod otlp;
mod proto;
pub mod read;
pub mod read_chunks;
pub mod rollup;
pub mod snappy;
pub mod trace;
pub mod write_v1;
pub mod write_v2;

pub use error::Error;
