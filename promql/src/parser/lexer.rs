//! Text to tokens, one at a time, in time linear in the text. Follows Prometheus's `querying/basics.md` (literals, comments) and
//! `querying/operators.md` (how operators are written).
//!
//! What a character means depends on whether a brace or a bracket is open: within braces every word is a plain name; within
//! brackets no names may stand, and up to the first number only what durations are made of. Comments and blanks are
//! skipped. `lexer/literal.rs` knows where numbers, durations and strings end.

mod literal;

use super::ast::{BinaryOp, Span};
use super::error::ParseError;
use super::token::{Keyword, Kind, Preprocessor, Token};
use literal::Literal;

/// Reads tokens off a query text.
pub(super) struct Lexer<'a> {
    input: &'a str,
    /// Next byte to look at.
    pos: usize,
    paren_depth: u32,
    brace_open: bool,
    bracket_open: bool,
    /// A bracket was opened and no number was seen since.
    duration_first: bool,
    /// A colon was seen since the bracket was opened.
    got_colon: bool,
    /// A number was seen at the start of a bracket. Any bracket so far: Prometheus does not forget it either, so that
    /// `[step():1m]` is an error in the first bracket of a query and none in later ones.
    got_duration: bool,
}

type Lexed = Result<Token, ParseError>;

