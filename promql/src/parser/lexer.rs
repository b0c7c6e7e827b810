//! Text to tokens, one at a time, in time linear in the text.
//!
//! What a character means depends on whether a brace or a bracket is open: within braces every word is a plain name,
//! within brackets only durations and their operators may stand. Comments and blanks are skipped.

use super::ast::{BinaryOp, Span};
use super::error::ParseError;
use super::token::{Keyword, Kind, Token};

/// Reads tokens off a query text.
pub(super) struct Lexer<'a> {
    input: &'a str,
    /// Next byte to look at.
    pos: usize,
    paren_depth: u32,
    brace_open: bool,
    bracket_open: bool,
    /// A colon was seen since the bracket was opened.
    got_colon: bool,
    /// A number or duration was seen since the bracket was opened.
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
        self.skip_blanks();
        let start = self.pos;
        let Some(c) = self.peek_char() else {
            return self.end_of_input();
        };
        if self.brace_open {
            return self.inside_braces(start, c);
        }
        if self.bracket_open {
            return self.inside_brackets(start, c);
        }
        if let Some(token) = self.shared(start, c) {
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
            '[' => {
                (self.bracket_open, self.got_colon, self.got_duration) = (true, false, false);
                self.emit(start, 1, Kind::LeftBracket)
            }
            ']' => self.fail(start, "unexpected right bracket ']'"),
            '@' => self.emit(start, 1, Kind::At),
            _ if is_alpha(c) || c == ':' => self.word(start),
            _ => self.fail(start, &format!("unexpected character: {}", quoted_char(Some(c)))),
        }
    }

    /// Tokens that mean the same within brackets and outside.
    fn shared(&mut self, start: usize, c: char) -> Option<Lexed> {
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
                    return Some(self.fail(start, "unexpected right parenthesis ')'"));
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
        if self.bracket_open && !self.got_duration {
            return self.fail(at, "unexpected end of input in duration expression");
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

    fn inside_brackets(&mut self, start: usize, c: char) -> Lexed {
        if c.is_ascii_digit() {
            self.got_duration = true;
        }
        if let Some(token) = self.shared(start, c) {
            return token;
        }
        match c {
            ']' => {
                self.bracket_open = false;
                self.emit(start, 1, Kind::RightBracket)
            }
            ':' if !self.got_duration => {
                self.fail(start, "unexpected colon before duration in duration expression")
            }
            ':' if self.got_colon => self.fail(start, "unexpected colon ':'"),
            ':' => {
                self.got_colon = true;
                self.emit(start, 1, Kind::Colon)
            }
            '[' => self.fail(start, "unexpected left bracket '['"),
            '"' | '\'' | '`' if self.got_duration => self.string(start, c),
            _ if is_alpha(c) => {
                let len = self.rest().bytes().take_while(|b| b.is_ascii_alphabetic() || *b == b'_').count();
                match Kind::of_word(&self.rest()[..len]) {
                    Some(kind @ Kind::Preprocessor(p)) if p.is_duration() => {
                        self.got_duration = true;
                        self.emit(start, len, kind)
                    }
                    _ if self.got_duration => {
                        let c = quoted_char(Some(c));
                        self.fail(start, &format!("unexpected character: {c}, expected ':'"))
                    }
                    _ => self.bad_duration_char(start, c),
                }
            }
            _ => self.bad_duration_char(start, c),
        }
    }

    fn bad_duration_char(&mut self, start: usize, c: char) -> Lexed {
        let c = quoted_char(Some(c));
        self.fail(start, &format!("unexpected character in duration expression: {c}"))
    }

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

    // === Numbers and durations ===

    fn number(&mut self, start: usize) -> Lexed {
        let rest = self.rest().as_bytes();
        let (len, ok) = scan_number(rest);
        if ok {
            return self.emit(start, len, Kind::Number);
        }
        let (len, ok) = scan_duration(rest, len);
        if ok {
            return self.emit(start, len, Kind::Duration);
        }
        let text = model::labels::Quoted(&self.rest()[..floor_char_boundary(self.rest(), len)]).to_string();
        self.fail(start, &format!("bad number or duration syntax: {text}"))
    }

    // === Strings ===

    /// A string in quotes of any of the three kinds; its escapes are checked here and resolved by
    /// [`super::string::unquote`].
    fn string(&mut self, start: usize, quote: char) -> Lexed {
        let raw = quote == '`';
        let mut at = start + 1;
        let bytes = self.input.as_bytes();
        loop {
            match bytes.get(at) {
                None if raw => return self.fail(start, "unterminated raw string"),
                None => return self.fail(start, "unterminated quoted string"),
                Some(b'\n') if !raw => return self.fail(start, "unterminated quoted string"),
                Some(b) if *b == quote as u8 => break,
                Some(b'\\') if !raw => match super::string::escape_len(&self.input[at + 1..], quote) {
                    Ok(len) => at += 1 + len,
                    Err(reason) => return self.fail(start, &reason),
                },
                Some(_) => at += 1,
            }
        }
        self.emit(start, at + 1 - start, Kind::String)
    }

    // === Small steps ===

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(is_space);
            self.pos += rest.len() - trimmed.len();
            // A comment may not stand between a bracket and the first duration in it.
            if !trimmed.starts_with('#') || (self.bracket_open && !self.got_duration) {
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

/// Length of the number at the start of `s`, and whether it ends there. The form is checked only so far as to tell
/// where it ends; the rest is found out when its value is computed.
fn scan_number(s: &[u8]) -> (usize, bool) {
    let at = |i: usize| s.get(i).copied().unwrap_or(b' ');
    let mut i = 0;
    let hex = at(0) == b'0' && matches!(at(1), b'x' | b'X');
    if hex {
        i = 2;
        if at(i) == b'_' {
            i += 1;
        }
    }
    let is_digit = |c: u8| c.is_ascii_digit() || (hex && c.is_ascii_hexdigit());
    let (mut dot, mut exponent) = (false, false);
    loop {
        match at(i) {
            c if is_digit(c) => i += 1,
            b'.' if dot || hex || matches!(at(i + 1), b'_' | b'.') => return (i + 1, false),
            b'.' => {
                dot = true;
                i += 1;
            }
            b'e' | b'E' => {
                if exponent {
                    return (i + 1, false);
                }
                exponent = true;
                i += 1;
                if matches!(at(i), b'+' | b'-') {
                    i += 1;
                }
                if i >= s.len() || matches!(at(i), b'.' | b'_' | b'e' | b'E') {
                    return (i, false);
                }
            }
            b'_' => {
                i += 1;
                if i >= s.len() || matches!(at(i), b'.' | b'_' | b'e' | b'E') {
                    return (i, false);
                }
            }
            c => return (i, i > 0 && !is_alphanumeric(c)),
        }
    }
}

/// Length of the duration at the start of `s`, whose first number is `from` bytes long, and whether it ends there.
fn scan_duration(s: &[u8], from: usize) -> (usize, bool) {
    let at = |i: usize| s.get(i).copied().unwrap_or(b' ');
    let mut i = from;
    if !b"smhdwy".contains(&at(i)) {
        return (i, false);
    }
    loop {
        i += 1;
        if at(i) == b's' {
            i += 1;
        }
        if !at(i).is_ascii_digit() {
            break;
        }
        while at(i).is_ascii_digit() {
            i += 1;
        }
        if !b"smhdw".contains(&at(i)) {
            return (i, false);
        }
    }
    if is_alphanumeric(at(i)) { ((i + 1).min(s.len()), false) } else { (i, true) }
}

fn floor_char_boundary(s: &str, mut at: usize) -> usize {
    at = at.min(s.len());
    while !s.is_char_boundary(at) {
        at -= 1;
    }
    at
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
