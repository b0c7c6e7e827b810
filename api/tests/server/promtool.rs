//! The field's own client against the server, where it is installed.

use std::process::Command;

use crate::support::start;

#[test]
#[allow(clippy::print_stdout, reason = "who reads the log of the tests sees what was left out")]
fn promtool_queries() {
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("skipped: promtool is not installed");
        return;
    }
    let server = start();
    let url = format!("http://{}", server.addr);
    let run = |args: &[&str]| {
        let output = Command::new("promtool").args(args).output().expect("runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let instant = run(&["query", "instant", "--time=1704067200", &url, "up"]);
    assert!(instant.contains("up{instance=\"a:1\", job=\"node\"} => 1 @[1704067200]"), "{instant}");
    let range = run(&["query", "range", "--start=1704067140", "--end=1704067200", "--step=60s", &url, "up"]);
    assert!(range.contains("1 @[1704067140]"), "{range}");
    assert!(
        run(&["query", "series", "--match=up", "--start=1704067140", "--end=1704067200", &url])
            .contains("instance=\"b:2\"")
    );
    assert_eq!(
        run(&["query", "labels", "--start=1704067140", "--end=1704067200", &url, "instance"]),
        "a:1\nb:2\n"
    );
    let failed = Command::new("promtool").args(["query", "instant", &url, "up{"]).output().expect("runs");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("parse error"));
}
