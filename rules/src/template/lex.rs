//! From text to the items of Go's `text/template`. Spec: <https://pkg.go.dev/text/template>.

use std::fmt::{self, Display, Formatter};

use model::labels::Quoted;

/// Kind of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What is wrong; the last item.
    Error,
    Bool,
    /// A printable character without a meaning of its own, such as a comma.
    Char,
    CharConstant,
    Complex,
    Assign,
    Declare,
    Eof,
    Field,
    Identifier,
    LeftDelim,
    LeftParen,
    Number,
    Pipe,
    RawString,
    RightDelim,
    RightParen,
    Space,
    String,
    Text,
    Variable,
    Keyword(Keyword),
}

/// Words with a meaning of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Block,
    Break,
    Continue,
    Dot,
    Define,
    Else,
    End,
    If,
    Nil,
    Range,
    Template,
    With,
}

/// A part of the text.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) kind: Kind,
    /// Where it begins, in bytes.
    pub(super) pos: usize,
    pub(super) text: String,
    /// Line it begins on, from 1.
    pub(super) line: usize,
}

/// As messages name it.
impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Eof => f.write_str("EOF"),
            Kind::Error => f.write_str(&self.text),
            Kind::Keyword(_) => write!(f, "<{}>", self.text),
            _ if self.text.len() > 10 => {
                let cut: String = self.text.chars().take(10).collect();
                write!(f, "{}...", Quoted(&cut))
            }
            _ => write!(f, "{}", Quoted(&self.text)),
        }
    }
}

/// All items of a text; the last one is `Eof` or `Error`.
pub(super) fn lex(input: &str) -> Vec<Item> {
    let mut lexer = Lexer { input, pos: 0, start: 0, start_line: 1, parens: 0, items: Vec::new() };
    let end = lexer.text();
    let (kind, text) = match end {
        Ok(()) => (Kind::Eof, "EOF".to_owned()),
        Err(reason) => (Kind::Error, reason),
    };
    lexer.items.push(Item { kind, pos: lexer.start, text, line: lexer.start_line });
    lexer.items
}

struct Lexer<'a> {
    input: &'a str,
    pos: usize,
    start: usize,
    start_line: usize,
    parens: usize,
    items: Vec<Item>,
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Whether a `-` that trims stands here: followed by a blank.
fn trims_left(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| rest.starts_with(BLANKS))
}

