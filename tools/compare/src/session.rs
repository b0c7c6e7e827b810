//! The comparison itself: data is made and loaded, queries are asked on both sides, findings are gathered.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use model::{Clock, SampleValue};
use promql_testkit::generate::{DataSet, EvalTime, GeneratedQuery, Generator, Profile};
use wire::snappy::Compressor;
use wire::write_v1::WriteRequestEncoder;

use crate::answer::{self, Answer, Data};
use crate::difference::{Difference, Rules, compare};
use crate::known::{Case, Features, explain, is_ordered};
use crate::{Client, Error};

/// Distance of the beginnings of data sets: windows and offsets of the queries of one do not reach the next.
const DATA_EVERY_MS: i64 = 4 * 3_600_000;
/// Findings that are kept in full.
const FINDINGS_MAX: usize = 200;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The first data set's seed; each further one has the next.
    pub seed: u64,
    /// Queries to ask.
    pub count: u64,
    /// Stop after this time even if not all are asked.
    pub limit: Option<Duration>,
    /// Queries per data set.
    pub queries_per_data: u64,
    /// What may occur.
    pub profile: Profile,
    /// Where the first data set begins, milliseconds; a multiple of a minute.
    pub start_ms: i64,
    /// Data is written before it is asked for.
    pub load: bool,
    /// Greatest relative distance of equal values.
    pub tolerance: f64,
}

impl Options {
    /// Some queries of a profile.
    #[must_use]
    pub fn new(seed: u64, count: u64, profile: Profile) -> Self {
        Self {
            seed,
            count,
            limit: None,
            queries_per_data: 500,
            start_ms: profile.start_ms.unwrap_or(1_700_000_040_000),
            profile,
            load: true,
            tolerance: 1e-12,
        }
    }
}

/// A difference that nothing explains.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Seed of the data.
    pub seed: u64,
    /// The query.
    pub query: GeneratedQuery,
    /// What differs.
    pub difference: Difference,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, query: GeneratedQuery { text, time }, difference } = self;
        write!(f, "{:?} (data {seed}, {time:?})\n  {text}\n  {}", difference.kind, difference.detail)
    }
}

/// How a comparison went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Versions of both servers.
    pub versions: [String; 2],
    /// Queries asked.
    pub asked: u64,
    /// Answers without a sample on both sides.
    pub empty: u64,
    /// Errors on both sides.
    pub failed: u64,
    /// Explained differences by name, with an example each.
    pub known: BTreeMap<&'static str, (u64, String)>,
    /// Differences that nothing explains.
    pub unexplained: u64,
    /// The first of them.
    pub findings: Vec<Finding>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [left, right] = &self.versions;
        writeln!(f, "{} queries, left {left}, right {right}", self.asked)?;
        writeln!(f, "{} gave nothing on both sides, {} failed on both", self.empty, self.failed)?;
        for (name, (count, example)) in &self.known {
            writeln!(f, "{count} known: {name}; for example {example}")?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        write!(f, "{} unexplained", self.unexplained)
    }
}

/// Asks both servers. `now` is looked at when there is a time limit.
///
/// # Errors
/// When a server does not take data or does not answer as the API says. Answers that differ are no error.
pub fn run(
    left: &mut Client,
    right: &mut Client,
    options: &Options,
    clock: &dyn Clock,
) -> Result<Report, Error> {
    let begin = clock.monotonic();
    let mut report = Report { versions: [version(left)?, version(right)?], ..Report::default() };
    let mut set = 0;
    while report.asked < options.count {
        let start_ms = options.start_ms + set as i64 * DATA_EVERY_MS;
        let seed = options.seed.wrapping_add(set);
        set += 1;
        let profile = Profile { start_ms: Some(start_ms), ..options.profile.clone() };
        let mut generator = Generator::new(seed, profile);
        if options.load {
            let body = write_request(&generator.data())?;
            [&mut *left, &mut *right].into_iter().try_for_each(|c| load(c, &body))?;
        }
        for _ in 0..options.queries_per_data.min(options.count - report.asked) {
            if options.limit.is_some_and(|l| clock.monotonic() - begin > l) {
                return Ok(report);
            }
            let query = generator.query();
            let answers = [ask(left, &query)?, ask(right, &query)?];
            judge(&mut report, options, seed, query, &answers);
        }
    }
    Ok(report)
}

