//! The snappy block format, with limits and reusable buffers.
//!
//! The length a block declares is checked before any memory is taken, so a small body cannot ask for gigabytes.

use crate::error::Error;

/// A block of `n` bytes cannot decompress to more than about this many times `n`: the shortest element that produces
/// output is a three-byte copy of 64 bytes. What declares more is refused without decoding.
const MAX_RATIO: usize = 32;

/// Decompresses blocks.
#[derive(Debug, Default)]
pub struct Decompressor {
    decoder: snap::raw::Decoder,
}

impl Decompressor {
    /// A decompressor.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills `out` with the content of `block`, which declares at most `limit` bytes. `out` keeps its memory from call
    /// to call; what it held before is gone.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the block declares more than `limit`, before anything is allocated; [`Error::Snappy`]
    /// when it is damaged. `out` is empty then.
    pub fn decompress(&mut self, block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let len = snap::raw::decompress_len(block).map_err(|e| snappy_error(out, &e))?;
        if len > limit {
            out.clear();
            return Err(Error::TooLarge { len, limit });
        }
        if len > block.len().saturating_mul(MAX_RATIO) {
            out.clear();
            return Err(Error::Snappy(format!("a block of {} bytes declares {len} bytes", block.len())));
        }
        // What is there is overwritten, so only growth costs a fill.
        out.resize(len, 0);
        let written = self.decoder.decompress(block, out).map_err(|e| snappy_error(out, &e))?;
        out.truncate(written);
        Ok(())
    }
}

/// Compresses blocks.
#[derive(Debug)]
pub struct Compressor {
    encoder: snap::raw::Encoder,
}

impl Default for Compressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Compressor {
    /// A compressor.
    #[must_use]
    pub fn new() -> Self {
        Self { encoder: snap::raw::Encoder::new() }
    }

    /// Fills `out` with the block of `content`. `out` keeps its memory from call to call.
    ///
    /// # Errors
    /// [`Error::Snappy`] when `content` is longer than a block may be (4 GiB).
    pub fn compress(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let max = snap::raw::max_compress_len(content.len());
        out.resize(max, 0);
        let written = self.encoder.compress(content, out).map_err(|e| snappy_error(out, &e))?;
        out.truncate(written);
        Ok(())
    }
}

#[cold]
fn snappy_error(out: &mut Vec<u8>, e: &snap::Error) -> Error {
    out.clear();
    Error::Snappy(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bomb_is_refused_before_memory_is_taken() {
        let mut out = Vec::new();
        // Declares 4 GiB - 1 in five bytes.
        let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f];
        let e = Decompressor::new().decompress(&bomb, 32 << 20, &mut out).expect_err("too large");
        assert_eq!(e, Error::TooLarge { len: 0xffff_ffff, limit: 32 << 20 });
        // Within the limit, but no block of this size can hold so much.
        let bomb = [0x80, 0x80, 0x80, 0x08, 0, b'x'];
        let e = Decompressor::new().decompress(&bomb, 32 << 20, &mut out).expect_err("implausible");
        assert!(matches!(e, Error::Snappy(_)), "{e}");
        assert_eq!(out.capacity(), 0);
    }

    #[test]
    fn the_most_compressible_content_passes() {
        let (mut c, mut d) = (Compressor::new(), Decompressor::new());
        let (mut block, mut back) = (Vec::new(), Vec::new());
        for len in [0, 1, 60, 1000, 65_536, 1 << 20] {
            let zeros = vec![0; len];
            c.compress(&zeros, &mut block).expect("compresses");
            d.decompress(&block, len, &mut back).expect("decompresses");
            assert!(back == zeros, "{len}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(content in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let (mut block, mut back) = (Vec::new(), Vec::new());
            Compressor::new().compress(&content, &mut block).expect("compresses");
            Decompressor::new().decompress(&block, content.len(), &mut back).expect("decompresses");
            prop_assert_eq!(back, content);
        }

        #[test]
        fn random_bytes_never_panic(block in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            let _ = Decompressor::new().decompress(&block, 1 << 16, &mut out);
            prop_assert!(out.capacity() <= 1 << 17);
        }
    }
}
