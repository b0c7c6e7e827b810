//! `almanac test promql`: runs PromQL test scripts on one of the storages.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use federation::store::{LongtermStore, StoreConfig};
use model::clock::ManualClock;
use model::{Appendable, Labels, Querier, Queryable, Sample, SeriesRef, StorageError};
use promql_testkit::{MemoryTestStorage, TestStorage, run_file};
use tsdb::Db;

use crate::cli::TestStorageKind;

/// Runs each script, prints what failed and at last `N passed, M failed`, and says whether nothing failed.
#[allow(clippy::print_stdout, reason = "the command's output")]
pub fn run(files: &[PathBuf], storage: TestStorageKind, quiet: bool) -> bool {
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        let path = file.display().to_string();
        match std::fs::read_to_string(file) {
            Ok(text) => {
                let report = run_file(&path, &text, &mut || new_storage(storage));
                report.failures.iter().for_each(|f| println!("{f}"));
                if !quiet {
                    println!("{path}: {} passed, {} failed", report.passed, report.failures.len());
                }
                passed += report.passed;
                failed += report.failures.len();
            }
            Err(e) => {
                println!("{path}: cannot read: {e}");
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    failed == 0
}

/// An empty store of the kind.
pub fn new_storage(kind: TestStorageKind) -> Box<dyn TestStorage> {
    match kind {
        TestStorageKind::Memory => Box::new(MemoryTestStorage::new()),
        TestStorageKind::Tsdb => on_disk(|dir, clock, registry| {
            // Blocks of a day, so that a load may begin hours before the newest sample of the one before it.
            let config = tsdb::Config {
                retention_ms: 0,
                min_block_ms: 86_400_000,
                float_encoding: tsdb::FloatEncoding::Xor2,
                histogram_start_encoding: true,
                store_start_timestamps: true,
                ..tsdb::Config::new(dir)
            };
            Db::open(config, clock, registry).map_err(|e| e.to_string())
        }),
        TestStorageKind::Longterm => on_disk(open_longterm),
    }
}

fn open_longterm(
    dir: &Path,
    clock: Arc<ManualClock>,
    registry: &prometheus::Registry,
) -> Result<Arc<LongtermStore>, String> {
    // Scripts begin at the epoch and some reach before it; a group of syncs per load is enough.
    let config = StoreConfig { retention_ms: RETENTION_MS, sync: false, ..StoreConfig::new(dir) };
    LongtermStore::open(config, clock, registry).map_err(|e| e.to_string())
}

/// Two hundred years, so that nothing in a script is ever expired.
const RETENTION_MS: i64 = 200 * 365 * 86_400_000;

fn on_disk<S>(
    open: impl Fn(&Path, Arc<ManualClock>, &prometheus::Registry) -> Result<Arc<S>, String>,
) -> Box<dyn TestStorage>
where
    S: Appendable + Queryable + 'static,
{
    let clock = Arc::new(ManualClock::new(0));
    let opened = tempfile::tempdir().map_err(|e| e.to_string()).and_then(|dir| {
        let store = open(dir.path(), clock.clone(), &prometheus::Registry::new())?;
        Ok((dir, store))
    });
    match opened {
        Ok((dir, store)) => Box::new(OnDisk { store, clock, _dir: dir }),
        Err(reason) => Box::new(NoStore(reason)),
    }
}

/// A real store in a temporary folder, which goes with it. The clock follows the data, so that nothing lies in the
/// future.
struct OnDisk<S> {
    store: Arc<S>,
    clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

impl<S: Queryable> Queryable for OnDisk<S> {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        self.store.querier(mint, maxt)
    }

    fn rollup_grids_ms(&self) -> &'static [i64] {
        self.store.rollup_grids_ms()
    }
}

impl<S: Appendable + Queryable> TestStorage for OnDisk<S> {
    fn load(&mut self, series: &[(Labels, Vec<Sample>)]) -> Result<(), String> {
        let newest = series.iter().flat_map(|(_, s)| s.iter().map(|s| s.timestamp_ms)).max().unwrap_or(0);
        let now = model::Clock::now_ms(self.clock.as_ref());
        self.clock.set_ms(now.max(newest));
        let mut appender = self.store.appender().map_err(|e| e.to_string())?;
        for (labels, samples) in series {
            let mut reference = SeriesRef::NONE;
            for sample in samples {
                let at = sample.timestamp_ms;
                reference = appender
                    .append(reference, labels, sample.clone())
                    .map_err(|e| format!("{labels} at {at}: {e}"))?;
            }
        }
        appender.commit().map_err(|e| e.to_string())
    }
}

/// Stands for a store that could not be opened: every command on it fails with the reason.
struct NoStore(String);

impl Queryable for NoStore {
    fn querier(&self, _mint: i64, _maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        Err(StorageError::Unavailable { who: "storage of the script".into(), reason: self.0.clone() })
    }
}

impl TestStorage for NoStore {
    fn load(&mut self, _series: &[(Labels, Vec<Sample>)]) -> Result<(), String> {
        Err(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Scripts and evals that there are: none may be passed over.
    const SCRIPTS: usize = 21;
    const EVALS: usize = 1_432;

    /// Runs all scripts, on as many threads as there are cores.
    fn check(kind: TestStorageKind) {
        check_on(&format!("{kind:?}"), || new_storage(kind));
    }

    fn check_on(kind: &str, storage: impl Fn() -> Box<dyn TestStorage> + Sync) {
        let Some(root) = crate::testing::conformance_dir() else {
            eprintln!("promql conformance on {kind}: skipped, no conformance data");
            return;
        };
        let folder = std::fs::read_dir(root.join("promqltest")).expect("a folder of scripts");
        let mut scripts: Vec<PathBuf> = folder.map(|e| e.expect("readable").path()).collect();
        scripts.retain(|p| p.extension().is_some_and(|e| e == "test"));
        assert!(scripts.len() >= SCRIPTS, "{} scripts", scripts.len());
        // The longest first, so that none is left for the end.
        scripts.sort_by_key(|p| std::cmp::Reverse(p.metadata().map_or(0, |m| m.len())));
        let (next, passed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let failures = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while let Some(path) = scripts.get(next.fetch_add(1, Ordering::SeqCst)) {
                        let text = std::fs::read_to_string(path).expect("a script");
                        let name = path.display().to_string();
                        let report = run_file(&name, &text, &mut || storage());
                        passed.fetch_add(report.passed, Ordering::SeqCst);
                        failures.lock().expect("no panics").extend(report.failures);
                    }
                });
            }
        });
        let failures: Vec<String> =
            failures.into_inner().expect("no panics").iter().map(ToString::to_string).collect();
        let passed = passed.into_inner();
        assert!(failures.is_empty(), "on {kind}, {passed} passed:\n{}", failures.join("\n"));
        assert!(passed >= EVALS, "{passed} evals passed on {kind}, there were {EVALS}");
    }

    #[test]
    fn scripts_pass_on_the_local_store() {
        check(TestStorageKind::Tsdb);
    }

    #[test]
    fn scripts_pass_on_the_longterm_store() {
        check(TestStorageKind::Longterm);
    }

    /// Seals all samples after each load, a day having passed: queries over aligned windows are answered from rollups.
    struct Sealed(OnDisk<LongtermStore>);

    impl Queryable for Sealed {
        fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
            self.0.querier(mint, maxt)
        }

        fn rollup_grids_ms(&self) -> &'static [i64] {
            self.0.rollup_grids_ms()
        }
    }

    impl TestStorage for Sealed {
        fn load(&mut self, series: &[(Labels, Vec<Sample>)]) -> Result<(), String> {
            self.0.load(series)?;
            self.0.clock.advance(std::time::Duration::from_secs(86_400));
            self.0.store.maintain().map(drop).map_err(|e| e.to_string())
        }
    }

    #[test]
    fn scripts_pass_on_the_longterm_store_once_sealed() {
        check_on("sealed", || {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let clock = Arc::new(ManualClock::new(0));
            let store = open_longterm(dir.path(), clock.clone(), &prometheus::Registry::new());
            Box::new(Sealed(OnDisk { store: store.expect("a new store"), clock, _dir: dir }))
        });
    }

    #[test]
    fn scripts_pass_in_memory() {
        check(TestStorageKind::Memory);
    }
}
