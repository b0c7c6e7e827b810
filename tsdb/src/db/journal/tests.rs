//! A journal that is read while an fsync of it fails.

use std::sync::Arc;

use model::chunk::decode_chunks;
use model::clock::ManualClock;
use model::storage::{Appender, Queryable};
use model::{Labels, Matcher, Sample, Samples, SelectHints, SeriesRef};

use super::*;
use crate::Db;
use crate::metrics::LogMetrics;
use crate::sim::{Loss, Plan, SimDisk};

#[test]
fn who_reads_on_gets_what_is_written_anew() {
    let disk = SimDisk::new(1);
    let clock: Arc<dyn model::Clock> = Arc::new(ManualClock::new(0));
    let config = Config::new(disk.root().join("data"));
    let db = Db::open(config, clock.clone(), &prometheus::Registry::new()).expect("opens");
    let metrics = LogMetrics::unseen(&clock).expect("registered");
    let other = Config::new(disk.root().join("other"));
    dir::create_all(&other.dir).expect("made");
    let journal = Arc::new(Journal::open(&other, metrics).expect("opens"));
    let labels = Labels::from_pairs([("__name__", "m")]);
    let append = |t: i64| {
        let mut a = JournalAppender::new(journal.clone(), db.head.clone());
        a.append(SeriesRef::NONE, &labels, Sample::float(t, 1.0)).expect("taken");
        Box::new(a).commit().expect("committed");
    };
    let (mut tail, mut target) = (None, Target::new(&db.head));
    let mut newest = || {
        journal.commit_new(&mut tail, &mut target, &Progress::default()).expect("read");
        db.max_time()
    };
    append(1);
    assert_eq!(newest(), Some(1));
    append(2);
    disk.plan(Plan { bad_sync: Some((0, Loss::Evicted)), ..Plan::default() });
    journal.sync().expect("written anew");
    append(3);
    assert_eq!(newest(), Some(3));
    let q = db.querier(i64::MIN, i64::MAX).expect("open");
    let hints = SelectHints::default();
    let mut set = q.select(&[Matcher::equal("__name__", "m")], &hints).expect("selected");
    let chunks = set.next().expect("read").expect("a series").chunks;
    let mut samples = Samples::new();
    decode_chunks(&chunks, i64::MIN, i64::MAX, &mut samples).expect("decodes");
    assert_eq!(samples.timestamps_ms, [1, 2, 3]);
}
