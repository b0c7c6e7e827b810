//! Executes a template, with the rules and the errors of Go's `text/template` and the option `missingkey=zero`.
//!
//! Nothing is unbounded: templates may call each other [`CALL_DEPTH_MAX`] deep, a run walks [`STEPS_MAX`] nodes, and what
//! it prints is limited.

use std::fmt::Display;

use model::labels::Quoted;

use super::functions::{self, Context, Param, Signature};
use super::node::{Arg, Command, Control, List, Node, Number, Pipe};
use super::parse::Templates;
use super::print::{OUTPUT_LEN_BYTES_MAX, sprint, sprint_struct};
use super::value::Value;
use super::{fields, go_time};

const CALL_DEPTH_MAX: usize = 100;
const STEPS_MAX: usize = 1_000_000;

/// Executes the template `name` of a text.
///
/// # Errors
/// What Go says.
pub(super) fn execute(
    name: &str,
    text: &str,
    templates: &Templates,
    data: Value,
    context: &Context<'_>,
) -> Result<String, String> {
    let mut run = Run {
        text,
        file: name,
        templates,
        context,
        out: String::new(),
        steps: 0,
        depth: 0,
        template: name,
        variables: vec![("$", data.clone())],
        at: None,
    };
    let Some(root) = templates.get(name) else {
        return Err(format!("template: {name}: {} is an incomplete or empty template", Quoted(name)));
    };
    match run.list(&data, root) {
        Ok(()) => Ok(run.out),
        Err(Stop::Error(error)) => Err(error),
        Err(Stop::Break | Stop::Continue) => Err("`break` or `continue` outside of a range".to_owned()),
    }
}

/// Why execution does not go on at this place.
enum Stop {
    Error(String),
    Break,
    Continue,
}

type Outcome<T> = Result<T, Stop>;

