//! Function calls and aggregations. Follows Prometheus's `querying/functions.md` and the section "Aggregation operators" of
//! `querying/operators.md`.

use super::super::ast::{Aggregate, AggregateOp, Call, Expr, Span};
use super::super::functions::{FunctionSpec, function};
use super::super::token::{Keyword, Kind};
use super::{Construct, Height, Node, Parsed, Parser};

impl Parser<'_> {
    // === Functions ===

    /// A call of the function whose name is already read.
    #[inline(never)]
    pub(super) fn call(&mut self, name: Span) -> Parsed<Node> {
        let (args, height) = self.arguments()?;
        let text = self.text(name);
        let Some(func) = function(text) else {
            let text = model::labels::Quoted(text);
            return Err(self.error(name, format!("unknown function with name {text}")));
        };
        self.check_enabled(func, name)?;
        let span = Span { start: name.start, end: self.last_closing };
        let height = self.above(height, span)?;
        Ok(Node { expr: Expr::Call(Box::new(Call { func, args, span })), height })
    }

    fn check_enabled(&self, func: &FunctionSpec, name: Span) -> Parsed<()> {
        if func.experimental && !self.options.experimental_functions {
            return Err(self.error(name, format!("function \"{}\" is not enabled", func.name)));
        }
        Ok(())
    }

    /// Arguments in parentheses, and the greatest of their heights.
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, Height)> {
        self.expect(Kind::LeftParen)?;
        let (mut args, mut height) = (Vec::new(), Height::default());
        if self.eat(Kind::RightParen)? {
            return Ok((args, height));
        }
        loop {
            let arg = self.expression(0)?;
            height = height.max(arg.height);
            args.push(arg.expr);
            let comma = self.peek_token()?.span;
            if !self.eat(Kind::Comma)? {
                break;
            }
            if !self.at_operand()? {
                return Err(self.error(comma, "trailing commas not allowed in function call args"));
            }
        }
        self.expect(Kind::RightParen)?;
        Ok((args, height))
    }

    // === Aggregations ===

    /// An aggregation, or a metric with the name of one.
    #[inline(never)]
    pub(super) fn aggregate_or_name(&mut self, op: AggregateOp) -> Parsed<Node> {
        let name = self.bump()?;
        match self.peek()? {
            Kind::LeftParen | Kind::Keyword(Keyword::By | Keyword::Without) => {
                self.open.push(Construct::new("aggregation", ""));
                let node = self.aggregate(op, name.span)?;
                self.open.pop();
                Ok(node)
            }
            _ => self.vector_selector(Some(name.span)),
        }
    }

    fn aggregate(&mut self, op: AggregateOp, name: Span) -> Parsed<Node> {
        let mut clause = self.aggregate_clause()?;
        let (mut args, height) = self.arguments()?;
        let mut span = Span { start: name.start, end: self.last_closing };
        if clause.is_none() {
            clause = self.aggregate_clause()?;
            span.end = if clause.is_some() { self.last_closing } else { self.end_of_arguments() };
        }
        let (grouping, without) = clause.unwrap_or_default();
        if args.is_empty() {
            return Err(self.error(span, "no arguments for aggregate expression provided"));
        }
        if op.is_experimental() && !self.options.experimental_functions {
            let reason = format!(
                "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
                op.as_str()
            );
            return Err(self.error(span, reason));
        }
        let desired = if op.has_param() { 2 } else { 1 };
        let got = args.len();
        let param = if op.has_param() { Some(args.remove(0)) } else { None };
        let (Some(expr), true) = (args.pop(), got == desired) else {
            let reason = format!(
                "wrong number of arguments for aggregate expression provided, expected {desired}, got {got}"
            );
            return Err(self.error(span, reason));
        };
        let height = self.above(height, span)?;
        let expr = Expr::Aggregate(Box::new(Aggregate { op, expr, param, grouping, without, span }));
        Ok(Node { expr, height })
    }

    /// `by (…)` or `without (…)`: its labels, and whether it is `without`.
    fn aggregate_clause(&mut self) -> Parsed<Option<(Vec<String>, bool)>> {
        let without = match self.peek()? {
            Kind::Keyword(Keyword::By) => false,
            Kind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.bump()?;
        Ok(Some((self.grouping_labels()?, without)))
    }

    /// Where arguments end that the next token was looked at behind: if that is a parenthesis too, and the one before it
    /// is the last thing before it, then there. Otherwise whatever was closed last, as Prometheus has it.
    fn end_of_arguments(&self) -> u32 {
        let input = self.lexer.input();
        let at_paren = input.as_bytes().get(self.last_start as usize) == Some(&b')');
        let before = input[..self.last_start as usize].trim_end_matches([' ', '\t', '\n', '\r']);
        if at_paren && before.ends_with(')') { before.len() as u32 } else { self.last_closing }
    }
}
