//! That the simulated disk does what its header says.

use super::*;
use crate::dir::{self, OutFile};

fn written(path: &Path, bytes: &[u8]) -> OutFile {
    let mut out = OutFile::create(path).expect("created");
    out.write(bytes).expect("written");
    out.flush().expect("written");
    out
}

#[test]
fn what_is_synced_stays_and_the_rest_may_go() {
    let (mut short, mut torn, mut nameless) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let root = disk.root();
        let mut out = written(&root.join("a"), &[1; 2000]);
        out.sync().expect("synced");
        dir::sync(&root).expect("synced");
        out.write(&[2; 3000]).expect("written");
        out.flush().expect("written");
        written(&root.join("b"), b"b");
        disk.restart(true);
        assert!(out.sync().is_err(), "a file of the process before");
        let a = dir::read(&root.join("a")).expect("read").expect("there");
        assert!(a[..2000] == [1; 2000], "seed {seed}");
        assert!(a[2000..].iter().all(|b| matches!(b, 0 | 2)), "seed {seed}");
        short += u32::from(a.len() < 5000);
        torn += u32::from(a[2000..].contains(&0) && a[2000..].contains(&2));
        nameless += u32::from(!dir::exists(&root.join("b")));
    }
    assert!(short > 20 && torn > 20 && nameless > 20, "{short} {torn} {nameless}");
}

#[test]
fn renames_need_their_directory() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let root = disk.root();
        dir::create_all(&root.join("x.tmp")).expect("made");
        written(&root.join("x.tmp/f"), b"f").sync().expect("synced");
        dir::sync(&root.join("x.tmp")).expect("synced");
        dir::sync(&root).expect("synced");
        dir::publish(&root.join("x.tmp"), &root.join("x")).expect("published");
        dir::remove_all(&root.join("x")).expect("removed");
        disk.restart(true);
        assert!(!dir::exists(&root.join("x.tmp")), "the rename was synced");
        match dir::read(&root.join("x/f")).ok().flatten() {
            Some(_) => old += 1,
            None => new += 1,
        }
    }
    assert!(old > 10 && new > 10, "{old} {new}");
}

#[test]
fn a_process_that_ends_leaves_what_it_wrote() {
    let disk = SimDisk::new(1);
    let root = disk.root();
    written(&root.join("a"), &[1; 100]);
    disk.plan(Plan { off_at: Some(2), ..Plan::default() });
    let mut out = OutFile::create(&root.join("b")).expect("created");
    assert!(out.write(&[2; 100]).and_then(|()| out.flush()).is_err());
    assert!(disk.is_off() && OutFile::create(&root.join("c")).is_err());
    disk.restart(false);
    assert_eq!(dir::read(&root.join("a")).expect("read"), Some(vec![1; 100]));
    assert!(dir::len(&root.join("b")).expect("there") <= 100);
    assert!(!dir::exists(&root.join("c")));
}

#[test]
fn a_failed_fsync_loses_and_the_next_one_says_nothing() {
    for loss in [Loss::Cached, Loss::Evicted] {
        let disk = SimDisk::new(3);
        let path = disk.root().join("a");
        let mut out = written(&path, &[1; 100_000]);
        dir::sync(&disk.root()).expect("synced");
        disk.plan(Plan { bad_sync: Some((0, loss)), ..Plan::default() });
        assert!(out.sync().is_err() && disk.has_lost());
        out.sync().expect("says nothing");
        let seen = dir::read(&path).expect("read").expect("there");
        assert_eq!(seen.contains(&0), loss == Loss::Evicted);
        disk.restart(true);
        assert!(dir::read(&path).expect("read").expect("there").contains(&0));
    }
}

#[test]
fn a_full_disk_gets_better() {
    let disk = SimDisk::new(4);
    let root = disk.root();
    disk.plan(Plan { full: 2..4, ..Plan::default() });
    let mut out = OutFile::create(&root.join("a")).expect("created");
    let (e, usable) = out.write_through(&[1; 10]).expect_err("full");
    assert!(usable && e.to_string().contains("space"), "{e}");
    assert_eq!(dir::len(&root.join("a")).expect("there"), 0, "cut back");
    out.write_through(&[1; 10]).expect("written");
    assert_eq!(disk.changes(), 4);
    let (path, len) = disk.files().remove(0);
    assert_eq!(len, 10);
    disk.flip(&path, 3);
    assert_eq!(dir::read(&path).expect("read").map(|b| b[0]), Some(9));
}
