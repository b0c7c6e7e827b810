//! The local store and remote ones that the configuration names, as Prometheus's `remote_read` joins them.
//!
//! The local store is authoritative: when it fails, the query fails. Remote ones are best effort: when one fails, its part of
//! the answer is missing and a warning says so. A remote store that is not for recent data is asked only for what is older
//! than the local store's beginning.
//!
//! External labels are added as matchers to what remote stores are asked, unless the query has a matcher on the label, and
//! taken off the answer. Names and values of labels are the local store's; remote read knows none.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#remote_read>.

use std::sync::Arc;

use model::storage::{VecSeriesSet, joined};
use model::{
    Labels, LabelsResult, MatchOp, Matcher, Querier, Queryable, SelectHints, Series, SeriesSet, StorageError,
};

use crate::tiered::{LocalMinTime, stripped};

/// A remote store and when it is asked.
#[derive(Clone)]
pub struct RemoteSource {
    /// Names it in warnings.
    pub name: String,
    /// The store.
    pub remote: Arc<dyn Queryable>,
    /// Labels that its series have and local ones do not.
    pub external_labels: Labels,
    /// It is asked only when the query has all these as equality matchers.
    pub required_matchers: Vec<(String, String)>,
    /// Whether it is also asked for what the local store should have.
    pub read_recent: bool,
}

/// A local store and any number of remote ones.
#[derive(Clone)]
pub struct Fanout {
    /// The local store.
    pub local: Arc<dyn Queryable>,
    /// From when on the local store is complete.
    pub local_start: LocalMinTime,
    /// The remote stores.
    pub sources: Vec<RemoteSource>,
}

impl std::fmt::Debug for Fanout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.sources.iter().map(|s| s.name.as_str()).collect();
        f.debug_struct("Fanout").field("sources", &names).finish_non_exhaustive()
    }
}

impl Queryable for Fanout {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        let local = self.local.querier(mint, maxt)?;
        let start = (self.local_start)();
        let asked = self.sources.iter().filter_map(|source| {
            let maxt = match start.filter(|_| !source.read_recent) {
                Some(start) if mint > start => return None,
                Some(start) => maxt.min(start),
                None => maxt,
            };
            Some(Asked { source: source.clone(), mint, maxt })
        });
        let asked: Vec<Asked> = asked.collect();
        Ok(if asked.is_empty() { local } else { Box::new(FanoutQuerier { local, asked }) })
    }
}

struct FanoutQuerier {
    local: Box<dyn Querier>,
    asked: Vec<Asked>,
}

/// A remote store and the range it is asked for.
struct Asked {
    source: RemoteSource,
    mint: i64,
    maxt: i64,
}

impl Asked {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let source = &self.source;
        let has = |(name, value): &(String, String)| {
            matchers.iter().any(|m| m.op == MatchOp::Equal && m.name == *name && m.value == *value)
        };
        if !source.required_matchers.iter().all(has) {
            return Ok(Box::new(VecSeriesSet::new(Vec::new(), Vec::new())));
        }
        let mut all = matchers.to_vec();
        let mut added = Vec::new();
        for (name, value) in source.external_labels.iter() {
            if !matchers.iter().any(|m| m.name == name) {
                all.push(Matcher::equal(name, value));
                added.push(name.to_owned());
            }
        }
        let set = source.remote.querier(self.mint, self.maxt)?.select(&all, hints)?;
        stripped(set, &added)
    }

    /// The whole answer, or the warning in place of it.
    fn answer(
        &self,
        matchers: &[Matcher],
        hints: &SelectHints,
    ) -> Result<(Vec<Series>, Vec<String>), StorageError> {
        let read = || -> Result<_, StorageError> {
            let mut set = self.select(matchers, hints)?;
            let mut list = Vec::new();
            while let Some(series) = set.next()? {
                list.push(series);
            }
            Ok((list, set.warnings()))
        };
        match read() {
            Err(StorageError::Cancelled) => Err(StorageError::Cancelled),
            Err(e) => Ok((Vec::new(), vec![format!("remote_read: {e}")])),
            answer => answer,
        }
    }
}

impl Querier for FanoutQuerier {
    fn select(&self, matchers: &[Matcher], hints: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
        let mut local = self.local.select(matchers, hints)?;
        let answers: Vec<_> = match self.asked.as_slice() {
            [one] => vec![one.answer(matchers, hints)],
            // The slowest one decides how long it takes, not all of them together.
            many => std::thread::scope(|scope| {
                let asking: Vec<_> = many
                    .iter()
                    .map(|asked| {
                        let link = model::trace::current();
                        scope.spawn(move || {
                            let _entered = link.enter();
                            asked.answer(matchers, hints)
                        })
                    })
                    .collect();
                let broken = || Ok((Vec::new(), vec!["remote_read: it broke down".to_owned()]));
                asking.into_iter().map(|thread| thread.join().unwrap_or_else(|_| broken())).collect()
            }),
        };
        let (mut remote, mut warnings) = (Vec::new(), Vec::new());
        for answer in answers {
            let (list, said) = answer?;
            remote.extend(list);
            warnings.extend(said);
        }
        if remote.is_empty() && warnings.is_empty() {
            return Ok(local);
        }
        let mut all = Vec::new();
        while let Some(series) = local.next()? {
            all.push(series);
        }
        warnings.splice(0..0, local.warnings());
        all.append(&mut remote);
        Ok(Box::new(VecSeriesSet::new(joined(all), warnings)))
    }

