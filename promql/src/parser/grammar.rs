//! Tokens to tree: a precedence-climbing parser.
//!
//! This file has expressions, operators, calls and aggregations; `grammar/selector.rs` what stands in braces and lists of
//! labels, `grammar/modifier.rs` what follows an expression (ranges, `offset`, `@`, `anchored`), `grammar/duration.rs` what
//! stands in brackets. Types are checked afterwards, in [`super::check`].
//!
//! Parsing stops at the first error. Time and memory are linear in the text. The stack is bounded, since a tree nested
//! deeper than [`ParserOptions::max_depth`] is refused while it grows; chains of operators are read in a loop.

mod duration;
mod modifier;
mod selector;

use super::ParserOptions;
use super::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Expr, MatchCardinality, NumberLiteral, Paren, Span,
    StringLiteral, Unary, UnaryOp, ValueType, VectorMatching,
};
use super::error::ParseError;
use super::functions::{FunctionSpec, function};
use super::lexer::Lexer;
use super::number::{parse_duration_seconds, parse_number};
use super::string::unquote_bytes;
use super::token::{Keyword, Kind, Token};

pub(super) type Parsed<T> = Result<T, ParseError>;

/// An expression and the height of its tree.
struct Node {
    expr: Expr,
    height: Height,
}

impl Node {
    fn leaf(expr: Expr) -> Self {
        Self { expr, height: Height { nested: 1, levels: 1 } }
    }
}

/// How high a tree is.
#[derive(Clone, Copy, Default)]
struct Height {
    /// A chain of operators counts as one level.
    nested: usize,
    levels: usize,
}

impl Height {
    fn above(self) -> Self {
        Self { nested: self.nested + 1, levels: self.levels + 1 }
    }

    fn max(self, o: Self) -> Self {
        Self { nested: self.nested.max(o.nested), levels: self.levels.max(o.levels) }
    }
}

/// How tightly a sign binds: like `*`, so that `-1 ^ 2` is `-(1 ^ 2)`.
const UNARY_BINDING: u8 = 6;

/// How tightly an operator binds.
fn binding(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
        BinaryOp::Pow => 7,
        _ => 3,
    }
}

