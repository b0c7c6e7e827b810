//! `label_replace` and `label_join`: change labels, look at no sample.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#label_join>, `#label_replace`.

use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder, Regexp};

use super::batch::Batch;
use super::context::Context;
use super::duplicates::Duplicates;
use super::operator::{BoxOperator, Builder, Operator, arg, text_arg};
use crate::error::{QueryError, Result};
use crate::functions::label::is_label_name;
use crate::plan::Grid;
use crate::plan::node::Call;

pub(crate) fn build_replace<'q>(b: Builder<'q>, c: &'q Call, grid: Grid) -> Result<BoxOperator<'q>> {
    let (dst, template, src, pattern) = (text_arg(c, 1)?, text_arg(c, 2)?, text_arg(c, 3)?, text_arg(c, 4)?);
    let regex = Regexp::new(pattern).map_err(|_| {
        QueryError::Execution(format!("invalid regular expression in label_replace(): {pattern}"))
    })?;
    check_name(dst, "destination", c.func)?;
    let edit = Edit::Replace { regex, template, src };
    Ok(Box::new(LabelOp::new(b.ctx, b.vector(arg(c, 0)?, grid)?, dst, edit)))
}

pub(crate) fn build_join<'q>(b: Builder<'q>, c: &'q Call, grid: Grid) -> Result<BoxOperator<'q>> {
    let (dst, separator) = (text_arg(c, 1)?, text_arg(c, 2)?);
    let sources = (3..c.args.len()).map(|i| text_arg(c, i)).collect::<Result<Vec<_>>>()?;
    sources.iter().try_for_each(|s| check_name(s, "source", c.func))?;
    check_name(dst, "destination", c.func)?;
    let edit = Edit::Join { separator, sources };
    Ok(Box::new(LabelOp::new(b.ctx, b.vector(arg(c, 0)?, grid)?, dst, edit)))
}

fn check_name(name: &str, role: &str, func: &str) -> Result<()> {
    if is_label_name(name) {
        return Ok(());
    }
    Err(QueryError::Execution(format!("invalid {role} label name in {func}(): {name}")))
}

enum Edit<'q> {
    Replace { regex: Regexp, template: &'q str, src: &'q str },
    Join { separator: &'q str, sources: Vec<&'q str> },
}

struct LabelOp<'q> {
    input: BoxOperator<'q>,
    dst: &'q str,
    edit: Edit<'q>,
    builder: LabelsBuilder,
    value: String,
    duplicates: Duplicates<'q>,
}

impl<'q> LabelOp<'q> {
    fn new(ctx: &'q Context<'_>, input: BoxOperator<'q>, dst: &'q str, edit: Edit<'q>) -> Self {
        Self {
            input,
            dst,
            edit,
            builder: LabelsBuilder::new(),
            value: String::new(),
            duplicates: Duplicates::of_one_kind(ctx),
        }
    }

    /// The new labels; `None` when nothing changes.
    fn edited(&mut self, labels: &Labels) -> Option<Labels> {
        self.value.clear();
        match &self.edit {
            Edit::Replace { regex, template, src } => {
                if !regex.expand_into(labels.value(src), template, &mut self.value) {
                    return None;
                }
            }
            Edit::Join { separator, sources } => {
                for (i, s) in sources.iter().enumerate() {
                    if i > 0 {
                        self.value.push_str(separator);
                    }
                    self.value.push_str(labels.value(s));
                }
            }
        }
        self.builder.reset(labels);
        self.builder.set(self.dst, &self.value);
        Some(self.builder.build())
    }
}

impl Operator for LabelOp<'_> {
    fn next(&mut self, out: &mut Batch) -> Result<bool> {
        if !self.input.next(out)? {
            return Ok(false);
        }
        for i in 0..out.rows() {
            if let Some(labels) = self.edited(&out.heads[i].labels) {
                let head = &mut out.heads[i];
                head.labels = labels;
                if self.dst == METRIC_NAME {
                    head.drop_name = false;
                }
            }
        }
        self.duplicates.check(out)?;
        Ok(true)
    }
}
