//! `tsdb create-blocks-from rules`: the past of recording rules, evaluated by a server that has the data.
//!
//! Each rule is asked for with one range query a block, at the moments its group would have been evaluated. What the
//! server answers becomes a block: whole, or not at all. Alerting rules are left out, histograms too.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/storage/#backfilling-for-recording-rules>.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use federation::http::{HttpClient, HttpConfig, Need, Outgoing, Response, parse_url};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode, Uri};
use model::labels::METRIC_NAME;
use model::relabel::NameValidation;
use model::{Clock, Labels, LabelsBuilder, SampleValue, SystemClock};
use promql::parser::ParserOptions;
use rules::{GroupConfig, RuleConfig, RuleKind};
use serde::Deserialize;

use super::progress::{Interrupt, Interrupted, Progress};
use crate::cli::{BackfillFlags, RuleImportFlags};
use crate::config::{http::HttpFile, rules as rule_files, scalar::Ms, settings, yaml};

/// Where a backfill ends when nothing is said: what is newer is still in the head of the server.
const UNTIL_NOW_MS: i64 = 3 * 3_600_000;
/// Time for one query.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Longest answer taken.
const RESPONSE_LEN_BYTES_MAX: usize = 1 << 30;

pub(super) fn import(
    shared: &BackfillFlags,
    flags: &RuleImportFlags,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let clock = SystemClock::new();
    let end = flags.end.map_or_else(|| clock.now_ms() - UNTIL_NOW_MS, Ms::ms);
    if flags.start.ms() >= end {
        bail!("start time is not before end time");
    }
    let mut groups = Vec::new();
    for file in &flags.files {
        groups.extend(load(file, flags.eval_interval).context("rule importer parse error")?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let mut importer = Importer {
        server: Server::new(&flags.url, flags.http_config.as_deref()).context("new api client error")?,
        runtime: &runtime,
        interrupt,
        output: &flags.output,
        clock,
        // The server sees whole seconds; so do the bounds of blocks.
        range: (flags.start.ms().div_euclid(1000), end.div_euclid(1000)),
        block_ms: super::compatible_block(shared.max_block_duration.ms()),
        progress: Progress::new(shared.quiet),
        samples: 0,
    };
    importer.import_all(&groups)
}

fn load(file: &Path, interval: Ms) -> anyhow::Result<Vec<GroupConfig>> {
    let parser = ParserOptions::all();
    let names = NameValidation::Utf8;
    Ok(rule_files::load(file, &rule_files::Defaults { interval, query_offset: Ms(0), names, parser })?)
}

struct Importer<'a> {
    server: Server,
    runtime: &'a tokio::runtime::Runtime,
    interrupt: &'a Interrupt,
    output: &'a Path,
    clock: SystemClock,
    /// First and last second.
    range: (i64, i64),
    block_ms: i64,
    progress: Progress,
    /// Samples that are in blocks.
    samples: u64,
}

impl Importer<'_> {
    /// A rule that fails does not keep the others from being imported.
    fn import_all(&mut self, groups: &[GroupConfig]) -> anyhow::Result<()> {
        let recording = |r: &&RuleConfig| matches!(r.kind, RuleKind::Recording { .. });
        let rules: Vec<(&GroupConfig, &RuleConfig)> =
            groups.iter().flat_map(|g| g.rules.iter().filter(recording).map(move |r| (g, r))).collect();
        let mut failed = false;
        for (i, (group, rule)) in rules.iter().enumerate() {
            let share = |of_rule: f64| (i as f64 + of_rule) / rules.len() as f64;
            match self.import_rule(group, rule, &share) {
                Err(e) if e.is::<Interrupted>() => return Err(e),
                Err(e) => {
                    self.progress.clear();
                    eprintln!("rule importer error: {e:#}: group {:?}, rule {:?}", group.name, rule.name());
                    failed = true;
                }
                Ok(()) => {}
            }
        }
        if failed {
            bail!("error importing rules");
        }
        Ok(())
    }

    fn import_rule(
        &mut self,
        group: &GroupConfig,
        rule: &RuleConfig,
        share: &dyn Fn(f64) -> f64,
    ) -> anyhow::Result<()> {
        let expr = promql::parser::parse(&rule.expr, &ParserOptions::all())?.to_string();
        let labels = group.labels_of(rule);
        let (first, last) = self.range;
        let mut block_start = first * 1000 / self.block_ms * self.block_ms;
        while block_start <= last * 1000 {
            let block_end = block_start + self.block_ms - 1;
            let start_ns = aligned(group, (block_start / 1000).max(first));
            let end = (block_end / 1000).min(last);
            if i128::from(end) * NS < start_ns {
                break;
            }
            let answer = self.ask(&RangeQuery { expr: &expr, start_ns, end, step_ms: group.interval_ms })?;
            self.write_block(&answer, rule.name(), &labels)?;
            block_start += self.block_ms;
            let done = (block_start / 1000 - first) as f64 / (last - first).max(1) as f64;
            self.progress.show(Some(share(done.min(1.0))), self.samples, "samples");
        }
        Ok(())
    }

    fn ask(&mut self, query: &RangeQuery<'_>) -> anyhow::Result<Bytes> {
        self.interrupt.check()?;
        self.runtime.block_on(async {
            tokio::select! {
                answer = self.server.range_query(query) => answer.context("query range"),
                () = self.interrupt.raised() => Err(Interrupted.into()),
            }
        })
    }

    fn write_block(&mut self, answer: &Bytes, name: &str, extra: &Labels) -> anyhow::Result<()> {
        let data = matrix(answer)?;
        self.progress.clear();
        for warning in data.warnings.iter().flatten() {
            eprintln!("range query of {name:?} returned a warning: {warning}");
        }
        let mut builder = super::block_builder(self.output, self.block_ms)?;
        for series in &data.result {
            let mut labels = LabelsBuilder::new();
            for (n, v) in &series.metric {
                labels.set(n, v);
            }
            // The labels of the rule win over those of the answer.
            for (n, v) in extra.iter() {
                labels.set(n, v);
            }
            let labels = labels.set(METRIC_NAME, name).build();
            for (t, v) in &series.values {
                let v = value(v).with_context(|| format!("query range: value {v:?}"))?;
                builder.append(&labels, (t * 1000.0).round() as i64, SampleValue::Float(v)).context("add")?;
                self.samples += 1;
            }
        }
        self.interrupt.check()?;
        builder.finish(&self.clock).context("flush and commit")?;
        Ok(())
    }
}

