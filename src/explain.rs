//! `almanac promql`: the plan of a query, and its text in the usual form.

use model::clock::SystemClock;
use promql::parser::{ParserOptions, parse, pretty};
use promql::{Engine, EngineConfig};

use crate::cli::PromqlCommand;

/// Does what is asked and says whether it could. Everything experimental is allowed: nothing is evaluated.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub fn run(what: &PromqlCommand) -> bool {
    let result = match what {
        PromqlCommand::Explain { query, start, end, step } => {
            explain(query, start.map(to_ms), end.map(to_ms), step.ms())
        }
        PromqlCommand::Format { query } => {
            parse(query, &ParserOptions::all()).map(|e| pretty(&e) + "\n").map_err(|e| e.to_string())
        }
    };
    match result {
        Ok(text) => {
            print!("{text}");
            true
        }
        Err(e) => {
            eprintln!("almanac: {e}");
            false
        }
    }
}

fn to_ms(seconds: f64) -> i64 {
    (seconds * 1_000.0) as i64
}

fn explain(query: &str, start: Option<i64>, end: Option<i64>, step_ms: i64) -> Result<String, String> {
    let config = EngineConfig {
        experimental_functions: true,
        duration_expressions: true,
        extended_range_selectors: true,
        fill_modifiers: true,
        ..EngineConfig::default()
    };
    let clock = SystemClock::shared();
    let start_ms = start.unwrap_or_else(|| clock.now_ms());
    let engine = Engine::new(config, clock, &prometheus::Registry::new());
    let (end_ms, step_ms) = end.map_or((start_ms, 0), |end_ms| (end_ms, step_ms));
    engine.explain(query, start_ms, end_ms, step_ms).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_shown() {
        let plan = |query: &str, end: Option<i64>| explain(query, Some(0), end, 60_000);
        let expect = "binary +\n  select #0 {__name__=\"up\"}\n  number 6\n";
        assert_eq!(plan("up + 2 * 3", None).as_deref(), Ok(expect));
        let pinned = plan("up @ 60 + up", Some(600_000)).expect("a plan");
        assert!(pinned.starts_with("binary +\n  once\n"), "{pinned}");
        assert!(plan("up +", None).is_err_and(|e| e.contains("unexpected end of input")));
        assert!(plan("limitk(1, up[1m:step()+1])", None).is_err());
    }
}
