//! Random histories on a simulated disk that fails: whatever was acknowledged comes back, and nothing else.
//!
//! Reading order: `model` (what was sent, acknowledged, deleted), `history` (what is done, and what goes wrong), `flips` (bits that
//! flip at rest, in histories of their own), then the tests. A history follows from its seed alone; `make crash SEED=…` runs one again and prints its steps.

mod flips;
mod history;
mod model;

use history::History;
pub(super) use history::counted;

/// How many histories `cargo test` runs, of which seed on, unless the environment says otherwise.
const HISTORIES: u64 = 100;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

#[test]
fn what_was_acknowledged_survives() {
    let (from, count, loud) = match number("ALMANAC_CRASH_SEED") {
        Some(seed) => (seed, 1, true),
        None => (
            number("ALMANAC_CRASH_FROM").unwrap_or(0),
            number("ALMANAC_CRASH_SEEDS").unwrap_or(HISTORIES),
            false,
        ),
    };
    let mut failed = Vec::new();
    let mut ends = 0;
    for seed in from..from + count {
        let run = std::panic::AssertUnwindSafe(|| {
            let mut history = History::new(seed, loud);
            history.run();
            history.ends
        });
        match std::panic::catch_unwind(run) {
            Ok(n) => ends += n,
            Err(_) => {
                eprintln!("history {seed} failed; again with: make crash SEED={seed}");
                failed.push(seed);
                assert!(failed.len() < 10, "histories {failed:?}");
            }
        }
    }
    eprintln!("{count} histories, {ends} ends");
    assert!(failed.is_empty(), "histories {failed:?}; again with: make crash SEED={}", failed[0]);
}

/// Else a seed would mean nothing.
#[test]
fn a_history_follows_from_its_seed() {
    for seed in [3, 4] {
        let run = || {
            let mut history = History::new(seed, false);
            history.run();
            (history.ends, history.steps())
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}
