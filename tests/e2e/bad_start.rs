//! What keeps a node from starting: exit code 1 and one clear line.

use std::net::TcpListener;

use crate::support::{Process, free_port, ready, write};

fn check(args: &[&str], parts: &[&str]) {
    let (code, log) = Process::almanac(args).wait();
    let last = log.lines().filter(|l| l.starts_with("almanac: ")).collect::<Vec<_>>();
    assert_eq!((code, last.len()), (1, 1), "{args:?} ended with:\n{log}");
    for part in parts {
        assert!(last[0].contains(part), "{:?} should name {part:?}", last[0]);
    }
}

#[test]
fn a_bad_configuration_is_named_with_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data").display().to_string();
    for (name, text, parts) in [
        ("broken.yml", "global:\n  scrape_interval: [\n", vec!["broken.yml:2:20:"]),
        ("unknown.yml", "global:\n  scrape_intervall: 1s\n", vec!["unknown.yml:2:3:", "scrape_intervall"]),
        (
            "regex.yml",
            "scrape_configs:\n- job_name: a\n  relabel_configs:\n  - regex: '('\n",
            vec!["regex.yml:4:12:", "error parsing regexp"],
        ),
        (
            "twice.yml",
            "scrape_configs:\n- job_name: a\n- job_name: a\n",
            vec!["twice.yml:3:13:", "multiple scrape configs with job name"],
        ),
        (
            "kind.yml",
            "scrape_configs:\n- job_name: a\n  nomad_sd_configs: [{server: x}]\n",
            vec!["kind.yml:3:", "nomad_sd_configs is not built in", "file_sd_configs"],
        ),
    ] {
        let file = write(dir.path(), name, text);
        check(&[&format!("--config.file={file}"), &format!("--storage.tsdb.path={data}")], &parts);
    }
    let missing = dir.path().join("missing.yml").display().to_string();
    check(&[&format!("--config.file={missing}")], &["missing.yml", "No such file"]);
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let dir = tempfile::tempdir().expect("a folder");
    let config = write(dir.path(), "p.yml", "");
    let data = dir.path().join("data").display().to_string();
    let listen = format!("--web.listen-address={address}");
    check(
        &[&format!("--config.file={config}"), &format!("--storage.tsdb.path={data}"), &listen],
        &[&address],
    );
    let path = format!("--storage.longterm.path={}", dir.path().join("longterm").display());
    check(&["longterm", &path, &listen], &[&address]);
}

#[test]
fn a_locked_or_unwritable_folder_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = format!("--config.file={}", write(dir.path(), "p.yml", ""));
    let data = dir.path().join("data").display().to_string();
    let path = format!("--storage.tsdb.path={data}");
    let port = free_port();
    let first = Process::almanac(&[&config, &path, &format!("--web.listen-address=127.0.0.1:{port}")]);
    ready(&first, port);
    check(&[&config, &path, "--web.listen-address=127.0.0.1:0"], &[&data, "in use by another process"]);

    let longterm_path = dir.path().join("longterm").display().to_string();
    let longterm = format!("--storage.longterm.path={longterm_path}");
    let port = free_port();
    let second =
        Process::almanac(&["longterm", &longterm, &format!("--web.listen-address=127.0.0.1:{port}")]);
    ready(&second, port);
    check(
        &["longterm", &longterm, "--web.listen-address=127.0.0.1:0"],
        &[&longterm_path, "already open in another process"],
    );

    // A file where the folder should be cannot be written into, not even by root.
    let blocked = write(dir.path(), "file", "");
    check(
        &[&config, &format!("--storage.tsdb.path={blocked}/data"), "--web.listen-address=127.0.0.1:0"],
        &[&blocked],
    );
    check(
        &["longterm", &format!("--storage.longterm.path={blocked}/data"), "--web.listen-address=127.0.0.1:0"],
        &[&blocked],
    );
}
