use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use spiffe::SpiffeId;

use super::{
    Leg, Telemetry,
    connections::Entry,
    edges::Edge,
    labels::PeerNames,
    record::{End, Named, Record, What},
    series::{Parties, Series},
    traces::Passed,
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
    /// Where it counts: looked up when both legs are established, and only then counted as open.
    series: Option<Arc<Series>>,
    /// Who talks to whom in it, from the same moment on.
    edge: Option<Arc<Edge>>,
    /// Its sockets, by which the kernel side tells of them.
    legs: Vec<(Leg, u64)>,
    /// Watches what it says; `None` if nobody wants to know.
    observer: Option<Observer>,
    /// What it speaks, once it has begun a request.
    protocol: Option<Protocol>,
    /// Requests of it that are in flight.
    in_flight: u32,
    /// Why what it says is no longer followed.
    lost: Option<Lost>,
    /// What the cluster calls the peer, by its address.
    names: PeerNames,
    /// It names others for that address than who has answered.
    is_misnamed: bool,
    /// The rule that let it in or refused it, where rules are asked.
    rule: Option<RuleName>,
    /// More about a failure than its reason.
    explanation: Option<String>,
    /// It is among the share of which the access log tells everything.
    is_sampled: bool,
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
        let names = telemetry.shared.names(match direction {
            Direction::Inbound => client.0,
            Direction::Outbound => destination.0,
        });
        let observer = telemetry.shared.observing.observer(destination);
        let is_sampled = telemetry.shared.access_log.samples();
        Self {
            telemetry,
            entry,
            started: Instant::now(),
            own,
            tls: TlsUse::Pending,
            connect: None,
            handshake: None,
            series: None,
            edge: None,
            legs: Vec::new(),
            observer,
            protocol: None,
            in_flight: 0,
            lost: None,
            names,
            is_misnamed: false,
            rule: None,
            explanation: None,
            is_sampled,
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

    /// It is carried by what an earlier one was encrypted with: as this identity of ours, with that
    /// peer.
    pub fn continues(&mut self, own: &SpiffeId, peer: &SpiffeId) {
        self.uses(own);
        self.tls(TlsUse::Mutual(peer.clone()));
        self.telemetry.shared.metrics.reused(self.entry.direction);
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

    /// The server has proved another identity than the cluster names for its address, as the
    /// sentence says; it is refused for that, or not.
    pub fn misnamed(&mut self, explanation: &str, is_refused: bool) {
        self.telemetry.shared.metrics.misnamed(is_refused);
        self.is_misnamed = true;
        if is_refused {
            self.explain(explanation.to_owned());
        } else {
            tracing::warn!(
                direction = %self.entry.direction,
                client = %self.entry.client(),
                destination = %self.entry.destination,
                reason = %Close::PeerMisnamed,
                "the connection goes on all the same: {explanation}"
            );
        }
    }

    /// The peer sees the connection come from here. An app's own end is on loopback once it is
    /// redirected; this is what the peer's log shows too.
    pub fn seen_from(&self, client: ClientAddr) {
        self.entry.set_seen_from(client);
    }

    /// This socket is a leg of it.
    pub fn has_leg(&mut self, leg: Leg, cookie: u64) {
        self.legs.push((leg, cookie));
        self.telemetry.shared.legs.begin(cookie, Instant::now());
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
        let series = self.telemetry.shared.metrics.series.of(self.parties());
        series.opened();
        self.count_times(&series);
        self.know_legs(&series);
        self.series = Some(series);
        let edge = self.find_edge();
        edge.opened();
        self.edge = Some(edge);
        self.tell(What::Opened);
    }

    /// Who the peer is, a label of what TCP measures, will not change any more.
    fn know_legs(&self, series: &Arc<Series>) {
        for (leg, cookie) in &self.legs {
            let legs = &self.telemetry.shared.legs;
            legs.know(*cookie, Arc::clone(series), *leg);
        }
    }

    /// Who the peer is, a label of the times, is known only when all of them have passed.
    fn count_times(&mut self, series: &Series) {
        if let Some(duration) = self.connect.take() {
            series.connect_took(duration);
        }
        if let Some(duration) = self.handshake.take() {
            series.handshake_took(duration);
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
    pub fn closed(&mut self, close: Close, error: Option<io::Error>) {
        match error.map(HandshakeError::from) {
            Some(error @ HandshakeError::RefusedByPeer(_)) if !self.has_received() => {
                tracing::warn!(
                    direction = %self.entry.direction,
                    client = %self.entry.client(),
                    destination = %self.entry.destination,
                    reason = %Close::HandshakeRefused,
                    "connection failed: {error}"
                );
                self.explain(error.to_string());
                self.write(Close::HandshakeRefused);
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
                self.explain(error.to_string());
                self.write(Close::TlsBroken);
            }
            _ => self.write(close),
        }
    }

    /// It was established, and is ended by us for a reason that the sentence gives.
    pub fn cut(&mut self, close: Close, explanation: &str) {
        tracing::warn!(
            direction = %self.entry.direction,
            client = %self.entry.client(),
            destination = %self.entry.destination,
            reason = %close,
            "connection closed: {explanation}"
        );
        self.explain(explanation.to_owned());
        self.write(close);
    }

    /// It ended before it was established.
    pub fn failed(mut self, close: Close) {
        self.write(close);
    }

    fn write(&mut self, close: Close) {
        self.written = true;
        if let Some(observer) = &mut self.observer {
            if close == Close::ClientReset {
                observer.client_ended();
            }
            observer.ended(Instant::now());
            self.hear();
        }
        let duration = self.started.elapsed();
        match &self.edge {
            Some(edge) => edge.closed(),
            None => self.find_edge().failed(close),
        }
        if let Some(series) = &self.series {
            series.closed(close, duration);
            // None, unless the observer has forgotten one: the gauge must not.
            if let Some(protocol) = self.protocol {
                series
                    .requests
                    .in_flight(protocol, -i64::from(self.in_flight));
            }
        } else {
            let shared = &self.telemetry.shared;
            shared.metrics.failed(self.entry.direction, close);
            if self.connect.is_some() || self.handshake.is_some() || !self.legs.is_empty() {
                let series = shared.metrics.series.of(self.parties());
                self.count_times(&series);
                self.know_legs(&series);
            }
            let explanation = self.explanation.as_deref().unwrap_or("no more is known");
            tracing::warn!(
                direction = %self.entry.direction,
                client = %self.entry.client(),
                destination = %self.entry.destination,
                reason = %close,
                "connection failed: {explanation}"
            );
        }
        let shared = &self.telemetry.shared;
        shared.connections.remove(&self.entry);
        for (_, cookie) in &self.legs {
            shared.legs.end(*cookie, Instant::now());
        }
        let (sent, received) = self.entry.bytes();
        self.tell(What::Ended(End {
            was_open: self.series.is_some(),
            sent,
            received,
            duration,
            protocol: self.protocol.map(Protocol::as_str),
            lost: self.lost.as_ref(),
            close,
            reason: self.explanation.as_deref(),
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
            named: Named {
                pod: Some(&self.telemetry.shared.labels),
                peer: Some(&self.names),
                is_misnamed: self.is_misnamed,
            },
            is_sampled: self.is_sampled,
            what,
        });
    }

    /// Takes down what the observer has seen.
    fn hear(&mut self) {
        while let Some(observation) = self.observer.as_mut().and_then(Observer::pop) {
            self.heard(observation);
        }
    }

    pub(super) fn heard(&mut self, observation: Observation) {
        // Nothing passes before both legs stand.
        let Some(series) = &self.series else {
            return;
        };
        match observation {
            Observation::Began(protocol) => {
                if self.protocol.is_none() {
                    self.entry.set_protocol(protocol);
                }
                let protocol = *self.protocol.get_or_insert(protocol);
                self.in_flight += 1;
                series.requests.in_flight(protocol, 1);
            }
            Observation::Ended(exchange) => {
                if let (Some(protocol), 1..) = (self.protocol, self.in_flight) {
                    self.in_flight -= 1;
                    series.requests.in_flight(protocol, -1);
                }
                series.requests.ended(&exchange);
                if let Some(edge) = &self.edge {
                    edge.request(&exchange);
                }
                self.tell(What::Request(&exchange));
                self.trace(exchange);
            }
            Observation::Lost(lost) => {
                series.lost(&lost);
                self.entry.set_lost(&lost);
                self.lost = Some(lost);
                // It has nothing more to say.
                self.observer = None;
            }
        }
    }

    fn find_edge(&self) -> Arc<Edge> {
        self.telemetry.shared.edges.of(
            self.entry.direction,
            self.entry.client(),
            self.entry.destination,
            &self.tls,
            &self.own,
        )
    }

    fn trace(&self, exchange: Box<Exchange>) {
        let traces = &self.telemetry.shared.traces;
        if traces.want(&exchange) {
            traces.offer(Passed {
                exchange,
                direction: self.entry.direction,
                client: self.entry.client().0,
                destination: self.entry.destination.0,
                own: Arc::clone(&self.own),
                tls: self.tls.clone(),
                pod: self.telemetry.shared.labels.clone(),
                names: self.names.clone(),
                now: (Instant::now(), SystemTime::now()),
            });
        }
    }

    fn parties(&self) -> Parties {
        let peer = self.tls.peer().map(SpiffeId::to_string);
        Parties {
            direction: self.entry.direction,
            own: Arc::clone(&self.own),
            peer: peer.unwrap_or_default().into(),
            tls: self.tls.as_str(),
            names: self.names.clone(),
        }
    }
}

impl Meter for Connection {
    fn sent(&mut self, bytes: &[u8]) {
        self.entry.add_sent(bytes.len() as u64);
        if let Some(series) = &self.series {
            series.sent(bytes.len() as u64);
        }
        if let Some(edge) = &self.edge {
            edge.sent(bytes.len() as u64);
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
        if let Some(series) = &self.series {
            series.received(bytes.len() as u64);
        }
        if let Some(edge) = &self.edge {
            edge.received(bytes.len() as u64);
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
