//! almanac
fn main() {}
