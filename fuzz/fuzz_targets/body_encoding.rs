//! Bodies of targets with `Content-Encoding` gzip and zstd: never more than the limit, and the same in whatever
//! parts they come.
//!
//! The first byte chooses the encoding and the length of the parts. Begins with good bodies, which it writes into the
//! folder that `ALMANAC_FUZZ_SEEDS` names.
#![no_main]

use httpclient::body::decode;
use libfuzzer_sys::fuzz_target;

const LIMIT: u64 = 1 << 16;

/// `up 1` in a gzip member (RFC 1952) and a zstd frame (RFC 8878), stored as it is.
const SEEDS: [&[u8]; 2] = [
    b"\x01\x1f\x8b\x08\0\0\0\0\0\0\x03\x01\x05\0\xfa\xffup 1\n\x72\x90\xea\x82\x05\0\0\0",
    b"\x02\x28\xb5\x2f\xfd\x20\x05\x29\0\0up 1\n",
];

fn write_seeds() {
    if let Some(folder) = std::env::var_os("ALMANAC_FUZZ_SEEDS").map(std::path::PathBuf::from) {
        for (n, bytes) in SEEDS.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{n}")), bytes).expect("the folder is there");
        }
    }
}

fuzz_target!(init: write_seeds(), |data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let encoding = ["", "gzip", "zstd"][usize::from(choice % 3)];
    let whole = decode(encoding, body, usize::MAX, LIMIT);
    if let Ok(bytes) = &whole {
        assert!((bytes.len() as u64) < LIMIT);
    }
    let parts = decode(encoding, body, usize::from(choice / 3), LIMIT);
    // Of frames that are wrong, zstd takes some in parts that it refuses when it sees them whole.
    if let (Ok(whole), Ok(parts)) = (&whole, &parts) {
        assert_eq!(whole, parts);
    }
    assert!(encoding == "zstd" || whole.is_ok() == parts.is_ok());
});
