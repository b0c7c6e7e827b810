//! Bodies in the text format: `scraper::fuzz` says what must hold.
//!
//! Begins with good bytes, which it writes into the folder that `ALMANAC_FUZZ_SEEDS` names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scraper::fuzz::{check, seeds};

fuzz_target!(
    init: {
        if let Some(folder) = std::env::var_os("ALMANAC_FUZZ_SEEDS").map(std::path::PathBuf::from) {
            for (n, bytes) in seeds("text").into_iter().enumerate() {
                std::fs::write(folder.join(format!("seed-{n}")), bytes).expect("the folder is there");
            }
        }
    },
    |data: &[u8]| check("text", data)
);
