use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use prometheus::IntGauge;
use spiffe::SpiffeId;

use super::{
    Telemetry,
    connections::Entry,
    metrics::{ByteCounters, Parties},
    record::{End, Record, What},
};
use crate::{
    observe::{Exchange, Lost, Observation, Observer, Protocol},
    policy::{
        Direction,
        authorization::{Decision, RuleName},
    },
    proxy::{ClientAddr, Close, Meter, OrigDst},
    tls::HandshakeError,
};

/// Whether a connection is encrypted, and if not, why.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum TlsUse {
    /// A handshake was tried and failed, or the peer did not try where it had to.
    Failed,
    /// Mutual TLS with this peer.
    Mutual(SpiffeId),
    /// The peer's handshake did not carry our option: it has no sidecar.
    NoPeerOption,
    /// It has not come to that yet.
    #[default]
    Pending,
}

impl TlsUse {
    /// The word in logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Mutual(_) => "mutual",
            Self::NoPeerOption => "no_peer_option",
            Self::Pending => "pending",
        }
    }

    /// The peer's identity, which is only known where TLS is really used.
    pub fn peer(&self) -> Option<&SpiffeId> {
        match self {
            Self::Mutual(peer) => Some(peer),
            _ => None,
        }
    }
}

/// The requests of a connection that are in flight.
struct InFlight {
    /// What its requests are in.
    protocol: Protocol,
    /// How many there are, of all connections of its kind.
    total: IntGauge,
}

/// The record of one connection. It is written exactly once, also when the task that serves the
/// connection is dropped half-way.
pub struct Connection {
    telemetry: Telemetry,
    /// What the list of open connections shows.
    entry: Arc<Entry>,
    /// When it was accepted, for the duration.
    started: Instant,
    /// Who we are in it: the identity that it uses, or the one there was when it began.
    own: Arc<str>,
    /// Whether it is encrypted.
    tls: TlsUse,
    /// How long the dial took, until it is counted.
    connect: Option<Duration>,
    /// How long the handshake took, until it is counted.
    handshake: Option<Duration>,
    /// Looked up when both legs are established, and only then counted as open.
    counters: Option<ByteCounters>,
    /// Watches what it says; `None` if nobody wants to know.
    observer: Option<Observer>,
    /// Requests of it that are in flight.
    in_flight: Option<InFlight>,
    /// Why what it says is no longer followed.
    lost: Option<Lost>,
    /// The rule that let it in or refused it, where rules are asked.
    rule: Option<RuleName>,
    /// More about a failure than its reason.
    explanation: Option<String>,
    /// The record has been written.
    written: bool,
}

impl Connection {
    pub(super) fn begin(
        telemetry: Telemetry,
        direction: Direction,
        client: ClientAddr,
        destination: OrigDst,
    ) -> Self {
        let entry = telemetry
            .shared
            .connections
            .add(direction, client, destination);
        let own = telemetry.shared.own();
        let observer = telemetry.shared.observing.observer(destination);
        Self {
            telemetry,
            entry,
            started: Instant::now(),
            own,
            tls: TlsUse::Pending,
            connect: None,
            handshake: None,
            counters: None,
            observer,
            in_flight: None,
            lost: None,
            rule: None,
            explanation: None,
            written: false,
        }
    }

    /// It is to use this identity of ours, which may be newer than the connection.
    pub fn uses(&mut self, own: &SpiffeId) {
        self.own = own.to_string().into();
    }

    /// Whether it is encrypted is now known.
    pub fn tls(&mut self, tls: TlsUse) {
        self.entry.set_tls(&tls, &self.own);
        self.tls = tls;
    }

    /// Whether it is encrypted, as far as that is known.
    pub fn tls_use(&self) -> &TlsUse {
        &self.tls
    }

    /// The policy has decided whether it is let in.
    pub fn decided(&mut self, decision: &Decision) {
        self.telemetry.shared.metrics.decided(decision);
        for rule in &decision.audits {
            tracing::info!(
                direction = %self.entry.direction,
                client = %self.entry.client(),
                destination = %self.entry.destination,
                peer = self.tls.peer().map(tracing::field::display),
                %rule,
                "an audit rule fits this connection"
            );
        }
        self.rule = Some(decision.rule.clone());
    }

    /// The peer sees the connection come from here. An app's own end is on loopback once it is
    /// redirected; this is what the peer's log shows too.
    pub fn seen_from(&self, client: ClientAddr) {
        self.entry.set_seen_from(client);
    }

    /// The dial took this long.
    pub fn connect_took(&mut self, duration: Duration) {
        self.connect = Some(duration);
    }

    /// The handshake took this long.
    pub fn handshake_took(&mut self, duration: Duration) {
        self.handshake = Some(duration);
    }

    /// Both legs stand: it counts as opened.
    pub fn established(&mut self) {
        self.counters = Some(self.telemetry.shared.metrics.opened(&self.parties()));
        self.observe_times();
        self.tell(What::Opened);
    }

    /// Who the peer is, a label of the times, is known only when all of them have passed.
    fn observe_times(&mut self) {
        let (connect, handshake) = (self.connect.take(), self.handshake.take());
        let parties = self.parties();
        let metrics = &self.telemetry.shared.metrics;
        if let Some(duration) = connect {
            metrics.connect_took(&parties, duration);
        }
        if let Some(duration) = handshake {
            metrics.handshake_took(&parties, duration);
        }
    }

    /// Adds a sentence about a failure, for the log.
    pub fn explain(&mut self, explanation: String) {
        self.explanation = Some(explanation);
    }

    /// Has the server sent anything?
    pub fn has_received(&self) -> bool {
        self.entry.bytes().1 > 0
    }

