use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use prometheus::IntCounter;

use super::{
    exposition::Exposition,
    labels::PeerNames,
    series::{Parties, Series},
};

/// What stands for the identities of parties that are one set too many. No SPIFFE ID looks like it.
const OVERFLOW: &str = "overflow";

/// How many parties are told apart in metrics, and for how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SeriesLimits {
    /// More sets of parties than these are counted together.
    pub most: usize,
    /// A set of parties without open connections is forgotten after this long.
    pub forget_after: Duration,
}

impl Default for SeriesLimits {
    /// A thousand, and ten minutes: many times what lies between two scrapes.
    fn default() -> Self {
        Self {
            most: 1000,
            forget_after: Duration::from_mins(10),
        }
    }
}

/// The [`Series`] of all parties that have been heard of lately.
pub(super) struct SeriesTable {
    limits: SeriesLimits,
    /// Connections that were counted as [`OVERFLOW`].
    overflowed: IntCounter,
    listed: Mutex<Lists>,
    /// Held while samples are read, through handles that are nobody's use of a series.
    showing: Mutex<()>,
}

#[derive(Default)]
struct Lists {
    /// As many as are told apart.
    apart: BTreeMap<Parties, Listed>,
    /// The rest: one for each direction and use of TLS.
    together: BTreeMap<Parties, Listed>,
}

/// A series, for as long as it is remembered.
#[derive(Default)]
struct Listed {
    series: Arc<Series>,
    /// Since when it has been seen without connection.
    idle_since: Option<Instant>,
}

impl SeriesTable {
    /// Counts into `overflowed` the connections whose parties it does not tell apart.
    pub(super) fn new(limits: SeriesLimits, overflowed: IntCounter) -> Self {
        Self {
            limits,
            overflowed,
            listed: Mutex::default(),
            showing: Mutex::default(),
        }
    }

    /// The series of these parties. As long as somebody holds it, it is not forgotten.
    pub(super) fn of(&self, parties: Parties) -> Arc<Series> {
        let mut lists = self.lock();
        let Lists { apart, together } = &mut *lists;
        if apart.len() < self.limits.most || apart.contains_key(&parties) {
            apart.entry(parties).or_default().take()
        } else {
            self.overflowed.inc();
            let all = Parties {
                own: OVERFLOW.into(),
                peer: OVERFLOW.into(),
                names: PeerNames::default(),
                ..parties
            };
            together.entry(all).or_default().take()
        }
    }

    /// Forgets the series that nothing has used for long enough.
    ///
    /// It is noticed here that a series is idle, so the time until it is forgotten is measured from
    /// one call to another. While somebody [shows](Self::show) them, nothing is noticed.
    pub(super) fn sweep(&self, now: Instant) {
        let _showing = match self.showing.try_lock() {
            Ok(showing) => showing,
            Err(TryLockError::Poisoned(showing)) => showing.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let mut lists = self.lock();
        let is_kept = |_: &Parties, listed: &mut Listed| {
            // The list's own handle is the last one, and nobody can get another while it is locked.
            if Arc::strong_count(&listed.series) > 1 {
                listed.idle_since = None;
                return true;
            }
            let idle_since = *listed.idle_since.get_or_insert(now);
            now.saturating_duration_since(idle_since) < self.limits.forget_after
        };
        lists.apart.retain(is_kept);
        lists.together.retain(is_kept);
    }

    /// How often it is worth while to [`sweep`](Self::sweep).
    pub(super) fn sweep_interval(&self) -> Duration {
        let often = Duration::from_millis(100);
        (self.limits.forget_after / 10).clamp(often, Duration::from_mins(1))
    }

    /// Adds every sample of every series.
    pub(super) fn show(&self, exposition: &mut Exposition) {
        let _showing = { self.showing.lock() }.unwrap_or_else(PoisonError::into_inner);
        // The lock is held only to copy the handles: connections begin meanwhile.
        let all: Vec<_> = {
            let lists = self.lock();
            { lists.apart.iter() }
                .chain(&lists.together)
                .map(|(parties, listed)| (parties.clone(), Arc::clone(&listed.series)))
                .collect()
        };
        for (parties, series) in all {
            series.show(&parties, exposition);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        // Each change is a single insertion or removal, which a panic cannot leave half-done.
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    fn take(&mut self) -> Arc<Series> {
        self.idle_since = None;
        Arc::clone(&self.series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Direction;

    #[test]
    fn a_scrape_is_no_use_of_a_series() {
        let limits = SeriesLimits::default();
        let overflowed = IntCounter::new("name", "Help.").expect("a metric");
        let table = SeriesTable::new(limits, overflowed);
        let parties = Parties {
            direction: Direction::Inbound,
            own: "".into(),
            peer: "".into(),
            tls: "mutual",
            names: PeerNames::default(),
        };
        drop(table.of(parties.clone()));
        let noon = Instant::now();
        table.sweep(noon);
        {
            // As it is in the middle of `show`.
            let _showing = table.showing.lock().expect("nobody has panicked");
            let _handle = Arc::clone(&table.lock().apart[&parties].series);
            table.sweep(noon + limits.forget_after / 2);
        }
        table.sweep(noon + limits.forget_after);
        assert!(table.lock().apart.is_empty(), "it counted as used");
    }
}
