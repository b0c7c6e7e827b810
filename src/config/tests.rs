use super::scalar::Ms;
use super::*;

fn parse(text: &str) -> Result<Config, Problem> {
    Config::parse(text, Path::new("/etc/almanac"))
}

#[track_caller]
fn check_error(text: &str, line: u64, column: u64, part: &str) {
    let p = parse(text).expect_err(text);
    assert!(p.reason.contains(part), "{p:?} should name {part:?}");
    assert_eq!((p.position.line, p.position.column), (line, column), "{p:?}");
}

#[test]
fn errors_name_line_and_column() {
    check_error("global:\n  scrape_intervall: 1s\n", 2, 3, "unknown field `scrape_intervall`");
    check_error("global: {}\nglobal: {}\n", 2, 1, "duplicate mapping key: global");
    check_error("scrape_configs:\n- job_name: a\n- job_name: a\n", 3, 13, "job name \"a\"");
    check_error(
        "scrape_configs:\n- job_name: a\n  relabel_configs:\n  - regex: '('\n",
        4,
        12,
        "error parsing regexp",
    );
    check_error("scrape_configs:\n- job_name: a\n  scrape_timeout: 2m\n", 2, 3, "scrape timeout greater");
    check_error("global:\n  scrape_interval: 1 hour\n", 2, 20, "in duration \"1 hour\"");
    check_error("longterm:\n  url: http://h:9201\n  match: ['{a=']\n", 3, 11, "selector");
    check_error("a: [1\n", 1, 1, "unknown field");
}

#[test]
fn what_is_not_built_in_loads_and_is_refused_when_it_is_to_run() {
    for (text, part) in [
        (
            "scrape_configs:\n- job_name: a\n  nomad_sd_configs: [{server: x}]\n",
            "nomad_sd_configs is not built in",
        ),
        ("remote_write:\n- url: http://h/w\n  sigv4: {region: x}\n", "sigv4 is not built in"),
        (
            "alerting:\n  alertmanagers:\n  - nomad_sd_configs: [{server: x}]\n",
            "nomad_sd_configs is not built in",
        ),
        (
            "remote_write:\n- url: http://h/w\n  basic_auth: {username: u, password_ref: x}\n",
            "cannot use secret ref without manager",
        ),
        ("alerting:\n  alertmanagers:\n  - sigv4: {region: x}\n", "sigv4 is not built in"),
    ] {
        let p = parse(text).expect("valid").settings().expect_err(text);
        assert!(p.not_built_in && p.reason.contains(part) && p.position.line > 0, "{p:?}");
    }
}

#[test]
fn alertmanagers_have_their_defaults() {
    let text = "alerting:
  alert_relabel_configs: [{regex: x, action: labeldrop}]
  alertmanagers:
  - static_configs: [{targets: ['h:1']}]
  - scheme: https
    path_prefix: /p
    timeout: 1s
    dns_sd_configs: [{names: [x]}]
    alert_relabel_configs: [{regex: y, action: labeldrop}]
";
    let alerting = parse(text).expect("valid").settings().expect("runs").alerting;
    let seen = alerting.sets.iter().map(|(c, discovery)| {
        (
            c.scheme.as_str(),
            c.path_prefix.as_str(),
            c.timeout.as_secs(),
            c.alert_relabel.len(),
            discovery.len(),
        )
    });
    assert_eq!(seen.collect::<Vec<_>>(), [("http", "", 10, 0, 1), ("https", "/p", 1, 1, 1)]);
    assert_eq!(alerting.relabel.len(), 1);
    check_error("alerting:\n  alertmanagers:\n  - api_version: v1\n", 3, 5, "api version to be one of [v2]");
}

