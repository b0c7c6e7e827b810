//! What the tests of this crate share.

use std::path::PathBuf;

/// Folder of the conformance data: `CONFORMANCE_DIR`, else `../shared/conformance`; `None` when there is none.
pub fn conformance_dir() -> Option<PathBuf> {
    let named = std::env::var_os("CONFORMANCE_DIR").map(PathBuf::from);
    let dir =
        named.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/conformance")));
    dir.is_dir().then_some(dir)
}
