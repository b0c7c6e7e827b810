//! What the program says about itself: `/status/*`, `/features`, `/notifications`.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::proto::{Metric, MetricFamily, MetricType};
use regex::Regex;
use serde_json::value::RawValue;

use crate::app::{Answer, App, Request};
use crate::body::BodyOut;
use crate::failure::Failure;
use crate::json::write_float;
use crate::params::parse_int;
use crate::sources::BuildInfo;

const TSDB_LIMIT_DEFAULT: usize = 10;
const TSDB_LIMIT_MAX: usize = 10_000;

/// `/api/v1/status/config`
pub(crate) fn config(app: &Arc<App>) -> Result<Answer, Failure> {
    let yaml = app.deps.status.config_yaml();
    Ok(Answer::data(move |out| {
        out.raw("{\"yaml\":");
        out.string(&yaml);
        out.raw("}");
    }))
}

/// `/api/v1/status/flags`
pub(crate) fn flags(app: &Arc<App>) -> Result<Answer, Failure> {
    let flags = app.deps.status.flags();
    Ok(Answer::data(move |out| map(out, &flags, |out, v| out.string(v))))
}

fn map<V>(out: &mut BodyOut, entries: &BTreeMap<String, V>, each: impl Fn(&mut BodyOut, &V)) {
    out.raw("{");
    for (i, (name, value)) in entries.iter().enumerate() {
        out.raw(if i > 0 { "," } else { "" });
        out.string(name);
        out.raw(":");
        each(out, value);
    }
    out.raw("}");
}

/// `/api/v1/status/buildinfo`
pub(crate) fn build_info(app: &Arc<App>) -> Result<Answer, Failure> {
    let info = app.deps.status.build_info();
    Ok(Answer::data(move |out| fields(out, &build_fields(&info))))
}

