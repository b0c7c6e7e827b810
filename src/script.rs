//! `almanac test promql`: runs PromQL test scripts on one of the storages.

use std::path::PathBuf;
use std::sync::Arc;

use model::{Appendable, Labels, ManualClock, Querier, Queryable, Sample, SeriesRef, StorageError};
use promql_testkit::TestStorage;

use crate::cli::TestStorageKind;
