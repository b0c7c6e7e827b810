//! Selectors with their matchers and modifiers, ranges and subqueries.

use super::data::{BUCKETS, COUNTERS, GAUGES, INFO, MIXED, NATIVE};
use super::expression::Writer;

/// What kind of series an expression is about; only a preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Anything,
    Gauge,
    Counter,
    Buckets,
    Native,
}

impl Writer<'_> {
    /// An instant selector without modifiers.
    pub(super) fn bare_selector(&mut self, want: Want) -> String {
        let name = self.metric(want);
        let matchers = self.matchers();
        if self.rng.chance(5) {
            // The name as a matcher.
            let name = if self.rng.chance(50) {
                format!("__name__=\"{name}\"")
            } else {
                let others = [self.rng.pick(&GAUGES), self.rng.pick(&COUNTERS)];
                format!("__name__=~\"{name}|{}\"", others.join("|"))
            };
            let all: Vec<String> = std::iter::once(name).chain(matchers).collect();
            return format!("{{{}}}", all.join(","));
        }
        if self.profile.recent_syntax && self.rng.chance(3) {
            let all: Vec<String> = std::iter::once(format!("\"{name}\"")).chain(matchers).collect();
            return format!("{{{}}}", all.join(", "));
        }
        if matchers.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", matchers.join(",")) }
    }

    fn metric(&mut self, want: Want) -> &'static str {
        let native = self.profile.native_histograms;
        // Some of what nobody asked for too.
        let want = if self.rng.chance(12) { Want::Anything } else { want };
        match want {
            Want::Gauge => self.rng.pick(&GAUGES),
            Want::Counter => self.rng.pick(&COUNTERS),
            Want::Buckets => BUCKETS,
            Want::Native if native => match self.rng.below(8) {
                0 => MIXED,
                _ => self.rng.pick(&NATIVE),
            },
            Want::Native | Want::Anything => match self.rng.below(20) {
                0..=5 => self.rng.pick(&GAUGES),
                6..=10 => self.rng.pick(&COUNTERS),
                11 | 12 => BUCKETS,
                13..=16 if native => self.rng.pick(&NATIVE),
                17 | 18 if native => MIXED,
                19 if self.rng.chance(30) => "nothing",
                19 => INFO,
                _ => self.rng.pick(&GAUGES),
            },
        }
    }

    fn matchers(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        if self.rng.chance(55) {
            return out;
        }
        for _ in 0..self.rng.between(1, 2) {
            out.push(self.matcher());
        }
        out
    }

    fn matcher(&mut self) -> String {
        let text = self.rng.pick(&[
            "job=\"api\"",
            "job=\"db\"",
            "job!=\"db\"",
            "job=~\"a.*\"",
            "job!~\"d.|x\"",
            "job=~\"api|db\"",
            "instance=\"0\"",
            "instance=~\"0|2\"",
            "instance!=\"1\"",
            "instance!~\"[02]\"",
            "instance=~\"[12]\"",
            "mode=\"\"",
            "mode!=\"\"",
            "mode=\"idle\"",
            "mode=~\"(idle|user)?\"",
            "mode=~\".+\"",
            "mode!~\".+\"",
            "mode=~\".*\"",
            "le!=\"1\"",
            "le=~\".*\"",
            "nolabel=\"\"",
            "job=\"nobody\"",
        ]);
        if self.profile.recent_syntax && self.rng.chance(4) {
            return (self.rng.pick(&["\"data.center\"!=\"\"", "'data.center'=\"a\\\"b\"", "\"job\"=`api`"]))
                .to_owned();
        }
        text.to_owned()
    }

    /// An instant selector.
    pub(super) fn instant_selector(&mut self, want: Want) -> String {
        let mut out = self.bare_selector(want);
        if self.profile.extended_range_selectors && self.rng.chance(4) {
            out.push_str(" smoothed");
        }
        self.modifiers(&mut out);
        out
    }

    /// `offset` and `@`, in either order, sometimes.
    pub(super) fn modifiers(&mut self, out: &mut String) {
        let mut parts = Vec::new();
        if self.rng.chance(14) {
            parts.push(format!(" offset {}", self.offset()));
        }
        if self.rng.chance(10) {
            parts.push(self.at());
        }
        if parts.len() == 2 && self.rng.chance(50) {
            parts.swap(0, 1);
        }
        parts.iter().for_each(|p| out.push_str(p));
    }

    fn at(&mut self) -> String {
        match self.rng.below(6) {
            0 | 1 => " @ start()".to_owned(),
            2 | 3 => " @ end()".to_owned(),
            _ => {
                let ms = self.start_ms + self.rng.between(-60, self.profile.span_ms / 1000 + 120) * 1000;
                let fraction = self.profile.samples_on_bounds && self.rng.chance(10);
                let ms = if fraction { ms + self.rng.between(0, 999) } else { ms };
                let sign = if ms < 0 { "-" } else { "" };
                format!(" @ {sign}{}.{:03}", ms.abs() / 1000, ms.abs() % 1000)
            }
        }
    }

    fn offset(&mut self) -> String {
        if self.profile.duration_expressions && self.rng.chance(12) {
            return format!("({})", self.duration_arithmetic());
        }
        let text = self.rng.pick(&["30s", "1m", "5m", "-1m", "-45s", "7s", "1m30s", "10m", "-6m"]);
        if self.profile.recent_syntax && self.rng.chance(6) {
            return self.rng.pick(&["60", "-30", "7", "step()", "-step()", "range()"]).to_owned();
        }
        text.to_owned()
    }

    /// The text between brackets.
    fn range(&mut self) -> String {
        if self.profile.duration_expressions && self.rng.chance(6) {
            return self.duration_arithmetic();
        }
        if self.profile.recent_syntax && self.rng.chance(5) {
            return self.rng.pick(&["300", "90", "0x3c", "1e2", "45.5"]).to_owned();
        }
        (self.rng.pick(&["1m", "2m", "5m", "5m", "5m", "10m", "90s", "15s", "4m30s", "20m", "1h"])).to_owned()
    }

    /// Mostly above zero.
    fn duration_arithmetic(&mut self) -> String {
        (self.rng.pick(&[
            "1m + 30s",
            "5m - 1m",
            "2 * 1m",
            "10m / 4",
            "step() + 1m",
            "max_of(step(), 1m)",
            "min_of(range(), 5m) + 30",
            "2 ^ 7",
            "7m % 2m",
            "-(-2m)",
            "step() * 2 + 15s",
            "range() + 20s",
            "1m * 1.5",
            "max_of(1m, min_of(2m, step()))",
            "+90s",
            "1m - 1m",
            "step() / range() + 1m",
        ]))
        .to_owned()
    }

    /// A range selector, or a subquery while there may be any.
    pub(super) fn matrix(&mut self, want: Want, depth: u32) -> String {
        if depth > 0 && self.subqueries < 2 && self.rng.chance(18) {
            return self.subquery(want, depth);
        }
        let mut out = self.bare_selector(want);
        out.push_str(&format!("[{}]", self.range()));
        self.modifiers(&mut out);
        out
    }

    /// A range selector whose function knows what to do at the bounds: `anchored`, `smoothed`, or neither.
    pub(super) fn extended_matrix(&mut self, want: Want, word: &str) -> String {
        let mut out = self.bare_selector(want);
        out.push_str(&format!("[{}]", self.range()));
        out.push(' ');
        out.push_str(word);
        self.modifiers(&mut out);
        out
    }

    fn subquery(&mut self, want: Want, depth: u32) -> String {
        self.subqueries += 1;
        let inner = if self.rng.chance(40) {
            self.instant_selector(want)
        } else {
            let inner = self.vector(depth - 1);
            format!("({inner})")
        };
        self.subqueries -= 1;
        let inner = if inner.contains(' ') && !inner.starts_with('(') { format!("({inner})") } else { inner };
        let (range, step) = if self.profile.samples_on_bounds {
            let range = self.rng.pick(&["5m", "3m", "10m", "4m10s", "2m"]);
            (range, self.rng.pick(&["30s", "1m", "1m", "", "45s", "20s"]))
        } else {
            let range = self.rng.pick(&["5m500ms", "3m500ms", "10m500ms", "4m10s500ms", "2m500ms"]);
            (range, self.rng.pick(&["30s", "1m", "1m", "45s", "20s"]))
        };
        let mut out = format!("{inner}[{range}:{step}]");
        self.modifiers(&mut out);
        out
    }
}
