//! Commands on directories of their own; promtool reads the same, where it is installed.

use super::*;
use crate::cli::{BackfillFlags, DumpFlags, OpenmetricsFlags};
use crate::config::scalar::Ms;

fn shared() -> BackfillFlags {
    BackfillFlags { human_readable: false, quiet: false, max_block_duration: Ms(0) }
}

#[test]
fn what_is_made_into_blocks_is_dumped_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    let input = dir.path().join("in.om");
    let text = "# TYPE m gauge\nm{a=\"1\"} 1 0.5\nm{a=\"2\"} 2.5 7300\nm{a=\"1\"} 1e6 90000.125\n# EOF\n";
    std::fs::write(&input, text).expect("written");
    let flags =
        OpenmetricsFlags { labels: vec![("b".into(), "x".into())], input, output: dir.path().join("data") };
    let mut printed = Vec::new();
    openmetrics::backfill(&shared(), &flags, &Interrupt::default(), &mut printed).expect("made");
    assert_eq!(String::from_utf8(printed).expect("text").lines().count(), 4);
    let mut dumped = Vec::new();
    let flags = DumpFlags {
        sandbox: None,
        min_time: i64::MIN,
        max_time: i64::MAX,
        matchers: vec!["{__name__=~'(?s:.*)'}".into()],
        path: dir.path().join("data"),
    };
    dump::dump(&flags, DumpFormat::Prom, &Interrupt::default(), &mut dumped).expect("dumped");
    let expect = "{__name__=\"m\", a=\"1\", b=\"x\"} 1 500\n{__name__=\"m\", a=\"1\", b=\"x\"} 1e+06 90000125\n\
         {__name__=\"m\", a=\"2\", b=\"x\"} 2.5 7300000\n";
    assert_eq!(String::from_utf8(dumped).expect("text"), expect);
    let left: Vec<_> = std::fs::read_dir(&flags.path).expect("listed").collect();
    assert_eq!(left.len(), 3, "the sandbox is gone: {left:?}");
}

/// Six hours of three series.
fn six_hours(dir: &Path) {
    let mut text = String::from("# TYPE m gauge\n");
    for i in 0..3 {
        for k in 0..1440 {
            text += &format!("m{{i=\"{i}\"}} {} {}\n", (k * 7 + i) % 100, 1_700_000_000 + 15 * k);
        }
    }
    text += "# EOF\n";
    std::fs::write(dir.join("in.om"), text).expect("written");
}

fn make_blocks(dir: &Path, interrupt: &Interrupt) -> anyhow::Result<()> {
    let flags = OpenmetricsFlags { labels: Vec::new(), input: dir.join("in.om"), output: dir.join("data") };
    openmetrics::backfill(&shared(), &flags, interrupt, &mut std::io::sink())
}

fn promtool(args: &[&str]) -> Option<String> {
    let done = match std::process::Command::new("promtool").arg("tsdb").args(args).output() {
        Ok(done) => done,
        Err(e) => {
            eprintln!("skipped: promtool cannot be run: {e}");
            return None;
        }
    };
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(String::from_utf8(done.stdout).expect("text"))
}

