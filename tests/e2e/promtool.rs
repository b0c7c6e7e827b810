//! `almanac check …` beside promtool: the same verdicts on the same input, and the same words where they matter.
//!
//! Debian's promtool (2.x) is taken from the path; one of 3.14 from the environment variable `PROMTOOL_3`. Words are compared with the
//! latter, but for those of its YAML reader.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{installed, write};

/// What a check said.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn run(program: &Path, args: &[&str], input: &str) -> Said {
    let mut child = Command::new(program)
        .arg("check")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    // A program that does not read its input may be gone already.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// The promtool of 3.14, if there is one.
fn promtool_3() -> Option<PathBuf> {
    let found = std::env::var_os("PROMTOOL_3").map(PathBuf::from).filter(|p| p.is_file());
    if found.is_none() {
        eprintln!("skipped: PROMTOOL_3 names no promtool of 3.14");
    }
    found
}

/// Words without places, which almanac writes as `FILE:LINE:COLUMN:` and promtool in other ways or not at all.
fn words(text: &str) -> String {
    let place = r#""?\S*/\S+\.ya?ml"?(:\d+)*: ?|(-?\d+:\d+: )+"#;
    let place = regex::Regex::new(place).expect("a pattern");
    let log = regex::Regex::new(r"^time=\S+ level=WARN source=\S+ ").expect("a pattern");
    let lines = text.lines().map(|line| {
        let line = log.replace(line, "").replace("parsing YAML file ", "");
        let line = line.replace("error loading scrape configs: ", "");
        place.replace_all(&line, "").trim().to_owned()
    });
    let mut lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    // Promtool reads rule files twice, and says some things twice.
    lines.dedup();
    lines.join("\n")
}

/// What differs in words, and why that is well: part of what promtool says.
const OTHER_WORDS: [&str; 13] = [
    // The reader of YAML, and names of Go's types.
    "yaml: ",
    "into ",
    // Sections with nothing in them are found by the reader here.
    "empty or null ",
    // Go's way to name a type or a pattern.
    "to be to be",
    "missing closing )",
    "unrecognized ValidationScheme",
    "OTel resource attribute",
    "storage.tsdb.retention.size",
    "label value",
    "label name",
    // Kubernetes roles and selectors, and what excludes what.
    "selector",
    "simultaneously",
    "kubeconfig_file",
];

/// Whether the words may differ: the mistake has other words here, or another one of several is named.
fn excused(ours: &Said, theirs: &Said) -> bool {
    OTHER_WORDS.iter().any(|w| theirs.err.contains(w))
        // Several mistakes in one file.
        || ours.err.contains("job_name is empty")
        || ours.err.contains("relative URL without a base")
        || ours.err.contains("unit missing or unknown")
        || ours.err.contains("Multiple") != theirs.err.contains("Multiple")
}

struct Comparison {
    theirs: PathBuf,
    with_words: bool,
    differences: Vec<String>,
    compared: usize,
}

impl Comparison {
    fn new(theirs: PathBuf, with_words: bool) -> Self {
        Self { theirs, with_words, differences: Vec::new(), compared: 0 }
    }

    fn check(&mut self, args: &[&str], input: &str) {
        self.compared += 1;
        let ours = run(Path::new(env!("CARGO_BIN_EXE_almanac")), args, input);
        let theirs = run(&self.theirs, args, input);
        // It may be built without some kinds of discovery.
        let built_without = theirs.err.contains("_sd_configs not found in type");
        let same_words = !self.with_words
            || excused(&ours, &theirs)
            || (words(&ours.out), words(&ours.err)) == (words(&theirs.out), words(&theirs.err));
        if !built_without && ours.code != theirs.code || !same_words {
            self.differences.push(format!("{args:?} {input:?}\n  ours:   {ours:?}\n  theirs: {theirs:?}"));
        }
    }

    #[track_caller]
    fn end(self, at_least: usize) {
        assert!(self.compared >= at_least, "only {} checks", self.compared);
        assert!(self.differences.is_empty(), "{}", self.differences.join("\n"));
    }
}

