//! Tokens to tree: a precedence-climbing parser.
//!
//! This file has the state of the parser and its small steps. In `grammar/`: `expression` reads operands, signs and
//! parentheses, `binary` operators and what belongs to them, `call` functions and aggregations, `selector` what stands in
//! braces and lists of labels, `modifier` what follows an expression (ranges, `offset`, `@`, `anchored`), `duration` what
//! stands in brackets. Types are checked afterwards, in [`super::check`].
//!
//! Parsing stops at the first error, and which one is first is Prometheus's choice: its parser looks at the token after a
//! construct only where the grammar needs it, so that what is wrong with the construct may come before or after what is
//! wrong with the next token. Here too a token is read when it is looked at ([`Parser::peek`]) and no earlier. An
//! unexpected token is reported as being in the innermost open [`Construct`].
//!
//! Time and memory are linear in the text. The stack is bounded, since a tree nested deeper than
//! [`ParserOptions::max_depth`] is refused while it grows; chains of operators are read in a loop.

mod binary;
mod call;
mod duration;
mod expression;
mod modifier;
mod selector;

use super::ParserOptions;
use super::ast::{Expr, Span};
use super::error::ParseError;
use super::lexer::Lexer;
use super::token::{Kind, Token};

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

/// A part of an expression that error texts name, and what they say was expected in it.
#[derive(Clone, Copy)]
struct Construct {
    name: &'static str,
    expected: &'static str,
}

impl Construct {
    const fn new(name: &'static str, expected: &'static str) -> Self {
        Self { name, expected }
    }
}

/// The state of parsing one text.
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    options: &'a ParserOptions,
    /// The next token, if it was looked at.
    ahead: Option<Token>,
    /// Start of the last token that was read, looked at or taken.
    last_start: u32,
    /// End of the last closing bracket, number or duration that was read, looked at or taken. Prometheus takes it for the
    /// end of several kinds of expressions.
    last_closing: u32,
    /// Constructs that are being read, the innermost last.
    open: Vec<Construct>,
    depth: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(input: &'a str, options: &'a ParserOptions) -> Parsed<Self> {
        if input.len() > options.max_query_bytes {
            let reason = format!(
                "query of {} bytes is longer than the limit of {} bytes",
                input.len(),
                options.max_query_bytes
            );
            return Err(ParseError::new(input, Span::default(), reason));
        }
        let lexer = Lexer::new(input);
        Ok(Self { lexer, options, ahead: None, last_start: 0, last_closing: 0, open: Vec::new(), depth: 0 })
    }

    /// A whole text that is one expression.
    pub(super) fn whole_expression(mut self) -> Parsed<Expr> {
        if self.peek()? == Kind::Eof {
            return Err(self.error(Span::default(), "no expression found in input"));
        }
        let node = self.expression(0)?;
        self.expect(Kind::Eof)?;
        Ok(node.expr)
    }

    /// A whole text that is one instant selector without modifiers.
    pub(super) fn whole_selector(mut self) -> Parsed<Vec<model::Matcher>> {
        let selector = match self.peek()? {
            Kind::LeftBrace => self.selector(None)?,
            kind if kind.is_metric_name() => {
                let name = self.bump()?;
                self.selector(Some(name.span))?
            }
            _ => return self.unexpected(),
        };
        self.expect(Kind::Eof)?;
        Ok(selector.matchers)
    }

    // === Tokens ===

    fn text(&self, span: Span) -> &'a str {
        &self.lexer.input()[span.start as usize..span.end as usize]
    }

    /// The next token, which stays the next one.
    fn peek_token(&mut self) -> Parsed<Token> {
        if let Some(token) = self.ahead {
            return Ok(token);
        }
        let token = self.lexer.next()?;
        self.ahead = Some(token);
        self.last_start = token.span.start;
        if token.kind.is_closing() {
            self.last_closing = token.span.end;
        }
        Ok(token)
    }

    /// Kind of the next token.
    fn peek(&mut self) -> Parsed<Kind> {
        Ok(self.peek_token()?.kind)
    }

    /// Takes the next token.
    fn bump(&mut self) -> Parsed<Token> {
        let token = self.peek_token()?;
        self.ahead = None;
        Ok(token)
    }

    /// Takes the next token if it is of this kind.
    fn eat(&mut self, kind: Kind) -> Parsed<bool> {
        let is = self.peek()? == kind;
        if is {
            self.ahead = None;
        }
        Ok(is)
    }

    /// Takes the next token, which must be of this kind.
    fn expect(&mut self, kind: Kind) -> Parsed<Token> {
        if self.peek()? == kind { self.bump() } else { self.unexpected() }
    }

    // === Heights ===

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

    /// Goes one level down; refuses what is nested too deep.
    fn descend(&mut self) -> Parsed<()> {
        self.depth += 1;
        let at = Span { start: self.last_start, end: self.last_start };
        self.check_depth(self.depth, at)
    }

    fn check_depth(&self, depth: usize, span: Span) -> Parsed<()> {
        self.check_levels(depth, self.options.max_depth, span)
    }

    fn check_levels(&self, levels: usize, max: usize, span: Span) -> Parsed<()> {
        if levels > max {
            return Err(self.error(span, format!("expression is nested more than {max} levels deep")));
        }
        Ok(())
    }

    // === Errors ===

    fn error(&self, span: Span, reason: impl Into<String>) -> ParseError {
        ParseError::new(self.lexer.input(), span, reason)
    }

    /// Complains about the next token, in the innermost construct.
    #[cold]
    fn unexpected<T>(&mut self) -> Parsed<T> {
        let innermost = self.open.last().copied().unwrap_or(Construct::new("", ""));
        self.unexpected_in(innermost)
    }

    /// Complains about the next token.
    #[cold]
    fn unexpected_in<T>(&mut self, construct: Construct) -> Parsed<T> {
        let token = self.peek_token()?;
        let mut reason = format!("unexpected {}", token.kind.describe(self.text(token.span)));
        if !construct.name.is_empty() {
            reason = format!("{reason} in {}", construct.name);
        }
        if !construct.expected.is_empty() {
            reason = format!("{reason}, expected {}", construct.expected);
        }
        Err(self.error(token.span, reason))
    }
}
