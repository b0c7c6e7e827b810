//! `almanac check …`: what promtool checks, with its output and exit codes.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use federation::http::{HttpClient, HttpConfig, Need, Outgoing, parse_url};
use http::Method;

use crate::cli::{CheckCommand, ServerFlags};

mod config;
mod families;
mod metrics;
mod rules;
mod service_discovery;

use self::rules::Lint;

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is shown.
const ANSWER_LEN_BYTES_MAX: usize = 1 << 20;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was found.
    Good,
    /// Something is wrong.
    Bad,
    /// Something is unwise, and that was to be an error.
    Lint,
}

impl Verdict {
    /// The exit code of the program.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Bad => 1,
            Self::Lint => 3,
        }
    }

    fn of(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }
}

/// Runs a check.
pub fn run(command: CheckCommand) -> Verdict {
    match command {
        CheckCommand::Config {
            files,
            syntax_only,
            agent,
            lint,
            lint_fatal,
            ignore_unknown_fields,
            lookback_delta,
            features,
        } => {
            let (lint, lookback) = rules::config_lint(&lint, lookback_delta);
            let lint = Lint::new(&lint, lint_fatal, ignore_unknown_fields, &features.features);
            config::run(&files, syntax_only, agent, &lint, lookback)
        }
        CheckCommand::Rules { files, lint, lint_fatal, ignore_unknown_fields, features } => {
            rules::run(&files, &Lint::new(&lint, lint_fatal, ignore_unknown_fields, &features.features))
        }
        CheckCommand::Metrics { extended, lint } => metrics::run(extended, &lint),
        CheckCommand::ServiceDiscovery { config_file, job, timeout } => {
            service_discovery::run(&config_file, &job, timeout)
        }
        CheckCommand::WebConfig { files } => Verdict::of(web_configs(&files)),
        CheckCommand::Healthy { server } => server_status(&server, "/-/healthy"),
        CheckCommand::Ready { server } => server_status(&server, "/-/ready"),
    }
}

fn web_configs(files: &[PathBuf]) -> bool {
    let mut good = true;
    for file in files {
        match crate::web_config::validate(file) {
            Ok(()) => eprintln!("{} SUCCESS", file.display()),
            Err(e) => {
                eprintln!("{} FAILED: {e}", file.display());
                good = false;
            }
        }
    }
    good
}

fn server_status(flags: &ServerFlags, path: &str) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answered = runtime.map_err(anyhow::Error::from).and_then(|r| r.block_on(ask(flags, path)));
    match answered {
        Ok(text) => {
            eprintln!("  SUCCESS:  {text}");
            Verdict::Good
        }
        Err(e) => {
            eprintln!("{e:#}");
            Verdict::Bad
        }
    }
}

async fn ask(flags: &ServerFlags, path: &str) -> anyhow::Result<String> {
    let config = match &flags.http_config {
        Some(file) => crate::tsdb_tool::http_config(file)?,
        None => HttpConfig::default(),
    };
    let url = if flags.url.contains("://") { flags.url.clone() } else { format!("http://{}", flags.url) };
    let uri = parse_url(&format!("{}{path}", url.trim_end_matches('/')))?;
    let outgoing = Outgoing {
        method: Method::GET,
        uri: &uri,
        headers: &[],
        body: Bytes::new(),
        timeout: TIMEOUT,
        response_limit_bytes: ANSWER_LEN_BYTES_MAX,
        need: Need::Whole,
    };
    let response = HttpClient::new(&config)?.send(outgoing).await?;
    if response.status.as_u16() != 200 {
        anyhow::bail!("check failed: URL={url}, status={}", response.status.as_u16());
    }
    Ok(String::from_utf8_lossy(&response.body).into_owned())
}
