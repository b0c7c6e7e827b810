//! Foreign bytes in every place where this crate reads some from the network: whatever they are, there is an answer or an
//! error, no panic, in bounded time and memory. For `fuzz/` and for mutations in `cargo test`.
//!
//! Bodies of targets are scraped several times with one memory, and what arrives in the store must be what a scrape without
//! memory brings.
//!
//! Reading order: [`TARGETS`], [`seeds`] (good bytes to begin with), [`check`].

#![allow(clippy::missing_panics_doc, reason = "a panic is what is looked for")]

mod bodies;
mod good;

use crate::exposition::Format;
use crate::exposition::negotiation::BodyFormat;

/// What is read: bodies in three formats, of which the first byte chooses options, and answers of discovery.
pub const TARGETS: [&str; 7] =
    ["text", "openmetrics", "protobuf", "target_groups", "kubernetes", "consul", "dns"];

/// Good bytes.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "text" => good::with_choices(&[good::TEXT.as_bytes()]),
        "openmetrics" => good::with_choices(&[good::OPEN_METRICS.as_bytes()]),
        "protobuf" => {
            let families = [0, 1, 2, 4].map(good::protobuf);
            let whole = families.concat();
            good::with_choices(&[&families[0][..], &families[1], &families[2], &families[3], &whole])
        }
        other => crate::discovery::fuzz::seeds(other),
    }
}

/// Reads the bytes as a target does.
pub fn check(target: &str, data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match target {
        "text" => bodies::check(BodyFormat::Text(Format::Text), *choice, rest),
        "openmetrics" => bodies::check(BodyFormat::Text(Format::OpenMetrics), *choice, rest),
        "protobuf" => bodies::check(BodyFormat::Protobuf, *choice, rest),
        other => crate::discovery::fuzz::check(other, data),
    }
}

#[cfg(test)]
mod tests {
    use proptest::test_runner::{RngAlgorithm, TestRng};

    use super::*;

    /// Mutations of good bytes, from a fixed seed; `fuzz/` goes on.
    #[test]
    fn mutated_bytes_are_read_or_refused() {
        for target in TARGETS {
            let seeds = seeds(target);
            assert!(seeds.iter().any(|s| !s.is_empty()), "{target}");
            seeds.iter().for_each(|s| check(target, s));
            let mut rng = Numbers(TestRng::deterministic_rng(RngAlgorithm::ChaCha));
            for round in 0..1500 {
                let mut bytes = seeds[rng.below(seeds.len())].clone();
                for _ in 0..1 + rng.below(4) {
                    mutate(&mut bytes, &mut rng);
                }
                let run = std::panic::AssertUnwindSafe(|| check(target, &bytes));
                let text = String::from_utf8_lossy(&bytes);
                assert!(
                    std::panic::catch_unwind(run).is_ok(),
                    "{target}, round {round}: {bytes:02x?}\n{text}"
                );
            }
        }
    }

    struct Numbers(TestRng);

    impl Numbers {
        fn below(&mut self, n: usize) -> usize {
            use proptest::prelude::Rng;
            (self.0.next_u64() % n.max(1) as u64) as usize
        }
    }

    fn mutate(bytes: &mut Vec<u8>, rng: &mut Numbers) {
        let at = rng.below(bytes.len());
        let part = |rng: &mut Numbers| at..at + rng.below(24).min(bytes.len() - at);
        match rng.below(6) {
            _ if bytes.is_empty() => bytes.push(rng.below(256) as u8),
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = b"\0\xff\x7f\x80 \n{}\"\\#,=[]:0"[rng.below(17)],
            2 => bytes.truncate(at),
            3 => {
                let part = bytes[part(rng)].to_vec();
                let to = rng.below(bytes.len());
                bytes.splice(to..to, part);
            }
            4 => drop(bytes.drain(part(rng))),
            _ => bytes[at] = rng.below(256) as u8,
        }
    }
}
