//! Test scripts are run or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        promql_testkit::hostile::check_script(text);
    }
});
