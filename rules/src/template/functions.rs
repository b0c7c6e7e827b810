//! The functions that templates may call: Prometheus's here, those of Go's `text/template` in [`builtin`].

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use model::SearchRegexp;

use super::humanize::{
    float_of, go_int, humanize, humanize_1024, humanize_duration, humanize_percentage, humanize_timestamp,
    time_of,
};
use super::print::OUTPUT_LEN_BYTES_MAX;
use super::value::{Map, Sample, Value};
use super::words::title;
use crate::links::{escape_query, graph_link, table_link};

mod builtin;

use builtin::bounded;

/// Evaluates a query for a template.
pub(super) type Query<'a> = dyn Fn(&str, i64) -> Result<Vec<Sample>, String> + 'a;

/// What functions know of the world.
pub(super) struct Context<'a> {
    pub(super) query: &'a Query<'a>,
    pub(super) ts_ms: i64,
    pub(super) external_url: &'a str,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Param {
    Any,
    Text,
    /// The answer of a query.
    Samples,
    /// One series of it.
    Sample,
}

impl Param {
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::Text => "string",
            Self::Samples => "template.queryResult",
            Self::Sample => "*template.sample",
        }
    }
}

/// The parameters of a function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signature {
    pub(super) params: &'static [Param],
    /// Type of any number of further ones.
    pub(super) variadic: Option<Param>,
}

type Call = fn(&[Value], &Context<'_>) -> Result<Value, String>;

/// A function.
pub(super) struct Function {
    pub(super) signature: Signature,
    pub(super) call: Call,
}

/// The function of this name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.get(name)
}

static FUNCTIONS: LazyLock<BTreeMap<&'static str, Function>> = LazyLock::new(|| {
    let mut all = BTreeMap::new();
    let mut add = |name, params, variadic, call| {
        all.insert(name, Function { signature: Signature { params, variadic }, call });
    };
    builtin::add_all(&mut add);
    add_all(&mut add);
    all
});

type Add<'a> = dyn FnMut(&'static str, &'static [Param], Option<Param>, Call) + 'a;

