//! Holds the tree against its own documents: who may import whom, links of the documents, and what files must open with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Who may import whom. A crate may be missing from no list; a new edge is a design decision.
const IMPORTS: &[(&str, &str, &[&str])] = &[
    ("model", "model", &[]),
    ("summary", "summary", &["model"]),
    ("httpclient", "httpclient", &["model"]),
    ("federation/wire", "wire", &["model"]),
    ("tsdb", "tsdb", &["model", "summary"]),
    ("promql", "promql", &["model", "summary"]),
    ("promql/testkit", "promql-testkit", &["model", "promql"]),
    ("scraper", "scraper", &["model", "summary", "httpclient"]),
    ("federation", "federation", &["model", "httpclient", "wire"]),
    ("rules", "rules", &["model", "summary", "httpclient", "promql"]),
    ("spans", "spans", &["model", "httpclient", "wire"]),
    ("api", "api", &["model", "wire", "promql"]),
    ("tools/compare", "promql-compare", &["model", "wire", "promql", "promql-testkit"]),
    (
        ".",
        "almanac",
        &[
            "model",
            "httpclient",
            "wire",
            "tsdb",
            "promql",
            "promql-testkit",
            "scraper",
            "federation",
            "rules",
            "spans",
            "api",
        ],
    ),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Names below `[dependencies]` and other tables whose name ends so, by table.
fn dependencies(manifest: &str) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            table = name.to_owned();
        } else if let Some((key, _)) = line.split_once('=') {
            let name = key.trim().split('.').next().unwrap_or_default().trim_matches('"').to_owned();
            out.entry(table.clone()).or_default().push(name);
        }
    }
    out
}

#[test]
fn imports_follow_the_table() {
    let names: Vec<&str> = IMPORTS.iter().map(|(_, name, _)| *name).collect();
    for (folder, name, allowed) in IMPORTS {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{folder} holds the package {name}");
        let tables = dependencies(&manifest);
        for dependency in tables.get("dependencies").into_iter().flatten() {
            let ours = names.contains(&dependency.as_str());
            assert!(!ours || allowed.contains(&dependency.as_str()), "{name} must not import {dependency}");
        }
    }
}

#[test]
fn every_member_is_in_the_table() {
    let manifest = read(&root().join("Cargo.toml"));
    let start = manifest.find("members = [").expect("a workspace");
    let list = &manifest[start..start + manifest[start..].find(']').expect("closed")];
    let members: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let table: Vec<&str> = IMPORTS.iter().map(|(folder, _, _)| *folder).filter(|f| *f != ".").collect();
    assert_eq!(members.len(), table.len());
    assert!(members.iter().all(|m| table.contains(m)), "{members:?} against {table:?}");
}

#[test]
fn only_federation_knows_rocksdb_and_only_the_scraper_knows_kubernetes() {
    for (folder, name, _) in IMPORTS {
        let tables = dependencies(&read(&root().join(folder).join("Cargo.toml")));
        let direct: Vec<&String> = tables.get("dependencies").into_iter().flatten().collect();
        for (package, owner) in [("rocksdb", "federation"), ("kube", "scraper"), ("serde_yaml", "almanac")] {
            assert!(
                !direct.iter().any(|d| *d == package) || *name == owner,
                "{package} belongs to {owner}, not {name}"
            );
        }
    }
}

/// Relative links of the documents point at something.
#[test]
fn links_point_at_something() {
    let mut documents =
        vec![root().join("README.md"), root().join("ARCHITECTURE.md"), root().join("CHANGELOG.md")];
    collect(&root().join("docs"), "md", &mut documents);
    let mut links = 0;
    for document in documents {
        let text = read(&document);
        let dir = document.parent().expect("a file has a folder");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            assert!(
                dir.join(target).exists(),
                "{} links to {target}, which is not there",
                document.display()
            );
        }
    }
    assert!(links > 20, "the documents link into the tree");
}

/// Where the source files are.
const FOLDERS: [&str; 15] = [
    "api",
    "benches",
    "federation",
    "fuzz",
    "httpclient",
    "model",
    "promql",
    "rules",
    "scraper",
    "spans",
    "src",
    "summary",
    "tests",
    "tools",
    "tsdb",
];

/// Every source file says what it holds.
#[test]
fn files_open_with_their_purpose() {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), "rs", &mut files);
    }
    assert!(files.len() > 100);
    for file in files {
        let text = read(&file);
        let first = text.lines().next().unwrap_or_default();
        let is_test = file.ends_with("tests.rs") || file.components().any(|c| c.as_os_str() == "tests");
        assert!(first.starts_with("//!") || is_test, "{} opens without //!", file.display());
    }
}

/// Nothing unfinished, nothing ignored.
#[test]
fn nothing_is_half_done() {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), "rs", &mut files);
    }
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
        concat!("FIX", "ME"),
    ];
    for file in files {
        let text = read(&file);
        for word in words {
            assert!(!text.contains(word), "{} holds {word}", file.display());
        }
    }
}

fn collect(dir: &Path, extension: &str, out: &mut Vec<PathBuf>) {
    for entry in
        std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())).filter_map(Result::ok)
    {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "target") {
                collect(&path, extension, out);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            out.push(path);
        }
    }
}
