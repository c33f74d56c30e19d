use prometheus::{Encoder as _, Gauge, IntCounterVec, Opts, Registry, TextEncoder};

use super::{Certificate, Verdict};

/// Why a caller was not heard out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// It spoke no TLS, or not in time.
    Handshake,
    /// It has not asked in time.
    Late,
    /// What it posts is longer than a review.
    Long,
}

impl Refusal {
    const ALL: [Self; 3] = [Self::Handshake, Self::Late, Self::Long];

    const fn word(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Late => "late",
            Self::Long => "long",
        }
    }
}

/// What has been decided.
#[derive(Clone)]
pub(super) struct Metrics {
    expiry: Gauge,
    refusals: IntCounterVec,
    registry: Registry,
    reloads: IntCounterVec,
    reviews: IntCounterVec,
}

impl Metrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            expiry: Gauge::new(
                "sidecar_webhook_certificate_expiry_timestamp_seconds",
                "When the webhook's certificate expires, in seconds since the epoch.",
            )?,
            refusals: IntCounterVec::new(
                Opts::new(
                    "sidecar_webhook_refusals_total",
                    "Callers that the webhook did not hear out, by what they did.",
                ),
                &["reason"],
            )?,
            registry: Registry::new(),
            reloads: IntCounterVec::new(
                Opts::new(
                    "sidecar_webhook_certificate_reloads_total",
                    "Changes of the webhook's certificate files, by whether they could be used.",
                ),
                &["outcome"],
            )?,
            reviews: IntCounterVec::new(
                Opts::new(
                    "sidecar_webhook_reviews_total",
                    "Pods that the API server asked about, by what became of them.",
                ),
                &["verdict"],
            )?,
        };
        // Those that nothing has happened to are told as none.
        for verdict in Verdict::ALL {
            metrics.reviews.with_label_values(&[verdict.word()]);
        }
        metrics.reviews.with_label_values(&[MISUNDERSTOOD]);
        for is_taken in [true, false] {
            metrics.reloads.with_label_values(&[outcome(is_taken)]);
        }
        metrics
            .registry
            .register(Box::new(metrics.expiry.clone()))?;
        for refusal in Refusal::ALL {
            metrics.refusals.with_label_values(&[refusal.word()]);
        }
        metrics
            .registry
            .register(Box::new(metrics.refusals.clone()))?;
        metrics
            .registry
            .register(Box::new(metrics.reloads.clone()))?;
        metrics
            .registry
            .register(Box::new(metrics.reviews.clone()))?;
        Ok(metrics)
    }

    pub(super) fn decided(&self, verdict: Verdict) {
        self.reviews.with_label_values(&[verdict.word()]).inc();
    }

    pub(super) fn misunderstood(&self) {
        self.reviews.with_label_values(&[MISUNDERSTOOD]).inc();
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.refusals.with_label_values(&[refusal.word()]).inc();
    }

    pub(super) fn reloaded(&self, is_taken: bool) {
        self.reloads.with_label_values(&[outcome(is_taken)]).inc();
    }

    pub(super) fn render(&self, certificate: &Certificate) -> Result<String, prometheus::Error> {
        self.expiry.set(certificate.expiry_timestamp());
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// The verdict on what is no review.
const MISUNDERSTOOD: &str = "misunderstood";

fn outcome(is_taken: bool) -> &'static str {
    if is_taken { "taken" } else { "refused" }
}