fn add_all(add: &mut Add<'_>) {
    use Param::{Any, Sample, Samples, Text};
    add("query", &[Text], None, |args, context| {
        let found = (context.query)(text(args, 0), context.ts_ms)?;
        Ok(Value::Samples(found.into_iter().map(Arc::new).collect()))
    });
    add("first", &[Samples], None, |args, _| {
        let first = samples(args, 0).first();
        let first = first.ok_or("first() called on vector with no elements")?;
        Ok(Value::Sample(Arc::clone(first)))
    });
    add("label", &[Text, Sample], None, |args, _| {
        Ok(Value::text(sample(args, 1)?.labels.value(text(args, 0))))
    });
    add("value", &[Sample], None, |args, _| Ok(sample(args, 0)?.value.clone()));
    add("strvalue", &[Sample], None, |args, _| Ok(Value::text(sample(args, 0)?.labels.value("__value__"))));
    add("sortByLabel", &[Text, Samples], None, |args, _| {
        let mut sorted = samples(args, 1).to_vec();
        sorted.sort_by(|a, b| a.labels.value(text(args, 0)).cmp(b.labels.value(text(args, 0))));
        Ok(Value::Samples(sorted.into()))
    });
    add("args", &[], Some(Any), |args, _| {
        let named = args.iter().enumerate().map(|(i, value)| (format!("arg{i}"), value.clone()));
        Ok(Value::Map(Arc::new(Map::new(named.collect())?)))
    });
    add("match", &[Text, Text], None, |args, _| {
        let regexp = SearchRegexp::new(text(args, 0)).map_err(|e| e.to_string())?;
        Ok(Value::Bool(regexp.is_match(text(args, 1))))
    });
    add("reReplaceAll", &[Text, Text, Text], None, |args, _| {
        let pattern = text(args, 0);
        let regexp = SearchRegexp::new(pattern).map_err(|e| format!("regexp: Compile(`{pattern}`): {e}"))?;
        bounded(regexp.replace_all(text(args, 2), text(args, 1), OUTPUT_LEN_BYTES_MAX))
    });
    add("safeHtml", &[Text], None, |args, _| Ok(Value::Html(text(args, 0).into())));
    add("title", &[Text], None, |args, _| Ok(Value::text(title(text(args, 0)))));
    add("toUpper", &[Text], None, |args, _| Ok(Value::text(text(args, 0).to_uppercase())));
    add("toLower", &[Text], None, |args, _| Ok(Value::text(text(args, 0).to_lowercase())));
    add("graphLink", &[Text], None, |args, _| bounded(graph_link(text(args, 0))));
    add("tableLink", &[Text], None, |args, _| bounded(table_link(text(args, 0))));
    add("stripPort", &[Text], None, |args, _| {
        let address = text(args, 0);
        Ok(Value::text(split_host_port(address).map_or(address, |(host, _)| host)))
    });
    add("stripDomain", &[Text], None, |args, _| Ok(Value::text(strip_domain(text(args, 0)))));
    add("humanize", &[Any], None, |args, _| Ok(Value::text(humanize(float_of(&args[0])?))));
    add("humanize1024", &[Any], None, |args, _| Ok(Value::text(humanize_1024(float_of(&args[0])?))));
    add("humanizeDuration", &[Any], None, |args, _| Ok(Value::text(humanize_duration(float_of(&args[0])?))));
    add("humanizePercentage", &[Any], None, |args, _| {
        Ok(Value::text(humanize_percentage(float_of(&args[0])?)))
    });
    add("humanizeTimestamp", &[Any], None, |args, _| {
        Ok(Value::text(humanize_timestamp(float_of(&args[0])?)?))
    });
    add("toTime", &[Any], None, |args, _| Ok(Value::Time(time_of(float_of(&args[0])?)?)));
    add("toDuration", &[Any], None, |args, _| Ok(Value::Duration(go_int(float_of(&args[0])? * 1e9))));
    add("now", &[], None, |_, context| Ok(Value::Float(context.ts_ms as f64 / 1000.0)));
    add("pathPrefix", &[], None, |_, context| Ok(Value::text(path_of(context.external_url))));
    add("externalURL", &[], None, |_, context| Ok(Value::text(context.external_url)));
    add("parseDuration", &[Text], None, |args, _| {
        let (sign, rest) = match text(args, 0).strip_prefix('-') {
            Some(rest) => (-1.0, rest),
            None => (1.0, text(args, 0)),
        };
        Ok(Value::Float(sign * model::duration::parse_ms(rest)? as f64 / 1000.0))
    });
    add("urlQueryEscape", &[Text], None, |args, _| bounded(escape_query(text(args, 0))));
}

/// A text, of whose type the signature made sure.
fn text(args: &[Value], i: usize) -> &str {
    args.get(i).and_then(Value::as_text).map_or("", |text| text)
}

fn samples(args: &[Value], i: usize) -> &[Arc<Sample>] {
    match args.get(i) {
        Some(Value::Samples(samples)) => samples,
        _ => &[],
    }
}

fn sample(args: &[Value], i: usize) -> Result<&Sample, String> {
    match args.get(i) {
        Some(Value::Sample(sample)) => Ok(sample),
        _ => Err("runtime error: invalid memory address or nil pointer dereference".to_owned()),
    }
}

/// Host and port of `host:port` or `[host]:port`, as Go's `net.SplitHostPort`.
fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let (before, port) = address.rsplit_once(':')?;
    let host = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            if !after.starts_with(':') || after[1..].contains(':') {
                return None;
            }
            host
        }
        None if before.contains(':') => return None,
        None => before,
    };
    (!host.contains(['[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

fn strip_domain(address: &str) -> String {
    let (host, port) = split_host_port(address).unwrap_or((address, ""));
    if host.parse::<std::net::IpAddr>().is_ok() {
        return address.to_owned();
    }
    let name = host.split('.').next().unwrap_or(host);
    match port {
        "" => name.to_owned(),
        port if name.contains(':') => format!("[{name}]:{port}"),
        port => format!("{name}:{port}"),
    }
}

/// The path of a URL.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("", |i| &rest[i..])
}
