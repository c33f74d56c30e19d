use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The upper bound of the first bucket; that of each next one is twice as long.
const FIRST: Duration = Duration::from_micros(100);

/// How many buckets have an upper bound, the last of 105 s. One more holds what is longer.
const BOUNDED: usize = 21;

/// How long requests took, counted in buckets while they pass.
#[derive(Debug, Default)]
pub(super) struct Latency {
    buckets: [AtomicU64; BOUNDED + 1],
}

/// The same at one moment: how many requests took at most 100 µs, 200 µs, 400 µs and so on up to
/// 105 s, and how many took longer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Latencies(Vec<u64>);

impl Latency {
    pub(super) fn observe(&self, duration: Duration) {
        self.buckets[bucket(duration)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Latencies {
        let count = |bucket: &AtomicU64| bucket.load(Ordering::Relaxed);
        Latencies(self.buckets.iter().map(count).collect())
    }
}

impl Latencies {
    /// Adds those of other requests.
    pub fn add(&mut self, others: &Self) {
        if self.0.len() < others.0.len() {
            self.0.resize(others.0.len(), 0);
        }
        for (count, more) in self.0.iter_mut().zip(&others.0) {
            *count = count.saturating_add(*more);
        }
    }

    /// Those that have been added since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.0.iter().chain(std::iter::repeat(&0));
        let counts = self.0.iter().zip(before);
        Self(
            counts
                .map(|(count, before)| count.saturating_sub(*before))
                .collect(),
        )
    }

    /// The time within which the given share of requests, from 0 to 1, was done: `None` without
    /// requests.
    ///
    /// Requests are taken to be spread evenly over a bucket, and those without an upper bound to have
    /// taken just the longest one.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let rank = share * self.0.iter().sum::<u64>() as f64;
        let mut below = 0.0;
        for (bucket, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
            let count = *count as f64;
            if rank <= below + count {
                let part = ((rank - below) / count).clamp(0.0, 1.0);
                let (lower, upper) = bounds(bucket);
                return Some(lower + upper.saturating_sub(lower).mul_f64(part));
            }
            below += count;
        }
        None
    }
}

/// The first bucket whose upper bound is not shorter.
fn bucket(duration: Duration) -> usize {
    let fits = |bucket: &usize| duration <= upper_bound(*bucket);
    (0..BOUNDED).find(fits).unwrap_or(BOUNDED)
}

fn bounds(bucket: usize) -> (Duration, Duration) {
    let upper = upper_bound(bucket.min(BOUNDED - 1));
    match bucket {
        0 => (Duration::ZERO, upper),
        1..BOUNDED => (upper_bound(bucket - 1), upper),
        _ => (upper, upper),
    }
}

/// Of a bucket that has one.
fn upper_bound(bucket: usize) -> Duration {
    FIRST * (1 << bucket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(millis: &[u64]) -> Latencies {
        let latency = Latency::default();
        for duration in millis {
            latency.observe(Duration::from_millis(*duration));
        }
        latency.now()
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        for (duration, expected) in [
            (Duration::ZERO, 0),
            (FIRST, 0),
            (FIRST + Duration::from_nanos(1), 1),
            (FIRST * 2, 1),
            (FIRST * (1 << 20), 20),
            (Duration::from_secs(105), BOUNDED),
            (Duration::MAX, BOUNDED),
        ] {
            assert_eq!(bucket(duration), expected, "{duration:?}");
        }
    }

    #[test]
    fn quantiles_are_within_the_bucket_of_the_request_they_fall_on() {
        let mut requests = vec![1; 98];
        requests.extend([50, 100]);
        let latencies = latencies(&requests);
        let within = |share: f64, millis: std::ops::RangeInclusive<u128>| {
            let quantile = latencies.quantile(share).expect("there are requests");
            assert!(
                millis.contains(&quantile.as_millis()),
                "{share}: {quantile:?}"
            );
        };
        within(0.5, 0..=1);
        within(0.99, 25..=52);
        within(1.0, 51..=103);
    }

    #[test]
    fn without_requests_there_is_no_quantile() {
        assert_eq!(Latencies::default().quantile(0.5), None);
        assert_eq!(latencies(&[]).quantile(0.99), None);
    }

    #[test]
    fn what_is_longer_than_every_bound_counts_as_the_longest() {
        let longest = FIRST * (1 << 20);
        assert_eq!(latencies(&[600_000]).quantile(0.5), Some(longest));
    }

    #[test]
    fn a_difference_is_of_what_came_since() {
        let (earlier, mut now) = (latencies(&[5, 5]), latencies(&[5, 5]));
        now.add(&latencies(&[1000]));
        assert_eq!(now.since(&earlier), latencies(&[1000]));
        assert_eq!(now.since(&Latencies::default()), now);
    }
}
