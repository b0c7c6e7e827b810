//! What targets say of their metrics: `/metadata` and `/targets/metadata`.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Labels, Matcher, Metadata};

use crate::app::{Answer, App, Request};
use crate::body::BodyOut;
use crate::failure::Failure;
use crate::params::parse_selector;

/// `/api/v1/metadata`
pub(crate) fn metadata(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let p = &request.params;
    let limit = p.number_or("limit", -1)?;
    let per_metric = p.number_or("limit_per_metric", -1)?;
    let mut found: BTreeMap<String, Vec<Metadata>> = BTreeMap::new();
    app.deps.targets.metadata(p.get("metric"), &mut |_, family, m| {
        match found.get_mut(family) {
            Some(list) if list.contains(m) => {}
            Some(list) if per_metric > 0 && list.len() as i64 >= per_metric => {}
            Some(list) => list.push(m.clone()),
            None => {
                found.insert(family.to_owned(), vec![m.clone()]);
            }
        }
        true
    });
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Answer::data(move |out| {
        out.raw("{");
        for (i, (family, list)) in found.iter().take(limit).enumerate() {
            if i > 0 {
                out.raw(",");
            }
            out.string(family);
            out.raw(":");
            out.list(list, |out, m| {
                out.raw("{");
                write_fields(out, m, true);
                out.raw("}");
            });
        }
        out.raw("}");
    }))
}

/// `/api/v1/targets/metadata`
pub(crate) fn of_targets(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let p = &request.params;
    let limit = p.number_or("limit", -1)?;
    let matchers = match p.get("match_target") {
        "" => Vec::new(),
        text => parse_selector(text).map_err(|e| Failure::invalid("match_target", e))?,
    };
    let metric = p.get("metric");
    let mut found: Vec<(Labels, String, Metadata)> = Vec::new();
    app.deps.targets.metadata(metric, &mut |labels, family, m| {
        if limit >= 0 && found.len() as i64 >= limit {
            return false;
        }
        if Matcher::all_match(&matchers, labels) {
            found.push((labels.clone(), family.to_owned(), m.clone()));
        }
        true
    });
    let name_family = metric.is_empty();
    Ok(Answer::data(move |out| {
        out.list(&found, |out, (labels, family, m)| {
            out.raw("{\"target\":");
            out.labels(labels);
            if name_family {
                out.raw(",\"metric\":");
                out.string(family);
            }
            out.raw(",");
            write_fields(out, m, false);
            out.raw("}");
        });
    }))
}

fn write_fields(out: &mut BodyOut, m: &Metadata, unit_first: bool) {
    out.raw("\"type\":");
    out.string(m.metric_type.as_str());
    let fields = [("unit", &m.unit), ("help", &m.help)];
    let order = if unit_first { [0, 1] } else { [1, 0] };
    for i in order {
        let (name, value) = &fields[i];
        out.raw(",");
        out.key(name);
        out.string(value);
    }
}
