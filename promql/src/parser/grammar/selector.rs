//! Instant selectors, and lists of labels in parentheses. Follows the section "Instant vector selectors" of Prometheus's
//! `querying/basics.md` and "Vector matching" and "Aggregation operators" of `querying/operators.md`.

use model::labels::METRIC_NAME;
use model::{MatchOp, Matcher};

use super::super::ast::{BinaryOp, Boundary, Duration, Span, VectorSelector};
use super::super::string::{quote_bytes, unquote, unquote_bytes};
use super::super::token::Kind;
use super::{Construct, Parsed, Parser};

const LABEL_LIST: &str = "grouping opts";
const MATCHERS: &str = "label matching";

impl Parser<'_> {
    /// A selector whose name, if it has one, is already read.
    pub(super) fn selector(&mut self, name: Option<Span>) -> Parsed<VectorSelector> {
        let mut span = name.unwrap_or_default();
        let mut matchers = Vec::new();
        let open = self.peek_token()?;
        if open.kind == Kind::LeftBrace {
            let close;
            (matchers, close) = self.matchers()?;
            span = name.unwrap_or(open.span).to(close);
        }
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
            span,
        })
    }

    /// `{a="b", "metric"}`, and where the closing brace is.
    fn matchers(&mut self) -> Parsed<(Vec<Matcher>, Span)> {
        self.bump()?;
        let mut out = Vec::new();
        loop {
            match self.peek()? {
                Kind::RightBrace => break,
                Kind::Identifier | Kind::String => out.push(self.matcher()?),
                _ => return self.unexpected_in(Construct::new(MATCHERS, "identifier or \"}\"")),
            }
            match self.peek()? {
                Kind::Comma => {
                    self.bump()?;
                }
                Kind::RightBrace => {}
                _ => return self.unexpected_in(Construct::new(MATCHERS, "\",\" or \"}\"")),
            }
        }
        Ok((out, self.bump()?.span))
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        let label = self.bump()?;
        let quoted = label.kind == Kind::String;
        let text = self.text(label.span);
        let name = if quoted { unquote(text) } else { text.to_owned() };
        let op = match self.peek()? {
            Kind::Equal => MatchOp::Equal,
            Kind::Op(BinaryOp::NotEq) => MatchOp::NotEqual,
            Kind::EqualRegexp => MatchOp::Regexp,
            Kind::NotRegexp => MatchOp::NotRegexp,
            _ if quoted => return Ok(Matcher::equal(METRIC_NAME, name)),
            _ => return self.unexpected_in(Construct::new(MATCHERS, "label matching operator")),
        };
        self.bump()?;
        let value = self.peek_token()?;
        if value.kind != Kind::String {
            return self.unexpected_in(Construct::new(MATCHERS, "string"));
        }
        self.bump()?;
        Matcher::new(op, name, unquote(self.text(value.span)))
            .map_err(|e| self.error(label.span.to(value.span), e.to_string()))
    }

    /// `(a, b, "c.d")`
    pub(super) fn grouping_labels(&mut self) -> Parsed<Vec<String>> {
        if !self.eat(Kind::LeftParen)? {
            return self.unexpected_in(Construct::new(LABEL_LIST, "\"(\""));
        }
        let mut out = Vec::new();
        while !self.eat(Kind::RightParen)? {
            out.push(self.grouping_label()?);
            match self.peek()? {
                Kind::Comma => {
                    self.bump()?;
                }
                Kind::RightParen => {}
                _ => return self.unexpected_in(Construct::new(LABEL_LIST, "\",\" or \")\"")),
            }
        }
        Ok(out)
    }

    fn grouping_label(&mut self) -> Parsed<String> {
        let token = self.peek_token()?;
        let text = self.text(token.span);
        match token.kind {
            Kind::String => {
                self.bump()?;
                let (name, not_utf8) = unquote_bytes(text);
                if name.is_empty() || not_utf8.is_some() {
                    let name = quote_bytes(not_utf8.as_deref().unwrap_or_default());
                    return Err(self.error(token.span, format!("invalid label name for grouping: {name}")));
                }
                Ok(name)
            }
            kind if kind.is_label_name() => {
                self.bump()?;
                Ok(text.to_owned())
            }
            _ => self.unexpected_in(Construct::new(LABEL_LIST, "label")),
        }
    }
}
