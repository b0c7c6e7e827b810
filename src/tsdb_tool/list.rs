//! `tsdb list`, and the table of blocks that other commands print too.

use std::io::Write;
use std::path::Path;

use tsdb::BlockInfo;

use super::go_text;

/// Characters a column of a table takes at least, and between columns.
const COLUMN_MIN: usize = 13;
const COLUMN_GAP: usize = 2;

pub(super) fn list(path: &Path, human_readable: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let db = super::open(path)?;
    print_blocks(&db.blocks(), true, human_readable, out)
}

pub(super) fn print_blocks(
    blocks: &[BlockInfo],
    with_header: bool,
    human_readable: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    const HEADER: [&str; 8] =
        ["BLOCK ULID", "MIN TIME", "MAX TIME", "DURATION", "NUM SAMPLES", "NUM CHUNKS", "NUM SERIES", "SIZE"];
    let mut rows: Vec<[String; 8]> = Vec::new();
    if with_header {
        rows.push(HEADER.map(str::to_owned));
    }
    let time = |ms: i64| if human_readable { go_text::date(ms) } else { ms.to_string() };
    for b in blocks {
        rows.push([
            b.ulid.clone(),
            time(b.min_time),
            time(b.max_time),
            go_text::duration_ms(b.max_time - b.min_time),
            b.samples.to_string(),
            b.chunks.to_string(),
            b.series.to_string(),
            if human_readable { go_text::bytes(b.bytes) } else { b.bytes.to_string() },
        ]);
    }
    let width = |column: usize| {
        let longest = rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
        (longest + COLUMN_GAP).max(COLUMN_MIN)
    };
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths).take(HEADER.len() - 1) {
            write!(out, "{cell:<width$}")?;
        }
        writeln!(out, "{}", row[HEADER.len() - 1])?;
    }
    Ok(())
}
