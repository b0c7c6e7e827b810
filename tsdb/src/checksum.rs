//! Checks the CRC-32C of bytes that are read. One place, so that mutated files of tests and fuzzing get past it.

#[cfg(any(test, feature = "fuzzing"))]
thread_local! {
    static BLIND: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Takes every checksum that this thread looks at for right, or does not any more.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn set_blind(blind: bool) {
    BLIND.set(blind);
}

/// Whether the checksum of the bytes is `expected`.
pub(crate) fn is_right(bytes: &[u8], expected: u32) -> bool {
    #[cfg(any(test, feature = "fuzzing"))]
    if BLIND.get() {
        return true;
    }
    crc32c::crc32c(bytes) == expected
}