const NS: i128 = 1_000_000_000;

/// The first moment from `second` on at which the group is evaluated, in nanoseconds.
fn aligned(group: &GroupConfig, second: i64) -> i128 {
    let interval = i128::from(group.interval_ms) * 1_000_000;
    let hash = Labels::from_pairs([("name", &group.name), ("file", &group.file)]).prometheus_hash64();
    let offset = i128::from(hash) % interval;
    let shifted = i128::from(second) * NS - offset;
    let mut at = shifted - shifted % interval + offset;
    while at.div_euclid(NS) < i128::from(second) {
        at += interval;
    }
    at
}

// === The server ===

struct RangeQuery<'a> {
    expr: &'a str,
    start_ns: i128,
    /// In seconds.
    end: i64,
    step_ms: i64,
}

impl RangeQuery<'_> {
    fn form(&self) -> String {
        let start = (self.start_ns.div_euclid(NS)) as f64 + self.start_ns.rem_euclid(NS) as f64 / 1e9;
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair("end", &self.end.to_string())
            .append_pair("query", self.expr)
            .append_pair("start", &start.to_string())
            .append_pair("step", &(self.step_ms as f64 / 1000.0).to_string())
            .finish()
    }
}

struct Server {
    uri: Uri,
    client: HttpClient,
}

impl Server {
    fn new(url: &str, config: Option<&Path>) -> anyhow::Result<Self> {
        let http = config.map_or_else(|| Ok(HttpConfig::default()), http_config)?;
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri = parse_url(&format!("{}/api/v1/query_range", url.trim_end_matches('/')))?;
        Ok(Self { uri, client: HttpClient::new(&http)? })
    }

