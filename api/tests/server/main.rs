//! The server over loopback: every endpoint from request to bytes.
//!
//! `support` starts a server over a store in memory and speaks HTTP to it; `cases` is the table of requests and exact
//! answers; the other modules are named after what they try.

#![allow(missing_docs)]

mod cases;
mod federation;
mod http_rules;
mod lifecycle;
mod otlp;
mod promtool;
mod queries;
mod remote;
mod support;
