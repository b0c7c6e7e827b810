//! What the parser accepts prints as a text that means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        promql_testkit::hostile::check_parser(text);
    }
});