/// Written for this test, with features that 2.x knows too.
const CONFIGS: [(&str, &str); 24] = [
    ("empty", ""),
    ("unknown", "foo: 1\n"),
    ("job", "scrape_configs: [{job_name: a, static_configs: [{targets: ['a:1']}]}]\n"),
    ("twice", "scrape_configs: [{job_name: a}, {job_name: a}]\n"),
    ("nameless", "scrape_configs: [{}]\n"),
    ("broken", "global: [\n"),
    ("unit", "global: {scrape_interval: 1x}\n"),
    ("timeout", "scrape_configs: [{job_name: a, scrape_interval: 5s, scrape_timeout: 10s}]\n"),
    (
        "tracing",
        "tracing: {endpoint: 'a:1', sampling_fraction: 2, timeout: 5s, compression: gzip, headers: {a: b}}\n",
    ),
    ("tracing-tls", "tracing: {endpoint: 'a:1', tls_config: {cert_file: x}}\n"),
    ("tracing-endpoint", "tracing: {}\n"),
    ("tracing-host", "tracing: {endpoint: 'a:1', headers: {Host: x}}\n"),
    ("tracing-authorization", "tracing: {endpoint: 'a:1', headers: {authorization: x}}\n"),
    ("tracing-compression", "tracing: {endpoint: 'a:1', compression: zstd}\n"),
    ("rules", "rule_files: [none.yml]\n"),
    ("no-rules", "rule_files: ['none*.yml']\n"),
    ("long", "global: {scrape_interval: 10m}\nscrape_configs: [{job_name: a}]\n"),
    ("alertmanager", "alerting: {alertmanagers: [{file_sd_configs: [{files: [none.yml]}]}]}\n"),
    ("target", "scrape_configs: [{job_name: a, static_configs: [{targets: ['http://a:1']}]}]\n"),
    ("action", "scrape_configs: [{job_name: a, relabel_configs: [{action: foo}]}]\n"),
    ("credentials", "scrape_configs: [{job_name: a, authorization: {credentials_file: none}}]\n"),
    ("certificate", "scrape_configs: [{job_name: a, tls_config: {cert_file: none, key_file: none}}]\n"),
    ("half", "scrape_configs: [{job_name: a, tls_config: {cert_file: none}}]\n"),
    ("files", "scrape_configs: [{job_name: a, file_sd_configs: [{files: [none.yml]}]}]\n"),
];

const RULES: [(&str, &str); 13] = [
    ("ok", "groups: [{name: a, rules: [{record: r, expr: up}]}]\n"),
    ("same", "groups: [{name: a, rules: [{record: r, expr: up}, {record: r, expr: up}]}]\n"),
    ("groups", "groups: [{name: a, rules: []}, {name: a, rules: []}]\n"),
    ("nameless", "groups: [{rules: []}]\n"),
    ("unknown", "groups: [{name: a, foo: 1}]\n"),
    ("template", "groups: [{name: a, rules: [{alert: A, expr: up, labels: {x: '{{ $foo }}'}}]}]\n"),
    ("label", "groups: [{name: a, rules: [{alert: A, expr: up, labels: {'': x}}]}]\n"),
    ("both", "groups: [{name: a, rules: [{alert: A, record: b, expr: up}]}]\n"),
    ("expression", "groups: [{name: a, rules: [{record: b, expr: 'up +'}]}]\n"),
    ("interval", "groups: [{name: a, interval: 1x, rules: []}]\n"),
    ("several", "groups: [{name: a, rules: [{record: b, expr: 'up +'}, {record: c, expr: ''}]}]\n"),
    ("annotations", "groups: [{name: a, rules: [{record: b, expr: up, annotations: {a: b}}]}]\n"),
    ("long", "groups: [{name: a, interval: 10m, rules: []}]\n"),
];