#[test]
fn an_interrupted_backfill_leaves_nothing_unfinished() {
    let dir = tempfile::tempdir().expect("tempdir");
    six_hours(dir.path());
    let interrupt = Interrupt::default();
    interrupt.raise();
    let e = make_blocks(dir.path(), &interrupt).expect_err("interrupted");
    assert!(e.is::<Interrupted>() || e.root_cause().is::<Interrupted>(), "{e:#}");
    let left = std::fs::read_dir(dir.path().join("data")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
}

#[test]
fn lists_and_analyses_are_promtools_line_by_line() {
    let dir = tempfile::tempdir().expect("tempdir");
    six_hours(dir.path());
    make_blocks(dir.path(), &Interrupt::default()).expect("made");
    let data = dir.path().join("data");
    // promtool does not open a directory without one.
    std::fs::create_dir(data.join("wal")).expect("made");
    let path = data.to_str().expect("text");
    for human_readable in [false, true] {
        let args: &[&str] = if human_readable { &["list", "-r", path] } else { &["list", path] };
        let Some(theirs) = promtool(args) else { return };
        let mut ours = Vec::new();
        list::list(&data, human_readable, &mut ours).expect("listed");
        assert_eq!(String::from_utf8(ours).expect("text"), theirs);
    }
    let first = list_names(&data).remove(0);
    // Before 2.51, promtool has no selectors, other words for the number of series, and less to say of chunks.
    let recent = promtool(&["analyze", "--help"]).is_some_and(|help| help.contains("--match"));
    for (block, extended, matchers) in
        [(None, false, ""), (None, true, ""), (Some(first.as_str()), true, "{i=~\"1|2\"}")]
    {
        if extended && !recent {
            continue;
        }
        let mut args = vec!["analyze", "--limit=1000"];
        args.extend(extended.then_some("--extended"));
        let matched = format!("--match={matchers}");
        args.extend((!matchers.is_empty()).then_some(matched.as_str()));
        args.push(path);
        args.extend(block);
        let flags = crate::cli::AnalyzeFlags {
            limit: 1000,
            extended,
            matchers: matchers.into(),
            path: data.clone(),
            block: block.map(str::to_owned),
        };
        let mut ours = Vec::new();
        analyze::analyze(&flags, &mut ours).expect("analyzed");
        let ours = String::from_utf8(ours).expect("text");
        let ours = if recent { ours } else { ours.replace("Total Series:", "Series:") };
        let theirs = promtool(&args).expect("it ran before");
        // Entries of equal count are in no order there.
        assert_eq!(sections(&ours), sections(&theirs), "{args:?}");
    }
}

fn list_names(data: &Path) -> Vec<String> {
    open(data).expect("opened").blocks().into_iter().map(|b| b.ulid).collect()
}

/// Paragraphs, the lines of each sorted.
fn sections(text: &str) -> Vec<Vec<&str>> {
    let mut out: Vec<Vec<&str>> = text.split("\n\n").map(|s| s.lines().collect()).collect();
    out.iter_mut().for_each(|s| s.sort_unstable());
    out
}

#[test]
fn recording_rules_are_asked_for_block_by_block() {
    let (url, asked) = server_with_answers(
        r#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"a":"1","team":"y"},"values":[[START,"2"]]}]}}"#,
    );
    let dir = tempfile::tempdir().expect("tempdir");
    let rules = dir.path().join("r.yml");
    let text = "groups:\n- name: g\n  interval: 30s\n  labels: {team: x}\n  rules:\n  - {record: r, expr: sum by(a)(m)}\n  \
                - {alert: A, expr: m}\n";
    std::fs::write(&rules, text).expect("written");
    let flags = crate::cli::RuleImportFlags {
        http_config: None,
        url,
        start: Ms(1_700_000_000_000),
        end: Some(Ms(1_700_010_000_000)),
        output: dir.path().join("data"),
        eval_interval: Ms(60_000),
        files: vec![rules],
    };
    rule_import::import(&shared(), &flags, &Interrupt::default()).expect("imported");
    let asked = asked.lock().expect("not poisoned").clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|q| q.contains("&query=sum+by+%28a%29+%28m%29&") && q.ends_with("&step=30")));
    assert!(asked[0].starts_with("end=1700006399&") && asked[1].starts_with("end=1700010000&"), "{asked:?}");
    let flags = DumpFlags {
        sandbox: None,
        min_time: i64::MIN,
        max_time: i64::MAX,
        matchers: vec!["r".into()],
        path: dir.path().join("data"),
    };
    let mut dumped = Vec::new();
    dump::dump(&flags, DumpFormat::Prom, &Interrupt::default(), &mut dumped).expect("dumped");
    let dumped = String::from_utf8(dumped).expect("text");
    assert_eq!(dumped.lines().count(), 2, "{dumped}");
    assert!(
        dumped.lines().all(|l| l.starts_with("{__name__=\"r\", a=\"1\", team=\"x\"} 2 17000")),
        "{dumped}"
    );
}

/// A server that answers two requests; `START` in the answer stands for the first moment that was asked for. Gives its
/// address and the bodies of the requests.
fn server_with_answers(answer: &'static str) -> (String, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    use std::io::{BufRead, BufReader, Read};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let asked = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
    let seen = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = BufReader::new(stream.expect("connected"));
            let (mut line, mut len) = (String::new(), 0);
            while stream.read_line(&mut line).expect("read") > 2 {
                len = line
                    .to_ascii_lowercase()
                    .strip_prefix("content-length: ")
                    .map_or(len, |n| n.trim().parse().expect("number"));
                line.clear();
            }
            let mut body = vec![0; len];
            stream.read_exact(&mut body).expect("read");
            let body = String::from_utf8(body).expect("text");
            let start = body.split('&').find_map(|p| p.strip_prefix("start=")).expect("a start").to_owned();
            seen.lock().expect("not poisoned").push(body);
            let text = answer.replace("START", &start);
            write!(
                stream.get_mut(),
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
                text.len()
            )
            .expect("written");
        }
    });
    (url, asked)
}

#[test]
fn the_write_bench_counts_its_samples() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("series.json");
    let line = |i: usize| format!("{{\"__name__\":\"m\",\"i\":\"{}\"}}\n", i % 5);
    std::fs::write(&file, (0..7).map(line).collect::<String>()).expect("written");
    let flags = crate::cli::BenchWriteFlags { out: dir.path().join("out"), metrics: 100, scrapes: 150, file };
    let mut out = Vec::new();
    bench_write::bench(&flags, &Interrupt::default(), &mut out).expect("measured");
    let out = String::from_utf8(out).expect("text");
    // Five different series, in rounds of a hundred scrapes.
    assert!(out.contains("\n > total samples: 1000\n"), "{out}");
    assert_eq!(out.matches(">> completed stage=").count(), 3, "{out}");
    assert!(flags.out.join("storage/wal").exists());
}