struct Run<'a> {
    text: &'a str,
    /// Name in places.
    file: &'a str,
    templates: &'a Templates,
    context: &'a Context<'a>,
    out: String,
    steps: usize,
    depth: usize,
    /// Name of the template in work.
    template: &'a str,
    variables: Vec<(&'a str, Value)>,
    /// Place and text of what is in work, for messages.
    at: Option<(usize, &'a dyn Display)>,
}

impl<'a> Run<'a> {
    fn fail<T>(&self, reason: impl Display) -> Outcome<T> {
        let Some((pos, what)) = self.at else {
            return Err(Stop::Error(format!("template: {}: {reason}", self.template)));
        };
        let before = &self.text[..pos];
        let line = 1 + before.matches('\n').count();
        let column = pos - before.rfind('\n').map_or(0, |i| i + 1);
        let (file, template) = (self.file, Quoted(self.template));
        Err(Stop::Error(format!(
            "template: {file}:{line}:{column}: executing {template} at <{what}>: {reason}"
        )))
    }

    fn at(&mut self, pos: usize, what: &'a dyn Display) {
        self.at = Some((pos, what));
    }

    // --- nodes

    fn list(&mut self, dot: &Value, list: &'a List) -> Outcome<()> {
        list.iter().try_for_each(|node| self.node(dot, node))
    }

    fn node(&mut self, dot: &Value, node: &'a Node) -> Outcome<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return self.fail(format!("exceeded {STEPS_MAX} steps"));
        }
        match node {
            Node::Text(text) => self.write(text),
            Node::Action { pos, pipe } => {
                self.at(*pos, node);
                let value = self.pipe(dot, pipe)?;
                if !pipe.variables.is_empty() {
                    return Ok(());
                }
                self.at(*pos, node);
                self.write(&printed(&value))
            }
            Node::If(control) => self.if_or_with(dot, control, false),
            Node::With(control) => self.if_or_with(dot, control, true),
            Node::Range(control) => self.range(dot, control),
            Node::Template { pos, name, pipe } => {
                self.at(*pos, node);
                self.call_template(dot, name, pipe.as_ref())
            }
            Node::Break => Err(Stop::Break),
            Node::Continue => Err(Stop::Continue),
        }
    }

    fn write(&mut self, text: &str) -> Outcome<()> {
        if self.out.len() + text.len() > OUTPUT_LEN_BYTES_MAX {
            return self.fail(format!("output exceeds {OUTPUT_LEN_BYTES_MAX} bytes"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn if_or_with(&mut self, dot: &Value, control: &'a Control, with: bool) -> Outcome<()> {
        let mark = self.variables.len();
        let value = self.pipe(dot, &control.pipe)?;
        if value.is_true() {
            self.list(if with { &value } else { dot }, &control.list)?;
        } else if let Some(otherwise) = &control.otherwise {
            self.list(dot, otherwise)?;
        }
        self.variables.truncate(mark);
        Ok(())
    }

    fn range(&mut self, dot: &Value, control: &'a Control) -> Outcome<()> {
        let outer = self.variables.len();
        let value = self.pipe(dot, &control.pipe)?;
        let mut any = false;
        let outcome = self.iterate(&value, control, &mut any);
        match outcome {
            Ok(()) | Err(Stop::Break) => {}
            Err(stop) => return Err(stop),
        }
        if let Some(otherwise) = control.otherwise.as_ref().filter(|_| !any) {
            self.list(dot, otherwise)?;
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn iterate(&mut self, value: &Value, control: &'a Control, any: &mut bool) -> Outcome<()> {
        let mut each = |run: &mut Self, index: Value, element: Value| {
            *any = true;
            run.iteration(control, index, element)
        };
        match value {
            Value::Nil | Value::NilInterface => Ok(()),
            Value::Int(_) | Value::Named(_) => {
                if control.pipe.variables.len() > 1 {
                    let shown = sprint(std::slice::from_ref(value));
                    return self.fail(format!("can't use {shown} to iterate over more than one variable"));
                }
                let count = value.as_int().unwrap_or(0);
                (0..count).try_for_each(|n| each(self, Value::Nil, Value::Int(n)))
            }
            Value::Samples(samples) => {
                let all = samples.iter().enumerate();
                all.map(|(i, sample)| (Value::Int(i as i64), Value::Sample(sample.clone())))
                    .try_for_each(|(index, element)| each(self, index, element))
            }
            Value::Labels(labels) => {
                labels.iter().try_for_each(|(name, v)| each(self, Value::text(name), Value::text(v)))
            }
            Value::Map(map) => {
                map.iter().try_for_each(|(name, v)| each(self, Value::text(name.as_str()), v.clone()))
            }
            other => self.fail(format!("range can't iterate over {}", printed(other))),
        }
    }

    fn iteration(&mut self, control: &'a Control, index: Value, element: Value) -> Outcome<()> {
        let variables = &control.pipe.variables;
        let mark = self.variables.len();
        if control.pipe.is_assign {
            let first = if variables.len() > 1 { index } else { element.clone() };
            self.set(&variables[0].names[0], first)?;
            if let Some(second) = variables.get(1) {
                self.set(&second.names[0], element.clone())?;
            }
        } else if !variables.is_empty() {
            self.variables[mark - 1].1 = element.clone();
            if variables.len() > 1 {
                self.variables[mark - 2].1 = index;
            }
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return self.fail(format!("exceeded {STEPS_MAX} steps"));
        }
        let outcome = self.list(&element, &control.list);
        self.variables.truncate(mark);
        match outcome {
            Err(Stop::Continue) => Ok(()),
            other => other,
        }
    }

    fn call_template(&mut self, dot: &Value, name: &'a str, pipe: Option<&'a Pipe>) -> Outcome<()> {
        let Some(list) = self.templates.get(name) else {
            return self.fail(format!("template {} not defined", Quoted(name)));
        };
        if self.depth == CALL_DEPTH_MAX {
            return self.fail(format!("exceeded maximum template depth ({CALL_DEPTH_MAX})"));
        }
        let data = match pipe {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::Nil,
        };
        let variables = std::mem::replace(&mut self.variables, vec![("$", data.clone())]);
        let template = std::mem::replace(&mut self.template, name);
        self.depth += 1;
        self.list(&data, list)?;
        self.depth -= 1;
        (self.variables, self.template) = (variables, template);
        Ok(())
    }

    // --- pipelines

    fn pipe(&mut self, dot: &Value, pipe: &'a Pipe) -> Outcome<Value> {
        self.at(pipe.pos, pipe);
        let mut value = None;
        for command in &pipe.commands {
            let next = self.command(dot, command, value)?;
            value = Some(if matches!(next, Value::NilInterface) { Value::Nil } else { next });
        }
        let value = value.unwrap_or(Value::Nil);
        for variable in &pipe.variables {
            let name = variable.names[0].as_str();
            if pipe.is_assign {
                self.set(name, value.clone())?;
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    fn set(&mut self, name: &str, value: Value) -> Outcome<()> {
        match self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            Some((_, known)) => {
                *known = value;
                Ok(())
            }
            None => self.fail(format!("undefined variable: {name}")),
        }
    }

    /// `last` is the value of the command before, which becomes the last argument.
    fn command(&mut self, dot: &Value, command: &'a Command, last: Option<Value>) -> Outcome<Value> {
        let first = &command.args[0];
        let args = &command.args[1..];
        match first {
            Arg::Function { pos, name } => {
                self.at(*pos, first);
                return self.call(dot, name, args, last, (command.pos, command));
            }
            Arg::Field { .. } | Arg::Chain { .. } | Arg::Variable(_) => {
                return self.field_call(dot, first, args, last);
            }
            Arg::Pipe(pipe) => {
                self.no_arguments(first, args, last.as_ref())?;
                return self.pipe(dot, pipe);
            }
            _ => {}
        }
        self.at(first.pos(), first);
        self.no_arguments(first, args, last.as_ref())?;
        if matches!(first, Arg::Nil { .. }) {
            return self.fail("nil is not a command");
        }
        self.argument(dot, first)
    }

    fn no_arguments(&self, first: &Arg, args: &[Arg], last: Option<&Value>) -> Outcome<()> {
        if !args.is_empty() || last.is_some() {
            return self.fail(format!("can't give argument to non-function {first}"));
        }
        Ok(())
    }

    /// The value of an argument of any type.
    fn argument(&mut self, dot: &Value, arg: &'a Arg) -> Outcome<Value> {
        self.at(arg.pos(), arg);
        match arg {
            Arg::Dot { .. } => Ok(dot.clone()),
            Arg::Nil { .. } => Ok(Value::Nil),
            Arg::Bool { value, .. } => Ok(Value::Bool(*value)),
            Arg::Text { text, .. } => Ok(Value::text(text.as_str())),
            Arg::Number { text, value, .. } => match value {
                Number::Int(n) => Ok(Value::Int(*n)),
                Number::Float(v) => Ok(Value::Float(*v)),
                Number::TooLarge => self.fail(format!("{text} overflows int")),
            },
            Arg::Pipe(pipe) => self.pipe(dot, pipe),
            Arg::Function { pos, name } => self.call(dot, name, &[], None, (*pos, arg)),
            Arg::Field { .. } | Arg::Chain { .. } | Arg::Variable(_) => self.field_call(dot, arg, &[], None),
        }
    }

    /// A value and fields of it; the last one may be a method that takes arguments.
    fn field_call(
        &mut self,
        dot: &Value,
        arg: &'a Arg,
        args: &'a [Arg],
        last: Option<Value>,
    ) -> Outcome<Value> {
        self.at(arg.pos(), arg);
        let (mut receiver, names) = match arg {
            Arg::Field { names, .. } => (dot.clone(), names.as_slice()),
            Arg::Variable(variable) => {
                let name = variable.names[0].as_str();
                let known = self.variables.iter().rev().find(|(known, _)| *known == name);
                let Some(value) = known.map(|(_, value)| value.clone()) else {
                    return self.fail(format!("undefined variable: {name}"));
                };
                (value, &variable.names[1..])
            }
            Arg::Chain { node, fields, .. } => {
                if matches!(**node, Arg::Nil { .. }) {
                    return self.fail(format!("indirection through explicit nil in {arg}"));
                }
                (self.argument(dot, node)?, fields.as_slice())
            }
            _ => return self.argument(dot, arg),
        };
        let Some((method, path)) = names.split_last() else {
            self.no_arguments(arg, args, last.as_ref())?;
            return Ok(receiver);
        };
        for name in path {
            receiver = self.field(&receiver, name, false)?;
        }
        if let (Value::Time(ms), "Format") = (&receiver, method.as_str()) {
            let signature = Signature { params: &[Param::Text], variadic: None };
            let values = self.values(dot, method, &signature, args, last)?;
            let layout = values[0].as_text().map_or("", |text| text);
            return Ok(Value::text(go_time::format(*ms, layout)));
        }
        self.field(&receiver, method, !args.is_empty() || last.is_some())
    }

    fn field(&self, receiver: &Value, name: &str, has_args: bool) -> Outcome<Value> {
        fields::field(receiver, name, has_args).or_else(|reason| self.fail(reason))
    }

    // --- functions

    fn call(
        &mut self,
        dot: &Value,
        name: &'a str,
        args: &'a [Arg],
        last: Option<Value>,
        whole: (usize, &'a dyn Display),
    ) -> Outcome<Value> {
        let Some(function) = functions::find(name) else {
            return self.fail(format!("{} is not a defined function", Quoted(name)));
        };
        if name == "and" || name == "or" {
            return self.and_or(dot, name, args, last);
        }
        let values = self.values(dot, name, &function.signature, args, last)?;
        (function.call)(&values, self.context).or_else(|reason| {
            self.at(whole.0, whole.1);
            self.fail(format!("error calling {name}: {reason}"))
        })
    }

    /// Evaluates no more arguments than are needed.
    fn and_or(&mut self, dot: &Value, name: &str, args: &'a [Arg], last: Option<Value>) -> Outcome<Value> {
        if args.is_empty() && last.is_none() {
            return self.fail(format!("wrong number of args for {name}: want at least 1 got 0"));
        }
        let mut value = Value::Nil;
        for arg in args {
            value = self.argument(dot, arg)?;
            if value.is_true() == (name == "or") {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    fn values(
        &mut self,
        dot: &Value,
        name: &str,
        signature: &Signature,
        args: &'a [Arg],
        last: Option<Value>,
    ) -> Outcome<Vec<Value>> {
        let (given, fixed) = (args.len() + usize::from(last.is_some()), signature.params.len());
        if signature.variadic.is_some() && given < fixed {
            let count = args.len();
            return self.fail(format!("wrong number of args for {name}: want at least {fixed} got {count}"));
        }
        if signature.variadic.is_none() && given != fixed {
            return self.fail(format!("wrong number of args for {name}: want {fixed} got {given}"));
        }
        let param =
            |i: usize| *signature.params.get(i).or(signature.variadic.as_ref()).unwrap_or(&Param::Any);
        let mut values = Vec::with_capacity(given);
        for (i, arg) in args.iter().enumerate() {
            values.push(self.typed(dot, param(i), arg)?);
        }
        if let Some(last) = last {
            values.push(self.checked(last, param(args.len()))?);
        }
        Ok(values)
    }

    /// An argument for a parameter of this type. What is written must fit it; what is computed is checked.
    fn typed(&mut self, dot: &Value, param: Param, arg: &'a Arg) -> Outcome<Value> {
        self.at(arg.pos(), arg);
        let literal =
            matches!(arg, Arg::Bool { .. } | Arg::Number { .. } | Arg::Text { .. } | Arg::Nil { .. });
        if literal && param != Param::Any {
            return match (param, arg) {
                (Param::Text, Arg::Text { text, .. }) => Ok(Value::text(text.as_str())),
                (Param::Text, Arg::Nil { .. }) => self.fail("cannot assign nil to string"),
                (Param::Text, _) => self.fail(format!("expected string; found {arg}")),
                (_, Arg::Nil { .. }) => Ok(Value::Nil),
                _ => self.fail(format!("can't handle {arg} for arg of type {}", param.type_name())),
            };
        }
        let value = self.argument(dot, arg)?;
        self.checked(value, param)
    }

    fn checked(&self, value: Value, param: Param) -> Outcome<Value> {
        let fits = match (&value, param) {
            (_, Param::Any)
            | (Value::Text(_), Param::Text)
            | (Value::Samples(_), Param::Samples)
            | (Value::Sample(_), Param::Sample)
            | (Value::Nil, Param::Samples | Param::Sample) => true,
            (Value::Nil, Param::Text) => return self.fail("invalid value; expected string"),
            _ => false,
        };
        if !fits {
            let (want, got) = (param.type_name(), value.type_name());
            return self.fail(format!("wrong type for value; expected {want}; got {got}"));
        }
        Ok(value)
    }
}

/// A value as an action prints it.
pub(super) fn printed(value: &Value) -> String {
    match value {
        Value::Nil | Value::NilInterface => "<no value>".to_owned(),
        Value::Sample(sample) => sprint_struct(&[Value::Labels(sample.labels.clone()), sample.value.clone()]),
        other => sprint(std::slice::from_ref(other)),
    }
}