fn judge(report: &mut Report, options: &Options, seed: u64, query: GeneratedQuery, answers: &[Answer; 2]) {
    report.asked += 1;
    let [left, right] = answers;
    match (left, right) {
        (Answer::Failed { .. }, Answer::Failed { .. }) => report.failed += 1,
        (Answer::Given { data: a, .. }, Answer::Given { data: b, .. }) if a.is_empty() && b.is_empty() => {
            report.empty += 1;
        }
        _ => {}
    }
    // Whatever is no Prometheus 2.x means to be one of 3.x.
    let [old_left, old_right] = report.versions.each_ref().map(|v| v.starts_with("2."));
    let same_generation = old_left == old_right;
    let vector = matches!(left, Answer::Given { data: Data::Vector(_), .. });
    let rules = Rules {
        tolerance: options.tolerance,
        ordered: vector && is_ordered(&query.text),
        // Annotations came with 2.48 and changed with most versions since.
        annotations: same_generation,
    };
    let Some(difference) = compare(left, right, rules) else {
        return;
    };
    if !same_generation {
        let features = Features::of(&query.text);
        let case = Case {
            features: &features,
            difference: &difference,
            samples_on_bounds: options.profile.samples_on_bounds,
            instant: matches!(query.time, EvalTime::Instant(_)),
        };
        if let Some(name) = explain(&case) {
            let entry = report.known.entry(name).or_insert_with(|| (0, query.text.clone()));
            entry.0 += 1;
            if query.text.len() < entry.1.len() {
                entry.1 = query.text;
            }
            return;
        }
    }
    report.unexplained += 1;
    if report.findings.len() < FINDINGS_MAX {
        report.findings.push(Finding { seed, query, difference });
    }
}

fn bad_answer(client: &Client, reason: String) -> Error {
    Error::Answer { address: format!("http://{}", client.authority()), reason }
}

fn version(client: &mut Client) -> Result<String, Error> {
    let (status, body) = client.send("GET", "/api/v1/status/buildinfo", &[], Bytes::new())?;
    let json: serde_json::Value = serde_json::from_slice(&body)
        .map_err(|e| bad_answer(client, format!("{status}, buildinfo is not JSON: {e}")))?;
    Ok(json["data"]["version"].as_str().unwrap_or("unknown").to_owned())
}

fn ask(client: &mut Client, query: &GeneratedQuery) -> Result<Answer, Error> {
    let text = ("query", query.text.as_str());
    let (_, body) = match query.time {
        EvalTime::Instant(at) => client.form("/api/v1/query", &[text, ("time", &seconds(at))])?,
        EvalTime::Range { start_ms, end_ms, step_ms } => {
            let (start, end, step) = (seconds(start_ms), seconds(end_ms), seconds(step_ms));
            client.form("/api/v1/query_range", &[text, ("start", &start), ("end", &end), ("step", &step)])?
        }
    };
    answer::read(&body).map_err(|e| bad_answer(client, format!("{:?}: {e}", query.text)))
}

/// Milliseconds as the API wants them.
fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000)
}

// === Data ===

fn write_request(data: &DataSet) -> Result<Bytes, Error> {
    let mut request = WriteRequestEncoder::new();
    for (labels, samples) in &data.series {
        let mut series = request.series_of(labels);
        for s in samples {
            match &s.value {
                SampleValue::Float(v) => series.float(s.timestamp_ms, *v),
                SampleValue::Histogram(h) => series.histogram(s.timestamp_ms, h),
            };
        }
    }
    let mut out = Vec::new();
    Compressor::default().compress(request.as_bytes(), &mut out)?;
    Ok(out.into())
}

fn load(client: &mut Client, body: &Bytes) -> Result<(), Error> {
    const HEADERS: [(&str, &str); 3] = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    let (status, text) = client.send("POST", "/api/v1/write", &HEADERS, body.clone())?;
    if status / 100 == 2 {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    Err(Error::Load { address: format!("http://{}", client.authority()), status, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds() {
        assert_eq!(
            (seconds(1_500), seconds(-5), seconds(-61_000)),
            ("1.500".into(), "-0.005".into(), "-61.000".into())
        );
    }
}
