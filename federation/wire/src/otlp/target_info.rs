//! `target_info`: the attributes of a resource as a series of its own, whose samples are so dense that queries find one at any
//! time between the first and the last point of the resource.

use std::collections::HashSet;

use model::Sample;

use super::Sink;
use super::message::Repeated;
use super::report::Fault;
use super::translate::{IDENTIFYING, Times, Translator, target_metadata};
use crate::error::Error;

const NAME: &str = "target_info";
/// How far back queries look unless that is set.
const LOOKBACK_MS: i64 = 300_000;
/// Most samples of a request between first and last times; points further apart come from a mistake.
const SAMPLES_MAX: usize = 100_000;

/// What has been written, so that several resources with the same labels write it once.
#[derive(Default)]
pub(crate) struct Targets {
    written: HashSet<(u64, i64)>,
    between: usize,
}

impl<'a, S: Sink> Translator<'a, '_, S> {
    pub(crate) fn target_info(&mut self, resources: Repeated<'a>, times: Times) -> Result<(), Fault> {
        let keep = self.settings.keep_identifying_resource_attributes;
        self.attributes.clear();
        let mut all = resources;
        while let Some(resource) = all.next()? {
            self.attributes.add(Repeated::new(resource, 1), |_| true)?;
        }
        let identifying = IDENTIFYING.iter().filter(|name| self.attributes.get(name).is_some()).count();
        if self.attributes.len() == identifying {
            return Ok(());
        }
        if !keep {
            self.attributes.clear();
            let mut all = resources;
            while let Some(resource) = all.next()? {
                self.attributes.add(Repeated::new(resource, 1), |key| !IDENTIFYING.contains(&key))?;
            }
        }
        self.set_target_labels(NAME)?;
        if !self.base().iter().any(|(name, _)| matches!(name, "job" | "instance")) {
            return Ok(());
        }
        self.target_samples(times)
    }

    fn target_samples(&mut self, times: Times) -> Result<(), Fault> {
        let hash = xxhash_rust::xxh3::xxh3_64(self.base().iter().as_packed().as_bytes());
        let lookback_ms =
            if self.settings.lookback_ms == 0 { LOOKBACK_MS } else { self.settings.lookback_ms };
        let interval = (i128::from(lookback_ms) * 500_000).max(1);
        let (first, last) = (times.first_nanos as i64, times.last_nanos as i64);
        let metadata = target_metadata();
        let mut at = i128::from(first);
        while at < i128::from(last) {
            self.targets.between += 1;
            if self.targets.between > SAMPLES_MAX {
                let text = format!(
                    "target_info would need more than {SAMPLES_MAX} samples: data points of one resource lie too far apart"
                );
                return Err(Fault::from(Error::Limit(text)));
            }
            // Between two numbers of 64 bits.
            let timestamp_ms = (at as i64).div_euclid(1_000_000);
            if self.targets.written.insert((hash, timestamp_ms)) {
                self.append(Sample::float(timestamp_ms, 1.0), &[], &metadata)?;
            }
            at += interval;
        }
        let timestamp_ms = last.div_euclid(1_000_000);
        if self.targets.written.insert((hash, timestamp_ms)) {
            self.append(Sample::float(timestamp_ms, 1.0), &[], &metadata)?;
        }
        Ok(())
    }
}