#[test]
fn otlp_has_its_defaults_and_strategies() {
    use wire::otlp::{Promote, Settings};
    let otlp = |text: &str| {
        let config = parse(text).unwrap_or_else(|p| panic!("{text}: {p:?}"));
        config.settings().expect("runs").otlp
    };
    assert_eq!(otlp("global: {}\n"), Settings::default());
    assert_eq!(otlp("otlp: {}\n"), Settings::default());
    for (strategy, suffixes, utf8) in [
        ("UnderscoreEscapingWithSuffixes", true, false),
        ("UnderscoreEscapingWithoutSuffixes", false, false),
        ("NoUTF8EscapingWithSuffixes", true, true),
        ("NoTranslation", false, true),
        ("''", false, true),
    ] {
        let settings = otlp(&format!("otlp: {{translation_strategy: {strategy}}}\n"));
        assert_eq!((settings.suffixes, settings.utf8), (suffixes, utf8), "{strategy}");
    }
    let all = otlp("otlp: {promote_all_resource_attributes: true, ignore_resource_attributes: [' a.b ']}\n");
    assert_eq!(all.promote, Promote::AllBut(["a.b".to_owned()].into()));
    let text = "otlp: {promote_resource_attributes: [a], keep_identifying_resource_attributes: true, convert_histograms_to_nhcb: true, \
                promote_scope_metadata: true, label_name_underscore_sanitization: false, label_name_preserve_multiple_underscores: false}\n";
    let expect = Settings {
        promote: Promote::Only(["a".to_owned()].into()),
        keep_identifying_resource_attributes: true,
        convert_histograms_to_nhcb: true,
        promote_scope_metadata: true,
        label_name_underscore_sanitization: false,
        label_name_preserve_multiple_underscores: false,
        ..Settings::default()
    };
    assert_eq!(otlp(text), expect);
}

#[test]
fn remote_stores_have_their_defaults() {
    let text = "global: {external_labels: {region: x}}
remote_read:
- url: http://h/api/v1/read
- url: http://h/api/v1/read
  name: n
  remote_timeout: 5s
  read_recent: true
  filter_external_labels: false
  required_matchers: {job: special}
  headers: {X-Scope: a}
";
    let stores = parse(text).expect("valid").settings().expect("runs").remote_read;
    let seen = stores.iter().map(|s| {
        (s.config.timeout.as_secs(), s.read_recent, s.external_labels.len(), s.required_matchers.len())
    });
    assert_eq!(seen.collect::<Vec<_>>(), [(60, false, 1, 0), (5, true, 0, 1)]);
    assert_eq!((stores[0].config.name.len(), stores[1].config.name.as_str()), (6, "n"));
    assert_eq!(stores[1].config.http.headers, [("X-Scope".to_owned(), "a".to_owned())]);
    let twice = "remote_read:\n- url: http://h/read\n- url: http://h/read\n";
    let problem = parse(twice).expect("valid").settings().expect_err("refused");
    assert!(problem.reason.contains("duplicate remote read configs"), "{problem:?}");
}

#[test]
fn dns_and_consul_sections_fill_in_what_prometheus_does() {
    use scraper::discovery::{ConsulConfig, DiscoveryConfig, DnsConfig, DnsRecord};
    let discovery = |section: &str| {
        let text = format!("scrape_configs:\n- job_name: a\n  {section}\n");
        let config = parse(&text)?;
        super::convert::scrape_config(&config.scrape_configs.as_ref().expect("a job")[0])
            .map(|job| job.discovery[0].clone())
    };
    let dns = |record, port| {
        let names = vec!["x".to_owned()];
        DiscoveryConfig::Dns(DnsConfig { names, record, port, refresh_interval_ms: 30_000 })
    };
    let found = discovery("dns_sd_configs: [{names: [x]}]").expect("valid");
    assert_eq!(found, dns(DnsRecord::Srv, 0));
    let found = discovery("dns_sd_configs: [{names: [x], type: aaaa, port: 80}]").expect("valid");
    assert_eq!(found, dns(DnsRecord::Aaaa, 80));
    for (section, part) in [
        ("dns_sd_configs: [{}]", "DNS-SD config must contain at least one SRV record name"),
        ("dns_sd_configs: [{names: [x], type: A}]", "a port is required"),
        ("dns_sd_configs: [{names: [x], type: TXT}]", "invalid DNS-SD records type TXT"),
        ("consul_sd_configs: [{server: ' '}]", "requires a server address"),
        (
            "consul_sd_configs: [{token: t, authorization: {credentials: c}}]",
            "at most one of consul SD token",
        ),
        (
            "consul_sd_configs: [{username: u, basic_auth: {username: v}}]",
            "username and password and basic auth",
        ),
    ] {
        let problem = discovery(section).expect_err(section);
        assert!(problem.reason.contains(part) && problem.position.line == 3, "{problem:?}");
    }
    let DiscoveryConfig::Consul(consul) =
        discovery("consul_sd_configs: [{username: u, password: p}]").expect("valid")
    else {
        panic!("not Consul")
    };
    assert!(consul.http.basic_auth.is_some());
    let plain = ConsulConfig { http: consul.http.clone(), ..ConsulConfig::default() };
    assert_eq!(*consul, plain);
}

