//! Answers of discovery: the first byte chooses the mechanism, the rest is what it reads; `scraper::fuzz` says what must hold.
//!
//! Begins with good bytes, which it writes into the folder that `ALMANAC_FUZZ_SEEDS` names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scraper::fuzz::{check, seeds};

const TARGETS: [&str; 4] = ["target_groups", "kubernetes", "consul", "dns"];

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
