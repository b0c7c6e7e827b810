//! Binary operations: operators, matching, grouping, fill.

use super::expression::Writer;
use super::selector::Want;

const ARITHMETIC: [&str; 10] = ["+", "-", "*", "/", "+", "-", "*", "%", "^", "atan2"];
const COMPARISON: [&str; 6] = ["==", "!=", ">", "<", ">=", "<="];
const SET: [&str; 5] = ["and", "or", "or", "unless", "and"];

impl Writer<'_> {
    pub(super) fn binary(&mut self, depth: u32) -> String {
        match self.rng.below(10) {
            0..=2 => self.with_scalar(depth),
            3..=5 => self.set_operation(depth),
            _ => self.matched(depth),
        }
    }

    fn operator(&mut self) -> String {
        if self.rng.chance(70) {
            if self.profile.native_histograms && self.rng.chance(8) {
                return self.rng.pick(&["</", ">/"]).to_owned();
            }
            return self.rng.pick(&ARITHMETIC).to_owned();
        }
        let op = self.rng.pick(&COMPARISON);
        if self.rng.chance(40) { format!("{op} bool") } else { op.to_owned() }
    }

    fn with_scalar(&mut self, depth: u32) -> String {
        let vector = self.operand(depth - 1);
        let scalar = self.scalar(depth - 1);
        let op = self.operator();
        if self.rng.chance(70) {
            format!("{vector} {op} ({scalar})")
        } else {
            format!("({scalar}) {op} {vector}")
        }
    }

    fn set_operation(&mut self, depth: u32) -> String {
        let (a, b) = self.sides(depth);
        let op = self.rng.pick(&SET);
        let clause = match self.rng.below(10) {
            0..=3 => String::new(),
            4..=7 => format!(" on ({})", self.label_list(50)),
            _ => format!(" ignoring ({})", self.label_list(30)),
        };
        format!("{a} {op}{clause} {b}")
    }

    /// Two operands that have something to do with each other, mostly.
    fn sides(&mut self, depth: u32) -> (String, String) {
        if !self.rng.chance(55) {
            return (self.operand(depth - 1), self.operand(depth - 1));
        }
        let want = self.rng.pick(&[Want::Anything, Want::Gauge, Want::Counter, Want::Native]);
        let a = self.instant_selector(want);
        let b = if self.rng.chance(30) { a.clone() } else { self.instant_selector(want) };
        let wrapped = |w: &mut Self, inner: String| match w.rng.below(8) {
            0 => format!("(-({inner}))"),
            1 => format!("(abs({inner}))"),
            2 => format!("(({inner}) > 1)"),
            3 => format!("(({inner}) * 2)"),
            _ => format!("({inner})"),
        };
        (wrapped(self, a), wrapped(self, b))
    }

    /// Operations that match vectors one to one or many to one. Most have a chance to find partners.
    fn matched(&mut self, depth: u32) -> String {
        let op = self.operator();
        let (a, b) = self.sides(depth);
        match self.rng.below(10) {
            0..=3 => {
                let fill = self.fill();
                let clause = match self.rng.below(5) {
                    0..=2 => String::new(),
                    3 => " on (job, instance)".to_owned(),
                    _ => format!(" ignoring ({})", self.label_list(25)),
                };
                format!("{a} {op}{clause}{fill} {b}")
            }
            4 | 5 => {
                let labels = self.label_list(50);
                let (fill, outer) = (self.fill(), self.rng.pick(&["sum", "max", "avg", "min"]));
                format!("{outer} by ({labels}) {a} {op} on ({labels}){fill} {outer} by ({labels}) {b}")
            }
            6 | 7 => {
                let labels = self.rng.pick(&["job", "instance", "job, instance", ""]);
                let (group, fill) = (self.group("group_left", labels), self.fill());
                let (outer, extra) = (self.rng.pick(&["sum", "max", "group"]), self.label_list(15));
                let clause = if self.rng.chance(70) {
                    format!("on ({labels})")
                } else {
                    let others =
                        ["job", "instance", "mode", "le"].into_iter().filter(|l| !labels.contains(l));
                    format!("ignoring ({})", others.collect::<Vec<_>>().join(", "))
                };
                let by = if extra.is_empty() || self.rng.chance(85) {
                    labels.to_owned()
                } else {
                    format!("{labels}{}{extra}", if labels.is_empty() { "" } else { ", " })
                };
                format!("{a} {op} {clause} {group}{fill} {outer} by ({by}) {b}")
            }
            8 => {
                let labels = self.rng.pick(&["job", "instance", "job, instance"]);
                let (group, fill) = (self.group("group_right", labels), self.fill());
                format!("sum by ({labels}) {a} {op} on ({labels}) {group}{fill} {b}")
            }
            _ => {
                let version = self.instant_selector(Want::Anything);
                let labels = self.rng.pick(&["version", "version, cluster", "mode", "le", ""]);
                let info = if self.rng.chance(50) { "target_info" } else { version.as_str() };
                format!("{a} {op} on (job, instance) group_left ({labels}) {info}")
            }
        }
    }

    /// The clause, with labels that are not in `on`. Never without parentheses: those of the operand would be taken.
    fn group(&mut self, word: &str, on: &str) -> String {
        let list = if self.rng.chance(50) { String::new() } else { self.label_list(25) };
        let labels: Vec<&str> = list.split(", ").filter(|l| !on.split(", ").any(|o| o == *l)).collect();
        format!("{word} ({})", labels.join(", "))
    }

    fn fill(&mut self) -> String {
        if !self.profile.fill_modifiers || !self.rng.chance(15) {
            return String::new();
        }
        let (a, b) = (self.rng.pick(&["0", "1", "-3", "NaN"]), self.rng.pick(&["0", "2", "Inf"]));
        match self.rng.below(4) {
            0 => format!(" fill_left ({a})"),
            1 => format!(" fill_right ({b})"),
            2 => format!(" fill_left ({a}) fill_right ({b})"),
            _ => format!(" fill ({a})"),
        }
    }
}
