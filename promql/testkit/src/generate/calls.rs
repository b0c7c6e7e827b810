//! Calls of functions, every one of the language.

use promql::parser::ast::ValueType;
use promql::parser::functions::{FUNCTIONS, FunctionSpec};

use super::expression::Writer;
use super::selector::Want;

/// Functions that a vector call of its own writes, or that give scalars.
fn has_a_form_of_its_own(name: &str) -> bool {
    name.starts_with("histogram_")
        || matches!(
            name,
            "info" | "label_replace" | "label_join" | "sort_by_label" | "sort_by_label_desc" | "vector"
        )
}

impl Writer<'_> {
    fn is_allowed(&self, f: &FunctionSpec) -> bool {
        (!f.experimental || self.profile.experimental_functions)
            && !self.profile.without_functions.contains(&f.name)
    }

    /// One of the functions for which `fits` holds.
    fn function(&mut self, fits: impl Fn(&FunctionSpec) -> bool) -> &'static FunctionSpec {
        let all: Vec<&FunctionSpec> = FUNCTIONS.iter().filter(|f| self.is_allowed(f) && fits(f)).collect();
        self.rng.pick(&all)
    }

    // === Over windows ===

    pub(super) fn window_call(&mut self, depth: u32) -> String {
        let growth = ["rate", "increase", "delta", "irate", "idelta", "resets", "changes"];
        let name = if self.rng.chance(40) {
            self.rng.pick(&growth)
        } else {
            self.function(|f| f.args.contains(&ValueType::Matrix)).name
        };
        let want = match name {
            "rate" | "increase" | "irate" | "resets" => {
                self.rng.pick(&[Want::Counter, Want::Counter, Want::Buckets, Want::Native])
            }
            "delta" | "idelta" | "deriv" | "predict_linear" => Want::Gauge,
            _ => self.rng.pick(&[Want::Gauge, Want::Anything, Want::Native]),
        };
        let extended = self.profile.extended_range_selectors && self.rng.chance(18);
        let matrix = match name {
            "rate" | "increase" | "delta" if extended => {
                let word = self.rng.pick(&["anchored", "smoothed"]);
                self.extended_matrix(want, word)
            }
            "resets" | "changes" if extended => self.extended_matrix(want, "anchored"),
            _ => self.matrix(want, depth - 1),
        };
        match name {
            "quantile_over_time" => format!("{name}({}, {matrix})", self.fraction(depth - 1)),
            "predict_linear" => {
                let t = if self.rng.chance(85) {
                    self.rng.pick(&["60", "300", "-120", "0", "3600"]).to_owned()
                } else {
                    self.scalar(depth - 1)
                };
                format!("{name}({matrix}, {t})")
            }
            "double_exponential_smoothing" => {
                let (a, b) =
                    (self.rng.pick(&["0.1", "0.5", "0.9", "0.5", "2"]), self.rng.pick(&["0.1", "0.5", "1"]));
                format!("{name}({matrix}, {a}, {b})")
            }
            _ => format!("{name}({matrix})"),
        }
    }

    // === Over vectors ===

    pub(super) fn vector_call(&mut self, depth: u32) -> String {
        match self.rng.below(12) {
            0 => self.label_replace(depth),
            1 => self.label_join(depth),
            2 if self.profile.experimental_functions => self.experimental(depth),
            _ => {
                let f = self.function(|f| {
                    f.args.first() == Some(&ValueType::Vector)
                        && f.returns == ValueType::Vector
                        && !has_a_form_of_its_own(f.name)
                });
                self.plain_call(f, depth)
            }
        }
    }

    /// Vector first, then scalars, as the signature says.
    fn plain_call(&mut self, f: &FunctionSpec, depth: u32) -> String {
        let calendar = f.variadic == 1 && f.args.len() == 1;
        if calendar && self.rng.chance(25) {
            return format!("{}()", f.name);
        }
        let selector = matches!(f.name, "timestamp" | "start_timestamp") && self.rng.chance(60);
        let mut args = vec![if selector {
            let inner = self.instant_selector(Want::Anything);
            if self.rng.chance(15) { format!("({inner})") } else { inner }
        } else {
            self.vector(depth - 1)
        }];
        let optional = f.variadic == 1 && self.rng.chance(50);
        for _ in f.args.iter().skip(1 + usize::from(optional)) {
            args.push(self.scalar(depth - 1));
        }
        format!("{}({})", f.name, args.join(", "))
    }

    fn experimental(&mut self, depth: u32) -> String {
        if self.rng.chance(40) {
            let (f, inner) =
                (self.rng.pick(&["sort_by_label", "sort_by_label_desc"]), self.vector(depth - 1));
            let labels = self.rng.subset(&["\"job\"", "\"instance\"", "\"mode\"", "\"le\""], 50);
            let labels: String = labels.iter().map(|l| format!(", {l}")).collect();
            return format!("{f}({inner}{labels})");
        }
        let inner = self.vector(depth - 1);
        let selector = match self.rng.below(8) {
            0..=2 => "",
            3 => ", {version=~\".+\"}",
            4 => ", {cluster=\"eu\"}",
            5 => ", {__name__=~\"target_.*\"}",
            6 => ", {version=\"1.1\", cluster=~\".*\"}",
            _ => ", {__name__=\"flat\", mode=~\".+\"}",
        };
        format!("info({inner}{selector})")
    }

    fn label_replace(&mut self, depth: u32) -> String {
        let inner = self.vector(depth - 1);
        let rest = self.rng.pick(&[
            r#""target", "$1", "job", "(.*)""#,
            r#""job", "x-${1}$2", "job", "(.)(.*)""#,
            r#""mode", "", "mode", ".*""#,
            r#""target", "none", "job", "nothing""#,
            r#""instance", "all", "", """#,
            r#""__name__", "renamed", "job", "api""#,
            r#""target", "$name", "instance", "(?P<name>[0-9])""#,
            r#""job", "$1", "instance", "(1)|2""#,
        ]);
        format!("label_replace({inner}, {rest})")
    }

    fn label_join(&mut self, depth: u32) -> String {
        let inner = self.vector(depth - 1);
        let rest = self.rng.pick(&[
            r#""target", "-", "job", "instance""#,
            r#""target", "", "mode""#,
            r#""job", ",", "job", "mode", "nolabel""#,
            r#""mode", "-""#,
            r#""instance", "/", "nolabel""#,
        ]);
        format!("label_join({inner}, {rest})")
    }

    // === Over histograms ===

    pub(super) fn histogram_call(&mut self, depth: u32) -> String {
        let f = self.function(|f| f.name.starts_with("histogram_"));
        let classic = matches!(f.name, "histogram_quantile" | "histogram_quantiles" | "histogram_fraction")
            && (!self.profile.native_histograms || self.rng.chance(50));
        let inner = self.histograms(classic, depth);
        match f.name {
            "histogram_quantile" => format!("histogram_quantile({}, {inner})", self.fraction(depth - 1)),
            "histogram_quantiles" => {
                let quantiles: Vec<String> =
                    (0..self.rng.between(1, 3)).map(|_| self.fraction(depth - 1)).collect();
                format!("histogram_quantiles({inner}, \"q\", {})", quantiles.join(", "))
            }
            "histogram_fraction" => {
                let low = self.rng.pick(&["0", "-1", "0.1", "0.7", "-Inf", "2"]);
                let high = self.rng.pick(&["0.5", "1", "3", "Inf", "0", "9.5"]);
                format!("histogram_fraction({low}, {high}, {inner})")
            }
            name => format!("{name}({inner})"),
        }
    }

    fn histograms(&mut self, classic: bool, depth: u32) -> String {
        let want = if classic { Want::Buckets } else { Want::Native };
        match self.rng.below(10) {
            0 | 1 => self.instant_selector(want),
            2..=4 => {
                let matrix = self.matrix(want, 0);
                format!("rate({matrix})")
            }
            5..=7 => {
                let (matrix, outer) = (self.matrix(want, 0), self.rng.pick(&["sum", "avg"]));
                let by = if classic { self.rng.pick(&["le", "le, job", "job"]) } else { "job" };
                format!("{outer} by ({by}) (increase({matrix}))")
            }
            8 => {
                let (matrix, f) = (self.matrix(want, 0), self.rng.pick(&["sum", "avg", "last"]));
                format!("{f}_over_time({matrix})")
            }
            _ => self.vector(depth - 1),
        }
    }
}
