//! The query log: one line of JSON for every query that ended, as Prometheus writes it. `ts` repeats `time` under the name
//! that it had before version 3.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use promql::{QueryLog, QueryRecord, QueryStats, StepStats};
use serde::Serialize;

/// A query log in a file.
pub struct QueryLogFile {
    file: Mutex<File>,
}

impl QueryLogFile {
    /// Opens `path` to add to it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(path: &Path) -> anyhow::Result<Arc<dyn QueryLog>> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("global.query_log_file: cannot write {}", path.display()))?;
        Ok(Arc::new(Self { file: Mutex::new(file) }))
    }
}

impl QueryLog for QueryLogFile {
    fn log(&self, record: &QueryRecord<'_>) -> Result<(), String> {
        let mut line = serde_json::to_vec(&Line::new(record)).map_err(|e| e.to_string())?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write, so that lines stay whole beside those of others.
        file.write_all(&line).map_err(|e| e.to_string())
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    level: &'static str,
    msg: &'static str,
    params: Params<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    stats: Stats,
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(flatten)]
    origin: BTreeMap<&'static str, BTreeMap<&'static str, &'a str>>,
    ts: String,
}

#[derive(Serialize)]
struct Params<'a> {
    end: String,
    query: &'a str,
    start: String,
    /// Whole seconds.
    step: i64,
}

#[derive(Serialize)]
struct Stats {
    timings: Timings,
    samples: Samples,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Timings {
    eval_total_time: f64,
    result_sort_time: f64,
    query_preparation_time: f64,
    inner_eval_time: f64,
    exec_queue_time: f64,
    exec_total_time: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Samples {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    total_queryable_samples_per_step: Vec<(f64, u64)>,
    total_queryable_samples: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples_read_per_step: Vec<(f64, u64)>,
    samples_read: u64,
    peak_samples: u64,
}

impl<'a> Line<'a> {
    fn new(r: &QueryRecord<'a>) -> Self {
        let now = promql::format_date(r.now_ms);
        Self {
            time: now.clone(),
            level: "INFO",
            msg: "promql query logged",
            params: Params {
                end: promql::format_date(r.end_ms),
                query: r.query,
                start: promql::format_date(r.start_ms),
                step: r.step_ms / 1_000,
            },
            error: r.error.map(ToString::to_string),
            stats: Stats::new(r.stats),
            // Without a trace, zeros, as in Prometheus.
            span_id: r.trace.map(|t| t.span_id).unwrap_or_default().to_string(),
            trace_id: r.trace.map(|t| t.trace_id).unwrap_or_default().to_string(),
            origin: r.origin.map(promql::QueryOrigin::fields).into_iter().collect(),
            ts: now,
        }
    }
}

impl Stats {
    fn new(s: &QueryStats) -> Self {
        let points = |of: fn(&StepStats) -> &[u64]| -> Vec<(f64, u64)> {
            s.by_step.as_ref().map_or_else(Vec::new, |b| b.points(of(b)).collect())
        };
        Self {
            timings: Timings {
                eval_total_time: s.eval_total_seconds,
                result_sort_time: s.result_sort_seconds,
                query_preparation_time: s.query_preparation_seconds,
                inner_eval_time: s.inner_eval_seconds,
                exec_queue_time: s.exec_queue_seconds,
                exec_total_time: s.exec_total_seconds,
            },
            samples: Samples {
                total_queryable_samples_per_step: points(|b| &b.queryable),
                total_queryable_samples: s.total_queryable_samples,
                samples_read_per_step: points(|b| &b.read),
                samples_read: s.samples_read,
                peak_samples: s.peak_samples,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use promql::{QueryError, QueryOrigin};

    #[test]
    fn a_line_is_as_prometheus_writes_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("queries.log");
        let stats = QueryStats {
            total_queryable_samples: 7,
            samples_read: 5,
            peak_samples: 3,
            by_step: Some(StepStats {
                start_ms: 500,
                step_ms: 1_000,
                queryable: vec![3, 4],
                read: vec![3, 2],
            }),
            exec_total_seconds: 0.25,
            ..QueryStats::default()
        };
        let origin = QueryOrigin::Http {
            client_ip: "::1".into(),
            method: "GET".into(),
            path: "/api/v1/query_range".into(),
        };
        let record = QueryRecord {
            now_ms: 1_704_067_200_001,
            query: "up == \"<\"",
            start_ms: 500,
            end_ms: 1_500,
            step_ms: 1_000,
            error: None,
            stats: &stats,
            origin: Some(&origin),
            trace: None,
        };
        let context =
            model::trace::SpanContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "");
        let failed = QueryError::Execution("no".into());
        let group = QueryOrigin::RuleGroup { file: "/r.yml".into(), name: "g".into() };
        for _ in 0..2 {
            let log = QueryLogFile::open(&path).expect("writable");
            log.log(&record).expect("written");
            log.log(&QueryRecord {
                error: Some(&failed),
                origin: Some(&group),
                trace: context.as_ref(),
                ..record
            })
            .expect("written");
        }
        let text = std::fs::read_to_string(&path).expect("a log");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert_eq!(lines.len(), 4);
        let expect = serde_json::json!({
            "time": "2024-01-01T00:00:00.001Z", "ts": "2024-01-01T00:00:00.001Z",
            "level": "INFO", "msg": "promql query logged",
            "params": {
                "query": "up == \"<\"", "step": 1,
                "start": "1970-01-01T00:00:00.500Z", "end": "1970-01-01T00:00:01.500Z",
            },
            "stats": {
                "timings": {
                    "evalTotalTime": 0.0, "resultSortTime": 0.0, "queryPreparationTime": 0.0,
                    "innerEvalTime": 0.0, "execQueueTime": 0.0, "execTotalTime": 0.25,
                },
                "samples": {
                    "totalQueryableSamplesPerStep": [[0.5, 3], [1.5, 4]], "totalQueryableSamples": 7,
                    "samplesReadPerStep": [[0.5, 3], [1.5, 2]], "samplesRead": 5, "peakSamples": 3,
                },
            },
            "spanID": "0000000000000000", "traceID": "00000000000000000000000000000000",
            "httpRequest": { "clientIP": "::1", "method": "GET", "path": "/api/v1/query_range" },
        });
        assert_eq!(lines[0], expect);
        assert_eq!(lines[3]["error"], "no");
        assert_eq!(lines[3]["spanID"], "00f067aa0ba902b7");
        assert_eq!(lines[3]["traceID"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(lines[3]["ruleGroup"], serde_json::json!({ "file": "/r.yml", "name": "g" }));
        assert!(lines[3].get("httpRequest").is_none());
    }
}
