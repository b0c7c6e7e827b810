//! From the web flags to the HTTP server's settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use api::config::{ApiConfig, CorsOrigin};
use api::gate::GateSource;
use url::Url;

use crate::cli::{GeneralFlags, QueryFlags, WebFlags};
use crate::config::scalar::Ms;
use crate::web_config::WebConfigFile;

/// Milliseconds as a duration; negative ones are none.
pub fn span(ms: Ms) -> Duration {
    Duration::from_millis(u64::try_from(ms.ms()).unwrap_or(0))
}

/// What a node takes over HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Receivers {
    /// Remote write.
    pub remote_write: bool,
    /// OTLP metrics.
    pub otlp: bool,
    /// What comes with them.
    pub otlp_rules: api::OtlpConfig,
}

impl Receivers {
    /// Whether samples come in at all.
    pub fn any(self) -> bool {
        self.remote_write || self.otlp
    }
}

/// The server's settings.
///
/// # Errors
/// When a flag's value cannot be used.
pub fn api_config(
    listen: &[String],
    web: &WebFlags,
    receivers: Receivers,
    app_name: &str,
) -> anyhow::Result<ApiConfig> {
    let gate = match web.web_config_file.as_str() {
        "" => None,
        file => {
            let opened = WebConfigFile::open(file.into(), model::SystemClock::shared());
            let opened = opened.map_err(|e| anyhow!("--web.config.file={file}: {e}"))?;
            Some(Arc::new(opened) as Arc<dyn GateSource>)
        }
    };
    let first = listen.first().map_or("0.0.0.0:9090", String::as_str);
    let external_url = external_url(&web.external_url, first)?;
    let route_prefix = web.route_prefix.clone().unwrap_or_else(|| external_url.path().to_owned());
    Ok(ApiConfig {
        listen_addresses: listen.to_vec(),
        route_prefix: format!("/{}", route_prefix.trim_matches('/')),
        external_url,
        gate,
        max_connections: web.max_connections,
        read_timeout: span(web.read_timeout),
        enable_lifecycle: web.enable_lifecycle,
        enable_admin_api: web.enable_admin_api,
        enable_remote_write_receiver: receivers.remote_write,
        enable_otlp_receiver: receivers.otlp,
        otlp: receivers.otlp_rules,
        cors_origin: CorsOrigin::parse(&web.cors_origin)
            .with_context(|| format!("--web.cors.origin={}: not a regular expression", web.cors_origin))?,
        page_title: web.page_title.clone(),
        app_name: app_name.to_owned(),
        remote_read: api::RemoteReadConfig {
            sample_limit: web.remote_read.read_sample_limit,
            max_concurrency: web.remote_read.read_max_concurrency,
            max_bytes_in_frame: web.remote_read.read_max_bytes_in_frame,
            ..api::RemoteReadConfig::default()
        },
        ..ApiConfig::default()
    })
}

/// The URL as given; a path alone, or nothing, is completed with the host's name and the port.
fn external_url(flag: &str, listen: &str) -> anyhow::Result<Url> {
    let port = listen.rsplit_once(':').map_or("9090", |(_, port)| port);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    let text = match flag {
        "" => format!("http://{host}:{port}/"),
        path if path.starts_with('/') => format!("http://{host}:{port}{path}"),
        url => url.to_owned(),
    };
    let url = Url::parse(&text).with_context(|| format!("--web.external-url={flag}: not a URL"))?;
    if !["http", "https"].contains(&url.scheme()) {
        bail!("--web.external-url={flag}: must start with http:// or https://");
    }
    Ok(url)
}

/// The query engine's settings.
pub fn engine_config(query: &QueryFlags, general: &GeneralFlags) -> promql::EngineConfig {
    promql::EngineConfig {
        lookback_ms: query.lookback_delta.ms(),
        timeout: span(query.timeout),
        max_samples: query.max_samples,
        max_memory_bytes: query.max_memory.0,
        max_concurrency: query.max_concurrency,
        experimental_functions: general.has("promql-experimental-functions"),
        duration_expressions: true,
        extended_range_selectors: general.has("promql-extended-range-selectors"),
        fill_modifiers: general.has("promql-binop-fill-modifiers"),
        delayed_name_removal: general.has("promql-delayed-name-removal"),
        per_step_stats: general.has("promql-per-step-stats"),
        type_and_unit_labels: general.has("type-and-unit-labels"),
        use_start_timestamps: general.has("use-start-timestamps"),
        ..promql::EngineConfig::default()
    }
}

/// All flags with the values in force, as `/api/v1/status/flags` shows them.
pub fn flag_values(command: &clap::Command, matches: &clap::ArgMatches) -> BTreeMap<String, String> {
    if let Some((name, sub)) = matches.subcommand() {
        return command.find_subcommand(name).map_or_else(BTreeMap::new, |c| flag_values(c, sub));
    }
    let value = |id: &str| {
        let raw = matches.get_raw(id)?;
        Some(raw.map(|v| v.to_string_lossy().into_owned()).collect::<Vec<_>>().join(","))
    };
    let named = command.get_arguments().filter_map(|a| Some((a.get_long()?, a.get_id().as_str())));
    named
        .filter(|(long, _)| *long != "help" && *long != "version")
        .map(|(long, id)| (long.to_owned(), value(id).unwrap_or_default()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_external_url_is_completed() {
        assert_eq!(external_url("https://x/p", "0.0.0.0:1").expect("valid").as_str(), "https://x/p");
        assert_eq!(external_url("/p", "0.0.0.0:81").expect("valid").path(), "/p");
        assert_eq!(external_url("", "127.0.0.1:81").expect("valid").port(), Some(81));
        assert!(external_url("ftp://x", ":1").is_err());
    }

    #[test]
    fn flags_show_their_values() {
        use clap::CommandFactory;
        let command = crate::cli::Cli::command();
        let matches = command.clone().get_matches_from([
            "almanac",
            "longterm",
            "--storage.longterm.path=x",
            "--log.level=warn",
        ]);
        let flags = flag_values(&command, &matches);
        assert_eq!(flags["storage.longterm.path"], "x");
        assert_eq!(flags["storage.longterm.retention.time"], "400d");
        assert_eq!(flags["web.enable-lifecycle"], "false");
    }
}
