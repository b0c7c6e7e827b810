//! Federation: what goes from a scraper node to a long-term node, how it is kept there, and how one query sees both.
//!
//! Read in this order:
//!
//! 1. [`config`]: settings as plain data.
//! 2. [`sender`]: the live lane, which follows the write-ahead log and sends at least once; [`queue`] has its
//!    book-keeping, `shard` and `delivery` its requests, [`backoff`] its pauses, [`transport`] and [`http`] its client.
//!    [`backlog`]: the lane that sends history from the local store.
//! 3. [`remote_read`]: a remote store behind the storage contracts; [`tiered`]: the local store and the long-term node as
//!    one; [`fanout`]: the local store and any remote ones.
//! 4. [`audit`]: whether the long-term node has what the local store has.
//!    [`preview`]: what tagging would cost.
//! 5. [`store`]: the long-term store; [`ha`] in front of it makes one series of what two replicas send.

#![forbid(unsafe_code)]

pub mod audit;
pub mod backlog;
pub mod backoff;
pub mod config;
mod delivery;
pub mod fanout;
pub mod ha;
pub mod http;
pub mod preview;
pub mod queue;
pub mod remote_read;
pub mod sender;
mod shard;
pub mod store;
#[cfg(test)]
mod testing;
pub mod tiered;
pub mod transport;
