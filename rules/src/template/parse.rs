//! From items to the tree, with the errors of Go's `text/template`.

use std::collections::BTreeMap;

use model::labels::Quoted;

use super::lex::{Item, Keyword, Kind, lex};
use super::literal;
use super::node::{Arg, Command, Control, List, Node, Number, Pipe, Variable};

/// How deep parentheses and blocks may be nested in each other.
const DEPTH_MAX: usize = 100;

/// The templates of one text, by their names.
pub(super) type Templates = BTreeMap<String, List>;

/// Parses a text: its own template has `name`, others are those it defines. `is_function` knows the names of functions.
///
/// # Errors
/// What Go says.
pub(super) fn parse(name: &str, text: &str, is_function: &dyn Fn(&str) -> bool) -> Result<Templates, String> {
    let items = lex(text);
    let mut parser = Parser {
        name,
        items: &items,
        at: 0,
        furthest: 0,
        action_line: 0,
        scopes: vec![Scope::default()],
        templates: Templates::new(),
        depth: 0,
        is_function,
    };
    parser.top()?;
    Ok(parser.templates)
}

struct Parser<'a> {
    name: &'a str,
    items: &'a [Item],
    at: usize,
    /// Items looked at: messages name the line of the last one.
    furthest: usize,
    /// Line on which the action in work began; 0 outside of actions.
    action_line: usize,
    /// Of the template in work; those defined within it come on top.
    scopes: Vec<Scope>,
    templates: Templates,
    depth: usize,
    is_function: &'a dyn Fn(&str) -> bool,
}

/// What a template knows of itself while it is parsed.
struct Scope {
    variables: Vec<String>,
    ranges: usize,
}

impl Default for Scope {
    fn default() -> Self {
        Self { variables: vec!["$".to_owned()], ranges: 0 }
    }
}

/// What ends a list.
#[derive(Clone, Copy, PartialEq)]
enum End {
    End,
    /// With the item that follows it: `if` and `with` go on the chain.
    Else,
}

impl End {
    fn text(self) -> &'static str {
        match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        }
    }
}

enum Parsed {
    Node(Node),
    /// A comment, or the definition of a template.
    End(End),
}

impl<'a> Parser<'a> {
    // --- items