/// Whether the end of an action stands here, and whether it trims what follows.
fn right_delim(text: &str) -> Option<bool> {
    let trims =
        text.strip_prefix(BLANKS).and_then(|t| t.strip_prefix('-')).is_some_and(|t| t.starts_with("}}"));
    if trims {
        return Some(true);
    }
    text.starts_with("}}").then_some(false)
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.input[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, valid: &str) -> bool {
        let found = self.peek().is_some_and(|c| valid.contains(c));
        if found {
            self.pos += 1;
        }
        found
    }

    fn accept_run(&mut self, valid: &str) {
        while self.accept(valid) {}
    }

    /// Passes over what was read.
    fn ignore(&mut self) {
        self.start_line += self.input[self.start..self.pos].matches('\n').count();
        self.start = self.pos;
    }

    fn emit(&mut self, kind: Kind) {
        let text = self.input[self.start..self.pos].to_owned();
        self.items.push(Item { kind, pos: self.start, text, line: self.start_line });
        self.ignore();
    }

    /// Texts and actions, to the end.
    fn text(&mut self) -> Result<(), String> {
        loop {
            let Some(at) = self.rest().find("{{") else {
                self.pos = self.input.len();
                if self.pos > self.start {
                    self.emit(Kind::Text);
                }
                return Ok(());
            };
            let delim = self.pos + at;
            let mut end = delim;
            if trims_left(&self.input[delim + 2..]) {
                end = self.start + self.input[self.start..delim].trim_end_matches(BLANKS).len();
            }
            self.pos = end;
            if self.pos > self.start {
                self.emit(Kind::Text);
            }
            self.pos = delim;
            self.ignore();
            self.left_delim()?;
        }
    }

    fn left_delim(&mut self) -> Result<(), String> {
        self.pos += 2;
        let marker = if trims_left(self.rest()) { 2 } else { 0 };
        if self.input[self.pos + marker..].starts_with("/*") {
            self.pos += marker;
            self.ignore();
            return self.comment();
        }
        self.emit(Kind::LeftDelim);
        self.pos += marker;
        self.ignore();
        self.parens = 0;
        while !self.inside_action()? {}
        Ok(())
    }

    fn comment(&mut self) -> Result<(), String> {
        let Some(end) = self.rest()[2..].find("*/") else { return Err("unclosed comment".into()) };
        self.pos += end + 4;
        let Some(trims) = right_delim(self.rest()) else {
            return Err("comment ends before closing delimiter".into());
        };
        self.pos += if trims { 4 } else { 2 };
        self.after_delim(trims);
        Ok(())
    }

    fn after_delim(&mut self, trims: bool) {
        if trims {
            self.pos = self.input.len() - self.rest().trim_start_matches(BLANKS).len();
        }
        self.ignore();
    }

    fn close(&mut self, trims: bool) {
        if trims {
            self.pos += 2;
            self.ignore();
        }
        self.pos += 2;
        self.emit(Kind::RightDelim);
        self.after_delim(trims);
    }

    /// One item of an action; whether it was the last one.
    fn inside_action(&mut self) -> Result<bool, String> {
        if let Some(trims) = right_delim(self.rest()) {
            if self.parens > 0 {
                return Err("unclosed left paren".into());
            }
            self.close(trims);
            return Ok(true);
        }
        let Some(c) = self.next() else { return Err("unclosed action".into()) };
        match c {
            c if BLANKS.contains(&c) => self.space(),
            '=' => self.emit(Kind::Assign),
            ':' if self.accept("=") => self.emit(Kind::Declare),
            ':' => return Err("expected :=".into()),
            '|' => self.emit(Kind::Pipe),
            '"' => self.quoted('"', "unterminated quoted string", Kind::String)?,
            '`' => {
                let Some(end) = self.rest().find('`') else {
                    return Err("unterminated raw quoted string".into());
                };
                self.pos += end + 1;
                self.emit(Kind::RawString);
            }
            '\'' => self.quoted('\'', "unterminated character constant", Kind::CharConstant)?,
            '$' => self.name(Kind::Variable)?,
            '.' if self.peek().is_some_and(|c| !c.is_ascii_digit()) => self.name(Kind::Field)?,
            '.' | '+' | '-' | '0'..='9' => {
                self.pos -= 1;
                self.number()?;
            }
            c if is_name(c) => self.identifier()?,
            '(' => {
                self.parens += 1;
                self.emit(Kind::LeftParen);
            }
            ')' => {
                self.parens = self.parens.checked_sub(1).ok_or("unexpected right paren")?;
                self.emit(Kind::RightParen);
            }
            c if (' '..='~').contains(&c) => self.emit(Kind::Char),
            c => return Err(format!("unrecognized character in action: {}", code_point(c))),
        }
        Ok(false)
    }

    /// A run of blanks; the last one may belong to the end of the action.
    fn space(&mut self) {
        while self.peek().is_some_and(|c| BLANKS.contains(&c)) {
            self.pos += 1;
        }
        if right_delim(&self.input[self.pos - 1..]) == Some(true) {
            self.pos -= 1;
        }
        if self.pos > self.start {
            self.emit(Kind::Space);
        }
    }

    fn quoted(&mut self, quote: char, unterminated: &str, kind: Kind) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\\') if self.peek().is_some_and(|c| c != '\n') => drop(self.next()),
                Some(c) if c == quote => break,
                None | Some('\\' | '\n') => return Err(unterminated.into()),
                Some(_) => {}
            }
        }
        self.emit(kind);
        Ok(())
    }

    fn is_at_terminator(&self) -> bool {
        match self.peek() {
            None => true,
            Some(c) => BLANKS.contains(&c) || ".,|:)(".contains(c) || self.rest().starts_with("}}"),
        }
    }

    fn bad_character(&self) -> String {
        format!("bad character {}", self.peek().map_or_else(|| "U+FFFFFFFFFFFFFFFF".into(), code_point))
    }

    /// What follows `.` or `$`.
    fn name(&mut self, kind: Kind) -> Result<(), String> {
        if self.is_at_terminator() {
            self.emit(if kind == Kind::Field { Kind::Keyword(Keyword::Dot) } else { kind });
            return Ok(());
        }
        while self.peek().is_some_and(is_name) {
            self.next();
        }
        if !self.is_at_terminator() {
            return Err(self.bad_character());
        }
        self.emit(kind);
        Ok(())
    }

    fn identifier(&mut self) -> Result<(), String> {
        while self.peek().is_some_and(is_name) {
            self.next();
        }
        if !self.is_at_terminator() {
            return Err(self.bad_character());
        }
        self.emit(match &self.input[self.start..self.pos] {
            "block" => Kind::Keyword(Keyword::Block),
            "break" => Kind::Keyword(Keyword::Break),
            "continue" => Kind::Keyword(Keyword::Continue),
            "define" => Kind::Keyword(Keyword::Define),
            "else" => Kind::Keyword(Keyword::Else),
            "end" => Kind::Keyword(Keyword::End),
            "if" => Kind::Keyword(Keyword::If),
            "nil" => Kind::Keyword(Keyword::Nil),
            "range" => Kind::Keyword(Keyword::Range),
            "template" => Kind::Keyword(Keyword::Template),
            "with" => Kind::Keyword(Keyword::With),
            "true" | "false" => Kind::Bool,
            _ => Kind::Identifier,
        });
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        let bad = |lexer: &Self| {
            Err(format!("bad number syntax: {}", Quoted(&lexer.input[lexer.start..lexer.pos])))
        };
        if !self.scan_number() {
            return bad(self);
        }
        if !self.peek().is_some_and(|c| c == '+' || c == '-') {
            self.emit(Kind::Number);
            return Ok(());
        }
        if !self.scan_number() || !self.input[..self.pos].ends_with('i') {
            return bad(self);
        }
        self.emit(Kind::Complex);
        Ok(())
    }

    fn scan_number(&mut self) -> bool {
        self.accept("+-");
        let mut digits = "0123456789_";
        if self.accept("0") {
            if self.accept("xX") {
                digits = "0123456789abcdefABCDEF_";
            } else if self.accept("oO") {
                digits = "01234567_";
            } else if self.accept("bB") {
                digits = "01_";
            }
        }
        self.accept_run(digits);
        if self.accept(".") {
            self.accept_run(digits);
        }
        if (digits.len() == 11 && self.accept("eE")) || (digits.len() == 23 && self.accept("pP")) {
            self.accept("+-");
            self.accept_run("0123456789_");
        }
        self.accept("i");
        if self.peek().is_some_and(is_name) {
            self.next();
            return false;
        }
        true
    }
}

/// As Go's `%#U`.
fn code_point(c: char) -> String {
    let quoted = if c.is_control() { String::new() } else { format!(" '{c}'") };
    format!("U+{:04X}{quoted}", c as u32)
}