    fn label_names(&self, matchers: &[Matcher], limit: usize) -> Result<LabelsResult, StorageError> {
        self.local.label_names(matchers, limit)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<LabelsResult, StorageError> {
        self.local.label_values(name, matchers, limit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use model::chunk::decode_chunks;
    use model::memory::MemoryStorage;
    use model::{Appendable, Sample, Samples, SeriesRef};

    use super::*;

    /// A remote store that remembers what it was asked, and fails when it holds nothing.
    struct Remote {
        store: Option<MemoryStorage>,
        asked: Mutex<Vec<String>>,
    }

    struct Far(Arc<Remote>);
    struct Asking(Arc<Remote>, i64, i64);

    impl Queryable for Far {
        fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
            Ok(Box::new(Asking(self.0.clone(), mint, maxt)))
        }
    }

    impl Querier for Asking {
        fn select(&self, m: &[Matcher], h: &SelectHints) -> Result<Box<dyn SeriesSet>, StorageError> {
            let text: Vec<String> = m.iter().map(ToString::to_string).collect();
            self.0.asked.lock().unwrap().push(format!("{} {}..{}", text.join(","), self.1, self.2));
            match &self.0.store {
                Some(store) => store.querier(self.1, self.2)?.select(m, h),
                None => Err(StorageError::Unavailable { who: "x".into(), reason: "down".into() }),
            }
        }

        fn label_names(&self, _: &[Matcher], _: usize) -> Result<LabelsResult, StorageError> {
            panic!("remote stores are not asked for labels")
        }

        fn label_values(&self, _: &str, _: &[Matcher], _: usize) -> Result<LabelsResult, StorageError> {
            panic!("remote stores are not asked for labels")
        }
    }

    fn store(samples: &[(&[(&str, &str)], i64)]) -> MemoryStorage {
        let storage = MemoryStorage::new();
        let mut appender = storage.appender().unwrap();
        for (labels, t) in samples {
            let labels = Labels::from_pairs(labels.iter().copied());
            appender.append(SeriesRef::NONE, &labels, Sample::float(*t, *t as f64)).unwrap();
        }
        appender.commit().unwrap();
        storage
    }

    fn remote(store: Option<MemoryStorage>) -> Arc<Remote> {
        Arc::new(Remote { store, asked: Mutex::default() })
    }

    fn source(remote: &Arc<Remote>) -> RemoteSource {
        RemoteSource {
            name: "r".into(),
            remote: Arc::new(Far(remote.clone())),
            external_labels: Labels::from_pairs([("region", "x")]),
            required_matchers: Vec::new(),
            read_recent: false,
        }
    }

    fn read(fanout: &Fanout, mint: i64, matchers: &[Matcher]) -> (Vec<String>, Vec<String>) {
        let mut set = fanout.querier(mint, 100).unwrap().select(matchers, &SelectHints::default()).unwrap();
        let (mut out, mut samples) = (Vec::new(), Samples::new());
        while let Some(series) = set.next().unwrap() {
            samples.clear();
            decode_chunks(&series.chunks, i64::MIN, i64::MAX, &mut samples).unwrap();
            out.push(format!("{} {:?}", series.labels, samples.timestamps_ms));
        }
        (out, set.warnings())
    }

    #[test]
    fn remote_history_is_joined_with_local_data() {
        let local = store(&[(&[("__name__", "m"), ("a", "1")], 50), (&[("__name__", "m"), ("a", "2")], 60)]);
        let old: &[(&str, &str)] = &[("__name__", "m"), ("a", "1"), ("region", "x")];
        let gone: &[(&str, &str)] = &[("__name__", "m"), ("a", "0"), ("region", "x")];
        let other: &[(&str, &str)] = &[("__name__", "m"), ("a", "9"), ("region", "y")];
        let far = remote(Some(store(&[(old, 10), (old, 50), (old, 70), (gone, 20), (other, 20)])));
        let down = remote(None);
        let m = [Matcher::equal("__name__", "m")];
        let mut fanout = Fanout {
            local: Arc::new(local),
            local_start: Arc::new(|| Some(50)),
            sources: vec![source(&far)],
        };
        let expect = [r#"m{a="0"} [20]"#, r#"m{a="1"} [10, 50]"#, r#"m{a="2"} [60]"#];
        assert_eq!(read(&fanout, 0, &m), (expect.map(str::to_owned).to_vec(), Vec::new()));
        assert_eq!(*far.asked.lock().unwrap(), [r#"__name__="m",region="x" 0..50"#]);
        // What the query says of an external label goes as it is, and stays in the answer.
        let y = [Matcher::equal("__name__", "m"), Matcher::equal("region", "y")];
        assert_eq!(read(&fanout, 0, &y).0, [r#"m{a="9", region="y"} [20]"#]);
        // Recent data is local.
        far.asked.lock().unwrap().clear();
        assert_eq!(read(&fanout, 51, &m).0, [r#"m{a="2"} [60]"#]);
        assert!(far.asked.lock().unwrap().is_empty());
        fanout.sources[0].read_recent = true;
        assert_eq!(read(&fanout, 51, &m).0, [r#"m{a="1"} [70]"#, r#"m{a="2"} [60]"#]);
        // Only when the query asks for it.
        fanout.sources[0].required_matchers = vec![("a".into(), "1".into())];
        assert_eq!(read(&fanout, 51, &m).0, [r#"m{a="2"} [60]"#]);
        let one = [Matcher::equal("__name__", "m"), Matcher::equal("a", "1")];
        assert_eq!(read(&fanout, 51, &one).0, [r#"m{a="1"} [70]"#]);
        // One that fails takes nothing from the others.
        fanout.sources.push(source(&down));
        let (series, warnings) = read(&fanout, 0, &one);
        assert_eq!(series, [r#"m{a="1"} [10, 50, 70]"#]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("remote_read: ") && warnings[0].contains("down"), "{warnings:?}");
        let names = fanout.querier(0, 100).unwrap().label_names(&m, 0).unwrap();
        assert_eq!(names.values, ["__name__", "a"]);
    }
}
