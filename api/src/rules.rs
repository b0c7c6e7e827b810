//! Rules and alerts: `/rules`, `/alerts`, `/alertmanagers`. Without a source of rules they answer like a server that has
//! none.

use std::sync::Arc;

use model::{Labels, Matcher};

use crate::app::{Answer, App, Request};
use crate::body::BodyOut;
use crate::failure::Failure;
use crate::json::write_exponent;
use crate::params::{Params, parse_bool};
use crate::sources::{Alert, AlertingRule, Rule, RuleGroup};

/// What a request wants of the rules.
struct Filter {
    names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    sets: Vec<Vec<Matcher>>,
    alerting: bool,
    recording: bool,
}

impl Filter {
    fn read(p: &Params) -> Result<Self, Failure> {
        let list = |name: &str| p.all(name).map(str::to_owned).collect::<Vec<_>>();
        let kind = p.get_url("type").to_lowercase();
        if !matches!(kind.as_str(), "" | "alert" | "record") {
            let why = format!("not supported value {}", model::labels::Quoted(&kind));
            return Err(Failure::invalid("type", why));
        }
        Ok(Self {
            names: list("rule_name[]"),
            groups: list("rule_group[]"),
            files: list("file[]"),
            sets: p.matchers()?,
            alerting: kind != "record",
            recording: kind != "alert",
        })
    }

    fn takes_group(&self, g: &RuleGroup) -> bool {
        let ok = |list: &[String], s: &str| list.is_empty() || list.iter().any(|x| x == s);
        ok(&self.groups, &g.name) && ok(&self.files, &g.file)
    }

    fn takes_rule(&self, r: &Rule) -> bool {
        let kind = if r.alerting.is_some() { self.alerting } else { self.recording };
        kind && (self.names.is_empty() || self.names.contains(&r.name))
            && (self.sets.is_empty() || self.sets.iter().any(|set| Matcher::all_match(set, &r.labels)))
    }
}

/// One page of a long list of groups.
struct Page {
    /// Most groups; 0 for all.
    size: usize,
    /// The first group, by its token.
    from: String,
}

impl Page {
    fn read(p: &Params) -> Result<Self, Failure> {
        let (limit, from) = (p.get_url("group_limit"), p.get_url("group_next_token").to_owned());
        if limit.is_empty() {
            if !from.is_empty() {
                let why = "group_limit needs to be present in order to paginate over the groups";
                return Err(Failure::invalid("group_next_token", why));
            }
            return Ok(Self { size: 0, from });
        }
        let size = limit.parse::<i32>().map_err(|_| {
            let why = format!(
                "group_limit needs to be a valid number: strconv.ParseInt: parsing {}: invalid syntax",
                model::labels::Quoted(limit)
            );
            Failure::invalid("group_limit", why)
        })?;
        match usize::try_from(size) {
            Ok(size) if size > 0 => Ok(Self { size, from }),
            _ => Err(Failure::invalid("group_limit", "group_limit needs to be greater than 0")),
        }
    }

    /// Cuts the groups down to this page and gives the token of the next one.
    fn cut(&self, groups: &mut Vec<RuleGroup>) -> Option<String> {
        if self.size == 0 || groups.len() <= self.size {
            return None;
        }
        let next = token(&groups[self.size]);
        groups.truncate(self.size);
        Some(next)
    }
}

fn token(g: &RuleGroup) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(format!("{};{}", g.file, g.name).as_bytes()))
}

/// `/api/v1/rules`
pub(crate) fn rules(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let p = &request.params;
    p.check()?;
    let filter = Filter::read(p)?;
    let with_alerts = match p.get_url("exclude_alerts") {
        "" => true,
        text => !parse_bool(&text.to_lowercase()).map_err(|e| {
            Failure::invalid("exclude_alerts", format!("error converting exclude_alerts: {e}"))
        })?,
    };
    let page = Page::read(p)?;
    let mut groups = app.deps.rules.as_ref().map(|r| r.groups()).unwrap_or_default();
    if !page.from.is_empty() {
        let Some(at) = groups.iter().position(|g| token(g) == page.from) else {
            let why = format!("invalid group_next_token '{}'. were rule groups changed?", page.from);
            return Err(Failure::invalid("group_next_token", why));
        };
        groups.drain(..at);
    }
    groups.retain(|g| filter.takes_group(g));
    for g in &mut groups {
        g.rules.retain(|r| filter.takes_rule(r));
    }
    groups.retain(|g| !g.rules.is_empty());
    let next = page.cut(&mut groups);
    Ok(Answer::data(move |out| {
        out.raw("{\"groups\":");
        out.list(&groups, |out, g| write_group(out, g, with_alerts));
        if let Some(next) = &next {
            out.raw(",\"groupNextToken\":");
            out.string(next);
        }
        out.raw("}");
    }))
}

