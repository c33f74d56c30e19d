use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{
    Gauge, IntCounter, IntCounterVec, Opts, Registry, core::Collector, proto::MetricFamily,
};

use super::{
    exposition::{Exposition, add_labels},
    labels::PodLabels,
    reloads::Reloads,
    series_table::{SeriesLimits, SeriesTable},
};
use crate::{
    policy::{Direction, authorization::Decision},
    proxy::Close,
};

/// Every metric of the proxy.
pub(super) struct Metrics {
    audits: IntCounterVec,
    certificate_expiry: Gauge,
    decisions: IntCounterVec,
    failed: IntCounterVec,
    identity_failures: IntCounterVec,
    identity_rotations: IntCounter,
    misnamed: IntCounterVec,
    registry: Registry,
    reloads: Reloads,
    reused: IntCounterVec,
    /// Of parties that talk to each other.
    pub(super) series: SeriesTable,
}

impl Metrics {
    pub(super) fn new(limits: SeriesLimits) -> Result<Self, prometheus::Error> {
        let overflowed = IntCounter::new(
            "sidecar_series_overflowed_total",
            "Connections whose parties are not told apart in metrics.",
        )?;
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
            decisions: counter(
                "sidecar_authorization_decisions_total",
                "Connections from the network that were let in or not, by the rule that says so.",
                &["decision", "rule"],
            )?,
            failed: counter(
                "sidecar_connections_failed_total",
                "Connections that ended before they could carry bytes, by reason.",
                &["direction", "reason"],
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
            misnamed: counter(
                "sidecar_peers_misnamed_total",
                "Servers that proved another identity than the cluster names for their address.",
                &["outcome"],
            )?,
            registry: Registry::new(),
            reloads: Reloads::new()?,
            reused: counter(
                "sidecar_connections_reused_total",
                "Connections that were carried by what an earlier one was encrypted with.",
                &["direction"],
            )?,
            series: SeriesTable::new(limits, overflowed.clone()),
        };
        // From zero: the first failure of a kind has to show as an increase.
        for direction in [Direction::Inbound, Direction::Outbound] {
            metrics.reused.with_label_values(&[direction.as_str()]);
            for close in Close::ALL
                .into_iter()
                .filter(|close| !close.ends_only_open())
            {
                metrics
                    .failed
                    .with_label_values(&[direction.as_str(), close.as_str()]);
            }
        }
        for refused in [true, false] {
            metrics.misnamed.with_label_values(&[misnamed(refused)]);
        }
        let collectors: [Box<dyn Collector>; 9] = [
            Box::new(metrics.audits.clone()),
            Box::new(metrics.certificate_expiry.clone()),
            Box::new(metrics.decisions.clone()),
            Box::new(metrics.failed.clone()),
            Box::new(metrics.identity_failures.clone()),
            Box::new(metrics.identity_rotations.clone()),
            Box::new(metrics.misnamed.clone()),
            Box::new(metrics.reused.clone()),
            Box::new(overflowed),
        ];
        for collector in collectors.into_iter().chain(metrics.reloads.collectors()) {
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

    pub(super) fn misnamed(&self, is_refused: bool) {
        self.misnamed
            .with_label_values(&[misnamed(is_refused)])
            .inc();
    }

    pub(super) fn reloaded(&self, is_taken_over: bool) {
        self.reloads.reloaded(is_taken_over);
    }

    pub(super) fn reused(&self, direction: Direction) {
        self.reused.with_label_values(&[direction.as_str()]).inc();
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

    /// Every sample, with the labels of the pod; those of the process have the node's alone.
    pub(super) fn families(&self, labels: &PodLabels) -> Vec<MetricFamily> {
        let mut exposition = Exposition::default();
        self.series.show(&mut exposition);
        let mut families = self.registry.gather();
        families.extend(exposition.into_families());
        for family in &mut families {
            if family.name() == OF_PROCESS {
                add_labels(family, labels.of_process());
            } else {
                add_labels(family, labels.pairs());
            }
        }
        families
    }
}

/// What is counted for the process as a whole, whichever pods it serves: all of them have lines in
/// one access log.
const OF_PROCESS: &str = "sidecar_access_log_dropped_lines_total";

/// What became of a server that the cluster names otherwise.
const fn misnamed(is_refused: bool) -> &'static str {
    if is_refused { "refused" } else { "reported" }
}

fn counter(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}
