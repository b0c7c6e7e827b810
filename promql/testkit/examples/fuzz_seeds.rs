//! Writes what fuzzers start from into a folder: `promql_parser/`, `promql_eval/` and `promql_script/` with the queries and
//! scripts below `CONFORMANCE_DIR`, if that is set, and `promql.dict` with the words of the language.
//!
//! `cargo run -p promql-testkit --example fuzz_seeds -- FOLDER`
#![allow(clippy::disallowed_methods, reason = "a tool for developers that writes a folder of its own")]

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("name the folder to write to")?);
    for target in ["promql_parser", "promql_eval", "promql_script"] {
        std::fs::create_dir_all(folder.join(target))?;
    }
    std::fs::write(folder.join("promql.dict"), dictionary())?;
    let Some(scripts) = std::env::var_os("CONFORMANCE_DIR").map(|d| PathBuf::from(d).join("promqltest"))
    else {
        eprintln!("CONFORMANCE_DIR is not set: only the dictionary was written");
        return Ok(());
    };
    let (mut queries, mut blocks) = (0, 0);
    for entry in std::fs::read_dir(scripts)? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "test") {
            continue;
        }
        for block in std::fs::read_to_string(&path)?.split("\n\n") {
            blocks += 1;
            write(&folder, &["promql_script"], blocks, block)?;
            for query in block.lines().filter_map(query_of) {
                queries += 1;
                write(&folder, &["promql_parser", "promql_eval"], queries, query)?;
            }
        }
    }
    eprintln!("{queries} queries and {blocks} blocks of scripts in {}", folder.display());
    Ok(())
}

fn write(folder: &Path, targets: &[&str], number: usize, text: &str) -> std::io::Result<()> {
    targets.iter().try_for_each(|t| std::fs::write(folder.join(t).join(format!("seed-{number:05}")), text))
}

/// The query of an eval line.
fn query_of(line: &str) -> Option<&str> {
    let words_before = match line.split_whitespace().collect::<Vec<_>>()[..] {
        [eval, "instant", ..] if eval.starts_with("eval") => 4,
        [eval, "range", ..] if eval.starts_with("eval") => 8,
        _ => return None,
    };
    let mut rest = line.trim_start();
    for _ in 0..words_before {
        rest = rest.split_once(char::is_whitespace)?.1.trim_start();
    }
    Some(rest)
}

/// The words in the notation of libFuzzer.
fn dictionary() -> String {
    promql_testkit::hostile::vocabulary().into_iter().fold(String::new(), |mut out, word| {
        out.push('"');
        for b in word.bytes() {
            match b {
                b'"' | b'\\' => out.extend(['\\', b as char]),
                b' '..=b'~' => out.push(b as char),
                // Writing to a string does not fail.
                _ => drop(write!(out, "\\x{b:02x}")),
            }
        }
        out.push_str("\"\n");
        out
    })
}
