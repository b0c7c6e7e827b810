//! Targets in front of a store, scraped with and without seats.

use model::{Appendable, MatchOp, SystemClock};
use proptest::prelude::*;

use super::*;
use crate::exposition::negotiation::BodyFormat;
use crate::exposition::{Format, HistogramOptions};
use crate::sample_labels::SampleRules;
use crate::series_cache::{Appended, SeriesCache};
use crate::test_store::TestStore;

struct Target {
    store: TestStore,
    cache: SeriesCache,
    seats: Option<Arc<Seats>>,
    /// Bodies come as samples instead of lines.
    samples: bool,
    now_ms: i64,
    refused: usize,
    post_relabel: usize,
}

impl Target {
    fn new() -> Self {
        Self {
            store: TestStore::new(),
            cache: SeriesCache::default(),
            seats: None,
            samples: false,
            now_ms: 0,
            refused: 0,
            post_relabel: 0,
        }
    }

    /// A scrape; what was stored, by series and value.
    fn scrape(&mut self, job: &Arc<JobGuard>, body: &str) -> Vec<String> {
        self.now_ms += 1000;
        let seats = job.seats(&mut self.seats, self.cache.seated().0);
        let rules = SampleRules { honor_timestamps: true, seats, ..SampleRules::default() };
        let histograms = HistogramOptions { convert_classic: self.samples, ..HistogramOptions::default() };
        let mut app = self.store.appender().expect("open");
        let format = BodyFormat::Text(Format::Text);
        let Appended { counts, result, outdated } =
            self.cache.append(body.as_bytes(), format, histograms, self.now_ms, &rules, app.as_mut());
        match (&result, &rules.seats) {
            (Err(_), _) => {
                app.rollback();
                app = self.store.appender().expect("open");
                self.cache.append_stale(self.now_ms, app.as_mut()).expect("open");
            }
            (Ok(()), Some(seats)) => {
                let (kept, refused) = self.cache.seated();
                seats.settle(kept, refused);
            }
            (Ok(()), None) => {}
        }
        if let Some(mut old) = outdated {
            old.append_stale_except(&self.cache, self.now_ms, app.as_mut()).expect("open");
        }
        app.commit().expect("open");
        (self.refused, self.post_relabel) = (counts.refused, counts.post_relabel);
        let mut stored: Vec<String> = self
            .store
            .drain()
            .iter()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                format!("{} {}", words[0].trim_end_matches("{}"), words[words.len() - 1])
            })
            .collect();
        stored.sort();
        stored
    }
}

fn guard(server: SoftLimit, jobs: &[(&str, SoftLimit)]) -> Guard {
    let guard = Guard::new(SystemClock::shared());
    set(&guard, server, jobs);
    guard
}

fn set(guard: &Guard, limit: SoftLimit, jobs: &[(&str, SoftLimit)]) {
    let tagged = Matcher::new(MatchOp::NotEqual, "longterm", "").expect("a matcher");
    let server = ServerLimit { limit, selectors: vec![vec![tagged]] };
    guard.set(server, jobs.iter().map(|(job, limit)| ((*job).to_owned(), *limit)));
}

fn limit(series: usize, reserve: usize) -> SoftLimit {
    SoftLimit { series, reserve }
}

fn used(guard: &Guard) -> (usize, Vec<(usize, usize)>) {
    let status = guard.status(5);
    (status.server.used, status.jobs.iter().map(|job| (job.limit.used, job.refused)).collect())
}

const NONE: SoftLimit = SoftLimit { series: 0, reserve: 0 };

fn both_kinds(check: impl Fn(bool)) {
    check(false);
    check(true);
}

#[test]
fn what_exists_goes_on_and_what_is_new_is_refused() {
    both_kinds(|samples| {
        let guard = guard(NONE, &[("j", limit(3, 1))]);
        let job = guard.of("j");
        let mut t = Target { samples, ..Target::new() };
        assert_eq!(t.scrape(&job, "a 1\nb 1\n"), ["a 1", "b 1"]);
        let more = "new1 2\na 2\nnew2 2\nb 2\nnew3 2\n";
        assert_eq!(t.scrape(&job, more), ["a 2", "b 2", "new1 2"]);
        assert_eq!((t.refused, t.post_relabel), (2, 5), "refused samples were left by relabeling");
        for _ in 0..3 {
            assert_eq!(t.scrape(&job, more), ["a 2", "b 2", "new1 2"]);
            assert_eq!((t.refused, t.post_relabel), (2, 5));
        }
        assert_eq!(used(&guard), (3, vec![(3, 2)]));
        // The tagged one is let in above the limit, the second finds the reserve used up.
        let tagged = "a 3\nb 3\nnew1 3\nnew2 3\nt{longterm=\"1\"} 3\nt{longterm=\"2\"} 3\n";
        assert_eq!(t.scrape(&job, tagged), ["a 3", "b 3", "new1 3", "t{longterm=\"1\"} 3"]);
        assert_eq!(used(&guard), (4, vec![(4, 2)]));
        // Two leave: one place below the limit and the reserve's are free.
        let fewer = "a 4\nnew2 4\nt{longterm=\"1\"} 4\nt{longterm=\"2\"} 4\n";
        assert_eq!(t.scrape(&job, fewer), ["a 4", "b stale", "new1 stale", "t{longterm=\"1\"} 4"]);
        assert_eq!(used(&guard), (2, vec![(2, 2)]));
        assert_eq!(t.scrape(&job, fewer), ["a 4", "new2 4", "t{longterm=\"1\"} 4", "t{longterm=\"2\"} 4"]);
        assert_eq!(used(&guard), (4, vec![(4, 0)]));
        let status = guard.status(5).jobs.remove(0);
        assert_eq!((status.refused_for_job, status.refused_for_server), (3, 0), "counted once each");
        assert!(status.metrics.iter().any(|m| m.name == "t" && m.refused == 1), "{:?}", status.metrics);
        drop(t);
        assert_eq!(used(&guard), (0, vec![(0, 0)]), "a target that goes gives everything back");
    });
}

