//! The tree of a parsed template, and how messages show its parts.

use std::fmt::{self, Display, Formatter};

/// What stands one after the other.
pub(super) type List = Vec<Node>;

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action { pos: usize, pipe: Pipe },
    If(Control),
    With(Control),
    Range(Control),
    Template { pos: usize, name: String, pipe: Option<Pipe> },
    Break,
    Continue,
}

/// `if`, `with` and `range`.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) pipe: Pipe,
    pub(super) list: List,
    pub(super) otherwise: Option<List>,
}

/// Commands, each of which is given the value of the one before.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) pos: usize,
    /// `=` and not `:=`.
    pub(super) is_assign: bool,
    pub(super) variables: Vec<Variable>,
    pub(super) commands: Vec<Command>,
}

/// `$x` or `$x.field.field`.
#[derive(Debug)]
pub(super) struct Variable {
    pub(super) pos: usize,
    /// The name with its `$`, then fields.
    pub(super) names: Vec<String>,
}

/// A function or a value, and arguments.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) pos: usize,
    pub(super) args: Vec<Arg>,
}

/// A value or the name of a function.
#[derive(Debug)]
pub(super) enum Arg {
    /// `.field.field`
    Field {
        pos: usize,
        names: Vec<String>,
    },
    /// `(pipe).field`
    Chain {
        pos: usize,
        node: Box<Arg>,
        fields: Vec<String>,
    },
    Function {
        pos: usize,
        name: String,
    },
    Pipe(Pipe),
    Variable(Variable),
    Bool {
        pos: usize,
        value: bool,
    },
    Dot {
        pos: usize,
    },
    Nil {
        pos: usize,
    },
    Number {
        pos: usize,
        text: String,
        value: Number,
    },
    Text {
        pos: usize,
        quoted: String,
        text: String,
    },
}

/// The value of a number as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
    /// An integer that fits none but unsigned ones.
    TooLarge,
}

impl Arg {
    pub(super) fn pos(&self) -> usize {
        match self {
            Self::Field { pos, .. }
            | Self::Chain { pos, .. }
            | Self::Function { pos, .. }
            | Self::Bool { pos, .. }
            | Self::Dot { pos }
            | Self::Nil { pos }
            | Self::Number { pos, .. }
            | Self::Text { pos, .. } => *pos,
            Self::Pipe(pipe) => pipe.pos,
            Self::Variable(variable) => variable.pos,
        }
    }
}

impl Display for Pipe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, variable) in self.variables.iter().enumerate() {
            write!(f, "{}{variable}", if i > 0 { ", " } else { "" })?;
        }
        if !self.variables.is_empty() {
            f.write_str(if self.is_assign { " = " } else { " := " })?;
        }
        for (i, command) in self.commands.iter().enumerate() {
            write!(f, "{}{command}", if i > 0 { " | " } else { "" })?;
        }
        Ok(())
    }
}

impl Display for Variable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join("."))
    }
}

impl Display for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, arg) in self.args.iter().enumerate() {
            let blank = if i > 0 { " " } else { "" };
            match arg {
                Arg::Pipe(pipe) => write!(f, "{blank}({pipe})")?,
                arg => write!(f, "{blank}{arg}")?,
            }
        }
        Ok(())
    }
}

impl Display for Arg {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field { names, .. } => names.iter().try_for_each(|name| write!(f, ".{name}")),
            Self::Chain { node, fields, .. } => {
                match &**node {
                    Self::Pipe(pipe) => write!(f, "({pipe})")?,
                    node => write!(f, "{node}")?,
                }
                fields.iter().try_for_each(|name| write!(f, ".{name}"))
            }
            Self::Function { name, .. } => f.write_str(name),
            Self::Pipe(pipe) => write!(f, "{pipe}"),
            Self::Variable(variable) => write!(f, "{variable}"),
            Self::Bool { value, .. } => write!(f, "{value}"),
            Self::Dot { .. } => f.write_str("."),
            Self::Nil { .. } => f.write_str("nil"),
            Self::Number { text, .. } => f.write_str(text),
            Self::Text { quoted, .. } => f.write_str(quoted),
        }
    }
}

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Action { pipe, .. } => write!(f, "{{{{{pipe}}}}}"),
            Self::Template { name, pipe, .. } => {
                write!(f, "{{{{template {}", model::labels::Quoted(name))?;
                if let Some(pipe) = pipe {
                    write!(f, " {pipe}")?;
                }
                f.write_str("}}")
            }
            Self::If(control) => write!(f, "{{{{if {}}}}}", control.pipe),
            Self::With(control) => write!(f, "{{{{with {}}}}}", control.pipe),
            Self::Range(control) => write!(f, "{{{{range {}}}}}", control.pipe),
            Self::Break => f.write_str("{{break}}"),
            Self::Continue => f.write_str("{{continue}}"),
        }
    }
}
