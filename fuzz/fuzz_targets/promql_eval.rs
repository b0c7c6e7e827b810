//! Queries on a small store are answered or refused in time, however they are planned.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        promql_testkit::hostile::check_eval(text);
    }
});
