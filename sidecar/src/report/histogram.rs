use super::{pair::Count, scrape::Labels};

/// A histogram of Prometheus: how many were at most this much.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bounds in order, each with what was counted at or below it; the last is infinite.
    buckets: Vec<(f64, Count)>,
}

/// Which time figures are of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Basis {
    /// Between the scrapes.
    Interval,
    /// Nothing was counted between the scrapes: since the sidecar's start.
    Start,
}

impl Histogram {
    /// Adds what one bucket counted; `le` among the labels is its bound.
    pub fn count(&mut self, labels: &Labels, count: Count) {
        let bound = labels.get("le").and_then(|bound| bound.parse().ok());
        if let Some(bound) = bound.filter(|bound: &f64| !bound.is_nan()) {
            self.add(bound, count);
        }
    }

    fn add(&mut self, bound: f64, count: Count) {
        let at = self.buckets.partition_point(|(other, _)| *other < bound);
        match self.buckets.get_mut(at) {
            Some((other, sum)) if other.total_cmp(&bound).is_eq() => sum.add(count),
            _ => self.buckets.insert(at, (bound, count)),
        }
    }

    /// Adds another.
    pub fn merge(&mut self, other: &Self) {
        for (bound, count) in &other.buckets {
            self.add(*bound, *count);
        }
    }

    /// Which time its figures are of; `None` if nothing was ever counted.
    pub fn basis(&self) -> Option<Basis> {
        let (_, all) = self.buckets.last()?;
        match all {
            Count { increase, .. } if *increase > 0.0 => Some(Basis::Interval),
            Count { total, .. } if *total > 0.0 => Some(Basis::Start),
            _ => None,
        }
    }

    /// Bounds that are finite, each with the share of what was counted at or below it.
    pub fn shares(&self) -> Vec<(f64, f64)> {
        let counted = self.counted();
        let Some((_, all)) = counted.last().copied().filter(|(_, all)| *all > 0.0) else {
            return Vec::new();
        };
        let finite = counted.into_iter().filter(|(bound, _)| bound.is_finite());
        finite.map(|(bound, count)| (bound, count / all)).collect()
    }

    /// The value that this share of all is not above, as Prometheus' `histogram_quantile` has it:
    /// between two bounds in proportion, and never above the last one that is finite.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let shares = self.shares();
        let mut lower = (0.0, 0.0);
        for (bound, at_most) in &shares {
            if *at_most >= share && *at_most > 0.0 {
                let part = (share - lower.1) / (at_most - lower.1);
                return Some(lower.0 + (bound - lower.0) * part);
            }
            lower = (*bound, *at_most);
        }
        shares.last().map(|(bound, _)| *bound)
    }

    /// What was counted in the time of [`Self::basis`].
    fn counted(&self) -> Vec<(f64, f64)> {
        let basis = self.basis();
        let of = |count: &Count| match basis {
            Some(Basis::Interval) => count.increase,
            Some(Basis::Start) => count.total,
            None => 0.0,
        };
        let buckets = self.buckets.iter();
        buckets.map(|(bound, count)| (*bound, of(count))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::{pair::Pair, scrape::Scrape};

    const AFTER: &str = "x_bucket{p=\"a\",le=\"0.1\"} 50\nx_bucket{p=\"a\",le=\"1\"} 90\n\
                         x_bucket{p=\"a\",le=\"+Inf\"} 100\n\
                         x_bucket{p=\"b\",le=\"0.1\"} 7\nx_bucket{p=\"b\",le=\"1\"} 7\n\
                         x_bucket{p=\"b\",le=\"+Inf\"} 7\n";

    fn histogram(before: &str, of: &str) -> Histogram {
        let scrape = |text| Scrape::parse(text).expect("a scrape");
        let pair = Pair {
            source: String::new(),
            before: scrape(before),
            after: scrape(AFTER),
            interval: Duration::from_secs(1),
        };
        let mut histogram = Histogram::default();
        let counts = pair.counts("x_bucket");
        for (labels, count) in counts.filter(|(labels, _)| labels["p"].starts_with(of)) {
            histogram.count(labels, count);
        }
        histogram
    }

    fn assert_near(value: Option<f64>, expected: f64) {
        let value = value.expect("something was counted");
        assert!((value - expected).abs() < 1e-9, "{value} for {expected}");
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let histogram = histogram("", "a");
        assert_near(histogram.quantile(0.25), 0.05);
        assert_near(histogram.quantile(0.5), 0.1);
        assert_near(histogram.quantile(0.7), 0.55);
        // Beyond the last bound nothing is known.
        assert_near(histogram.quantile(0.99), 1.0);
    }

    #[test]
    fn what_was_counted_in_between_comes_first() {
        let between = histogram(
            "x_bucket{p=\"a\",le=\"0.1\"} 50\nx_bucket{p=\"a\",le=\"1\"} 50\n\
             x_bucket{p=\"a\",le=\"+Inf\"} 60\n",
            "a",
        );
        assert_eq!(between.basis(), Some(Basis::Interval));
        assert_eq!(between.shares(), [(0.1, 0.0), (1.0, 1.0)]);
        let nothing_since = histogram(AFTER, "a");
        assert_eq!(nothing_since.basis(), Some(Basis::Start));
        assert_near(nothing_since.quantile(0.5), 0.1);
    }

    #[test]
    fn histograms_add_up() {
        let mut both = histogram("", "a");
        both.merge(&histogram("", "b"));
        assert_eq!(both, histogram("", ""));
        assert_eq!(both.shares(), [(0.1, 57.0 / 107.0), (1.0, 97.0 / 107.0)]);
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(histogram("", "c").quantile(0.5), None);
        assert_eq!(Histogram::default().basis(), None);
    }
}
