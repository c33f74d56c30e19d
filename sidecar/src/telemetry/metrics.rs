use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{
    Encoder, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector,
};

use super::{reloads::Reloads, requests::Requests};
use crate::{
    policy::{Direction, authorization::Decision},
    proxy::Close,
};

/// Labels that tell apart who talks to whom, and how.
pub(super) const PARTIES: [&str; 4] = ["direction", "own", "peer", "tls"];

/// Bounds of the histograms of connect and handshake times, in seconds: 50 µs to 10 s.
const SHORT: [f64; 12] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 10.0,
];

/// Bounds of the histogram of whole connections, in seconds: 1 ms to an hour.
const LONG: [f64; 10] = [
    0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0, 3600.0,
];

/// Every metric of the proxy.
pub(super) struct Metrics {
    audits: IntCounterVec,
    certificate_expiry: Gauge,
    closed: IntCounterVec,
    connect: HistogramVec,
    decisions: IntCounterVec,
    duration: HistogramVec,
    failed: IntCounterVec,
    handshake: HistogramVec,
    identity_failures: IntCounterVec,
    identity_rotations: IntCounter,
    opened: IntCounterVec,
    received: IntCounterVec,
    registry: Registry,
    reloads: Reloads,
    /// Of requests that pass by.
    pub(super) requests: Requests,
    sent: IntCounterVec,
}

/// The values of [`PARTIES`] for one connection.
pub(super) struct Parties<'a> {
    pub(super) direction: Direction,
    pub(super) own: &'a str,
    pub(super) peer: String,
    pub(super) tls: &'static str,
}

impl Parties<'_> {
    pub(super) fn values(&self) -> [&str; 4] {
        [self.direction.as_str(), self.own, &self.peer, self.tls]
    }
}

/// The counters of one connection's bytes, looked up once.
pub(super) struct ByteCounters {
    pub(super) sent: IntCounter,
    pub(super) received: IntCounter,
}

impl Metrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let with_close = [&PARTIES[..], &["close"]].concat();
        let metrics = Self {
            audits: counter(
                "sidecar_authorization_audits_total",
                "Connections that a rule with the action `audit` fits.",
                &["rule"],
            )?,
            certificate_expiry: Gauge::new(
                "sidecar_certificate_expiry_timestamp_seconds",
                "When the own certificate expires, in seconds since the epoch.",
            )?,
            closed: counter(
                "sidecar_connections_closed_total",
                "Established connections that ended, by how they ended.",
                &with_close,
            )?,
            connect: histogram(
                "sidecar_connect_duration_seconds",
                "Time that the dial to the destination or to the app took.",
                &PARTIES,
                &SHORT,
            )?,
            decisions: counter(
                "sidecar_authorization_decisions_total",
                "Connections from the network that were let in or not, by the rule that says so.",
                &["decision", "rule"],
            )?,
            duration: histogram(
                "sidecar_connection_duration_seconds",
                "Time from accepting an established connection to its end.",
                &PARTIES,
                &LONG,
            )?,
            failed: counter(
                "sidecar_connections_failed_total",
                "Connections that ended before they could carry bytes, by reason.",
                &["direction", "reason"],
            )?,
            handshake: histogram(
                "sidecar_tls_handshake_duration_seconds",
                "Time that a TLS handshake took.",
                &PARTIES,
                &SHORT,
            )?,
            identity_failures: counter(
                "sidecar_identity_failures_total",
                "Attempts to get an identity, or what it trusts, that gave nothing usable.",
                &["source"],
            )?,
            identity_rotations: IntCounter::new(
                "sidecar_identity_rotations_total",
                "Own certificates that took the place of another.",
            )?,
            opened: counter(
                "sidecar_connections_opened_total",
                "Connections established on both legs.",
                &PARTIES,
            )?,
            received: counter(
                "sidecar_received_bytes_total",
                "Bytes of the apps carried from server to client.",
                &PARTIES,
            )?,
            registry: Registry::new(),
            reloads: Reloads::new()?,
            requests: Requests::new()?,
            sent: counter(
                "sidecar_sent_bytes_total",
                "Bytes of the apps carried from client to server.",
                &PARTIES,
            )?,
        };
        let collectors: [Box<dyn Collector>; 13] = [
            Box::new(metrics.audits.clone()),
            Box::new(metrics.certificate_expiry.clone()),
            Box::new(metrics.closed.clone()),
            Box::new(metrics.connect.clone()),
            Box::new(metrics.decisions.clone()),
            Box::new(metrics.duration.clone()),
            Box::new(metrics.failed.clone()),
            Box::new(metrics.handshake.clone()),
            Box::new(metrics.identity_failures.clone()),
            Box::new(metrics.identity_rotations.clone()),
            Box::new(metrics.opened.clone()),
            Box::new(metrics.received.clone()),
            Box::new(metrics.sent.clone()),
        ];
        let more = metrics.reloads.collectors().into_iter();
        for collector in collectors
            .into_iter()
            .chain(more)
            .chain(metrics.requests.collectors())
        {
            metrics.register(collector)?;
        }
        Ok(metrics)
    }

    pub(super) fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(collector)
    }

    pub(super) fn certificate_expires(&self, not_after: SystemTime) {
        let since_epoch = not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.certificate_expiry.set(since_epoch.as_secs_f64());
    }

    pub(super) fn identity_failed(&self, source: &str) {
        self.identity_failures.with_label_values(&[source]).inc();
    }

    pub(super) fn identity_rotated(&self) {
        self.identity_rotations.inc();
    }

    pub(super) fn reloaded(&self, is_taken_over: bool) {
        self.reloads.reloaded(is_taken_over);
    }

    pub(super) fn opened(&self, parties: &Parties<'_>) -> ByteCounters {
        let labels = parties.values();
        self.opened.with_label_values(&labels).inc();
        ByteCounters {
            sent: self.sent.with_label_values(&labels),
            received: self.received.with_label_values(&labels),
        }
    }

    pub(super) fn closed(&self, parties: &Parties<'_>, close: Close, duration: Duration) {
        let [direction, own, peer, tls] = parties.values();
        self.closed
            .with_label_values(&[direction, own, peer, tls, close.as_str()])
            .inc();
        self.duration
            .with_label_values(&parties.values())
            .observe(duration.as_secs_f64());
    }

    pub(super) fn decided(&self, decision: &Decision) {
        self.decisions
            .with_label_values(&[decision.verdict.as_str(), decision.rule.as_str()])
            .inc();
        for rule in &decision.audits {
            self.audits.with_label_values(&[rule.as_str()]).inc();
        }
    }

    pub(super) fn failed(&self, direction: Direction, close: Close) {
        self.failed
            .with_label_values(&[direction.as_str(), close.as_str()])
            .inc();
    }

    pub(super) fn connect_took(&self, parties: &Parties<'_>, duration: Duration) {
        self.connect
            .with_label_values(&parties.values())
            .observe(duration.as_secs_f64());
    }

    pub(super) fn handshake_took(&self, parties: &Parties<'_>, duration: Duration) {
        self.handshake
            .with_label_values(&parties.values())
            .observe(duration.as_secs_f64());
    }

    pub(super) fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

pub(super) fn counter(
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

pub(super) fn gauge(
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

pub(super) fn histogram(
    name: &str,
    help: &str,
    labels: &[&str],
    bounds: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    HistogramVec::new(
        HistogramOpts::new(name, help).buckets(bounds.to_vec()),
        labels,
    )
}