    /// It ended after it had been established; `error` is what a failing leg said.
    ///
    /// A server that refuses our certificate says so only after the client's handshake is done
    /// (RFC 8446, appendix E.1): its alert comes in place of the first bytes, and is told as a
    /// failed handshake.
    pub fn closed(mut self, close: Close, error: Option<io::Error>) {
        match error.map(HandshakeError::from) {
            Some(error @ HandshakeError::RefusedByPeer(_)) if !self.has_received() => {
                tracing::warn!(
                    direction = %self.entry.direction,
                    client = %self.entry.client(),
                    destination = %self.entry.destination,
                    reason = %Close::HandshakeFailed,
                    "connection failed: {error}"
                );
                self.write(Close::HandshakeFailed);
            }
            // An end without the closing alert is no such error: the network can cause it.
            Some(error @ (HandshakeError::NotTls | HandshakeError::Incompatible(_))) => {
                tracing::warn!(
                    direction = %self.entry.direction,
                    client = %self.entry.client(),
                    destination = %self.entry.destination,
                    reason = %Close::TlsBroken,
                    "connection broken after the handshake: {error}"
                );
                self.write(Close::TlsBroken);
            }
            _ => self.write(close),
        }
    }

    /// It was established, and is ended by us for a reason that the sentence gives.
    pub fn cut(mut self, close: Close, explanation: &str) {
        tracing::warn!(
            direction = %self.entry.direction,
            client = %self.entry.client(),
            destination = %self.entry.destination,
            reason = %close,
            "connection closed: {explanation}"
        );
        self.write(close);
    }

    /// It ended before it was established.
    pub fn failed(mut self, close: Close) {
        self.write(close);
    }

    fn write(&mut self, close: Close) {
        self.written = true;
        self.observe_times();
        if let Some(observer) = &mut self.observer {
            if close == Close::ClientReset {
                observer.client_ended();
            }
            observer.ended(Instant::now());
            self.hear();
        }
        let shared = &self.telemetry.shared;
        let duration = self.started.elapsed();
        if self.counters.is_some() {
            shared.metrics.closed(&self.parties(), close, duration);
        } else {
            shared.metrics.failed(self.entry.direction, close);
            let explanation = self.explanation.as_deref().unwrap_or("no more is known");
            tracing::warn!(
                direction = %self.entry.direction,
                client = %self.entry.client(),
                destination = %self.entry.destination,
                reason = %close,
                "connection failed: {explanation}"
            );
        }
        shared.connections.remove(&self.entry);
        let (sent, received) = self.entry.bytes();
        self.tell(What::Ended(End {
            was_open: self.counters.is_some(),
            sent,
            received,
            duration,
            protocol: self
                .in_flight
                .as_ref()
                .map(|requests| requests.protocol.as_str()),
            lost: self.lost.as_ref(),
            close,
        }));
    }

    fn tell(&self, what: What<'_>) {
        self.telemetry.shared.tell(&Record {
            time: SystemTime::now(),
            direction: self.entry.direction,
            client: self.entry.client(),
            destination: self.entry.destination,
            tls: &self.tls,
            own: &self.own,
            rule: self.rule.as_ref(),
            what,
        });
    }

    /// Takes down what the observer has seen.
    fn hear(&mut self) {
        while let Some(observation) = self.observer.as_mut().and_then(Observer::pop) {
            match observation {
                Observation::Began(protocol) => self.began(protocol),
                Observation::Ended(exchange) => self.ended(&exchange),
                Observation::Lost(lost) => {
                    let requests = &self.telemetry.shared.metrics.requests;
                    requests.lost(&self.parties(), &lost);
                    self.lost = Some(lost);
                    // It has nothing more to say.
                    self.observer = None;
                }
            }
        }
    }

    fn began(&mut self, protocol: Protocol) {
        if self.in_flight.is_none() {
            let requests = &self.telemetry.shared.metrics.requests;
            self.in_flight = Some(InFlight {
                protocol,
                total: requests.in_flight(&self.parties(), protocol),
            });
        }
        if let Some(in_flight) = &self.in_flight {
            in_flight.total.inc();
        }
    }

    fn ended(&mut self, exchange: &Exchange) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.total.dec();
        }
        let requests = &self.telemetry.shared.metrics.requests;
        requests.ended(&self.parties(), exchange);
        self.tell(What::Request(exchange));
    }

    fn parties(&self) -> Parties<'_> {
        Parties {
            direction: self.entry.direction,
            own: &self.own,
            peer: self.tls.peer().map(SpiffeId::to_string).unwrap_or_default(),
            tls: self.tls.as_str(),
        }
    }
}

impl Meter for Connection {
    fn sent(&mut self, bytes: &[u8]) {
        self.entry.add_sent(bytes.len() as u64);
        if let Some(counters) = &self.counters {
            counters.sent.inc_by(bytes.len() as u64);
        }
        if let Some(observer) = &mut self.observer {
            observer.sent(bytes, Instant::now());
            self.hear();
        }
    }

    fn client_ended(&mut self) {
        if let Some(observer) = &mut self.observer {
            observer.client_ended();
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        self.entry.add_received(bytes.len() as u64);
        if let Some(counters) = &self.counters {
            counters.received.inc_by(bytes.len() as u64);
        }
        if let Some(observer) = &mut self.observer {
            observer.received(bytes, Instant::now());
            self.hear();
        }
    }

    fn server_ended(&mut self) {
        if let Some(observer) = &mut self.observer {
            observer.server_ended(Instant::now());
            self.hear();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.written {
            self.write(Close::Drained);
        }
    }
}
