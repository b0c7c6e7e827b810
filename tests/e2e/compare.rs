//! Answers beside those of the real `prometheus`, where it is installed: a small run of the comparison that
//! `make compare` does at length.

use promql_compare::{Client, Options, run};
use promql_testkit::generate::Profile;

use crate::support::{Process, free_port, installed, ready, write};

/// What is sent to both nodes.
const QUERIES: u64 = 600;

#[test]
fn answers_are_those_of_prometheus() {
    let Some(prometheus) = installed("prometheus") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let file = write(dir.path(), "p.yml", "global: {scrape_interval: 1m}\n");
    let ports = [free_port(), free_port()];
    let args = |name: &str, port: u16| {
        [
            format!("--config.file={file}"),
            format!("--storage.tsdb.path={}", dir.path().join(name).display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--web.enable-remote-write-receiver".to_owned(),
        ]
    };
    let (theirs, ours) = (args("theirs", ports[0]), args("ours", ports[1]));
    let theirs = Process::start(&prometheus, &theirs.each_ref().map(String::as_str));
    let ours = Process::almanac(&ours.each_ref().map(String::as_str));
    ready(&theirs, ports[0]);
    ready(&ours, ports[1]);
    let mut clients = ports.map(|p| Client::new(&format!("http://127.0.0.1:{p}")).expect("an address"));
    let [left, right] = &mut clients;
    let options = Options { queries_per_data: 150, ..Options::new(1, QUERIES, Profile::prometheus_2_42()) };
    let report = run(left, right, &options, &model::clock::SystemClock::new()).expect("both answer");
    assert_eq!(report.asked, QUERIES);
    assert!(report.empty + report.failed < QUERIES / 2, "most queries find something\n{report}");
    if report.versions[0].starts_with("2.42.") {
        assert_eq!(report.unexplained, 0, "{report}");
    } else {
        // What other versions do differently has no names here.
        assert!(report.unexplained < QUERIES / 50, "{report}");
    }
}
