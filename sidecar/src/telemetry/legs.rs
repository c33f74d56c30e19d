use std::{
    collections::{HashMap, VecDeque, hash_map::Entry::Occupied},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sidecar_common::SocketStatistics;

use super::{series::Series, tcp::Leg};

/// How many legs are followed at once.
const CAPACITY: usize = 131_072;

/// How long after the end of its connection a leg may have something to tell: TCP goes on to send what
/// it holds, and gives up long before.
const PATIENCE: Duration = Duration::from_mins(5);

/// How often those are looked for that have told nothing of their end.
const PERIOD: Duration = Duration::from_mins(1);

/// How many sockets are remembered that have closed before anybody knew them: a client may reset its
/// connection before it is accepted.
const STRANGERS: usize = 64;

/// How long that may take before what was told of them counts as lost.
const ACCEPTING: Duration = Duration::from_secs(5);

/// Whose each socket is of which the kernel side tells, by cookie.
#[derive(Default)]
pub(super) struct Legs(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_cookie: HashMap<u64, Followed>,
    /// When legs were last looked for that tell nothing any more.
    swept: Option<Instant>,
    /// The last that was told of sockets that nobody knows yet, and when, oldest first.
    strangers: VecDeque<(Instant, SocketStatistics)>,
    /// How often something was told of a socket that nobody came to know.
    lost: u64,
}

impl Table {
    fn remember(&mut self, stranger: SocketStatistics, now: Instant) {
        if self.strangers.len() == STRANGERS {
            self.strangers.pop_front();
            self.lost += 1;
        }
        self.strangers.push_back((now, stranger));
    }

    fn recognise(&mut self, cookie: u64) -> Option<SocketStatistics> {
        let mut strangers = self.strangers.iter();
        let at = strangers.position(|(_, stranger)| stranger.cookie == cookie)?;
        self.strangers.remove(at).map(|(_, stranger)| stranger)
    }
}

/// One leg of a connection, until its socket has closed.
#[derive(Default)]
struct Followed {
    /// Where it is counted; `None` until it is known who the peer is.
    series: Option<(Arc<Series>, Leg)>,
    /// What has been counted already.
    counted: SocketStatistics,
    /// What was told before it could be counted.
    waiting: Option<SocketStatistics>,
    /// When its connection ended.
    ended: Option<Instant>,
}

impl Legs {
    /// A connection has this socket. Beyond the capacity it is not followed.
    pub(super) fn begin(&self, cookie: u64, now: Instant) {
        let mut table = self.lock();
        if table.swept.is_none_or(|swept| now - swept >= PERIOD) {
            table.swept = Some(now);
            table.by_cookie.retain(|_, leg| {
                leg.ended
                    .is_none_or(|ended| now.saturating_duration_since(ended) < PATIENCE)
            });
        }
        if let Some(leg) = table.by_cookie.get_mut(&cookie) {
            // It has carried another connection before: what was counted is counted.
            leg.ended = None;
        } else if table.by_cookie.len() < CAPACITY {
            let leg = Followed {
                waiting: table.recognise(cookie),
                ..Followed::default()
            };
            table.by_cookie.insert(cookie, leg);
        }
    }

    /// It is known from now on where to count what is told of the socket.
    pub(super) fn know(&self, cookie: u64, series: Arc<Series>, which: Leg) {
        let mut table = self.lock();
        if let Occupied(mut leg) = table.by_cookie.entry(cookie) {
            leg.get_mut().series = Some((series, which));
            if let Some(told) = leg.get_mut().waiting.take()
                && leg.get_mut().tell(&told).is_last()
            {
                leg.remove();
            }
        }
    }

    /// Its connection has ended.
    pub(super) fn end(&self, cookie: u64, now: Instant) {
        if let Some(leg) = self.lock().by_cookie.get_mut(&cookie) {
            leg.ended = Some(now);
        }
    }

    /// Counts what the kernel side tells; `false` if nobody knows the socket.
    pub(super) fn tell(&self, told: &SocketStatistics) -> bool {
        let mut table = self.lock();
        let Occupied(mut leg) = table.by_cookie.entry(told.cookie) else {
            if told.last == 0 {
                table.lost += 1;
            } else {
                table.remember(*told, Instant::now());
            }
            return false;
        };
        if leg.get_mut().tell(told).is_last() {
            leg.remove();
        }
        true
    }

    /// How often something was told of a socket that nobody came to know in time.
    pub(super) fn lost(&self, now: Instant) -> u64 {
        let mut table = self.lock();
        let is_late =
            |(since, _): &mut (Instant, _)| now.saturating_duration_since(*since) >= ACCEPTING;
        while table.strangers.pop_front_if(is_late).is_some() {
            table.lost += 1;
        }
        table.lost
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each change is of one entry or one number, which a panic cannot leave half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of something that was told.
#[derive(Eq, PartialEq)]
enum Told {
    /// It waits to be counted.
    Waits,
    /// It was counted, and more may come.
    Counted,
    /// It was counted, and was the last.
    Last,
}

impl Told {
    fn is_last(&self) -> bool {
        *self == Self::Last
    }
}

impl Followed {
    fn tell(&mut self, told: &SocketStatistics) -> Told {
        let Some((series, leg)) = &self.series else {
            // It holds all that was told before.
            self.waiting = Some(*told);
            return Told::Waits;
        };
        series.leg(*leg).count(&self.counted, told);
        self.counted = *told;
        if told.last == 0 {
            Told::Counted
        } else {
            Told::Last
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    /// What was counted of the only connection there was: bytes sent, retransmissions, and how many
    /// round-trip times and windows.
    #[derive(Debug, Default, Eq, PartialEq)]
    struct Counted {
        sent: u64,
        retransmitted: u64,
        round_trips: u64,
        windows: u64,
    }

    struct Fixture {
        legs: Legs,
        series: Arc<Series>,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let fixture = Self {
                legs: Legs::default(),
                series: Arc::default(),
                start: Instant::now(),
            };
            fixture.legs.begin(7, fixture.start);
            fixture
        }

        fn know(&self) {
            self.know_socket(7);
        }

        fn know_socket(&self, cookie: u64) {
            let series = Arc::clone(&self.series);
            self.legs.know(cookie, series, Leg::Network);
        }

        fn counted(&self) -> Counted {
            let [sent, retransmitted, round_trips, windows] =
                self.series.leg(Leg::Network).counted();
            Counted {
                sent,
                retransmitted,
                round_trips,
                windows,
            }
        }
    }

    fn told(sent: u64, retransmitted: u32, last: u32) -> SocketStatistics {
        SocketStatistics {
            cookie: 7,
            acknowledged: sent,
            retransmitted,
            smoothed_rtt: 8,
            min_rtt: 1,
            last,
            ..SocketStatistics::default()
        }
    }

    #[test]
    fn a_long_connection_is_counted_while_it_lasts_and_nothing_twice() {
        let fixture = Fixture::new();
        fixture.know();
        assert!(fixture.legs.tell(&told(100, 1, 0)));
        assert!(fixture.legs.tell(&told(150, 1, 0)));
        let counted = Counted {
            sent: 150,
            retransmitted: 1,
            round_trips: 2,
            windows: 0,
        };
        assert_eq!(fixture.counted(), counted);
        assert!(fixture.legs.tell(&told(160, 3, 1)));
        let counted = Counted {
            sent: 160,
            retransmitted: 3,
            round_trips: 3,
            windows: 1,
        };
        assert_eq!(fixture.counted(), counted);
        assert!(!fixture.legs.tell(&told(160, 3, 1)), "it has closed");
    }

    #[test]
    fn what_is_told_before_the_peer_is_known_waits_for_it() {
        let fixture = Fixture::new();
        assert!(fixture.legs.tell(&told(100, 0, 0)));
        assert!(fixture.legs.tell(&told(120, 0, 1)));
        assert_eq!(fixture.counted(), Counted::default());
        fixture.know();
        let counted = Counted {
            sent: 120,
            round_trips: 1,
            windows: 1,
            ..Counted::default()
        };
        assert_eq!(fixture.counted(), counted);
        assert!(!fixture.legs.tell(&told(120, 0, 1)), "it has closed");
    }

    #[test]
    fn nobody_knows_a_socket_of_somebody_else() {
        let fixture = Fixture::new();
        let other = SocketStatistics {
            cookie: 8,
            ..told(1, 0, 1)
        };
        assert!(!fixture.legs.tell(&other));
        fixture.know_socket(8);
        assert!(!fixture.legs.tell(&other));
    }

    #[test]
    fn a_connection_that_was_reset_before_it_was_accepted_is_counted_and_leaves_nothing() {
        let fixture = Fixture::new();
        let reset = SocketStatistics {
            cookie: 8,
            ..told(120, 0, 1)
        };
        assert!(!fixture.legs.tell(&reset));
        fixture.legs.begin(8, fixture.start);
        fixture.know_socket(8);
        assert_eq!(fixture.counted().sent, 120);
        assert!(!fixture.legs.lock().by_cookie.contains_key(&8));
        assert_eq!(fixture.legs.lost(Instant::now() + ACCEPTING), 0);
    }

    #[test]
    fn a_socket_that_nobody_comes_to_know_is_told_in_vain() {
        let fixture = Fixture::new();
        let stranger = |cookie, last| SocketStatistics {
            cookie,
            ..told(1, 0, last)
        };
        fixture.legs.tell(&stranger(8, 0));
        fixture.legs.tell(&stranger(8, 1));
        assert_eq!(fixture.legs.lost(fixture.start), 1, "it may be known yet");
        assert_eq!(fixture.legs.lost(Instant::now() + ACCEPTING), 2);
        for cookie in (100..).take(STRANGERS + 1) {
            fixture.legs.tell(&stranger(cookie, 1));
        }
        assert_eq!(
            fixture.legs.lost(fixture.start),
            3,
            "there is no end to them"
        );
    }

    #[test]
    fn what_was_not_measured_is_not_shown() {
        let fixture = Fixture::new();
        fixture.know();
        assert!(fixture.legs.tell(&SocketStatistics {
            smoothed_rtt: 0,
            min_rtt: SocketStatistics::NOT_MEASURED,
            ..told(0, 0, 1)
        }));
        assert_eq!(fixture.counted().round_trips, 0);
    }

    #[test]
    fn a_leg_whose_end_is_never_told_is_forgotten_after_its_connection_ended() {
        let fixture = Fixture::new();
        fixture.know();
        let ended = fixture.start + PERIOD;
        fixture.legs.begin(8, fixture.start);
        fixture.legs.end(7, ended);
        fixture
            .legs
            .begin(9, ended + PATIENCE.saturating_sub(PERIOD) + PERIOD / 2);
        assert!(
            fixture.legs.tell(&told(1, 0, 0)),
            "it was forgotten too early"
        );
        fixture.legs.begin(10, ended + PATIENCE + PERIOD);
        assert!(!fixture.legs.tell(&told(2, 0, 0)));
        let open = SocketStatistics {
            cookie: 8,
            ..told(1, 0, 0)
        };
        assert!(fixture.legs.tell(&open), "its connection has not ended");
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let fixture = Fixture::new();
        for cookie in 1000..1000 + CAPACITY as u64 {
            fixture.legs.begin(cookie, fixture.start);
        }
        assert_eq!(fixture.legs.lock().by_cookie.len(), CAPACITY);
    }
}