#[test]
fn the_longterm_section_has_its_default() {
    let config = parse("longterm:\n  url: http://h:9201\n").expect("valid");
    let longterm = config.longterm.expect("section");
    let matchers = longterm.matchers().expect("valid");
    assert_eq!(matchers.len(), 1);
    assert_eq!(matchers[0].iter().map(ToString::to_string).collect::<Vec<_>>(), [r#"longterm!="""#]);
}

#[test]
fn shown_files_hide_secrets() {
    let text = "
scrape_configs:
- job_name: a
  basic_auth: {username: u, password: hunter2}
  http_headers: {X-Key: {secrets: [hunter2]}}
remote_write:
- url: http://u:hunter2@host/write
  authorization: {credentials: hunter2}
remote_read:
- url: http://host/read
  oauth2: {client_id: x, client_secret: hunter2, token_url: http://t}
";
    let shown = parse(text).expect("valid").to_yaml();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(shown.matches("<secret>").count(), 5, "{shown}");
    // What is shown can be read again.
    parse(&shown).expect("a shown file is a valid file");
}

#[test]
fn file_names_are_relative_to_the_file() {
    let text =
        "rule_files: [a/*.yml, /abs.yml]\nscrape_configs: [{job_name: a, tls_config: {ca_file: ca.pem}}]\n";
    let config = parse(text).expect("valid");
    let files = config.rule_files.expect("two");
    assert_eq!(files, [Path::new("/etc/almanac/a/*.yml"), Path::new("/abs.yml")]);
    let jobs = config.scrape_configs.expect("one");
    let tls = jobs[0].tls_config.as_ref().expect("set");
    assert_eq!(tls.ca_file.as_deref(), Some(Path::new("/etc/almanac/ca.pem")));
}

/// What is written with nothing behind it is empty, not the default; zeros and empty names stand for what is inherited.
#[test]
fn nulls_zeros_and_empty_texts_mean_what_they_do_for_prometheus() {
    let text = "scrape_configs:\n- job_name: a\n  scrape_interval: 0s\n  scrape_timeout: 0s\n  metrics_path:\n\
                \x20 honor_timestamps:\n  fallback_scrape_protocol: ''\n  proxy_url: ''\n  sample_limit: 1e6\n\
                \x20 static_configs: [{targets: [a], labels: {x: }}]\n\
                \x20 relabel_configs: [{source_labels: [a], separator: , regex: , target_label: b, replacement: }]\n";
    let config = parse(text).expect("valid");
    let job = &config.scrape_configs.as_ref().expect("one")[0];
    assert_eq!((job.scrape_interval, job.scrape_timeout), (Some(Ms(60_000)), Some(Ms(10_000))));
    assert_eq!((job.metrics_path.as_deref(), job.honor_timestamps), (Some(""), Some(false)));
    assert_eq!((job.sample_limit, job.proxy_url.is_none()), (Some(1_000_000), true));
    let rule = &job.rules(job.relabel_configs.as_ref()).expect("valid")[0];
    assert_eq!((rule.separator.as_str(), rule.replacement.as_str(), rule.regex.as_str()), ("", "", ""));
    for wrong in ["action: ", "source_labels: ['']"] {
        let text =
            format!("scrape_configs: [{{job_name: a, relabel_configs: [{{target_label: b, {wrong}}}]}}]");
        assert!(parse(&text).is_err(), "{wrong}");
    }
}

/// Every file of the conformance data has its stated outcome. Files refused only in agent mode or only by a later
/// check of the files they name do load.
#[test]
fn conformance() {
    let Some(root) = crate::testing::conformance_dir() else {
        eprintln!("config conformance: skipped, no conformance data");
        return;
    };
    let dir = root.join("config");
    let index = std::fs::read_to_string(dir.join("index.tsv")).expect("index");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for row in index.lines().filter(|l| !l.starts_with('#') && !l.starts_with("sd/")) {
        let mut columns = row.split('\t');
        let (Some(file), Some(outcome)) = (columns.next(), columns.next()) else { continue };
        let loaded = Config::load(&dir.join(file));
        let expect_ok = match outcome {
            "ok" | "agent-error" | "check-error" => true,
            "error" | "start-error" => false,
            other => panic!("unknown outcome {other}"),
        };
        seen += 1;
        if loaded.is_ok() != expect_ok {
            wrong.push(format!("{row}\n    -> {:?}", loaded.map(|_| "loaded").map_err(|e| e.to_string())));
        }
    }
    assert!(seen > 100, "the index lists files");
    assert!(wrong.is_empty(), "{} of {seen}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Every configuration file that is shipped loads and can be run.
#[test]
fn shipped_files_are_valid() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files = matching_files(&dir.join("*.yml")).expect("a folder");
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let config = Config::load(&file).unwrap_or_else(|e| panic!("{e}"));
        let settings = config.settings().unwrap_or_else(|p| panic!("{}: {p:?}", file.display()));
        assert!(!settings.jobs.is_empty() && settings.longterm.is_some(), "{}", file.display());
    }
}

#[test]
fn shipped_rules_are_valid() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rules");
    let files = matching_files(&dir.join("*.yml")).expect("a folder");
    assert!(!files.is_empty());
    for file in files {
        let defaults = parse("").expect("nothing is wrong").rule_defaults();
        let groups = rules::load(&file, &defaults).unwrap_or_else(|e| panic!("{e}"));
        assert!(!groups.is_empty(), "{}", file.display());
    }
}

#[test]
fn soft_limits_are_inherited_and_have_a_reserve() {
    let text = "global: {series_soft_limit: 1000, server_series_soft_limit: 50, server_series_soft_limit_reserve: 0}\n\
                scrape_configs: [{job_name: a}, {job_name: b, series_soft_limit: 20, series_soft_limit_reserve: 7}]\n";
    let settings = parse(text).and_then(|c| c.settings()).unwrap_or_else(|p| panic!("{p:?}"));
    let limits: Vec<_> =
        settings.jobs.iter().map(|j| (j.series_soft_limit.series, j.series_soft_limit.reserve)).collect();
    assert_eq!(limits, [(1000, 100), (20, 7)]);
    let server = settings.server_limit;
    assert_eq!((server.limit.series, server.limit.reserve, server.selectors.len()), (50, 0, 1));
    let off = parse("scrape_configs: [{job_name: a}]")
        .and_then(|c| c.settings())
        .unwrap_or_else(|p| panic!("{p:?}"));
    assert_eq!((off.jobs[0].series_soft_limit.series, off.server_limit.limit.series), (0, 0));
}

#[test]
fn tracing_is_read_as_prometheus_reads_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let load = |section: &str| {
        let file = dir.path().join("p.yml");
        std::fs::write(&file, format!("tracing: {section}\n")).expect("written");
        let config = Config::load(&file).map_err(|e| e.reason)?;
        config.settings().map_err(|p| p.reason)
    };
    let plain = load("{endpoint: 'tempo:4317'}").expect("a good file").tracing.expect("a section");
    assert_eq!((plain.protocol, plain.endpoint.as_str()), (spans::Protocol::Grpc, "tempo:4317"));
    assert_eq!((plain.sampling_fraction, plain.insecure, plain.gzip), (0.0, false, false));
    let all = "{client_type: http, endpoint: 'a:1', sampling_fraction: .5, compression: gzip, timeout: 3s, \
               headers: {X-A: b}, tls_config: {ca_file: ca.pem}}";
    let all = load(all).expect("a good file").tracing.expect("a section");
    assert_eq!((all.protocol, all.sampling_fraction, all.gzip), (spans::Protocol::Http, 0.5, true));
    assert_eq!(all.timeout, std::time::Duration::from_secs(3));
    let ca = httpclient::SecretSource::File(dir.path().join("ca.pem"));
    assert_eq!((all.tls.ca, all.headers[0].0.as_str()), (Some(ca), "X-A"));
    assert!(load("{endpoint: 'a:1', insecure: true, tls_config: {max_version: TLS10}}").is_ok());
    for (section, why) in [
        ("{}", "tracing endpoint must be set"),
        ("{endpoint: 'a:1', client_type: udp}", "expected tracing client type to be"),
        (
            "{endpoint: 'a:1', compression: zstd}",
            "invalid compression type zstd provided, valid options: gzip",
        ),
        ("{endpoint: 'a:1', headers: {Host: x}}", "Host is a reserved header. It must not be changed"),
        ("{endpoint: 'a:1', headers: {authorization: x}}", "custom authorization header configuration"),
        (
            "{endpoint: 'a:1', tls_config: {cert_file: x}}",
            "exactly one of key or key_file must be configured",
        ),
        ("{endpoint: 'a:1', tls_config: {ca_ref: x}}", "cannot use secret ref without manager"),
    ] {
        let error = load(section).expect_err(section);
        assert!(error.contains(why), "{section}: {error}");
    }
}
