//! Trees to text over several lines, laid out as Prometheus does.
//!
//! A part whose text is longer than [`LINE_BYTES_MAX`] is broken: a call, an aggregation and parentheses after the opening
//! parenthesis, a binary operation around its operator. What is inside moves one level (two blanks) to the right. Selectors
//! and literals are never broken. How the pieces look is for `printer` to say.

use std::fmt::{self, Display, Write};

use super::ast::{Binary, Expr, UnaryOp};
use super::printer::{AggregateHead, Operator, SubqueryTail};

/// Longest text that stays on one line, without its indentation.
const LINE_BYTES_MAX: usize = 100;
/// Lines move no further to the right than this many levels: a long chain moves one level for each operator, and its text
/// would grow with the square of its length.
const LEVELS_MAX: usize = 200;

/// The expression over several lines, when it is too long for one.
#[must_use]
pub fn pretty(expr: &Expr) -> String {
    let mut layout = Layout { out: String::new(), continues: false };
    layout.expr(expr, 0);
    layout.out
}

struct Layout {
    out: String,
    /// The next part goes on where the line is.
    continues: bool,
}

impl Layout {
    fn expr(&mut self, expr: &Expr, level: usize) {
        if let Expr::Unary(u) = expr {
            self.indented(level, if u.op == UnaryOp::Minus { "-" } else { "+" });
            self.continues = true;
            return self.expr(&u.expr, level);
        }
        if fits(expr) {
            // A short subquery stands at the start of the line, wherever it belongs.
            let level = if matches!(expr, Expr::Subquery(_)) { 0 } else { level };
            return self.indented(level, expr);
        }
        match expr {
            Expr::Aggregate(a) => {
                self.indented(level, AggregateHead(a));
                self.in_parens(a.param.iter().chain([&a.expr]), level);
            }
            Expr::Call(c) => {
                self.indented(level, c.func.name);
                self.in_parens(&c.args, level);
            }
            Expr::Paren(p) => {
                self.indented(level, "");
                self.in_parens([&p.expr], level);
            }
            Expr::Binary(b) => self.chain(b, level),
            Expr::Subquery(s) => {
                self.expr(&s.expr, level);
                self.push(SubqueryTail(s));
            }
            Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) | Expr::Unary(_) => {
                self.indented(level, expr);
            }
        }
    }

    fn in_parens<'e>(&mut self, inside: impl IntoIterator<Item = &'e Expr>, level: usize) {
        self.out.push('(');
        for (i, e) in inside.into_iter().enumerate() {
            self.out.push_str(if i > 0 { ",\n" } else { "\n" });
            self.expr(e, level + 1);
        }
        self.out.push('\n');
        self.indented(level, ")");
    }

    /// An operation that does not fit, and those on its left. Each stands one level to the right of the one it is the left
    /// operand of; from the first one that fits on they share a line.
    fn chain(&mut self, last: &Binary, level: usize) {
        let chain = last.chain();
        let broken = chain.len() - chain.iter().rev().take_while(|b| fits(*b)).count();
        let takes_offset = |i: usize| chain[i].op.is_duration_operator();
        match chain.get(broken) {
            Some(b) if takes_offset(broken - 1) => self.indented(level + broken, format_args!("{b:#}")),
            Some(b) => self.indented(level + broken, b),
            None => chain
                .last()
                .into_iter()
                .for_each(|b| self.operand(&b.lhs, level + broken, takes_offset(broken - 1))),
        }
        for (i, b) in chain[..broken].iter().enumerate().rev() {
            self.out.push('\n');
            self.indented(level + i, Operator(b));
            self.out.push('\n');
            self.operand(&b.rhs, level + i + 1, i > 0 && takes_offset(i - 1));
        }
    }

    /// An operand; `followed` by an operator that an offset at its end would take.
    fn operand(&mut self, expr: &Expr, level: usize, followed: bool) {
        if followed && expr.ends_open() {
            self.indented(level, format_args!("{expr:#}"));
        } else {
            self.expr(expr, level);
        }
    }

    /// Text at the start of a line.
    fn indented(&mut self, level: usize, text: impl Display) {
        if !std::mem::take(&mut self.continues) {
            self.out.extend(std::iter::repeat_n("  ", level.min(LEVELS_MAX)));
        }
        self.push(text);
    }

    fn push(&mut self, text: impl Display) {
        // Writing to a string does not fail.
        let _ = write!(self.out, "{text}");
    }
}

