//! The functions of the language: names, signatures, and whether they are experimental. Follows Prometheus's
//! `querying/functions.md`.
//!
//! What they compute is in `crate::functions`.

use super::ast::ValueType;
use ValueType::{Matrix, Scalar, String, Vector};

/// Signature of a function.
#[derive(Debug)]
pub struct FunctionSpec {
    /// Its name.
    pub name: &'static str,
    /// Types of its arguments; the last one is that of all further ones of a variadic function.
    pub args: &'static [ValueType],
    /// 0: exactly `args`. Else the last of `args` may be missing, and there may be up to this many arguments in its
    /// place; any number when negative.
    pub variadic: i32,
    /// What it gives.
    pub returns: ValueType,
    /// Whether it is behind the switch for experimental functions.
    pub experimental: bool,
}

/// Functions are told apart by their name.
impl PartialEq for FunctionSpec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for FunctionSpec {}

/// The function with this name.
#[must_use]
pub fn function(name: &str) -> Option<&'static FunctionSpec> {
    FUNCTIONS.binary_search_by(|f| f.name.cmp(name)).ok().map(|i| &FUNCTIONS[i])
}

const fn stable(name: &'static str, args: &'static [ValueType], returns: ValueType) -> FunctionSpec {
    FunctionSpec { name, args, variadic: 0, returns, experimental: false }
}

const fn variadic(
    name: &'static str,
    args: &'static [ValueType],
    variadic: i32,
    returns: ValueType,
) -> FunctionSpec {
    FunctionSpec { name, args, variadic, returns, experimental: false }
}

const fn experimental(f: FunctionSpec) -> FunctionSpec {
    FunctionSpec { experimental: true, ..f }
}

/// All functions, sorted by name.
pub static FUNCTIONS: [FunctionSpec; 90] = [
    stable("abs", &[Vector], Vector),
    stable("absent", &[Vector], Vector),
    stable("absent_over_time", &[Matrix], Vector),
    stable("acos", &[Vector], Vector),
    stable("acosh", &[Vector], Vector),
    stable("asin", &[Vector], Vector),
    stable("asinh", &[Vector], Vector),
    stable("atan", &[Vector], Vector),
    stable("atanh", &[Vector], Vector),
    stable("avg_over_time", &[Matrix], Vector),
    stable("ceil", &[Vector], Vector),
    stable("changes", &[Matrix], Vector),
    stable("clamp", &[Vector, Scalar, Scalar], Vector),
    stable("clamp_max", &[Vector, Scalar], Vector),
    stable("clamp_min", &[Vector, Scalar], Vector),
    stable("cos", &[Vector], Vector),
    stable("cosh", &[Vector], Vector),
    stable("count_over_time", &[Matrix], Vector),
    variadic("day_of_month", &[Vector], 1, Vector),
    variadic("day_of_week", &[Vector], 1, Vector),
    variadic("day_of_year", &[Vector], 1, Vector),
    variadic("days_in_month", &[Vector], 1, Vector),
    stable("deg", &[Vector], Vector),
    stable("delta", &[Matrix], Vector),
    stable("deriv", &[Matrix], Vector),
    experimental(stable("double_exponential_smoothing", &[Matrix, Scalar, Scalar], Vector)),
    experimental(stable("end", &[], Scalar)),
    stable("exp", &[Vector], Vector),
    stable("first_over_time", &[Matrix], Vector),
    stable("floor", &[Vector], Vector),
    stable("histogram_avg", &[Vector], Vector),
    stable("histogram_count", &[Vector], Vector),
    stable("histogram_fraction", &[Scalar, Scalar, Vector], Vector),
    stable("histogram_quantile", &[Scalar, Vector], Vector),
    experimental(variadic("histogram_quantiles", &[Vector, String, Scalar, Scalar], 9, Vector)),
    stable("histogram_stddev", &[Vector], Vector),
    stable("histogram_stdvar", &[Vector], Vector),
    stable("histogram_sum", &[Vector], Vector),
    variadic("hour", &[Vector], 1, Vector),
    stable("idelta", &[Matrix], Vector),
    stable("increase", &[Matrix], Vector),
    experimental(variadic("info", &[Vector, Vector], 1, Vector)),
    stable("irate", &[Matrix], Vector),
    variadic("label_join", &[Vector, String, String, String], -1, Vector),
    stable("label_replace", &[Vector, String, String, String, String], Vector),
    stable("last_over_time", &[Matrix], Vector),
    stable("ln", &[Vector], Vector),
    stable("log10", &[Vector], Vector),
    stable("log2", &[Vector], Vector),
    experimental(stable("mad_over_time", &[Matrix], Vector)),
    experimental(stable("max_of", &[Scalar, Scalar], Scalar)),
    stable("max_over_time", &[Matrix], Vector),
    experimental(stable("min_of", &[Scalar, Scalar], Scalar)),
    stable("min_over_time", &[Matrix], Vector),
    variadic("minute", &[Vector], 1, Vector),
    variadic("month", &[Vector], 1, Vector),
    stable("pi", &[], Scalar),
    stable("predict_linear", &[Matrix, Scalar], Vector),
    stable("present_over_time", &[Matrix], Vector),
    stable("quantile_over_time", &[Scalar, Matrix], Vector),
    stable("rad", &[Vector], Vector),
    experimental(stable("range", &[], Scalar)),
    stable("rate", &[Matrix], Vector),
    stable("resets", &[Matrix], Vector),
    variadic("round", &[Vector, Scalar], 1, Vector),
    stable("scalar", &[Vector], Scalar),
    stable("sgn", &[Vector], Vector),
    stable("sin", &[Vector], Vector),
    stable("sinh", &[Vector], Vector),
    stable("sort", &[Vector], Vector),
    experimental(variadic("sort_by_label", &[Vector, String], -1, Vector)),
    experimental(variadic("sort_by_label_desc", &[Vector, String], -1, Vector)),
    stable("sort_desc", &[Vector], Vector),
    stable("sqrt", &[Vector], Vector),
    experimental(stable("start", &[], Scalar)),
    experimental(stable("start_timestamp", &[Vector], Vector)),
    stable("stddev_over_time", &[Matrix], Vector),
    stable("stdvar_over_time", &[Matrix], Vector),
    experimental(stable("step", &[], Scalar)),
    stable("sum_over_time", &[Matrix], Vector),
    stable("tan", &[Vector], Vector),
    stable("tanh", &[Vector], Vector),
    stable("time", &[], Scalar),
    stable("timestamp", &[Vector], Vector),
    experimental(stable("ts_of_first_over_time", &[Matrix], Vector)),
    experimental(stable("ts_of_last_over_time", &[Matrix], Vector)),
    experimental(stable("ts_of_max_over_time", &[Matrix], Vector)),
    experimental(stable("ts_of_min_over_time", &[Matrix], Vector)),
    stable("vector", &[Scalar], Vector),
    variadic("year", &[Vector], 1, Vector),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_searched() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(function("rate").map(|f| (f.args, f.returns)), Some((&[Matrix][..], Vector)));
        assert!(function("info").is_some_and(|f| f.experimental && f.variadic == 1));
        assert!(function("nope").is_none());
    }
}
