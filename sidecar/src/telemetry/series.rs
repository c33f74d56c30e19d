use std::{sync::Arc, time::Duration};

use super::{
    exposition::{Count, Distribution, Exposition, Family, Labels, counts},
    labels::PeerNames,
    requests::Requests,
    tcp::{Leg, LegSeries},
};
use crate::{observe::Lost, policy::Direction, proxy::Close};

/// Bounds of the histograms of connect and handshake times, in seconds: 50 µs to 10 s.
const SHORT: [f64; 12] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 10.0,
];

/// Bounds of the histogram of whole connections, in seconds: 1 ms to an hour.
const LONG: [f64; 10] = [
    0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0, 3600.0,
];

static OPENED: Family = Family::counter(
    "sidecar_connections_opened_total",
    "Connections established on both legs.",
);
static CLOSED: Family = Family::counter(
    "sidecar_connections_closed_total",
    "Established connections that ended, by how they ended.",
);
static SENT: Family = Family::counter(
    "sidecar_sent_bytes_total",
    "Bytes of the apps carried from client to server.",
);
static RECEIVED: Family = Family::counter(
    "sidecar_received_bytes_total",
    "Bytes of the apps carried from server to client.",
);
static CONNECT: Family = Family::histogram(
    "sidecar_connect_duration_seconds",
    "Time that the dial to the destination or to the app took.",
    &SHORT,
);
static HANDSHAKE: Family = Family::histogram(
    "sidecar_tls_handshake_duration_seconds",
    "Time that a TLS handshake took.",
    &SHORT,
);
static DURATION: Family = Family::histogram(
    "sidecar_connection_duration_seconds",
    "Time from accepting an established connection to its end.",
    &LONG,
);
static OPAQUE: Family = Family::counter(
    "sidecar_opaque_connections_total",
    "Connections whose requests are not followed, from some point on, by reason.",
);

/// Who talks to whom, which way, and how: what the samples of one [`Series`] have in common.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Parties {
    pub(super) direction: Direction,
    /// Our identity; empty before there is one.
    pub(super) own: Arc<str>,
    /// The identity that the peer proved; empty without TLS.
    pub(super) peer: Arc<str>,
    /// Whether TLS is used, and if not, why.
    pub(super) tls: &'static str,
    /// What the cluster calls the peer, by its address.
    pub(super) names: PeerNames,
}

impl Parties {
    fn labels(&self) -> Labels {
        Labels::new([
            ("direction", self.direction.as_str()),
            ("own", &self.own),
            ("peer", &self.peer),
            ("tls", self.tls),
        ])
        .with(self.names.pairs())
    }
}

/// Everything that is counted for one set of parties.
///
/// A connection gets hold of it once, and counts by plain indices from then on. Another group of
/// metrics of the same parties is a field of its own, and a line in [`show`](Self::show).
pub(super) struct Series {
    opened: Count,
    /// By the number of a [`Close`].
    closed: [Count; Close::ALL.len()],
    sent: Count,
    received: Count,
    connect: Distribution,
    handshake: Distribution,
    duration: Distribution,
    /// By the place of a word in [`Lost::WORDS`].
    opaque: [Count; Lost::WORDS.len()],
    /// Of requests that pass by.
    pub(super) requests: Requests,
    /// By the number of a [`Leg`].
    legs: [LegSeries; Leg::ALL.len()],
}

impl Default for Series {
    fn default() -> Self {
        Self {
            opened: Count::default(),
            closed: counts(),
            sent: Count::default(),
            received: Count::default(),
            connect: Distribution::of(&CONNECT),
            handshake: Distribution::of(&HANDSHAKE),
            duration: Distribution::of(&DURATION),
            opaque: counts(),
            requests: Requests::default(),
            legs: Default::default(),
        }
    }
}

impl Series {
    /// A connection was established on both legs.
    pub(super) fn opened(&self) {
        self.opened.add(1);
    }

    /// An established connection has ended.
    pub(super) fn closed(&self, close: Close, duration: Duration) {
        self.closed[close as usize].add(1);
        self.duration.observe(duration.as_secs_f64());
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent.add(bytes);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.add(bytes);
    }

    pub(super) fn connect_took(&self, duration: Duration) {
        self.connect.observe(duration.as_secs_f64());
    }

    pub(super) fn handshake_took(&self, duration: Duration) {
        self.handshake.observe(duration.as_secs_f64());
    }

    /// The requests of a connection are not followed any more.
    pub(super) fn lost(&self, lost: &Lost) {
        let place = { Lost::WORDS.iter() }.position(|word| *word == lost.as_str());
        if let Some(place) = place {
            self.opaque[place].add(1);
        }
    }

    /// What TCP measures on one leg.
    pub(super) fn leg(&self, leg: Leg) -> &LegSeries {
        &self.legs[leg as usize]
    }

    /// Adds every sample of these parties, as far as there is something to tell.
    pub(super) fn show(&self, parties: &Parties, exposition: &mut Exposition) {
        let labels = parties.labels();
        // Connections that failed have times, and nothing else.
        if self.opened.get() > 0 {
            exposition.count(&OPENED, &labels, &self.opened);
            exposition.count(&SENT, &labels, &self.sent);
            exposition.count(&RECEIVED, &labels, &self.received);
        }
        for (count, close) in self.closed.iter().zip(Close::ALL) {
            if count.get() > 0 {
                exposition.count(&CLOSED, &labels.and([("close", close.as_str())]), count);
            }
        }
        for (count, reason) in self.opaque.iter().zip(Lost::WORDS) {
            if count.get() > 0 {
                exposition.count(&OPAQUE, &labels.and([("reason", reason)]), count);
            }
        }
        for times in [&self.connect, &self.handshake, &self.duration] {
            exposition.distribution(&labels, times);
        }
        self.requests.show(&labels, exposition);
        for (series, leg) in self.legs.iter().zip(Leg::ALL) {
            series.show(&labels.and([("leg", leg.as_str())]), exposition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_shown_by_their_own_words() {
        for (number, close) in Close::ALL.into_iter().enumerate() {
            assert_eq!(close as usize, number);
        }
    }
}
