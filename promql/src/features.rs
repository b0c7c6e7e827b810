//! What of the language is switched on, by name, as `/api/v1/features` shows it.

use std::collections::BTreeMap;

use crate::engine::EngineConfig;
use crate::parser::functions::FUNCTIONS;

/// Features by category.
pub type Features = BTreeMap<String, BTreeMap<String, bool>>;

const KEYWORDS: [&str; 8] =
    ["bool", "by", "group_left", "group_right", "ignoring", "offset", "on", "without"];

const OPERATORS: [&str; 33] = [
    "!=",
    "!~",
    "%",
    "*",
    "+",
    "-",
    "/",
    "<",
    "</",
    "<=",
    "==",
    "=~",
    ">",
    ">/",
    ">=",
    "@",
    "^",
    "and",
    "atan2",
    "avg",
    "bottomk",
    "count",
    "count_values",
    "group",
    "max",
    "min",
    "or",
    "quantile",
    "stddev",
    "stdvar",
    "sum",
    "topk",
    "unless",
];

const EXPERIMENTAL_AGGREGATIONS: [&str; 2] = ["limit_ratio", "limitk"];

/// The features of an engine with these settings.
pub(crate) fn of(config: &EngineConfig) -> Features {
    let group = |pairs: Vec<(&str, bool)>| pairs.into_iter().map(|(n, on)| (n.to_owned(), on)).collect();
    let mut language: Vec<(&str, bool)> = KEYWORDS.into_iter().map(|k| (k, true)).collect();
    language.extend([
        ("anchored", config.extended_range_selectors),
        ("smoothed", config.extended_range_selectors),
        ("fill", config.fill_modifiers),
        ("fill_left", config.fill_modifiers),
        ("fill_right", config.fill_modifiers),
        ("at_modifier", true),
        ("negative_offset", true),
        ("per_query_lookback_delta", true),
        ("subqueries", true),
        ("per_step_stats", config.per_step_stats),
        ("delayed_name_removal", config.delayed_name_removal),
        ("type_and_unit_labels", config.type_and_unit_labels),
        ("duration_expr", config.duration_expressions),
    ]);
    let operators = OPERATORS.into_iter().map(|o| (o, true));
    let experimental = EXPERIMENTAL_AGGREGATIONS.into_iter().map(|a| (a, config.experimental_functions));
    let functions = FUNCTIONS.iter().map(|f| (f.name, !f.experimental || config.experimental_functions));
    BTreeMap::from([
        ("promql".to_owned(), group(language)),
        ("promql_operators".to_owned(), group(operators.chain(experimental).collect())),
        ("promql_functions".to_owned(), group(functions.collect())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experimental_ones_follow_the_settings() {
        let stock = of(&EngineConfig::default());
        let all = of(&EngineConfig { experimental_functions: true, ..EngineConfig::default() });
        for (group, name) in [("promql_functions", "mad_over_time"), ("promql_operators", "limitk")] {
            assert_eq!((stock[group][name], all[group][name]), (false, true), "{name}");
        }
        assert!(stock["promql_functions"]["rate"] && stock["promql_operators"]["atan2"]);
        assert!(stock["promql"]["duration_expr"] && !stock["promql"]["smoothed"]);
    }
}
