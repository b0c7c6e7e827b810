//! Instant selectors, and lists of labels in parentheses.

use model::labels::METRIC_NAME;
use model::{MatchOp, Matcher};

use super::super::ast::{BinaryOp, Boundary, Duration, Span, VectorSelector};
use super::super::string::unquote;
use super::super::token::Kind;
use super::{Parsed, Parser};

impl Parser<'_> {
    /// A selector whose name, if it has one, is already read.
    pub(super) fn selector(&mut self, name: Option<Span>) -> Parsed<VectorSelector> {
        let start = name.map_or(self.token.span.start, |n| n.start);
        let mut matchers = if self.token.kind == Kind::LeftBrace { self.matchers()? } else { Vec::new() };
        let name = name.map(|n| self.text(n).to_owned());
        if let Some(name) = &name {
            matchers.push(Matcher::equal(METRIC_NAME, name.as_str()));
        }
        Ok(VectorSelector {
            name,
            matchers,
            offset: Duration::default(),
            at: None,
            boundary: Boundary::Plain,
            span: Span { start, end: self.last_end },
        })
    }

    /// `{a="b", "metric"}`
    fn matchers(&mut self) -> Parsed<Vec<Matcher>> {
        const CONTEXT: &str = "label matching";
        self.expect(Kind::LeftBrace)?;
        let mut out = Vec::new();
        while !self.eat(Kind::RightBrace)? {
            if !matches!(self.token.kind, Kind::Identifier | Kind::String) {
                return self.unexpected(CONTEXT, "identifier or \"}\"");
            }
            out.push(self.matcher()?);
            match self.token.kind {
                Kind::Comma => {
                    self.bump()?;
                }
                Kind::RightBrace => {}
                _ => return self.unexpected(CONTEXT, "\",\" or \"}\""),
            }
        }
        Ok(out)
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        const CONTEXT: &str = "label matching";
        let label = self.bump()?;
        let quoted = label.kind == Kind::String;
        let text = self.text(label.span);
        let name = if quoted { unquote(text) } else { text.to_owned() };
        let op = match self.token.kind {
            Kind::Equal => MatchOp::Equal,
            Kind::Op(BinaryOp::NotEq) => MatchOp::NotEqual,
            Kind::EqualRegexp => MatchOp::Regexp,
            Kind::NotRegexp => MatchOp::NotRegexp,
            _ if quoted => return Ok(Matcher::equal(METRIC_NAME, name)),
            _ => return self.unexpected(CONTEXT, "label matching operator"),
        };
        self.bump()?;
        if self.token.kind != Kind::String {
            return self.unexpected(CONTEXT, "string");
        }
        let value = self.bump()?;
        Matcher::new(op, name, unquote(self.text(value.span)))
            .map_err(|e| self.error(label.span.to(value.span), e.to_string()))
    }

    /// `(a, b, "c.d")`
    pub(super) fn grouping_labels(&mut self) -> Parsed<Vec<String>> {
        const CONTEXT: &str = "grouping opts";
        if self.token.kind != Kind::LeftParen {
            return self.unexpected(CONTEXT, "\"(\"");
        }
        self.bump()?;
        let mut out = Vec::new();
        while !self.eat(Kind::RightParen)? {
            out.push(match self.token.kind {
                Kind::String => {
                    let token = self.bump()?;
                    let name = unquote(self.text(token.span));
                    if name.is_empty() {
                        return Err(self.error(token.span, "invalid label name for grouping: \"\""));
                    }
                    name
                }
                kind if kind.is_label_name() => {
                    let token = self.bump()?;
                    self.text(token.span).to_owned()
                }
                _ => return self.unexpected(CONTEXT, "label"),
            });
            match self.token.kind {
                Kind::Comma => {
                    self.bump()?;
                }
                Kind::RightParen => {}
                _ => return self.unexpected(CONTEXT, "\",\" or \")\""),
            }
        }
        Ok(out)
    }
}
