//! almanac
mod cli;
mod config;
mod testing;
fn main() {}
