//! Text to typed tree and back.
//!
//! [`parse`] is the way in; an [`ast::Expr`] prints as PromQL, [`pretty()`] over several lines. In `parser/`: [`ast`] is the tree, [`functions`] the table
//! of signatures, [`operators`] what operators there are, [`duration`] what stands between brackets and after `offset`;
//! behind them `lexer`, `grammar`, `check` (types) and `printer`.
//!
//! Source of the language: <https://prometheus.io/docs/prometheus/latest/querying/basics/>, as of Prometheus 3.14.

pub mod ast;
pub mod duration;
pub mod error;
pub mod functions;
pub mod operators;

mod check;
mod grammar;
mod lexer;
mod number;
mod pretty;
mod printer;
mod string;
mod token;

#[cfg(test)]
mod tests;

pub use ast::Expr;
pub use error::ParseError;
pub use pretty::pretty;

/// Parses an expression and checks its types.
///
/// # Errors
/// The first thing that is wrong with the text, with its position.
pub fn parse(query: &str, options: &ParserOptions) -> Result<Expr, ParseError> {
    let mut expr = grammar::Parser::new(query, options)?.whole_expression()?;
    check::check(&mut expr, query)?;
    Ok(expr)
}

/// Parses an instant selector without modifiers, as the `match[]` parameters of the API have it. Whether it selects
/// everything is for the caller to judge.
///
/// # Errors
/// The first thing that is wrong with the text, with its position.
pub fn parse_selector(text: &str) -> Result<Vec<model::Matcher>, ParseError> {
    grammar::Parser::new(text, &ParserOptions::default())?.whole_selector()
}

/// What the parser accepts.
#[derive(Clone, Debug)]
pub struct ParserOptions {
    /// Functions and aggregations that Prometheus calls experimental.
    pub experimental_functions: bool,
    /// Arithmetic in ranges, steps and offsets.
    pub duration_expressions: bool,
    /// `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left` and `fill_right`.
    pub fill_modifiers: bool,
    /// Longest query text, in bytes.
    pub max_query_bytes: usize,
    /// How deep expressions may be nested. A chain of operators counts as one level.
    pub max_depth: usize,
    /// Greatest height of the tree, every operator of a chain counted.
    pub max_levels: usize,
}

impl Default for ParserOptions {
    fn default() -> Self {
        Self {
            experimental_functions: false,
            duration_expressions: true,
            extended_range_selectors: false,
            fill_modifiers: false,
            max_query_bytes: 1 << 20,
            max_depth: 1_000,
            max_levels: 20_000,
        }
    }
}

impl ParserOptions {
    /// Everything on.
    #[must_use]
    pub fn all() -> Self {
        Self {
            experimental_functions: true,
            duration_expressions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
            ..Self::default()
        }
    }
}
