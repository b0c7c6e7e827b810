//! Requests of remote write 1.0 and 2.0 of any bytes, compressed or to be compressed, through all that the receiver does. No panic,
//! bounded memory, valid labels only, and twice is as once.
//!
//! Begins with good requests, which it writes into the folder that `ALMANAC_FUZZ_SEEDS` names.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        if let Some(folder) = std::env::var_os("ALMANAC_FUZZ_SEEDS").map(std::path::PathBuf::from) {
            for is_v2 in [false, true] {
                for (n, body) in api::fuzz::seeds(is_v2).into_iter().enumerate() {
                    let seed = [&[u8::from(is_v2)][..], &body].concat();
                    std::fs::write(folder.join(format!("seed-{is_v2}-{n}")), seed).expect("the folder is there");
                }
            }
        }
    },
    |data: &[u8]| {
        if let Some((choice, body)) = data.split_first() {
            api::fuzz::remote_write(choice & 1 != 0, choice & 2 != 0, body);
        }
    }
);
