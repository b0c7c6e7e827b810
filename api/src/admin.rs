//! Changes of the store that only an operator makes: `/admin/tsdb/*`. Off unless the admin API is switched on.

use std::sync::Arc;

use model::Matcher;

use crate::app::{Answer, App, Request};
use crate::failure::{Failure, Kind};
use crate::params::{MAX_TIME_MS, MIN_TIME_MS, parse_selector};
use crate::sources::AdminSource;

fn source(app: &App) -> Result<&dyn AdminSource, Failure> {
    if !app.config.enable_admin_api {
        return Err(Failure::new(Kind::Disabled, "admin APIs disabled"));
    }
    match &app.deps.admin {
        Some(source) => Ok(&**source),
        None => Err(Failure::new(Kind::Disabled, "not supported: admin operations of this store")),
    }
}

/// `/api/v1/admin/tsdb/delete_series`; with `dry_run=true`, which is our own, it deletes nothing and answers with counts.
pub(crate) fn delete_series(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let source = source(app)?;
    let p = &request.params;
    p.check()?;
    let start_ms = p.time_or("start", MIN_TIME_MS)?;
    let end_ms = p.time_or("end", MAX_TIME_MS)?;
    // All selectors are read before anything is deleted, so that a slip in the second leaves the first alone.
    let sets: Vec<Vec<Matcher>> = p
        .all("match[]")
        .map(|text| parse_selector(text).map_err(|e| Failure::invalid("match[]", e)))
        .collect::<Result<_, _>>()?;
    if sets.is_empty() {
        return Err(Failure::bad_data("no match[] parameter provided"));
    }
    if p.flag("dry_run")? {
        let counted = source.count_series(&sets, start_ms, end_ms).map_err(|e| Failure::operation(&e))?;
        return Ok(Answer::data(move |out| {
            out.raw(&format!("{{\"series\":{},\"samples\":{}}}", counted.0, counted.1));
        }));
    }
    for matchers in &sets {
        source.delete_series(start_ms, end_ms, matchers).map_err(|e| Failure::operation(&e))?;
    }
    Ok(Answer::nothing())
}

/// `/api/v1/admin/tsdb/clean_tombstones`
pub(crate) fn clean_tombstones(app: &Arc<App>) -> Result<Answer, Failure> {
    source(app)?.clean_tombstones().map_err(|e| Failure::operation(&e))?;
    Ok(Answer::nothing())
}

/// `/api/v1/admin/tsdb/snapshot`
pub(crate) fn snapshot(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let source = source(app)?;
    let skip_head = request.params.flag("skip_head")?;
    let name = source.snapshot(skip_head).map_err(|e| {
        let f = Failure::operation(&e);
        Failure::new(f.kind, format!("create snapshot: {}", f.text))
    })?;
    Ok(Answer::data(move |out| {
        out.raw("{\"name\":");
        out.string(&name);
        out.raw("}");
    }))
}
