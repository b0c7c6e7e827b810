//! Tokens of the language, which words are keywords (Prometheus's `querying/operators.md` and `querying/basics.md` name them),
//! and how error texts call tokens.

use model::labels::Quoted;

use super::ast::{AggregateOp, BinaryOp, Span};

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

/// Kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Eof,
    /// A number, `Inf` and `NaN` included.
    Number,
    /// A duration.
    Duration,
    /// A quoted string, not yet unescaped.
    String,
    /// A name without colons that is no keyword; within braces any name.
    Identifier,
    /// A name with colons.
    MetricIdentifier,
    Comma,
    Colon,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    /// `=`
    Equal,
    /// `=~`
    EqualRegexp,
    /// `!~`
    NotRegexp,
    /// `@`
    At,
    /// A binary operator. `!=` within braces is one too.
    Op(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
    Preprocessor(Preprocessor),
}

/// Words with a meaning of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Anchored,
    Bool,
    By,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    Offset,
    On,
    Smoothed,
    Without,
}

/// Words that are replaced by a value before evaluation. All are names of functions too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preprocessor {
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
}

impl Kind {
    /// The keyword that a word is, without regard to case.
    pub(super) fn of_word(word: &str) -> Option<Self> {
        /// No keyword is longer.
        const LONGEST: usize = 12;
        let mut buf = [0_u8; LONGEST];
        let buf = buf.get_mut(..word.len())?;
        buf.copy_from_slice(word.as_bytes());
        buf.make_ascii_lowercase();
        let lower = std::str::from_utf8(buf).ok()?;
        if let Some(op) = AggregateOp::ALL.into_iter().find(|op| op.as_str() == lower) {
            return Some(Self::Aggregate(op));
        }
        Some(match lower {
            "and" => Self::Op(BinaryOp::And),
            "or" => Self::Op(BinaryOp::Or),
            "unless" => Self::Op(BinaryOp::Unless),
            "atan2" => Self::Op(BinaryOp::Atan2),
            "anchored" => Self::Keyword(Keyword::Anchored),
            "bool" => Self::Keyword(Keyword::Bool),
            "by" => Self::Keyword(Keyword::By),
            "fill" => Self::Keyword(Keyword::Fill),
            "fill_left" => Self::Keyword(Keyword::FillLeft),
            "fill_right" => Self::Keyword(Keyword::FillRight),
            "group_left" => Self::Keyword(Keyword::GroupLeft),
            "group_right" => Self::Keyword(Keyword::GroupRight),
            "ignoring" => Self::Keyword(Keyword::Ignoring),
            "offset" => Self::Keyword(Keyword::Offset),
            "on" => Self::Keyword(Keyword::On),
            "smoothed" => Self::Keyword(Keyword::Smoothed),
            "without" => Self::Keyword(Keyword::Without),
            "start" => Self::Preprocessor(Preprocessor::Start),
            "end" => Self::Preprocessor(Preprocessor::End),
            "step" => Self::Preprocessor(Preprocessor::Step),
            "range" => Self::Preprocessor(Preprocessor::Range),
            "max_of" => Self::Preprocessor(Preprocessor::MaxOf),
            "min_of" => Self::Preprocessor(Preprocessor::MinOf),
            "inf" | "nan" => Self::Number,
            _ => return None,
        })
    }

    /// Whether the token may stand for a metric name where an expression begins.
    pub(super) fn is_metric_name(self) -> bool {
        match self {
            Self::Identifier | Self::MetricIdentifier | Self::Aggregate(_) | Self::Preprocessor(_) => true,
            Self::Op(op) => op.is_set(),
            Self::Keyword(k) => !matches!(
                k,
                Keyword::Bool | Keyword::On | Keyword::Ignoring | Keyword::GroupLeft | Keyword::GroupRight
            ),
            _ => false,
        }
    }

    /// Whether the token may stand for a label name in a list of labels.
    pub(super) fn is_label_name(self) -> bool {
        match self {
            Self::Identifier | Self::MetricIdentifier | Self::Aggregate(_) | Self::Preprocessor(_) => true,
            Self::Op(op) => op.is_set() || op == BinaryOp::Atan2,
            Self::Keyword(k) => k != Keyword::Without,
            _ => false,
        }
    }

    /// Whether the end of the token may be the end of an expression. Names and strings do not count here, since their
    /// ends are always known.
    pub(super) fn is_closing(self) -> bool {
        matches!(
            self,
            Self::RightBrace | Self::RightParen | Self::RightBracket | Self::Number | Self::Duration
        )
    }

    /// The token as error texts call it; `text` is what it was read from.
    pub(super) fn describe(self, text: &str) -> String {
        match self {
            Self::Eof => "end of input".into(),
            Self::Number => format!("number {}", shortened(text)),
            Self::Duration => format!("duration {}", shortened(text)),
            Self::String => format!("string {}", shortened(text)),
            Self::Identifier => format!("identifier {}", Quoted(text)),
            Self::MetricIdentifier => format!("metric identifier {}", Quoted(text)),
            Self::Op(_) | Self::At | Self::EqualRegexp | Self::NotRegexp => format!("<op:{text}>"),
            Self::Aggregate(_) => format!("<aggr:{text}>"),
            Self::Keyword(_) => format!("<{text}>"),
            _ => shortened(text),
        }
    }
}

/// In quotes, cut after ten characters when it is longer than ten bytes.
fn shortened(text: &str) -> String {
    if text.len() <= 10 {
        return Quoted(text).to_string();
    }
    let cut = text.char_indices().nth(10).map_or(text.len(), |(i, _)| i);
    format!("{}...", Quoted(&text[..cut]))
}
