//! What `promtool`, where it is installed, reads from our directory.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::{Db, Expected};

/// The same for what is in blocks only: promtool does not read the log of a directory without one.
pub(super) fn check_blocks(db: &Db, dir: &Path, expected: &Expected) {
    let blocks = tempfile::tempdir().expect("tempdir");
    for name in super::block_names(dir) {
        super::compaction::copy_dir(&dir.join(&name), &blocks.path().join(&name));
    }
    std::fs::create_dir(blocks.path().join("wal")).expect("made");
    check(db, blocks.path(), expected);
}

/// Compares `promtool tsdb list` and `promtool tsdb dump` with what is expected. Prints "skipped" without promtool.
pub(super) fn check(db: &Db, dir: &Path, expected: &Expected) {
    db.flush().expect("synced");
    let run = |args: &[&str]| Command::new("promtool").arg("tsdb").args(args).arg(dir).output();
    let list = match run(&["list"]) {
        Ok(out) => out,
        Err(e) => {
            writeln!(std::io::stderr(), "skipped: promtool cannot be run: {e}").expect("stderr");
            return;
        }
    };
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    let blocks = super::block_names(dir);
    assert_eq!(text.lines().count(), blocks.len() + 1, "{text}");
    blocks.iter().for_each(|b| assert!(text.contains(b), "{text}"));

    let dump = run(&["dump"]).expect("it ran before");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let text = String::from_utf8_lossy(&dump.stdout);
    let mut got: Vec<(String, i64, u64)> = Vec::new();
    for line in text.lines() {
        let mut words = line.rsplitn(3, ' ');
        let t = words.next().and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        let v: f64 = words.next().and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        got.push((words.next().unwrap_or_default().to_owned(), t, v.to_bits()));
    }
    let mut expect: Vec<(String, i64, u64)> = Vec::new();
    for (labels, samples) in expected {
        let pairs: Vec<String> = labels.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
        let text = format!("{{{}}}", pairs.join(", "));
        expect.extend(samples.iter().map(|(t, v)| (text.clone(), *t, *v)));
    }
    got.sort();
    expect.sort();
    assert_eq!(got.len(), expect.len());
    assert!(got == expect, "first: {:?} {:?}", got.first(), expect.first());
}