const METRICS: [&str; 18] = [
    "",
    "# HELP a_total x\n# TYPE a_total counter\na_total 1\n",
    "a 1\na 2\n",
    "# TYPE a counter\na 1\n",
    "# HELP a x\n# TYPE a counter\na 1\n",
    "bad{ 1\n",
    "# HELP a_seconds_total x\n# TYPE a_seconds_total gauge\na_seconds_total 1\n",
    "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n",
    "# HELP a_milliseconds x\n# TYPE a_milliseconds gauge\na_milliseconds 1\n",
    "# HELP camelCase x\n# TYPE camelCase gauge\ncamelCase 1\n",
    "# HELP a x\n# TYPE a gauge\na{camelCase=\"1\"} 1\n",
    "# HELP a_bucket x\n# TYPE a_bucket gauge\na_bucket 1\n",
    "# HELP gauge_a x\n# TYPE gauge_a gauge\ngauge_a 1\n",
    "# HELP a x\n# HELP a y\na 1\n",
    "a 1 2 3\n",
    "a{x=\"1\"} 1\na{x=\"1\"} 2\n",
    "no_newline 1",
    "# HELP s x\n# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 1\ns_count 1\n",
];

const WEB: [(&str, &str); 8] = [
    ("empty", ""),
    ("unknown", "foo: 1\n"),
    ("users", "basic_auth_users: {a: $2y$05$abcdefghijklmnopqrstuuTM3SMNNhvxnHZ6ZZ1HTzxA8JMkmH6yC}\n"),
    ("tls", "tls_server_config: {cert_file: none, key_file: none}\n"),
    ("half", "tls_server_config: {key_file: none}\n"),
    ("headers", "http_server_config: {http2: false, headers: {X-Frame-Options: deny}}\n"),
    ("header", "http_server_config: {headers: {X-Foo: deny}}\n"),
    ("cipher", "tls_server_config: {cert_file: a, key_file: b, cipher_suites: [FOO]}\n"),
];

fn written_for_this_test(c: &mut Comparison) {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in CONFIGS {
        let file = write(dir.path(), &format!("config-{name}.yml"), text);
        c.check(&["config", &file], "");
        c.check(&["config", "--syntax-only", &file], "");
    }
    for (name, text) in RULES {
        let file = write(dir.path(), &format!("rules-{name}.yml"), text);
        c.check(&["rules", &file], "");
        c.check(&["rules", "--lint=all", "--lint-fatal", &file], "");
    }
    for text in METRICS {
        c.check(&["metrics"], text);
    }
    for (name, text) in WEB {
        let file = write(dir.path(), &format!("web-{name}.yml"), text);
        c.check(&["web-config", &file], "");
    }
    let jobs = "scrape_configs:\n- job_name: a\n  static_configs: [{targets: ['a:1', 'b:2'], labels: {x: y}}]\n  \
                relabel_configs: [{source_labels: [__address__], regex: 'b.*', action: drop}]\n";
    let file = write(dir.path(), "jobs.yml", jobs);
    c.check(&["service-discovery", "--timeout=1s", &file, "a"], "");
    c.check(&["service-discovery", "--timeout=1s", &file, "none"], "");
    for what in ["healthy", "ready"] {
        // Nobody listens there.
        c.check(&[what, "--url=http://127.0.0.1:1"], "");
    }
}

#[test]
fn verdicts_are_those_of_debians_promtool() {
    let Some(theirs) = installed("promtool") else { return };
    let mut c = Comparison::new(theirs, false);
    written_for_this_test(&mut c);
    // What 3.x changed.
    let changed = ["--lint=all", "service-discovery", "camelCase", "config-tracing-tls"];
    c.differences.retain(|d| !changed.iter().any(|w| d.contains(w)));
    c.end(100);
}

#[test]
fn verdicts_and_words_are_those_of_promtool_3() {
    let Some(theirs) = promtool_3() else { return };
    let mut c = Comparison::new(theirs, true);
    written_for_this_test(&mut c);
    let Some(root) = std::env::var_os("CONFORMANCE_DIR").map(PathBuf::from).filter(|d| d.is_dir()) else {
        eprintln!("no conformance data: only what is written here was compared");
        return c.end(100);
    };
    for folder in ["config/good", "config/bad", "rules/rulefiles"] {
        let kind = if folder.starts_with("rules") { "rules" } else { "config" };
        let entries = std::fs::read_dir(root.join(folder)).expect("a folder");
        let mut files: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        files.sort();
        for file in files.iter().filter(|f| f.is_file()) {
            c.check(&[kind, &file.display().to_string()], "");
        }
    }
    c.end(200);
}
