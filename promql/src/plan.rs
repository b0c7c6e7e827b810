//! Plans: what a query does, before anything is read.
//!
//! [`lower`] makes a plan of a syntax tree for one time grid; [`optimize`] makes it cheaper without changing the answer;
//! [`explain`] prints it; [`node`] is the vocabulary; `durations` are worked out first. Physical operators are built from
//! plans in `crate::exec`.

mod durations;
pub(crate) mod explain;
pub(crate) mod grid;
pub(crate) mod lower;
pub(crate) mod node;
pub(crate) mod optimize;
pub(crate) mod propagate;

pub(crate) use grid::Grid;
