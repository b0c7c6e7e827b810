//! Federation: what goes from a scraper node to a long-term node, how it is kept there, and how one query sees both.
//!
//! Read in this order:
//!
//! 1. [`config`]: settings as plain data.
//! 2. [`sender`]: the live lane, which follows the write-ahead log and sends at least once; [`queue`] has its
//!    book-keeping, `shard` its requests, [`backoff`] its pauses, [`http`] its client.
//! 3. [`remote_read`]: a remote store behind the storage contracts; [`tiered`]: local and remote as one.
//! 4. [`store`]: the long-term store.

#![forbid(unsafe_code)]

pub mod backoff;
pub mod config;
pub mod http;
pub mod queue;
pub mod remote_read;
pub mod sender;
mod shard;
pub mod store;
pub mod tiered;