/// The state of parsing one text.
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    options: &'a ParserOptions,
    /// The next token.
    token: Token,
    /// One past the last byte of the token before.
    last_end: u32,
    depth: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(input: &'a str, options: &'a ParserOptions) -> Parsed<Self> {
        let mut lexer = Lexer::new(input);
        if input.len() > options.max_query_bytes {
            let reason = format!(
                "query of {} bytes is longer than the limit of {} bytes",
                input.len(),
                options.max_query_bytes
            );
            return Err(ParseError::new(input, Span::default(), reason));
        }
        let token = lexer.next()?;
        Ok(Self { lexer, options, token, last_end: 0, depth: 0 })
    }

    /// A whole text that is one expression.
    pub(super) fn whole_expression(mut self) -> Parsed<Expr> {
        if self.token.kind == Kind::Eof {
            return Err(self.error(Span::default(), "no expression found in input"));
        }
        let node = self.expression(0)?;
        if self.token.kind != Kind::Eof {
            return self.unexpected("", "");
        }
        Ok(node.expr)
    }

    /// A whole text that is one instant selector without modifiers.
    pub(super) fn whole_selector(mut self) -> Parsed<Vec<model::Matcher>> {
        let selector = match self.token.kind {
            Kind::LeftBrace => self.selector(None)?,
            kind if kind.is_metric_name() => {
                let name = self.bump()?;
                self.selector(Some(name.span))?
            }
            _ => return self.unexpected("", ""),
        };
        if self.token.kind != Kind::Eof {
            return self.unexpected("", "");
        }
        Ok(selector.matchers)
    }

    // === Expressions ===

    /// An expression whose operators bind at least as tightly as `min`.
    fn expression(&mut self, min: u8) -> Parsed<Node> {
        self.depth += 1;
        self.check_depth(self.depth, self.token.span)?;
        let mut lhs = self.operand()?;
        while let Kind::Op(op) = self.token.kind {
            let power = binding(op);
            if power < min {
                break;
            }
            lhs = self.binary(lhs, op, power)?;
        }
        self.depth -= 1;
        Ok(lhs)
    }

    #[inline(never)]
    fn binary(&mut self, lhs: Node, op: BinaryOp, power: u8) -> Parsed<Node> {
        self.bump()?;
        let (matching, return_bool) = self.binary_modifiers()?;
        let rhs = self.expression(if op == BinaryOp::Pow { power } else { power + 1 })?;
        let span = lhs.expr.span().to(rhs.expr.span());
        if !self.options.fill_modifiers && (matching.fill_left.is_some() || matching.fill_right.is_some()) {
            return Err(self.error(span, "binop fill modifiers are experimental and not enabled"));
        }
        let scalar = |n: &Node| n.expr.value_type() == ValueType::Scalar;
        let value_type = if scalar(&lhs) && scalar(&rhs) { ValueType::Scalar } else { ValueType::Vector };
        let mut height = lhs.height.max(rhs.height).above();
        if matches!(lhs.expr, Expr::Binary(_)) {
            // One more of a chain.
            height.nested = lhs.height.nested.max(rhs.height.nested + 1);
        }
        self.check_height(height, span)?;
        let (lhs, rhs, matching) = (lhs.expr, rhs.expr, Some(matching));
        let expr = Expr::Binary(Box::new(Binary { op, lhs, rhs, matching, return_bool, value_type, span }));
        Ok(Node { expr, height })
    }

    /// `bool`, `on (…)`, `group_left (…)`, `fill (…)` and their kin.
    fn binary_modifiers(&mut self) -> Parsed<(VectorMatching, bool)> {
        let mut m = VectorMatching {
            card: MatchCardinality::OneToOne,
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        let return_bool = self.eat(Kind::Keyword(Keyword::Bool))?;
        if let Kind::Keyword(k @ (Keyword::On | Keyword::Ignoring)) = self.token.kind {
            self.bump()?;
            m.on = k == Keyword::On;
            m.labels = self.grouping_labels()?;
            if let Kind::Keyword(k @ (Keyword::GroupLeft | Keyword::GroupRight)) = self.token.kind {
                self.bump()?;
                let left = k == Keyword::GroupLeft;
                m.card = if left { MatchCardinality::ManyToOne } else { MatchCardinality::OneToMany };
                if self.token.kind == Kind::LeftParen {
                    m.include = self.grouping_labels()?;
                }
            }
        }
        self.fill_modifiers(&mut m)?;
        Ok((m, return_bool))
    }

    fn fill_modifiers(&mut self, m: &mut VectorMatching) -> Parsed<()> {
        let Kind::Keyword(first @ (Keyword::Fill | Keyword::FillLeft | Keyword::FillRight)) = self.token.kind
        else {
            return Ok(());
        };
        self.bump()?;
        let value = Some(self.fill_value()?);
        let other = match first {
            Keyword::FillLeft => {
                m.fill_left = value;
                Keyword::FillRight
            }
            Keyword::FillRight => {
                m.fill_right = value;
                Keyword::FillLeft
            }
            _ => {
                (m.fill_left, m.fill_right) = (value, value);
                return Ok(());
            }
        };
        if self.eat(Kind::Keyword(other))? {
            let value = Some(self.fill_value()?);
            if other == Keyword::FillLeft {
                m.fill_left = value;
            } else {
                m.fill_right = value;
            }
        }
        Ok(())
    }

    fn fill_value(&mut self) -> Parsed<f64> {
        self.expect(Kind::LeftParen)?;
        let negative = self.sign()?.is_some_and(|(op, _)| op == UnaryOp::Minus);
        let value = match self.token.kind {
            Kind::Number | Kind::Duration => self.number_literal()?.value,
            _ => return self.unexpected("", ""),
        };
        self.expect(Kind::RightParen)?;
        Ok(if negative { -value } else { value })
    }

    /// Anything but a binary operation, with all that follows it.
    fn operand(&mut self) -> Parsed<Node> {
        if let Kind::Op(BinaryOp::Add | BinaryOp::Sub) = self.token.kind {
            return self.unary();
        }
        let mut node = self.primary()?;
        while let Kind::LeftBracket | Kind::At | Kind::Keyword(_) = self.token.kind {
            match self.token.kind {
                Kind::LeftBracket => node = self.range_or_subquery(node)?,
                Kind::At => self.at_modifier(&mut node.expr)?,
                Kind::Keyword(Keyword::Offset) => self.offset_modifier(&mut node.expr)?,
                Kind::Keyword(Keyword::Anchored | Keyword::Smoothed) => {
                    self.boundary_modifier(&mut node.expr)?;
                }
                _ => break,
            }
        }
        self.close_offset(&mut node)?;
        Ok(node)
    }

    #[inline(never)]
    fn unary(&mut self) -> Parsed<Node> {
        let Some((op, sign)) = self.sign()? else {
            return self.unexpected("", "");
        };
        let mut operand = self.expression(UNARY_BINDING)?;
        let span = sign.to(operand.expr.span());
        if let Expr::Number(n) = &mut operand.expr {
            if op == UnaryOp::Minus {
                n.value = -n.value;
            }
            n.span = span;
            return Ok(operand);
        }
        let height = self.above(operand.height, span)?;
        Ok(Node { expr: Expr::Unary(Box::new(Unary { op, expr: operand.expr, span })), height })
    }

    /// A sign, if the next token is one.
    fn sign(&mut self) -> Parsed<Option<(UnaryOp, Span)>> {
        let op = match self.token.kind {
            Kind::Op(BinaryOp::Add) => UnaryOp::Plus,
            Kind::Op(BinaryOp::Sub) => UnaryOp::Minus,
            _ => return Ok(None),
        };
        Ok(Some((op, self.bump()?.span)))
    }

    fn primary(&mut self) -> Parsed<Node> {
        let token = self.token;
        match token.kind {
            Kind::LeftParen => self.paren(),
            Kind::Number | Kind::Duration => Ok(Node::leaf(Expr::Number(Box::new(self.number_literal()?)))),
            Kind::String => {
                self.bump()?;
                let (value, not_utf8) = unquote_bytes(self.text(token.span));
                let literal = StringLiteral { value, not_utf8, span: token.span };
                Ok(Node::leaf(Expr::String(Box::new(literal))))
            }
            Kind::LeftBrace => self.vector_selector(None),
            Kind::Aggregate(op) => self.aggregate_or_name(op),
            Kind::Identifier | Kind::Preprocessor(_) => {
                self.bump()?;
                if self.token.kind == Kind::LeftParen {
                    return self.call(token.span);
                }
                self.vector_selector(Some(token.span))
            }
            kind if kind.is_metric_name() => {
                self.bump()?;
                self.vector_selector(Some(token.span))
            }
            _ => self.unexpected("", ""),
        }
    }

    #[inline(never)]
    fn vector_selector(&mut self, name: Option<Span>) -> Parsed<Node> {
        Ok(Node::leaf(Expr::Vector(Box::new(self.selector(name)?))))
    }

    #[inline(never)]
    fn paren(&mut self) -> Parsed<Node> {
        let open = self.bump()?;
        let inner = self.expression(0)?;
        let close = self.expect(Kind::RightParen)?;
        let span = open.span.to(close.span);
        let height = self.above(inner.height, span)?;
        Ok(Node { expr: Expr::Paren(Box::new(Paren { expr: inner.expr, span })), height })
    }

    fn number_literal(&mut self) -> Parsed<NumberLiteral> {
        let token = self.bump()?;
        let (text, span) = (self.text(token.span), token.span);
        let duration = token.kind == Kind::Duration;
        let value = if duration { parse_duration_seconds(text) } else { parse_number(text) };
        let value = value.map_err(|reason| self.error(span, reason))?;
        Ok(NumberLiteral { value, duration, span })
    }

    // === Calls and aggregations ===

    #[inline(never)]
    fn call(&mut self, name: Span) -> Parsed<Node> {
        let (args, height) = self.arguments()?;
        let text = self.text(name);
        let Some(func) = function(text) else {
            let text = model::labels::Quoted(text);
            return Err(self.error(name, format!("unknown function with name {text}")));
        };
        self.check_enabled(func, name)?;
        let span = Span { start: name.start, end: self.last_end };
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
            let comma = self.token.span;
            if !self.eat(Kind::Comma)? {
                break;
            }
            if self.token.kind == Kind::RightParen {
                return Err(self.error(comma, "trailing commas not allowed in function call args"));
            }
        }
        self.expect(Kind::RightParen)?;
        Ok((args, height))
    }

    /// An aggregation, or a metric with the name of one.
    #[inline(never)]
    fn aggregate_or_name(&mut self, op: AggregateOp) -> Parsed<Node> {
        let name = self.bump()?;
        match self.token.kind {
            Kind::LeftParen | Kind::Keyword(Keyword::By | Keyword::Without) => self.aggregate(op, name.span),
            Kind::Number
            | Kind::Duration
            | Kind::String
            | Kind::Identifier
            | Kind::MetricIdentifier
            | Kind::Aggregate(_)
            | Kind::Preprocessor(_) => self.unexpected("aggregation", ""),
            _ => self.vector_selector(Some(name.span)),
        }
    }

    fn aggregate(&mut self, op: AggregateOp, name: Span) -> Parsed<Node> {
        let mut clause = self.aggregate_clause()?;
        if self.token.kind != Kind::LeftParen {
            return self.unexpected("aggregation", "");
        }
        let (mut args, height) = self.arguments()?;
        if clause.is_none() {
            clause = self.aggregate_clause()?;
        }
        let span = Span { start: name.start, end: self.last_end };
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
        let without = match self.token.kind {
            Kind::Keyword(Keyword::By) => false,
            Kind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.bump()?;
        Ok(Some((self.grouping_labels()?, without)))
    }

    // === Small steps ===

    /// The height of a node over operands of the given height.
    fn above(&self, height: Height, span: Span) -> Parsed<Height> {
        let height = height.above();
        self.check_height(height, span)?;
        Ok(height)
    }

    fn check_height(&self, height: Height, span: Span) -> Parsed<()> {
        self.check_depth(height.nested, span)?;
        self.check_levels(height.levels, self.options.max_levels, span)
    }

    /// Refuses what is nested too deep.
    fn check_depth(&self, depth: usize, span: Span) -> Parsed<()> {
        self.check_levels(depth, self.options.max_depth, span)
    }

    fn check_levels(&self, levels: usize, max: usize, span: Span) -> Parsed<()> {
        if levels > max {
            return Err(self.error(span, format!("expression is nested more than {max} levels deep")));
        }
        Ok(())
    }

    fn text(&self, span: Span) -> &'a str {
        &self.lexer.input()[span.start as usize..span.end as usize]
    }

    /// Takes the next token.
    fn bump(&mut self) -> Parsed<Token> {
        let next = self.lexer.next()?;
        let token = std::mem::replace(&mut self.token, next);
        self.last_end = token.span.end;
        Ok(token)
    }

    /// Takes the next token if it is of this kind.
    fn eat(&mut self, kind: Kind) -> Parsed<bool> {
        let is = self.token.kind == kind;
        if is {
            self.bump()?;
        }
        Ok(is)
    }

    /// Takes the next token, which must be of this kind.
    fn expect(&mut self, kind: Kind) -> Parsed<Token> {
        if self.token.kind == kind { self.bump() } else { self.unexpected("", "") }
    }

    fn error(&self, span: Span, reason: impl Into<String>) -> ParseError {
        ParseError::new(self.lexer.input(), span, reason)
    }

    /// Complains about the next token. `context` and `expected` may be empty.
    #[cold]
    fn unexpected<T>(&self, context: &str, expected: &str) -> Parsed<T> {
        let mut reason = format!("unexpected {}", self.token.kind.describe(self.text(self.token.span)));
        if !context.is_empty() {
            reason = format!("{reason} in {context}");
        }
        if !expected.is_empty() {
            reason = format!("{reason}, expected {expected}");
        }
        Err(self.error(self.token.span, reason))
    }
}
