use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The wait before the first new attempt.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait before a new attempt.
const LONGEST: Duration = Duration::from_mins(1);

/// How long to wait before the next attempt at something that failed: twice as long each time, and
/// a little less than that, so that many sidecars do not try at the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The wait after one more failure.
    pub(crate) fn failed(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        shortened(wait, 0.2)
    }

    /// It has worked: the next failure is the first again.
    pub(crate) const fn worked(&mut self) {
        self.next = FIRST;
    }
}

/// A duration from `duration` down to what is left without this share of it, by chance.
pub(super) fn shortened(duration: Duration, share: f64) -> Duration {
    // The keys of a hash map are all the randomness this takes.
    let chance = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or_default();
    duration.mul_f64(1.0 - share * f64::from(chance) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_begin_anew_after_success() {
        let mut backoff = Backoff::new();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = backoff.failed();
            let longest = Duration::from_secs(seconds);
            assert!(wait <= longest && wait >= longest.mul_f64(0.79), "{wait:?}");
        }
        backoff.worked();
        assert!(backoff.failed() <= FIRST);
    }

    #[test]
    fn no_two_wait_alike() {
        let waits: std::collections::BTreeSet<_> =
            (0..10).map(|_| Backoff::new().failed()).collect();
        assert!(waits.len() > 1);
    }
}
