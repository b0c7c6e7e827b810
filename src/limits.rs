//! The process's limit of open files: a connection per target is kept, and the usual soft limit of 1,024 is there for
//! programs that use `select`, which this one does not.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, as Go does for Prometheus, and says what it is.
pub fn raise_open_files() {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    if before.current != before.maximum
        && let Err(e) = setrlimit(Resource::Nofile, wanted)
    {
        tracing::warn!(error = %e, "the soft limit of open files cannot be raised to the hard one");
    }
    let now = getrlimit(Resource::Nofile);
    tracing::info!(soft = text(now.current), hard = text(now.maximum), "limit of open files");
}

fn text(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".into(), |n| n.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise_open_files();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, now.maximum);
        assert_eq!((text(None), text(Some(7))), ("unlimited".into(), "7".into()));
    }
}
