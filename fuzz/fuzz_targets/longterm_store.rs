//! Foreign bytes in place of what the long-term store reads back: chunks, journal, rows, rollups, postings, keys. The first byte
//! chooses which, the rest is what is read.
//!
//! Begins with good bytes, which it writes into the folder that `ALMANAC_FUZZ_SEEDS` names.
#![no_main]

use federation::store::fuzz::{TARGETS, check, seeds};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        if let Some(folder) = std::env::var_os("ALMANAC_FUZZ_SEEDS").map(std::path::PathBuf::from) {
            for (which, target) in TARGETS.iter().enumerate() {
                for (n, bytes) in seeds(target).into_iter().enumerate() {
                    let seed = [&[which as u8], &bytes[..]].concat();
                    std::fs::write(folder.join(format!("seed-{target}-{n}")), seed).expect("the folder is there");
                }
            }
        }
    },
    |data: &[u8]| {
        if let Some((which, bytes)) = data.split_first() {
            check(TARGETS[usize::from(*which) % TARGETS.len()], bytes);
        }
    }
);