impl<'a> Lexer<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Self {
            input,
            pos: 0,
            paren_depth: 0,
            brace_open: false,
            bracket_open: false,
            duration_first: false,
            got_colon: false,
            got_duration: false,
        }
    }

    /// The query text.
    pub(super) fn input(&self) -> &'a str {
        self.input
    }

    /// The next token; [`Kind::Eof`] again and again at the end.
    pub(super) fn next(&mut self) -> Lexed {
        if self.duration_first {
            return self.start_of_bracket();
        }
        self.skip_blanks_and_comments();
        let start = self.pos;
        let Some(c) = self.peek_char() else {
            return self.end_of_input();
        };
        if self.brace_open {
            return self.inside_braces(start, c);
        }
        if let Some(token) = self.operator_or_number(start, c) {
            return token;
        }
        match c {
            '=' => match self.peek_at(1) {
                Some('=') => self.emit(start, 2, Kind::Op(BinaryOp::Eq)),
                Some('~') => self.fail(start, "unexpected character after '=': '~'"),
                _ => self.emit(start, 1, Kind::Equal),
            },
            '!' => match self.peek_at(1) {
                Some('=') => self.emit(start, 2, Kind::Op(BinaryOp::NotEq)),
                t => self.fail(start, &format!("unexpected character after '!': {}", quoted_char(t))),
            },
            '<' => self.comparison(start, BinaryOp::Less, BinaryOp::LessEq, BinaryOp::TrimUpper),
            '>' => self.comparison(start, BinaryOp::Greater, BinaryOp::GreaterEq, BinaryOp::TrimLower),
            '"' | '\'' | '`' => self.string(start, c),
            '{' => {
                self.brace_open = true;
                self.emit(start, 1, Kind::LeftBrace)
            }
            '[' if self.bracket_open => self.fail(start, "unexpected left bracket '['"),
            '[' => {
                (self.bracket_open, self.duration_first, self.got_colon) = (true, true, false);
                self.emit(start, 1, Kind::LeftBracket)
            }
            ']' if self.bracket_open => {
                self.bracket_open = false;
                self.emit(start, 1, Kind::RightBracket)
            }
            ']' => self.fail(start, "unexpected right bracket ']'"),
            '@' => self.emit(start, 1, Kind::At),
            _ if is_alpha(c) || c == ':' => {
                if self.bracket_open {
                    self.word_in_bracket(start, c)
                } else {
                    self.word(start)
                }
            }
            _ => self.fail(start, &format!("unexpected character: {}", quoted_char(Some(c)))),
        }
    }

    /// Tokens that mean the same everywhere but in braces.
    fn operator_or_number(&mut self, start: usize, c: char) -> Option<Lexed> {
        let op = match c {
            ',' => Kind::Comma,
            '*' => Kind::Op(BinaryOp::Mul),
            '/' => Kind::Op(BinaryOp::Div),
            '%' => Kind::Op(BinaryOp::Mod),
            '+' => Kind::Op(BinaryOp::Add),
            '-' => Kind::Op(BinaryOp::Sub),
            '^' => Kind::Op(BinaryOp::Pow),
            '(' => {
                self.paren_depth += 1;
                Kind::LeftParen
            }
            ')' => {
                let Some(depth) = self.paren_depth.checked_sub(1) else {
                    return Some(self.fail(start + 1, "unexpected right parenthesis ')'"));
                };
                self.paren_depth = depth;
                Kind::RightParen
            }
            '.' if self.peek_at(1).is_some_and(|d| d.is_ascii_digit()) => return Some(self.number(start)),
            '0'..='9' => return Some(self.number(start)),
            _ => return None,
        };
        Some(self.emit(start, 1, op))
    }

    fn end_of_input(&mut self) -> Lexed {
        let at = self.pos;
        if self.brace_open {
            return self.fail(at, "unexpected end of input inside braces");
        }
        if self.paren_depth != 0 {
            return self.fail(at, "unclosed left parenthesis");
        }
        if self.bracket_open {
            return self.fail(at, "unclosed left bracket");
        }
        self.emit(at, 0, Kind::Eof)
    }

    fn inside_braces(&mut self, start: usize, c: char) -> Lexed {
        match c {
            ',' => self.emit(start, 1, Kind::Comma),
            '"' | '\'' | '`' => self.string(start, c),
            '=' if self.peek_at(1) == Some('~') => self.emit(start, 2, Kind::EqualRegexp),
            '=' => self.emit(start, 1, Kind::Equal),
            '!' => match self.peek_at(1) {
                Some('~') => self.emit(start, 2, Kind::NotRegexp),
                Some('=') => self.emit(start, 2, Kind::Op(BinaryOp::NotEq)),
                t => {
                    let c = quoted_char(t);
                    self.fail(start, &format!("unexpected character after '!' inside braces: {c}"))
                }
            },
            '{' => self.fail(start, "unexpected left brace '{'"),
            '}' => {
                self.brace_open = false;
                self.emit(start, 1, Kind::RightBrace)
            }
            _ if is_alpha(c) => {
                let len = self.rest().bytes().take_while(|b| is_alphanumeric(*b)).count();
                self.emit(start, len, Kind::Identifier)
            }
            _ => {
                let c = quoted_char(Some(c));
                self.fail(start, &format!("unexpected character inside braces: {c}"))
            }
        }
    }

    // === Brackets ===

    /// A token between an opening bracket and the first number. Comments may not stand here.
    fn start_of_bracket(&mut self) -> Lexed {
        let rest = self.rest();
        self.pos += rest.len() - rest.trim_start_matches(is_space).len();
        let start = self.pos;
        let Some(c) = self.peek_char() else {
            return self.fail(start, "unexpected end of input in duration expression");
        };
        if let Some(token) = self.operator_or_number(start, c) {
            if matches!(token, Ok(Token { kind: Kind::Number | Kind::Duration, .. })) {
                (self.duration_first, self.got_duration) = (false, true);
            }
            return token;
        }
        match c {
            ']' => {
                (self.bracket_open, self.duration_first) = (false, false);
                self.emit(start, 1, Kind::RightBracket)
            }
            ':' if !self.got_duration => {
                self.fail(start + 1, "unexpected colon before duration in duration expression")
            }
            ':' if self.got_colon => self.fail(start + 1, "unexpected repeated colon in duration expression"),
            ':' => {
                self.got_colon = true;
                self.emit(start, 1, Kind::Colon)
            }
            _ => self.duration_word(start).unwrap_or_else(|| {
                let c = quoted_char(Some(c));
                self.fail(start, &format!("unexpected character in duration expression: {c}"))
            }),
        }
    }

    /// A letter or colon in a bracket, after the first number.
    fn word_in_bracket(&mut self, start: usize, c: char) -> Lexed {
        if c == ':' {
            if self.got_colon {
                return self.fail(start, "unexpected colon ':'");
            }
            self.got_colon = true;
            return self.emit(start, 1, Kind::Colon);
        }
        self.duration_word(start).unwrap_or_else(|| {
            let c = quoted_char(Some(c));
            self.fail(start, &format!("unexpected character: {c}, expected ':'"))
        })
    }

    /// `step`, `range`, `min_of` or `max_of`.
    fn duration_word(&mut self, start: usize) -> Option<Lexed> {
        let len = self.rest().bytes().take_while(|b| b.is_ascii_alphabetic() || *b == b'_').count();
        match Kind::of_word(&self.rest()[..len]) {
            Some(kind @ Kind::Preprocessor(p)) if p != Preprocessor::Start && p != Preprocessor::End => {
                Some(self.emit(start, len, kind))
            }
            _ => None,
        }
    }

    // === Words, numbers, strings ===

    fn comparison(&mut self, start: usize, plain: BinaryOp, or_equal: BinaryOp, trim: BinaryOp) -> Lexed {
        match self.peek_at(1) {
            Some('=') => self.emit(start, 2, Kind::Op(or_equal)),
            Some('/') => self.emit(start, 2, Kind::Op(trim)),
            _ => self.emit(start, 1, Kind::Op(plain)),
        }
    }

    /// A keyword or a name, outside of braces.
    fn word(&mut self, start: usize) -> Lexed {
        let rest = self.rest();
        let len = rest.bytes().take_while(|b| is_alphanumeric(*b) || *b == b':').count();
        let word = &rest[..len];
        let kind = match Kind::of_word(word) {
            // These came late to the language, so they are names wherever no parenthesis follows.
            Some(Kind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !rest[len..].trim_start_matches(is_space).starts_with('(') =>
            {
                Kind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => Kind::MetricIdentifier,
            None => Kind::Identifier,
        };
        self.emit(start, len, kind)
    }

    fn number(&mut self, start: usize) -> Lexed {
        let (len, kind) = literal::scan(self.rest());
        match kind {
            Literal::Number => self.emit(start, len, Kind::Number),
            Literal::Duration => self.emit(start, len, Kind::Duration),
            Literal::Bad => {
                let text = model::labels::Quoted(&self.rest()[..len]).to_string();
                self.fail(start, &format!("bad number or duration syntax: {text}"))
            }
        }
    }

    /// A string in quotes of any of the three kinds; its escapes are checked here and resolved by
    /// [`super::string::unquote`].
    fn string(&mut self, start: usize, quote: char) -> Lexed {
        match self.string_len(start, quote) {
            Ok(len) => self.emit(start, len, Kind::String),
            Err(reason) => self.fail(start, &reason),
        }
    }

    // === Small steps ===

    fn skip_blanks_and_comments(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(is_space);
            self.pos += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            self.pos += trimmed.find(['\n', '\r']).unwrap_or(trimmed.len());
        }
    }

    fn rest(&self) -> &'a str {
        &self.input[self.pos..]
    }

    fn peek_char(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// The character `n` bytes on; everything before it is ASCII.
    fn peek_at(&self, n: usize) -> Option<char> {
        self.rest().get(n..)?.chars().next()
    }

    fn emit(&mut self, start: usize, len: usize, kind: Kind) -> Lexed {
        self.pos = start + len;
        Ok(Token { kind, span: Span::new(start, self.pos) })
    }

    fn fail(&mut self, start: usize, reason: &str) -> Lexed {
        Err(ParseError::new(self.input, Span::new(start, self.input.len()), reason))
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(b: u8) -> bool {
    b == b'_' || b.is_ascii_alphanumeric()
}

/// A character in single quotes, escaped as Go does.
pub(super) fn quoted_char(c: Option<char>) -> String {
    match c {
        None => "'\u{fffd}'".into(),
        Some('\'') => "'\\''".into(),
        Some('"') => "'\"'".into(),
        Some(c) => {
            let mut buf = [0; 4];
            let quoted = model::labels::Quoted(c.encode_utf8(&mut buf)).to_string();
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}