fn write_group(out: &mut BodyOut, g: &RuleGroup, with_alerts: bool) {
    out.raw("{\"name\":");
    out.string(&g.name);
    out.raw(",\"file\":");
    out.string(&g.file);
    out.raw(",\"rules\":");
    out.list(&g.rules, |out, r| match &r.alerting {
        Some(a) => write_alerting(out, r, a, with_alerts),
        None => write_recording(out, r),
    });
    out.raw(",\"interval\":");
    out.number(g.interval_seconds);
    out.raw(",\"limit\":");
    out.int(g.limit);
    write_evaluation(out, g.evaluation_seconds, g.last_evaluation_ms);
    out.raw("}");
}

fn write_evaluation(out: &mut BodyOut, seconds: f64, at_ms: Option<i64>) {
    out.raw(",\"evaluationTime\":");
    out.number(seconds);
    out.raw(",\"lastEvaluation\":");
    out.time(at_ms);
}

fn write_alerting(out: &mut BodyOut, r: &Rule, a: &AlertingRule, with_alerts: bool) {
    out.raw("{\"state\":");
    out.string(&a.state);
    write_name_and_query(out, ",", r);
    out.raw(",\"duration\":");
    out.number(a.hold_seconds);
    out.raw(",\"keepFiringFor\":");
    out.number(a.keep_firing_seconds);
    out.raw(",\"labels\":");
    out.labels(&r.labels);
    out.raw(",\"annotations\":");
    out.labels(&a.annotations);
    out.raw(",\"alerts\":");
    if with_alerts {
        out.list(&a.alerts, write_alert);
    } else {
        out.raw("null");
    }
    write_health(out, r);
    out.raw(",\"type\":\"alerting\"}");
}

fn write_recording(out: &mut BodyOut, r: &Rule) {
    write_name_and_query(out, "{", r);
    if r.labels != Labels::empty() {
        out.raw(",\"labels\":");
        out.labels(&r.labels);
    }
    write_health(out, r);
    out.raw(",\"type\":\"recording\"}");
}

fn write_name_and_query(out: &mut BodyOut, before: &str, r: &Rule) {
    out.raw(before);
    out.raw("\"name\":");
    out.string(&r.name);
    out.raw(",\"query\":");
    out.string(&r.query);
}

fn write_health(out: &mut BodyOut, r: &Rule) {
    out.raw(",\"health\":");
    out.string(&r.health);
    if !r.last_error.is_empty() {
        out.raw(",\"lastError\":");
        out.string(&r.last_error);
    }
    write_evaluation(out, r.evaluation_seconds, r.last_evaluation_ms);
}

fn write_alert(out: &mut BodyOut, a: &Alert) {
    out.raw("{\"labels\":");
    out.labels(&a.labels);
    out.raw(",\"annotations\":");
    out.labels(&a.annotations);
    out.raw(",\"state\":");
    out.string(&a.state);
    out.raw(",\"activeAt\":");
    out.time(Some(a.active_at_ms));
    if a.keep_firing_since_ms.is_some() {
        out.raw(",\"keepFiringSince\":");
        out.time(a.keep_firing_since_ms);
    }
    out.raw(",\"value\":\"");
    write_exponent(out.buf(), a.value);
    out.raw("\"}");
}

/// `/api/v1/alerts`
pub(crate) fn alerts(app: &Arc<App>) -> Result<Answer, Failure> {
    let groups = app.deps.rules.as_ref().map(|r| r.groups()).unwrap_or_default();
    let rules = groups.into_iter().flat_map(|g| g.rules);
    let alerts: Vec<_> = rules.filter_map(|r| r.alerting).flat_map(|a| a.alerts).collect();
    Ok(Answer::data(move |out| {
        out.raw("{\"alerts\":");
        out.list(&alerts, write_alert);
        out.raw("}");
    }))
}

/// `/api/v1/alertmanagers`
pub(crate) fn alertmanagers(app: &Arc<App>) -> Result<Answer, Failure> {
    let (active, dropped) = app.deps.rules.as_ref().map(|r| r.alertmanagers()).unwrap_or_default();
    let write = |out: &mut BodyOut, url: &String| {
        out.raw("{\"url\":");
        out.string(url);
        out.raw("}");
    };
    Ok(Answer::data(move |out| {
        out.raw("{\"activeAlertmanagers\":");
        out.list(&active, write);
        out.raw(",\"droppedAlertmanagers\":");
        out.list(&dropped, write);
        out.raw("}");
    }))
}