    /// Asks with POST, since expressions may be long, and with GET where that is not known.
    async fn range_query(&self, query: &RangeQuery<'_>) -> anyhow::Result<Bytes> {
        let form = query.form();
        let content_type = [(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))];
        let mut response =
            self.send(Method::POST, &self.uri, &content_type, Bytes::from(form.clone())).await?;
        if matches!(response.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
            let uri: Uri = format!("{}?{form}", self.uri).parse().context("address of the query")?;
            response = self.send(Method::GET, &uri, &[], Bytes::new()).await?;
        }
        check(response)
    }

    async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: &[(http::HeaderName, HeaderValue)],
        body: Bytes,
    ) -> anyhow::Result<Response> {
        let response_limit_bytes = RESPONSE_LEN_BYTES_MAX;
        let outgoing = Outgoing {
            method,
            uri,
            headers,
            body,
            timeout: TIMEOUT,
            response_limit_bytes,
            need: Need::Whole,
        };
        self.client.send(outgoing).await.with_context(|| uri.to_string())
    }
}

/// Settings of an HTTP client from a file of their own.
///
/// # Errors
/// What is wrong with it.
pub fn http_config(file: &Path) -> anyhow::Result<HttpConfig> {
    let text = yaml::read_file(file)?;
    let parsed = yaml::parse::<HttpFile>(&text).and_then(|mut parsed| {
        let dir = file.parent().unwrap_or(Path::new(""));
        parsed.http().finish(dir, true).map_err(yaml::Problem::new)?;
        settings::http_config(&parsed.http())
    });
    parsed.map_err(|p| p.in_file(file).into())
}

/// The body of an answer that is none of an error.
fn check(response: Response) -> anyhow::Result<Bytes> {
    if response.status.is_success() {
        return Ok(response.body);
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Failure {
        error_type: String,
        error: String,
    }
    match serde_json::from_slice::<Failure>(&response.body) {
        Ok(f) => bail!("{}: {}", f.error_type, f.error),
        Err(_) => bail!("the server answered {}: {}", response.status, response.first_line()),
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Data<'a>,
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "resultType")]
    result_type: String,
    #[serde(borrow)]
    result: Vec<AnsweredSeries<'a>>,
    #[serde(skip)]
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct AnsweredSeries<'a> {
    metric: BTreeMap<String, String>,
    /// Seconds, and a number as text.
    #[serde(borrow, default)]
    values: Vec<(f64, Cow<'a, str>)>,
}

fn matrix(body: &[u8]) -> anyhow::Result<Data<'_>> {
    let mut answer: Answer<'_> = serde_json::from_slice(body).context("answer of the server")?;
    if answer.data.result_type != "matrix" {
        bail!("rule result is wrong type {}", answer.data.result_type);
    }
    answer.data.warnings = answer.warnings.take();
    Ok(answer.data)
}

fn value(text: &str) -> anyhow::Result<f64> {
    let v: f64 = text.parse()?;
    Ok(if v.is_nan() { model::staleness::normal_nan() } else { v })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_group() {
        let group = |name: &str, interval_ms| GroupConfig {
            name: name.into(),
            file: "r.yml".into(),
            interval_ms,
            query_offset_ms: 0,
            limit: 0,
            labels: Vec::new(),
            rules: Vec::new(),
        };
        // As promtool evaluates groups of these names.
        let ms =
            |name, interval_ms| (aligned(&group(name, interval_ms), 1_700_000_100) + 500_000) / 1_000_000;
        assert_eq!((ms("g", 30_000), ms("h", 60_000)), (1_700_000_102_184, 1_700_000_129_673));
        for second in [-100, 0, 59, 60, 61] {
            let at = aligned(&group("h", 60_000), second);
            assert!((0..60 * NS + NS).contains(&(at - i128::from(second) * NS)), "{second}: {at}");
        }
    }

    #[test]
    fn answers_are_read() {
        let body = br#"{"status":"success","warnings":["w"],"data":{"resultType":"matrix","result":[
            {"metric":{"a":"b"},"values":[[1700000102.184,"1.5"],[1700000132.184,"NaN"],[2,"+Inf"]],"histograms":[[1,{}]]},
            {"metric":{}}]}}"#;
        let data = matrix(body).expect("read");
        assert_eq!(data.result[0].values.len(), 3);
        assert_eq!((data.result[1].values.len(), data.warnings), (0, Some(vec!["w".into()])));
        assert_eq!(value("NaN").expect("number").to_bits(), model::staleness::normal_nan().to_bits());
        let scalar = br#"{"data":{"resultType":"vector","result":[]}}"#;
        let e = matrix(scalar).err().expect("refused");
        assert_eq!(e.to_string(), "rule result is wrong type vector");
    }
}