/// Build information as an object.
pub(crate) fn build_fields(info: &BuildInfo) -> [(&'static str, &str); 6] {
    [
        ("version", &info.version),
        ("revision", &info.revision),
        ("branch", &info.branch),
        ("buildUser", &info.build_user),
        ("buildDate", &info.build_date),
        ("goVersion", &info.toolchain),
    ]
}

fn fields(out: &mut BodyOut, list: &[(&str, &str)]) {
    out.raw("{");
    for (i, (name, value)) in list.iter().enumerate() {
        out.raw(if i > 0 { "," } else { "" });
        out.key(name);
        out.string(value);
    }
    out.raw("}");
}

/// `/api/v1/status/runtimeinfo`
pub(crate) fn runtime_info(app: &Arc<App>) -> Result<Answer, Failure> {
    let info = app.deps.status.runtime_info();
    let now_ms = app.deps.clock.now_ms();
    Ok(Answer::data(move |out| {
        out.raw("{\"startTime\":");
        out.time(Some(info.start_time_ms));
        out.raw(",\"CWD\":");
        out.string(&info.cwd);
        out.raw(",\"hostname\":");
        out.string(&info.hostname);
        out.raw(",\"serverTime\":");
        out.time(Some(now_ms));
        out.raw(",\"reloadConfigSuccess\":");
        out.bool(info.reload_config_success);
        out.raw(",\"lastConfigTime\":");
        out.time(Some(info.last_config_time_ms));
        for (name, n) in [
            ("corruptionCount", info.corruption_count),
            ("goroutineCount", info.task_count),
            ("GOMAXPROCS", info.worker_threads),
            ("GOMEMLIMIT", info.memory_limit_bytes),
        ] {
            out.raw(",");
            out.key(name);
            out.int(n);
        }
        out.raw(",\"GOGC\":\"\",\"GODEBUG\":\"\",\"storageRetention\":");
        out.string(&info.storage_retention);
        out.raw("}");
    }))
}

/// How many entries a list may have.
pub(crate) fn list_limit(request: &Request) -> Result<usize, Failure> {
    match request.params.get("limit") {
        "" => Ok(TSDB_LIMIT_DEFAULT),
        text => match parse_int(text).ok().and_then(|n| usize::try_from(n).ok()) {
            Some(0) | None => Err(Failure::bad_data("limit must be a positive number")),
            Some(n) if n > TSDB_LIMIT_MAX => {
                Err(Failure::bad_data(format!("limit must not exceed {TSDB_LIMIT_MAX}")))
            }
            Some(n) => Ok(n),
        },
    }
}

/// `/api/v1/status/tsdb`
pub(crate) fn tsdb(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let limit = list_limit(request)?;
    let s = app.deps.status.tsdb_status(limit).map_err(|e| Failure::operation(&e))?;
    Ok(Answer::data(move |out| {
        out.raw("{\"headStats\":{\"numSeries\":");
        out.int(s.num_series);
        out.raw(",\"numLabelPairs\":");
        out.int(s.num_label_pairs);
        out.raw(",\"chunkCount\":");
        out.int(s.chunk_count);
        out.raw(",\"minTime\":");
        out.int(s.min_time_ms);
        out.raw(",\"maxTime\":");
        out.int(s.max_time_ms);
        out.raw("}");
        for (name, list) in [
            ("seriesCountByMetricName", &s.series_count_by_metric_name),
            ("labelValueCountByLabelName", &s.label_value_count_by_label_name),
            ("memoryInBytesByLabelName", &s.memory_in_bytes_by_label_name),
            ("seriesCountByLabelValuePair", &s.series_count_by_label_value_pair),
        ] {
            out.raw(",");
            out.key(name);
            out.list(list.iter().take(limit), |out, (name, n)| {
                out.raw("{\"name\":");
                out.string(name);
                out.raw(",\"value\":");
                out.int(*n);
                out.raw("}");
            });
        }
        out.raw("}");
    }))
}

/// `/api/v1/status/tsdb/blocks`
pub(crate) fn blocks(app: &Arc<App>) -> Result<Answer, Failure> {
    let metas = app.deps.status.tsdb_blocks().map_err(|e| Failure::operation(&e))?;
    let mut checked = Vec::with_capacity(metas.len());
    for text in metas {
        let raw = RawValue::from_string(text)
            .map_err(|e| Failure::internal(format!("error getting block metadata: {e}")))?;
        checked.push(raw);
    }
    Ok(Answer::data(move |out| {
        out.raw("{\"blocks\":");
        out.list(&checked, |out, raw| out.raw(raw.get()));
        out.raw("}");
    }))
}

/// `/api/v1/status/walreplay`
pub(crate) fn wal_replay(app: &Arc<App>) -> Result<Answer, Failure> {
    let s = app.deps.status.wal_replay();
    Ok(Answer::data(move |out| {
        out.raw(&format!("{{\"min\":{},\"max\":{},\"current\":{}}}", s.min, s.max, s.current));
    }))
}

/// `/api/v1/features`
pub(crate) fn features(app: &Arc<App>) -> Result<Answer, Failure> {
    let mut all = app.deps.engine.features();
    for (category, features) in app.deps.status.features() {
        all.entry(category).or_default().extend(features);
    }
    let api = all.entry("api".into()).or_default();
    let c = &app.config;
    for (name, on) in [
        ("admin", c.enable_admin_api),
        ("lifecycle", c.enable_lifecycle),
        ("remote_write_receiver", c.enable_remote_write_receiver),
        ("otlp_write_receiver", c.enable_otlp_receiver),
        ("search", false),
        ("exclude_alerts", true),
        ("label_values_match", true),
        ("query_stats", true),
        ("query_warnings", true),
        ("time_range_labels", true),
        ("time_range_series", true),
    ] {
        api.insert(name.into(), on);
    }
    Ok(Answer::data(move |out| map(out, &all, |out, group| map(out, group, |out, on| out.bool(*on)))))
}

/// `/api/v1/notifications`
pub(crate) fn notifications(app: &Arc<App>) -> Result<Answer, Failure> {
    let list = app.deps.status.notifications();
    Ok(Answer::data(move |out| {
        out.list(&list, |out, n| {
            out.raw("{\"text\":");
            out.string(&n.text);
            out.raw(",\"date\":");
            out.time(Some(n.date_ms));
            out.raw(",\"active\":");
            out.bool(n.active);
            out.raw("}");
        });
    }))
}

/// `/api/v1/status/self_metrics`: the registry in the JSON form of its protobuf message.
pub(crate) fn self_metrics(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let filter = match request.params.get("metric_name_pattern") {
        "" => None,
        pattern => Some(
            Regex::new(&format!("^(?:{pattern})$"))
                .map_err(|e| Failure::bad_data(format!("invalid metric_name_pattern: {e}")))?,
        ),
    };
    let mut families = app.deps.registry.gather();
    families.retain(|f| filter.as_ref().is_none_or(|re| re.is_match(f.name())));
    Ok(Answer::data(move |out| out.list(&families, write_family)))
}

fn write_family(out: &mut BodyOut, family: &MetricFamily) {
    let kind = family.get_field_type();
    out.raw("{\"name\":");
    out.string(family.name());
    out.raw(",\"help\":");
    out.string(family.help());
    out.raw(",\"type\":\"");
    out.raw(match kind {
        MetricType::COUNTER => "COUNTER",
        MetricType::GAUGE => "GAUGE",
        MetricType::SUMMARY => "SUMMARY",
        MetricType::HISTOGRAM => "HISTOGRAM",
        MetricType::UNTYPED => "UNTYPED",
    });
    out.raw("\",\"metric\":");
    out.list(family.get_metric(), |out, m| write_metric(out, kind, m));
    out.raw("}");
}

fn write_metric(out: &mut BodyOut, kind: MetricType, m: &Metric) {
    out.raw("{");
    if !m.get_label().is_empty() {
        out.raw("\"label\":");
        out.list(m.get_label(), |out, l| {
            out.raw("{\"name\":");
            out.string(l.name());
            out.raw(",\"value\":");
            out.string(l.value());
            out.raw("}");
        });
        out.raw(",");
    }
    match kind {
        MetricType::COUNTER => simple(out, "counter", m.get_counter().get_value()),
        MetricType::GAUGE | MetricType::UNTYPED => simple(out, "gauge", m.get_gauge().get_value()),
        MetricType::HISTOGRAM => {
            let h = m.get_histogram();
            out.raw(&format!("\"histogram\":{{\"sampleCount\":\"{}\",\"sampleSum\":", h.get_sample_count()));
            proto_number(out, h.get_sample_sum());
            out.raw(",\"bucket\":");
            out.list(h.get_bucket(), |out, b| {
                out.raw(&format!("{{\"cumulativeCount\":\"{}\",\"upperBound\":", b.cumulative_count()));
                proto_number(out, b.upper_bound());
                out.raw("}");
            });
            out.raw("}");
        }
        MetricType::SUMMARY => {
            let s = m.get_summary();
            out.raw(&format!("\"summary\":{{\"sampleCount\":\"{}\",\"sampleSum\":", s.sample_count()));
            proto_number(out, s.sample_sum());
            out.raw("}");
        }
    }
    out.raw("}");
}

fn simple(out: &mut BodyOut, name: &str, value: f64) {
    out.key(name);
    out.raw("{\"value\":");
    proto_number(out, value);
    out.raw("}");
}

/// Numbers of protobuf's JSON form: what JSON has no word for is a string.
fn proto_number(out: &mut BodyOut, f: f64) {
    if f.is_nan() {
        out.raw("\"NaN\"");
    } else if f.is_infinite() {
        out.raw(if f > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" });
    } else {
        write_float(out.buf(), f);
    }
}
