use std::time::Duration;

use super::scrape::{Labels, Scrape};

/// Two scrapes of one sidecar, some time apart.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Where they come from: an address, or the names of files.
    pub source: String,
    /// The first.
    pub before: Scrape,
    /// The second.
    pub after: Scrape,
    /// The time between them.
    pub interval: Duration,
}

/// What a counter counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    /// Between the scrapes.
    pub increase: f64,
    /// The same, for each second.
    pub rate: f64,
    /// Since the sidecar's start.
    pub total: f64,
}

impl Count {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.increase += other.increase;
        self.rate += other.rate;
        self.total += other.total;
    }
}

impl Pair {
    /// What each series of a counter counted, by its labels. A counter that has shrunk began anew in
    /// between, as in Prometheus.
    pub fn counts(&self, name: &str) -> impl Iterator<Item = (&Labels, Count)> {
        let seconds = self.interval.as_secs_f64();
        self.after.samples(name).map(move |(labels, total)| {
            let before = self.before.value(name, labels).unwrap_or(0.0);
            let increase = if total < before {
                total
            } else {
                total - before
            };
            let count = Count {
                increase,
                rate: increase / seconds,
                total,
            };
            (labels, count)
        })
    }

    /// The value of a metric without labels, as of the second scrape.
    pub fn gauge(&self, name: &str) -> Option<f64> {
        self.after.value(name, &Labels::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_shrank_began_anew() {
        let scrape = |text| Scrape::parse(text).expect("a scrape");
        let pair = Pair {
            source: String::new(),
            before: scrape("grown 3\nshrunk 7\n"),
            after: scrape("grown 5\nshrunk 2\nnew 4\n"),
            interval: Duration::from_secs(2),
        };
        let count = |name| pair.counts(name).next().expect("a series").1;
        let counted = |increase, total| Count {
            increase,
            rate: increase / 2.0,
            total,
        };
        assert_eq!(count("grown"), counted(2.0, 5.0));
        assert_eq!(count("shrunk"), counted(2.0, 2.0));
        assert_eq!(count("new"), counted(4.0, 4.0));
    }
}
