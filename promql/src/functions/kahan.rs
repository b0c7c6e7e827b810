//! Kahan summation with Neumaier's improvement, the way Prometheus rounds: sums are in [`model::kahan`], means here.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/operators/#avg>, <https://prometheus.io/docs/prometheus/latest/querying/functions/#aggregation_over_time>.

pub(crate) use model::kahan::add;

/// A running mean that sums up as long as the sum is finite and goes on incrementally from there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mean {
    sum: f64,
    mean: f64,
    c: f64,
    count: f64,
    incremental: bool,
}

impl Mean {
    #[inline]
    pub(crate) fn add(&mut self, v: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.sum = v;
            return;
        }
        if !self.incremental {
            let (sum, c) = add(v, self.sum, self.c);
            if !sum.is_infinite() {
                (self.sum, self.c) = (sum, c);
                return;
            }
            self.incremental = true;
            self.mean = self.sum / (self.count - 1.0);
            self.c /= self.count - 1.0;
        }
        let q = (self.count - 1.0) / self.count;
        (self.mean, self.c) = add(v / self.count, q * self.mean, q * self.c);
    }

    pub(crate) fn get(&self) -> f64 {
        if self.incremental { self.mean + self.c } else { self.sum / self.count + self.c / self.count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_plain_addition_loses() {
        let (s, c) = [1.0, 1e100, 1.0, -1e100].iter().fold((0.0, 0.0), |(s, c), v| add(*v, s, c));
        assert_eq!(s + c, 2.0);
        let mut m = Mean::default();
        [f64::MAX, f64::MAX].iter().for_each(|v| m.add(*v));
        assert_eq!(m.get(), f64::MAX);
    }
}
