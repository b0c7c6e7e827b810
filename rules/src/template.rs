//! Texts of alert labels and annotations: Go's `text/template` with Prometheus's functions.
//!
//! Reading order: this file (what an alert's templates know), `lex` and `parse` (from text to tree, `node`), `exec` (from
//! tree to text), `value` and `fields` (what values are), `functions`, `print` (`printf` and how values look), `humanize`,
//! `number`, `go_time`, `words`, `literal`.
//!
//! Leaves out: complex numbers, HTML templates and files of templates, which belong to console pages.
//!
//! Invariants: a template that does not end is cut off, by depth, steps and length; a failure is an error with the words
//! of Go and the place, never a panic.
//!
//! Spec: <https://pkg.go.dev/text/template>, <https://prometheus.io/docs/prometheus/latest/configuration/template_reference/>.

use std::sync::Arc;

use model::Labels;
use promql::PointValue;

mod exec;
mod fields;
mod functions;
mod go_time;
mod humanize;
mod lex;
mod literal;
mod node;
mod number;
mod parse;
mod print;
mod value;
mod words;

use crate::group::QueryFn;
use functions::Context;
use parse::Templates;
use value::{AlertData, Sample, Value};

/// What stands before each text, so that templates can name what they are about.
const DEFINITIONS: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
                           {{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// A text with places to fill in.
#[derive(Debug)]
pub(crate) struct Template {
    name: String,
    text: String,
    templates: Templates,
    /// Nothing is filled in.
    is_plain: bool,
}

/// What templates may speak of beside the alert itself.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) external_labels: Labels,
    pub(crate) external_url: String,
    pub(crate) query: QueryFn,
}

/// What the places are filled with.
pub(crate) struct Values<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) value: &'a PointValue,
    /// When the rule is evaluated.
    pub(crate) ts_ms: i64,
    pub(crate) around: &'a Surroundings,
}

impl Template {
    /// Reads a template of the alert `alert`.
    ///
    /// # Errors
    /// What Go says of it.
    pub(crate) fn parse(alert: &str, text: &str) -> Result<Self, String> {
        let name = format!("__alert_{alert}");
        let is_plain = !text.contains("{{");
        let text = format!("{DEFINITIONS}{text}");
        let templates = parse::parse(&name, &text, &|name| functions::find(name).is_some())?;
        Ok(Self { name, text, templates, is_plain })
    }

    /// Fills the places in. Blocks, if the template queries.
    ///
    /// # Errors
    /// What Go says.
    pub(crate) fn expand(&self, values: &Values<'_>) -> Result<String, String> {
        if self.is_plain {
            return Ok(self.text[DEFINITIONS.len()..].to_owned());
        }
        let around = values.around;
        let data = AlertData {
            labels: values.labels.clone(),
            external_labels: around.external_labels.clone(),
            external_url: around.external_url.as_str().into(),
            value: values.value.into(),
        };
        let query = |query: &str, ts_ms: i64| query_samples(&around.query, query, ts_ms);
        let context = Context { query: &query, ts_ms: values.ts_ms, external_url: &around.external_url };
        exec::execute(&self.name, &self.text, &self.templates, Value::Alert(Arc::new(data)), &context)
            .map_err(|e| format!("error executing template {}: {e}", self.name))
    }
}

fn query_samples(evaluate: &QueryFn, query: &str, ts_ms: i64) -> Result<Vec<Sample>, String> {
    match evaluate(query, ts_ms).map_err(|e| e.to_string())? {
        promql::Value::Vector(vector) => Ok(vector.iter().map(Sample::from).collect()),
        promql::Value::Scalar { value, .. } => {
            Ok(vec![Sample { labels: Labels::empty(), value: Value::Float(value) }])
        }
        promql::Value::String { .. } | promql::Value::Matrix(_) => {
            Err("rule result is not a vector or scalar".to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
