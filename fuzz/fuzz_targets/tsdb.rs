//! Foreign bytes in every file that the local store reads: the first byte chooses which, the rest is what is read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some((which, bytes)) = data.split_first() {
        tsdb::fuzz::check(tsdb::fuzz::TARGETS[usize::from(*which) % tsdb::fuzz::TARGETS.len()], bytes);
    }
});
