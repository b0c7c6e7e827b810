//! File names by pattern, as Go's `filepath.Glob` finds them: `*`, `?`, `[a-z]`, `[^a-z]`, and `\` before what is meant
//! literally. No wildcard stands for a `/`.
//!
//! Spec: <https://pkg.go.dev/path/filepath#Match>.

use std::fs;
use std::io;
use std::path::Path;

/// What files a pattern names.
#[derive(Debug)]
pub struct Found {
    /// The files, sorted within each folder.
    pub paths: Vec<String>,
    /// The first folder that could not be listed; more files may be there.
    pub unlisted: Option<io::Error>,
}

/// The files that `pattern` names: itself, if it is there, when it has no wildcards.
///
/// # Errors
/// When the pattern is malformed.
pub fn expand(pattern: &str) -> Result<Found, String> {
    if matches(pattern, "").is_none() {
        return Err(format!("{pattern:?}: syntax error in pattern"));
    }
    let mut unlisted = None;
    let paths = expand_into(pattern, &mut unlisted);
    Ok(Found { paths, unlisted })
}

fn expand_into(pattern: &str, unlisted: &mut Option<io::Error>) -> Vec<String> {
    if !has_wildcards(pattern) {
        return match fs::symlink_metadata(pattern) {
            Ok(_) => vec![pattern.to_owned()],
            Err(e) => {
                // A folder that is not there may come back; what was known of it stays until then.
                let parent = Path::new(pattern).parent().filter(|p| !p.as_os_str().is_empty());
                if e.kind() != io::ErrorKind::NotFound || parent.is_some_and(|p| !p.exists()) {
                    unlisted.get_or_insert(e);
                }
                Vec::new()
            }
        };
    }
    let (dir, name) = match pattern.rfind('/') {
        Some(i) => pattern.split_at(i + 1),
        None => ("", pattern),
    };
    let above = dir.strip_suffix('/').filter(|d| !d.is_empty()).unwrap_or(dir);
    let dirs = if has_wildcards(above) { expand_into(above, unlisted) } else { vec![above.to_owned()] };
    let mut paths = Vec::new();
    for dir in dirs {
        match names(&dir) {
            Ok(mut found) => {
                found.retain(|n| matches(name, n) == Some(true));
                found.sort();
                let prefix = if dir.is_empty() || dir.ends_with('/') { dir } else { dir + "/" };
                paths.extend(found.into_iter().map(|n| format!("{prefix}{n}")));
            }
            // Among folders that a wildcard found there are files, too.
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {}
            Err(e) => {
                unlisted.get_or_insert(e);
            }
        }
    }
    paths
}

fn names(dir: &str) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(if dir.is_empty() { "." } else { dir })?;
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

fn has_wildcards(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '\\'])
}

/// Whether a pattern matches a whole name; `None` when it is malformed, wherever in it.
fn matches(pattern: &str, name: &str) -> Option<bool> {
    let pieces = parse(pattern)?;
    let name: Vec<char> = name.chars().collect();
    // Where the last `*` was, and how much of the name it takes; all earlier ones need not take more.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() || p < pieces.len() {
        let fits = match pieces.get(p) {
            Some(Piece::Star) => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some(piece) => name.get(n).is_some_and(|c| piece.fits(*c)),
            None => false,
        };
        if fits {
            (p, n) = (p + 1, n + 1);
            continue;
        }
        match star {
            Some((at, taken)) if name.get(taken).is_some_and(|c| *c != '/') => {
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
            _ => return Some(false),
        }
    }
    Some(true)
}

#[derive(Debug)]
enum Piece {
    Star,
    Any,
    Literal(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Piece {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => c != '/',
            Self::Literal(l) => *l == c,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated
            }
        }
    }
}

fn parse(pattern: &str) -> Option<Vec<Piece>> {
    let mut chars = pattern.chars().peekable();
    let mut out = Vec::new();
    while let Some(c) = chars.next() {
        out.push(match c {
            '*' => Piece::Star,
            '?' => Piece::Any,
            '\\' => Piece::Literal(chars.next()?),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                let bound = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| match chars.next()? {
                    '\\' => chars.next(),
                    '-' | ']' => None,
                    c => Some(c),
                };
                loop {
                    if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
                        break;
                    }
                    let from = bound(&mut chars)?;
                    let to = if chars.next_if_eq(&'-').is_some() { bound(&mut chars)? } else { from };
                    ranges.push((from, to));
                }
                Piece::Class { negated, ranges }
            }
            c => Piece::Literal(c),
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, name, expect) in [
            ("abc", "abc", Some(true)),
            ("*", "", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*/b", "abc/b", Some(true)),
            ("a*/b", "a/c/b", Some(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Some(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "a\u{263a}b", Some(true)),
            ("a[^a]b", "a\u{263a}b", Some(true)),
            ("a?b", "a/b", Some(false)),
            ("[\\]a]", "]", Some(true)),
            ("[x\\-]", "-", Some(true)),
            ("[x-]", "x", None),
            ("[-x]", "x", None),
            ("[]a]", "]", None),
            ("[", "a", None),
            ("[^bc", "a", None),
            ("a[", "ab", None),
            ("a\\", "a", None),
        ] {
            assert_eq!(matches(pattern, name), expect, "{pattern:?} on {name:?}");
        }
    }

    #[test]
    fn folders_may_have_wildcards_too() {
        let root = tempfile::tempdir().unwrap();
        let path = |p: &str| root.path().join(p).to_string_lossy().into_owned();
        for dir in ["d1", "d2"] {
            fs::create_dir(path(dir)).unwrap();
            for file in ["b.yml", "a.yml", "a.json"] {
                fs::write(path(&format!("{dir}/{file}")), "").unwrap();
            }
        }
        fs::write(path("d3"), "").unwrap();
        let found = |pattern: &str| expand(&path(pattern)).unwrap().paths;
        assert_eq!(found("d[13]/?.yml"), [path("d1/a.yml"), path("d1/b.yml")]);
        assert_eq!(found("d*/a.*n"), [path("d1/a.json"), path("d2/a.json")]);
        assert_eq!(found("d1/a.yml"), [path("d1/a.yml")]);
        assert!(found("d1/c.yml").is_empty());
        assert!(expand(&path("d1/c.yml")).unwrap().unlisted.is_none());
        assert!(expand(&path("d4/c.yml")).unwrap().unlisted.is_some());
        assert!(expand(&path("d4/*.yml")).unwrap().unlisted.is_some());
        assert!(expand("[").is_err());
    }
}