#[test]
fn a_target_that_fails_keeps_its_seats() {
    both_kinds(|samples| {
        let guard = guard(NONE, &[("j", limit(3, 0))]);
        let job = guard.of("j");
        let (mut t, mut other) = (Target { samples, ..Target::new() }, Target { samples, ..Target::new() });
        t.scrape(&job, "a 1\nb 1\n");
        assert_eq!(t.scrape(&job, "a 2\nb 2\nbroken {\n"), ["a stale", "b stale"]);
        assert_eq!(other.scrape(&job, "c 1\nd 1\n"), ["c 1"]);
        assert_eq!(t.scrape(&job, "a 3\nb 3\n"), ["a 3", "b 3"]);
        assert_eq!(used(&guard), (3, vec![(3, 1)]));
        // Under another configuration its series are new to its cache, but have their seats.
        (t.cache, t.samples) = (SeriesCache::default(), !samples);
        assert_eq!(t.scrape(&job, "a 4\nb 4\nc 4\n"), ["a 4", "b 4"]);
        assert_eq!(used(&guard), (3, vec![(3, 2)]));
    });
}

#[test]
fn limits_change_while_targets_run() {
    let guard = guard(NONE, &[("j", NONE), ("k", NONE)]);
    let (j, k) = (guard.of("j"), guard.of("k"));
    let (mut t, mut u) = (Target::new(), Target::new());
    t.scrape(&j, "a 1\nb 1\n");
    u.scrape(&k, "a 1\n");
    assert!(t.seats.is_none() && guard.status(5).jobs.is_empty(), "nothing is counted without a limit");
    set(&guard, limit(2, 0), &[("j", NONE), ("k", NONE)]);
    assert_eq!(t.scrape(&j, "a 2\nb 2\nc 2\n"), ["a 2", "b 2"]);
    assert_eq!(u.scrape(&k, "a 2\nb 2\n"), ["a 2"], "beyond the limit, but it was there before it");
    assert_eq!(used(&guard), (3, vec![(2, 1), (1, 1)]));
    let status = guard.status(5);
    assert_eq!((status.jobs[0].refused_for_job, status.jobs[0].refused_for_server), (0, 1));
    set(&guard, limit(9, 0), &[("j", limit(2, 0)), ("k", NONE)]);
    assert_eq!(t.scrape(&j, "a 3\nb 3\nc 3\n"), ["a 3", "b 3"]);
    assert_eq!(u.scrape(&k, "a 3\nb 3\n"), ["a 3", "b 3"]);
    set(&guard, NONE, &[("j", NONE)]);
    assert_eq!(t.scrape(&j, "a 4\nb 4\nc 4\n"), ["a 4", "b 4", "c 4"], "what was refused comes in");
    assert!(t.seats.is_none() && guard.status(5).jobs.is_empty());
    assert_eq!(u.scrape(&k, "a 4\nb 4\n"), ["a 4", "b 4"]);
    set(&guard, limit(9, 0), &[]);
    assert_eq!(used(&guard), (0, vec![]), "nothing is left over");
}

proptest! {
    /// Whatever targets do, the count is what their caches hold, and only exceeds the limit by what was there before it.
    #[test]
    fn counts_are_exact(
        scrapes in proptest::collection::vec((0..3_usize, proptest::collection::btree_set(0..12_u8, 0..9), 0..8_u8), 1..60),
        series in 1..12_usize,
        reserve in 0..4_usize,
    ) {
        let guard = guard(limit(8, 2), &[("j", limit(series, reserve)), ("k", NONE)]);
        let jobs = [guard.of("j"), guard.of("j"), guard.of("k")];
        let mut targets = [Target::new(), Target::new(), Target::new()];
        targets[1].samples = true;
        for (at, exposed, happens) in scrapes {
            let line = |i: &u8| if i.is_multiple_of(4) { format!("m{{longterm=\"{i}\"}} 1\n") } else { format!("m{{x=\"{i}\"}} 1\n") };
            let mut body: String = exposed.iter().map(line).collect();
            match happens {
                0 => body.push_str("broken {\n"),
                1 => targets[at] = Target::new(),
                2 => targets[at].samples ^= true,
                _ => {}
            }
            if body.is_empty() {
                body.push('\n');
            }
            let before = targets[at].cache.seated().0;
            targets[at].scrape(&jobs[at], &body);
            if happens != 0 {
                let (kept, refused) = targets[at].cache.seated();
                let seats = targets[at].seats.as_ref().expect("the server has a limit");
                prop_assert_eq!(seats.held.load(Relaxed), kept as i64);
                prop_assert_eq!(kept + refused, exposed.len());
                prop_assert!(kept <= before.max(10));
            }
            let held = |of: &[Target]| of.iter().flat_map(|t| &t.seats).map(|s| s.held.load(Relaxed)).sum::<i64>() as usize;
            let status = guard.status(0);
            prop_assert_eq!(status.jobs[0].limit.used, held(&targets[..2]));
            prop_assert_eq!(status.server.used, held(&targets));
            prop_assert!(status.jobs[0].limit.used <= series + reserve);
            prop_assert!(status.server.used <= 10);
        }
        drop(targets);
        prop_assert_eq!(guard.status(0).server.used, 0);
    }
}
