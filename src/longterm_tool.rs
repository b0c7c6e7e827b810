//! `almanac longterm audit | backfill | preview | verify`: what is in the long-term node, or should be.
//!
//! One file a command. They speak to running nodes over HTTP ([`Node`]); only `backfill --data` and `verify` read files.

use std::time::Duration;

use anyhow::{Context, bail};
use federation::config::RemoteReadConfig;
use federation::http::{HttpClient, HttpConfig, Need, Outgoing, parse_url};
use model::Matcher;
use model::calendar::DateTime;
use tokio::runtime::Runtime;

use crate::cli::{LongtermCommand, LongtermFlags};
use crate::tsdb_tool::progress::Interrupt;

mod audit;
mod backfill;
mod preview;
mod verify;

/// Time for one request that is no long read.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Longest answer taken.
const RESPONSE_LIMIT_BYTES: usize = 64 << 20;

/// Runs a command and says whether it succeeded; `audit` only does when nothing is missing, `verify` when nothing is damaged.
pub fn run(flags: &LongtermFlags) -> bool {
    match run_inner(flags) {
        Ok(good) => good,
        Err(e) => {
            eprintln!("almanac: {e:#}");
            false
        }
    }
}

fn run_inner(flags: &LongtermFlags) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = match &flags.what {
        Some(LongtermCommand::Audit(f)) => audit::audit(f, &runtime, &Interrupt::watch()?),
        Some(LongtermCommand::Backfill(f)) => backfill::backfill(f, &runtime, &Interrupt::watch()?),
        Some(LongtermCommand::Preview(f)) => preview::preview(f, &runtime),
        Some(LongtermCommand::Verify(f)) => verify::verify(f, &Interrupt::watch()?),
        None => bail!("no command"),
    };
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Reads selectors.
fn selectors(texts: &[String]) -> anyhow::Result<Vec<Vec<Matcher>>> {
    let one =
        |t: &String| promql::parser::parse_selector(t).map_err(|e| anyhow::anyhow!("--match {t:?}: {e}"));
    texts.iter().map(one).collect()
}

/// A node's HTTP API.
struct Node<'a> {
    base: String,
    client: HttpClient,
    runtime: &'a Runtime,
}

impl<'a> Node<'a> {
    fn new(base: &str, runtime: &'a Runtime) -> anyhow::Result<Self> {
        let client = HttpClient::new(&HttpConfig::default())?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), client, runtime })
    }

    /// The `data` of an answer of the API; nothing for an answer without.
    fn ask(&self, path: &str, form: Option<String>) -> anyhow::Result<serde_json::Value> {
        let url = format!("{}{path}", self.base);
        let uri = parse_url(&url)?;
        let kind = http::HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = [(http::header::CONTENT_TYPE, kind)];
        let request = Outgoing {
            method: if form.is_some() { http::Method::POST } else { http::Method::GET },
            uri: &uri,
            headers: if form.is_some() { &headers } else { &[] },
            body: form.unwrap_or_default().into(),
            timeout: TIMEOUT,
            response_limit_bytes: RESPONSE_LIMIT_BYTES,
            need: Need::Whole,
        };
        let response =
            self.runtime.block_on(self.client.send(request)).with_context(|| format!("ask {url}"))?;
        if response.body.is_empty() && response.status.is_success() {
            return Ok(serde_json::Value::Null);
        }
        let body: serde_json::Value = serde_json::from_slice(&response.body).with_context(|| {
            format!("{url} answered {} and no JSON: {}", response.status, response.first_line())
        })?;
        match body["status"].as_str() {
            Some("success") => Ok(body["data"].clone()),
            _ => bail!("{url}: {}", body["error"].as_str().unwrap_or("no reason given")),
        }
    }

    /// How to read samples and digests from it.
    fn read_config(&self, name: &str) -> RemoteReadConfig {
        let url = format!("{}/api/v1/read", self.base);
        RemoteReadConfig { timeout: Duration::from_secs(300), ..RemoteReadConfig::new(name, url) }
    }
}

/// A form of selectors and times.
fn form(matchers: &[String], start_ms: Option<i64>, end_ms: Option<i64>) -> String {
    let mut form: Vec<String> = matchers.iter().map(|m| format!("match%5B%5D={}", escaped(m))).collect();
    let times = [("start", start_ms), ("end", end_ms)];
    form.extend(times.iter().filter_map(|(name, t)| t.map(|t| format!("{name}={}", t as f64 / 1000.0))));
    form.join("&")
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// A time for people.
fn date(ms: i64) -> String {
    let d = DateTime::from_ms(ms);
    format!("{:04}-{:02}-{:02} {:02}:{:02} UTC", d.year, d.month, d.day, d.hour, d.minute)
}

/// A count for people: digits in groups of three.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_for_people_and_servers() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123), "123");
        assert_eq!(date(1_445_412_480_000), "2015-10-21 07:28 UTC");
        let form = form(&["up{a=\"b c\"}".into()], Some(-1500), None);
        assert_eq!(form, "match%5B%5D=up%7Ba%3D%22b%20c%22%7D&start=-1.5");
    }
}