    fn next(&mut self) -> &'a Item {
        let item = self.peek();
        self.at += 1;
        item
    }

    fn peek(&mut self) -> &'a Item {
        let last = self.items.len() - 1;
        self.furthest = self.furthest.max(self.at.min(last));
        &self.items[self.at.min(last)]
    }

    fn next_non_space(&mut self) -> &'a Item {
        loop {
            let item = self.next();
            if item.kind != Kind::Space {
                return item;
            }
        }
    }

    fn peek_non_space(&mut self) -> &'a Item {
        let item = self.next_non_space();
        self.at -= 1;
        item
    }

    fn error<T>(&self, reason: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("template: {}:{}: {reason}", self.name, self.items[self.furthest].line))
    }

    fn unexpected<T>(&self, item: &Item, context: &str) -> Result<T, String> {
        if item.kind != Kind::Error {
            return self.error(format!("unexpected {item} in {context}"));
        }
        let mut extra = String::new();
        if self.action_line != 0 && self.action_line != item.line {
            let action = if item.text.ends_with(" action") { "" } else { " in action" };
            extra = format!("{action} started at {}:{}", self.name, self.action_line);
        }
        self.error(format!("{item}{extra}"))
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Result<&'a Item, String> {
        let item = self.next_non_space();
        if item.kind == kind { Ok(item) } else { self.unexpected(item, context) }
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("the text's own scope is never removed")
    }

    // --- lists

    fn top(&mut self) -> Result<(), String> {
        let mut root = List::new();
        while self.peek().kind != Kind::Eof {
            if self.peek().kind == Kind::LeftDelim {
                let before = self.at;
                self.next();
                if self.next_non_space().kind == Kind::Keyword(Keyword::Define) {
                    self.definition()?;
                    continue;
                }
                self.at = before;
            }
            match self.text_or_action()? {
                Parsed::Node(node) => root.push(node),
                Parsed::End(end) => return self.error(format!("unexpected {}", end.text())),
            }
        }
        self.add(self.name.to_owned(), root)
    }

    /// A template that is defined again must be empty in one place: the other one counts.
    fn add(&mut self, name: String, list: List) -> Result<(), String> {
        if self.templates.get(&name).is_none_or(is_empty) {
            self.templates.insert(name, list);
        } else if !is_empty(&list) {
            let reason = format!("template: multiple definition of template {}", Quoted(&name));
            return self.error(reason);
        }
        Ok(())
    }

    fn definition(&mut self) -> Result<(), String> {
        let context = "define clause";
        let item = self.next_non_space();
        let name = self.template_name(item, context)?;
        self.expect(Kind::RightDelim, context)?;
        self.body(name, context)
    }

    /// The rest of a definition.
    fn body(&mut self, name: String, context: &str) -> Result<(), String> {
        self.scopes.push(Scope::default());
        let (list, end) = self.list()?;
        if end != End::End {
            return self.error(format!("unexpected {} in {context}", end.text()));
        }
        self.scopes.pop();
        self.add(name, list)
    }

    fn list(&mut self) -> Result<(List, End), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.error("max expression depth exceeded");
        }
        let mut list = List::new();
        while self.peek_non_space().kind != Kind::Eof {
            match self.text_or_action()? {
                Parsed::Node(node) => list.push(node),
                Parsed::End(end) => {
                    self.depth -= 1;
                    return Ok((list, end));
                }
            }
        }
        self.error("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Result<Parsed, String> {
        let item = self.next_non_space();
        match item.kind {
            Kind::Text => Ok(Parsed::Node(Node::Text(item.text.clone()))),
            Kind::LeftDelim => {
                self.action_line = item.line;
                let parsed = self.action();
                self.action_line = 0;
                parsed
            }
            _ => self.unexpected(item, "input"),
        }
    }

    // --- actions

    fn action(&mut self) -> Result<Parsed, String> {
        let item = self.next_non_space();
        if let Kind::Keyword(keyword) = item.kind {
            let node = match keyword {
                Keyword::Block => self.block()?,
                Keyword::Break => self.leave_range("{{break}}", Node::Break)?,
                Keyword::Continue => self.leave_range("{{continue}}", Node::Continue)?,
                Keyword::Else => return self.otherwise().map(Parsed::End),
                Keyword::End => {
                    self.expect(Kind::RightDelim, "end")?;
                    return Ok(Parsed::End(End::End));
                }
                Keyword::If => Node::If(self.control("if")?),
                Keyword::Range => Node::Range(self.control("range")?),
                Keyword::Template => self.template()?,
                Keyword::With => Node::With(self.control("with")?),
                Keyword::Dot | Keyword::Define | Keyword::Nil => self.pipeline_action()?,
            };
            return Ok(Parsed::Node(node));
        }
        self.pipeline_action().map(Parsed::Node)
    }

    fn pipeline_action(&mut self) -> Result<Node, String> {
        self.at -= 1;
        let pos = self.peek().pos;
        Ok(Node::Action { pos, pipe: self.pipeline("command", Kind::RightDelim)? })
    }

    fn leave_range(&mut self, text: &str, node: Node) -> Result<Node, String> {
        let item = self.next_non_space();
        if item.kind != Kind::RightDelim {
            return self.unexpected(item, text);
        }
        if self.scope().ranges == 0 {
            return self.error(format!("{text} outside {{{{range}}}}"));
        }
        Ok(node)
    }

    fn otherwise(&mut self) -> Result<End, String> {
        let next = self.peek_non_space().kind;
        if next != Kind::Keyword(Keyword::If) && next != Kind::Keyword(Keyword::With) {
            self.expect(Kind::RightDelim, "else")?;
        }
        Ok(End::Else)
    }

    fn control(&mut self, context: &'static str) -> Result<Control, String> {
        let variables = self.scope().variables.len();
        let pipe = self.pipeline(context, Kind::RightDelim)?;
        let ranges = usize::from(context == "range");
        self.scope().ranges += ranges;
        let (list, end) = self.list()?;
        self.scope().ranges -= ranges;
        let otherwise = match end {
            End::End => None,
            End::Else => Some(self.else_list(context)?),
        };
        self.scope().variables.truncate(variables);
        Ok(Control { pipe, list, otherwise })
    }

    fn else_list(&mut self, context: &'static str) -> Result<List, String> {
        let next = self.peek().kind;
        let chained = match (context, next) {
            ("if", Kind::Keyword(Keyword::If)) => Some(Node::If as fn(Control) -> Node),
            ("with", Kind::Keyword(Keyword::With)) => Some(Node::With as fn(Control) -> Node),
            _ => None,
        };
        if let Some(node) = chained {
            self.next();
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return self.error("max expression depth exceeded");
            }
            let control = self.control(context)?;
            self.depth -= 1;
            return Ok(vec![node(control)]);
        }
        match self.list()? {
            (list, End::End) => Ok(list),
            (_, end) => self.error(format!("expected end; found {}", end.text())),
        }
    }

    fn block(&mut self) -> Result<Node, String> {
        let context = "block clause";
        let item = self.next_non_space();
        let name = self.template_name(item, context)?;
        let pipe = self.pipeline(context, Kind::RightDelim)?;
        self.body(name.clone(), context)?;
        Ok(Node::Template { pos: item.pos, name, pipe: Some(pipe) })
    }

    fn template(&mut self) -> Result<Node, String> {
        let context = "template clause";
        let item = self.next_non_space();
        let name = self.template_name(item, context)?;
        let pipe = if self.next_non_space().kind == Kind::RightDelim {
            None
        } else {
            self.at -= 1;
            Some(self.pipeline(context, Kind::RightDelim)?)
        };
        Ok(Node::Template { pos: item.pos, name, pipe })
    }

    fn template_name(&mut self, item: &Item, context: &str) -> Result<String, String> {
        match item.kind {
            Kind::String | Kind::RawString => literal::unquote(&item.text).or_else(|e| self.error(e)),
            _ => self.unexpected(item, context),
        }
    }

    // --- pipelines

    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipe, String> {
        let pos = self.peek_non_space().pos;
        let mut pipe = Pipe { pos, is_assign: false, variables: Vec::new(), commands: Vec::new() };
        while self.declaration(&mut pipe, context)? {}
        loop {
            let item = self.next_non_space();
            match item.kind {
                kind if kind == end => break,
                Kind::Bool
                | Kind::CharConstant
                | Kind::Complex
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::LeftParen
                | Kind::Keyword(Keyword::Dot | Keyword::Nil) => {
                    self.at -= 1;
                    pipe.commands.push(self.command()?);
                }
                _ => return self.unexpected(item, context),
            }
        }
        if pipe.commands.is_empty() {
            return self.error(format!("missing value for {context}"));
        }
        for (i, command) in pipe.commands.iter().enumerate().skip(1) {
            let first = &command.args[0];
            let constant = matches!(
                first,
                Arg::Bool { .. } | Arg::Dot { .. } | Arg::Nil { .. } | Arg::Number { .. } | Arg::Text { .. }
            );
            if constant {
                return self.error(format!("non executable command in pipeline stage {}", i + 1));
            }
        }
        Ok(pipe)
    }

    /// Reads a declared variable, if there is one; whether another one follows.
    fn declaration(&mut self, pipe: &mut Pipe, context: &str) -> Result<bool, String> {
        let item = self.peek_non_space();
        if item.kind != Kind::Variable {
            return Ok(false);
        }
        while self.next().kind == Kind::Space {}
        let before = self.at;
        let next = self.next_non_space();
        let comma = next.kind == Kind::Char && next.text == ",";
        if !comma && next.kind != Kind::Assign && next.kind != Kind::Declare {
            self.at = before - 1;
            return Ok(false);
        }
        pipe.variables.push(Variable { pos: item.pos, names: vec![item.text.clone()] });
        self.scope().variables.push(item.text.clone());
        if !comma {
            pipe.is_assign = next.kind == Kind::Assign;
            return Ok(false);
        }
        if context != "range" || pipe.variables.len() >= 2 {
            return self.error(format!("too many declarations in {context}"));
        }
        match self.peek_non_space().kind {
            Kind::Variable | Kind::RightDelim | Kind::RightParen => Ok(true),
            _ => self.error("range can only initialize variables"),
        }
    }

    fn command(&mut self) -> Result<Command, String> {
        let pos = self.peek_non_space().pos;
        let mut args = Vec::new();
        loop {
            self.peek_non_space();
            args.extend(self.operand()?);
            let item = self.next();
            match item.kind {
                Kind::Space => continue,
                Kind::RightDelim | Kind::RightParen => self.at -= 1,
                Kind::Pipe => {}
                _ => return self.unexpected(item, "operand"),
            }
            break;
        }
        if args.is_empty() {
            return self.error("empty command");
        }
        Ok(Command { pos, args })
    }

    fn operand(&mut self) -> Result<Option<Arg>, String> {
        let Some(arg) = self.term()? else { return Ok(None) };
        let item = self.peek();
        if item.kind != Kind::Field {
            return Ok(Some(arg));
        }
        let pos = item.pos;
        let mut fields = Vec::new();
        while self.peek().kind == Kind::Field {
            fields.push(self.next().text[1..].to_owned());
        }
        Ok(Some(match arg {
            Arg::Field { mut names, .. } => {
                names.append(&mut fields);
                Arg::Field { pos, names }
            }
            Arg::Variable(mut variable) => {
                variable.names.append(&mut fields);
                Arg::Variable(Variable { pos, names: variable.names })
            }
            Arg::Bool { .. } | Arg::Text { .. } | Arg::Number { .. } | Arg::Nil { .. } | Arg::Dot { .. } => {
                return self.error(format!("unexpected . after term {}", Quoted(&arg.to_string())));
            }
            node => Arg::Chain { pos, node: Box::new(node), fields },
        }))
    }

    fn term(&mut self) -> Result<Option<Arg>, String> {
        let item = self.next_non_space();
        let (pos, text) = (item.pos, item.text.as_str());
        Ok(Some(match item.kind {
            Kind::Identifier => {
                if !(self.is_function)(text) {
                    return self.error(format!("function {} not defined", Quoted(text)));
                }
                Arg::Function { pos, name: text.to_owned() }
            }
            Kind::Keyword(Keyword::Dot) => Arg::Dot { pos },
            Kind::Keyword(Keyword::Nil) => Arg::Nil { pos },
            Kind::Variable => {
                if !self.scope().variables.iter().any(|known| known == text) {
                    return self.error(format!("undefined variable {}", Quoted(text)));
                }
                Arg::Variable(Variable { pos, names: vec![text.to_owned()] })
            }
            Kind::Field => Arg::Field { pos, names: vec![text[1..].to_owned()] },
            Kind::Bool => Arg::Bool { pos, value: text == "true" },
            Kind::CharConstant => {
                let value = literal::character(text).or_else(|e| self.error(e))?;
                Arg::Number { pos, text: text.to_owned(), value: Number::Int(i64::from(value)) }
            }
            Kind::Complex => return self.error(format!("complex constants are not supported: {text}")),
            Kind::Number => {
                let value = literal::number(text).or_else(|e| self.error(e))?;
                Arg::Number { pos, text: text.to_owned(), value }
            }
            Kind::LeftParen => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return self.error("max expression depth exceeded");
                }
                let pipe = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                self.depth -= 1;
                Arg::Pipe(pipe)
            }
            Kind::String | Kind::RawString => {
                let value = literal::unquote(text).or_else(|e| self.error(e))?;
                Arg::Text { pos, quoted: text.to_owned(), text: value }
            }
            _ => {
                self.at -= 1;
                return Ok(None);
            }
        }))
    }
}

fn is_empty(list: &List) -> bool {
    list.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
}
