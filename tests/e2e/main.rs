//! The real program, started, scraped, queried, killed.
//!
//! [`support`] starts processes and speaks HTTP; each other file is one story. Programs beside ours (`prometheus`,
//! `promtool`, exporters) are used where they are installed; else the test says "skipped".

#![allow(unreachable_pub, reason = "nothing of a test is reachable from outside")]

mod alerts;
mod bad_input;
mod bad_start;
mod cardinality;
mod compare;
mod exporters;
mod federation;
mod full_disk;
mod ha;
mod kill_loop;
mod lifecycle;
mod otlp;
mod pair_kill_loop;
mod peers;
mod promtool;
mod queries;
mod scrape;
mod support;
mod takeover;
mod takeover_of_3;
mod tracing;