/// Whether the text is short enough for a line. Looks at no more of it than that.
fn fits(text: impl Display) -> bool {
    struct Room(usize);

    impl Write for Room {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            self.0 = self.0.checked_sub(s.len()).ok_or(fmt::Error)?;
            Ok(())
        }
    }

    write!(Room(LINE_BYTES_MAX), "{text}").is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::{ParserOptions, parse};
    use super::*;

    fn check(query: &str, expect: &str) {
        let expr = parse(query, &ParserOptions::all()).expect(query);
        let laid_out = pretty(&expr);
        assert_eq!(laid_out, expect, "{query}");
        assert_eq!(parse(&laid_out, &ParserOptions::all()), Ok(expr), "layout changes nothing");
    }

    /// A selector of `len` bytes.
    fn name(len: usize) -> String {
        "n".repeat(len)
    }

    #[test]
    fn what_fits_stays_on_a_line() {
        check("foo/bar", "foo / bar");
        check("sum(rate(a[5m]))by(job)", "sum by (job) (rate(a[5m]))");
        let (a, b) = (name(50), name(47));
        check(&format!("{a}+{b}"), &format!("{a} + {b}"));
        let b = name(48);
        check(&format!("{a}+{b}"), &format!("  {a}\n+\n  {b}"));
        check(&name(200), &name(200));
    }

    #[test]
    fn parentheses_are_broken_inside() {
        let n = name(92);
        check(&format!("({n}[5m:1m])"), &format!("(\n{n}[5m:1m]\n)"));
        let n = name(90);
        check(&format!("topk by (a, b) (3, {n})"), &format!("topk by (a, b) (\n  3,\n  {n}\n)"));
        check(
            &format!("label_replace({n}, 'a', '$1', 'b', '.*')"),
            &format!("label_replace(\n  {n},\n  \"a\",\n  \"$1\",\n  \"b\",\n  \".*\"\n)"),
        );
        check(&format!("sum(abs({n} + 1))"), &format!("sum(\n  abs({n} + 1)\n)"));
        check(&format!("sum(abs(({n} + 1)))"), &format!("sum(\n  abs(\n    ({n} + 1)\n  )\n)"));
    }

    #[test]
    fn operations_are_broken_around_the_operator() {
        let n = name(60);
        check(&format!("{n} + on (x) group_left (y) {n}"), &format!("  {n}\n+ on (x) group_left (y)\n  {n}"));
        check(&format!("a > bool b + c * {n} + {n}"), &format!("  a\n> bool\n    b + c * {n}\n  +\n    {n}"));
        check(&format!("a + b + {n} + {n} - {n}"), &format!("    a + b + {n}\n  +\n    {n}\n-\n  {n}"));
    }

    #[test]
    fn signs_stay_with_their_operand() {
        let n = name(95);
        check(&format!("sum(-({n} + 1))"), &format!("sum(\n  -(\n    {n} + 1\n  )\n)"));
        // The sign does not count.
        check(&format!("sum(-abs({n}))"), &format!("sum(\n  -abs({n})\n)"));
        check(&format!("-{n} ^ 2"), &format!("-{n} ^ 2"));
    }

    #[test]
    fn subqueries_follow_their_expression() {
        let n = name(90);
        check(
            &format!("max_over_time(rate({n}[5m])[1h:1m] offset 5m)"),
            &format!("max_over_time(\n  rate({n}[5m])[1h:1m] offset 5m\n)"),
        );
        check("max_over_time(rate(a[5m])[1h:1m])", "max_over_time(rate(a[5m])[1h:1m])");
        let n = name(70);
        check(
            &format!("max_over_time(rate({n}[5m])[1h:1m])"),
            &format!("max_over_time(\nrate({n}[5m])[1h:1m]\n)"),
        );
    }

    #[test]
    fn long_chains_stay_readable_and_small() {
        let text = vec!["a"; 10_001].join(" or ");
        let laid_out = pretty(&parse(&text, &ParserOptions::all()).expect("a chain"));
        assert!(laid_out.len() < 10_000_000);
        assert_eq!(laid_out.split_whitespace().collect::<Vec<_>>().join(" "), text);
    }
}
