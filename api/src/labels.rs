//! Series and labels: `/series`, `/labels`, `/label/<name>/values`.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::labels::Quoted;
use model::{Annotations, Labels, LabelsResult, Matcher, Querier, SelectHints, StorageError};

use crate::app::{Answer, App, Request};
use crate::failure::{Failure, Kind};
use crate::params::{MAX_TIME_MS, MIN_TIME_MS, unescape_name};
use crate::query::TRUNCATED;

/// How often a long loop asks whether anybody still waits.
const CANCEL_EVERY: usize = 128;

struct Selection {
    limit: usize,
    sets: Vec<Vec<Matcher>>,
    start_ms: i64,
    end_ms: i64,
}

impl Selection {
    fn read(request: &Request) -> Result<Self, Failure> {
        let p = &request.params;
        let limit = p.limit()?;
        let start_ms = p.time_or("start", MIN_TIME_MS)?;
        let end_ms = p.time_or("end", MAX_TIME_MS)?;
        Ok(Self { limit, start_ms, end_ms, sets: p.matchers()? })
    }

    /// One more than asked for tells whether something was cut off.
    fn hint_limit(&self) -> usize {
        if self.limit == 0 { 0 } else { self.limit.saturating_add(1) }
    }

    fn querier(&self, app: &App) -> Result<Box<dyn Querier>, Failure> {
        app.deps.queryable.querier(self.start_ms, self.end_ms).map_err(|e| Failure::storage(&e))
    }
}

/// `/api/v1/series`
pub(crate) fn series(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let p = &request.params;
    p.check()?;
    if p.all("match[]").next().is_none() {
        return Err(Failure::bad_data("no match[] parameter provided"));
    }
    let selection = Selection::read(request).map_err(|f| match f {
        // Here, and only here, what is wrong with a selector names the parameter.
        f if f.text.starts_with("invalid parameter") => f,
        f => Failure::invalid("match[]", f.text),
    })?;
    let querier = selection.querier(app)?;
    let mut notes = Annotations::new();
    let mut found = Vec::new();
    for matchers in &selection.sets {
        select_labels(&*querier, matchers, &selection, request, &mut found, &mut notes)?;
    }
    if selection.sets.len() > 1 {
        found.sort_unstable();
        found.dedup();
    }
    if selection.limit > 0 && found.len() > selection.limit {
        found.truncate(selection.limit);
        notes.warn(TRUNCATED);
    }
    Ok(Answer::data(move |out| out.list(&found, |out, l| out.labels(l))).with(notes))
}

fn select_labels(
    querier: &dyn Querier,
    matchers: &[Matcher],
    selection: &Selection,
    request: &Request,
    found: &mut Vec<Labels>,
    notes: &mut Annotations,
) -> Result<(), Failure> {
    let hints = SelectHints {
        start_ms: selection.start_ms,
        end_ms: selection.end_ms,
        func: "series".into(),
        limit: selection.hint_limit(),
        labels_only: true,
        ..SelectHints::default()
    };
    let mut set = querier.select(matchers, &hints).map_err(|e| Failure::storage(&e))?;
    let begun = found.len();
    while let Some(series) = set.next().map_err(|e| Failure::storage(&e))? {
        found.push(series.labels);
        let n = found.len() - begun;
        if n.is_multiple_of(CANCEL_EVERY) && request.cancel.is_cancelled() {
            return Err(Failure::new(Kind::Canceled, "context canceled"));
        }
        if selection.limit > 0 && n > selection.limit {
            break;
        }
    }
    set.warnings().into_iter().for_each(|w| notes.warn(w));
    Ok(())
}

/// `/api/v1/labels`
pub(crate) fn names(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let selection = Selection::read(request)?;
    collect(app, &selection, |q, matchers| q.label_names(matchers, selection.hint_limit()))
}

/// `/api/v1/label/<name>/values`
pub(crate) fn values(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let name = unescape_name(&request.name);
    if name.is_empty() || name.contains('\u{fffd}') && !request.name.contains('\u{fffd}') {
        return Err(Failure::bad_data(format!("invalid label name: {}", Quoted(&name))));
    }
    let selection = Selection::read(request)?;
    collect(app, &selection, |q, matchers| q.label_values(&name, matchers, selection.hint_limit()))
}

fn collect(
    app: &App,
    selection: &Selection,
    ask: impl Fn(&dyn Querier, &[Matcher]) -> Result<LabelsResult, StorageError>,
) -> Result<Answer, Failure> {
    let querier = selection.querier(app)?;
    let mut notes = Annotations::new();
    let mut all = Vec::new();
    if selection.sets.len() > 1 {
        let mut union = BTreeSet::new();
        for matchers in &selection.sets {
            let result = ask(&*querier, matchers).map_err(|e| Failure::storage(&e))?;
            union.extend(result.values);
            result.warnings.into_iter().for_each(|w| notes.warn(w));
        }
        all.extend(union);
    } else {
        let matchers = selection.sets.first().map_or(&[][..], Vec::as_slice);
        let result = ask(&*querier, matchers).map_err(|e| Failure::storage(&e))?;
        all = result.values;
        result.warnings.into_iter().for_each(|w| notes.warn(w));
    }
    if selection.limit > 0 && all.len() > selection.limit {
        all.truncate(selection.limit);
        notes.warn(TRUNCATED);
    }
    Ok(Answer::data(move |out| out.strings(all.iter().map(String::as_str))).with(notes))
}
