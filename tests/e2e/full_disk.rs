//! A disk that is really full, of the long-term node and then of the scraper node: nothing acknowledged is lost, and all goes on by
//! itself once there is room. Needs the right to mount a small file system in memory; else it says "skipped".

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{Exporter, Process, eventually, free_port, get, number, ready, write};

/// A small file system in memory; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder");
        let options = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        if done.as_ref().is_ok_and(|o| o.status.success()) {
            return Some(Self(at.to_path_buf()));
        }
        eprintln!("skipped: a file system in memory cannot be mounted here: {done:?}");
        None
    }

    fn resize(&self, size: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status();
        assert!(done.expect("mount runs").success());
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.0.join("filler")).expect("made");
        while file.write_all(&[0; 4096]).is_ok() {}
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_on_either_side_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a folder");
    let (lt, sc) = (dir.path().join("lt"), dir.path().join("sc"));
    let Some(lt) = Mount::new(&lt, "16m") else { return };
    let Some(sc) = Mount::new(&sc, "64m") else { return };
    let exporter = Exporter::serving(|n| {
        let mut body = format!("scrapes {n}\n");
        // Digits that do not compress.
        let noise = |i: u64| (n * 2000 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..2000).for_each(|i| body.push_str(&format!("f{{i=\"{i}\"}} {}\n", noise(i))));
        Some(body)
    });
    let (scraper_port, longterm_port) = (free_port(), free_port());
    let config = |targets: &str| {
        format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, external_labels: {{cluster: c}}}}
scrape_configs: [{{job_name: a, static_configs: [{{targets: [{targets}], labels: {{longterm: x}}}}]}}]
longterm: {{url: 'http://127.0.0.1:{longterm_port}'}}
"
        )
    };
    let file = write(dir.path(), "p.yml", &config(&format!("'127.0.0.1:{}'", exporter.port)));
    let longterm = Process::almanac(&[
        "longterm",
        &format!("--storage.longterm.path={}", lt.0.join("data").display()),
        &format!("--web.listen-address=127.0.0.1:{longterm_port}"),
    ]);
    ready(&longterm, longterm_port);
    let scraper = Process::almanac(&[
        &format!("--config.file={file}"),
        &format!("--storage.tsdb.path={}", sc.0.join("tsdb").display()),
        &format!("--web.listen-address=127.0.0.1:{scraper_port}"),
        "--web.enable-admin-api",
    ]);
    ready(&scraper, scraper_port);
    let newest = |port| number(port, "max(scrapes)").unwrap_or_default();
    let arrives = |what: &str| {
        let target = (exporter.scrapes() + 5) as f64;
        eventually(what, || (newest(longterm_port) >= target).then_some(()));
    };
    arrives("samples arrive");

    lt.fill();
    eventually("the long-term node says that its disk is full", || {
        longterm.log().contains("samples cannot be taken").then_some(())
    });
    assert!(get(longterm_port, "/-/ready").is_some(), "it lives, and answers queries");
    lt.resize("400m");
    arrives("samples arrive again");

    sc.fill();
    let before = exporter.scrapes();
    eventually("scraping goes on", || (exporter.scrapes() > before + 25).then_some(()));
    assert!(newest(scraper_port) > 0.0, "it lives, and answers queries");
    sc.resize("400m");
    arrives("samples arrive after the scraper node's disk was full");

    write(dir.path(), "p.yml", &config(""));
    scraper.signal("HUP");
    eventually("the target is gone", || {
        get(scraper_port, "/api/v1/targets").filter(|t| t.contains("\"activeTargets\":[]"))
    });
    let now = number(scraper_port, "vector(time())").expect("a number");
    let url = format!("http://127.0.0.1:{scraper_port}");
    let (start, end) = (format!("--start={}", now - 600.0), format!("--end={now}"));
    eventually("the audit is clean", || {
        std::thread::sleep(Duration::from_millis(300));
        let audit = ["longterm", "audit", "--url", &url, &start, &end];
        let done = Command::new(env!("CARGO_BIN_EXE_almanac")).args(audit).output().expect("it runs");
        done.status.success().then_some(())
    });
    let count = |port| number(port, "sum(count_over_time({__name__=~\"f|scrapes\"}[10m]))");
    assert_eq!(count(longterm_port), count(scraper_port));
    for process in [scraper, longterm] {
        let (code, log) = process.terminate();
        assert_eq!(code, 0, "{log}");
    }
}
