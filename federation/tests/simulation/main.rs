//! Sender, receiver and network in one process, on a clock that runs as fast as there is nothing to do.
//!
//! Real are the local store, the sender with both lanes and the audit, the wire format and the long-term store; the
//! network ([`network`]) and the receiver before the store ([`receiver`]) are this file's own. [`world`] puts them
//! together and lets them die. [`faults`] runs random histories from seeds, [`outage`] the stories that the design
//! promises, [`year`] asks what dashboards of a year ask.
//!
//! `ALMANAC_SIM_SEEDS` says how many seeds to run (default 1), `ALMANAC_SEED` the first one; a failure names its seed.

#![allow(clippy::print_stdout, reason = "which seed runs, and what a simulated outage took")]

mod faults;
mod network;
mod outage;
mod receiver;
mod world;
mod year;
