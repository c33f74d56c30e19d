//! What TCP has measured, as metrics.

use std::sync::atomic::{AtomicBool, Ordering};

use sidecar_common::SocketStatistics;

use super::exposition::{Count, Distribution, Exposition, Family, Labels};

/// Bounds of the histograms of round-trip times, in seconds: 25 µs to 2.5 s.
const SECONDS: [f64; 14] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.5, 2.5,
];

/// Bounds of the histogram of congestion windows, in segments. A connection begins with ten
/// (RFC 6928).
const SEGMENTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 2000.0];

static CONGESTION_WINDOW: Family = Family::histogram(
    "sidecar_tcp_congestion_window_segments",
    "Congestion window of a leg when it closed.",
    &SEGMENTS,
);
static MIN_RTT: Family = Family::histogram(
    "sidecar_tcp_min_rtt_seconds",
    "Shortest round-trip time of a leg in the last minutes.",
    &SECONDS,
);
static RECEIVED: Family = Family::counter(
    "sidecar_tcp_received_bytes_total",
    "Bytes that a leg has received, those of TLS included.",
);
static RETRANSMITTED: Family = Family::counter(
    "sidecar_tcp_retransmitted_segments_total",
    "Segments that a leg has sent again.",
);
static RTT: Family = Family::histogram(
    "sidecar_tcp_rtt_seconds",
    "Smoothed round-trip time of a leg.",
    &SECONDS,
);
static SENT: Family = Family::counter(
    "sidecar_tcp_sent_bytes_total",
    "Bytes that a leg has sent and the other end acknowledged, those of TLS included.",
);

/// One of the two TCP connections that make up a connection of the proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Leg {
    /// Between the proxy and the app, over loopback.
    App,
    /// Between the proxy and the peer.
    Network,
}

impl Leg {
    /// Both, in the order of their numbers.
    pub(super) const ALL: [Self; 2] = [Self::App, Self::Network];

    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Network => "network",
        }
    }
}

/// Where what TCP has measured on one leg is counted.
pub(super) struct LegSeries {
    congestion_window: Distribution,
    min_rtt: Distribution,
    received: Count,
    retransmitted: Count,
    rtt: Distribution,
    sent: Count,
    /// Something was counted, be it nothing but zeros.
    told: AtomicBool,
}

impl Default for LegSeries {
    fn default() -> Self {
        Self {
            congestion_window: Distribution::of(&CONGESTION_WINDOW),
            min_rtt: Distribution::of(&MIN_RTT),
            received: Count::default(),
            retransmitted: Count::default(),
            rtt: Distribution::of(&RTT),
            sent: Count::default(),
            told: AtomicBool::default(),
        }
    }
}

impl LegSeries {
    /// Counts what has come since `before`.
    pub(super) fn count(&self, before: &SocketStatistics, now: &SocketStatistics) {
        self.told.store(true, Ordering::Relaxed);
        let since = |now: u64, before: u64| now.saturating_sub(before);
        self.received.add(since(now.received, before.received));
        self.sent.add(since(now.acknowledged, before.acknowledged));
        self.retransmitted
            .add(since(now.retransmitted.into(), before.retransmitted.into()));
        if now.smoothed_rtt != 0 {
            // In eighths of a microsecond.
            self.rtt.observe(f64::from(now.smoothed_rtt) / 8e6);
        }
        if now.min_rtt != SocketStatistics::NOT_MEASURED {
            self.min_rtt.observe(f64::from(now.min_rtt) / 1e6);
        }
        if now.last != 0 {
            self.congestion_window
                .observe(f64::from(now.congestion_window));
        }
    }

    /// Bytes sent, segments sent again, and how many round-trip times and windows were counted.
    #[cfg(test)]
    pub(super) fn counted(&self) -> [u64; 4] {
        let [round_trips, windows] =
            [&self.rtt, &self.congestion_window].map(|values| values.observed().0);
        [
            self.sent.get(),
            self.retransmitted.get(),
            round_trips,
            windows,
        ]
    }

    /// Adds every sample, once a leg was told of.
    pub(super) fn show(&self, labels: &Labels, exposition: &mut Exposition) {
        if !self.told.load(Ordering::Relaxed) {
            return;
        }
        for (family, count) in [
            (&SENT, &self.sent),
            (&RECEIVED, &self.received),
            (&RETRANSMITTED, &self.retransmitted),
        ] {
            exposition.count(family, labels, count);
        }
        for distribution in [&self.rtt, &self.min_rtt, &self.congestion_window] {
            exposition.distribution(labels, distribution);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_seconds() {
        let series = LegSeries::default();
        let told = SocketStatistics {
            smoothed_rtt: 8 * 250_000,
            min_rtt: 125_000,
            ..SocketStatistics::default()
        };
        series.count(&SocketStatistics::default(), &told);
        let seconds = [&series.rtt, &series.min_rtt].map(|times| times.observed().1);
        let expected = [0.25, 0.125];
        assert!(
            seconds
                .iter()
                .zip(expected)
                .all(|(seen, expected)| (seen - expected).abs() < 1e-9)
        );
    }

    #[test]
    fn a_leg_is_found_by_its_number() {
        for (number, leg) in Leg::ALL.into_iter().enumerate() {
            assert_eq!(leg as usize, number);
        }
    }
}
