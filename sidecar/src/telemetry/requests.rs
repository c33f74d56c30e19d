use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, core::Collector};

use super::metrics::{PARTIES, Parties, counter, gauge, histogram};
use crate::observe::{Exchange, Lost, Protocol};

/// Bounds of the histograms of times, in seconds: 100 µs to 10 s.
const SECONDS: [f64; 15] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0,
];

/// Bounds of the histograms of sizes, in bytes: 64 B to 64 MiB.
const BYTES: [f64; 11] = [
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Metrics of requests that were seen passing by.
pub(super) struct Requests {
    duration: HistogramVec,
    first_byte: HistogramVec,
    grpc: IntCounterVec,
    in_flight: IntGaugeVec,
    lost: IntCounterVec,
    request_size: HistogramVec,
    response_size: HistogramVec,
    total: IntCounterVec,
}

impl Requests {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let with = |more: &[&'static str]| [&PARTIES[..], more].concat();
        let protocol = with(&["protocol"]);
        Ok(Self {
            duration: histogram(
                "sidecar_http_request_duration_seconds",
                "Time from the first byte of a request to the last byte of its response.",
                &protocol,
                &SECONDS,
            )?,
            first_byte: histogram(
                "sidecar_http_time_to_first_byte_seconds",
                "Time from the first byte of a request to the first byte of its response.",
                &protocol,
                &SECONDS,
            )?,
            grpc: counter(
                "sidecar_grpc_calls_total",
                "gRPC calls that have ended, by their status.",
                &with(&["grpc_status"]),
            )?,
            in_flight: gauge(
                "sidecar_http_requests_in_flight",
                "Requests that have begun and not ended.",
                &protocol,
            )?,
            lost: counter(
                "sidecar_opaque_connections_total",
                "Connections whose requests are not followed, from some point on, by reason.",
                &with(&["reason"]),
            )?,
            request_size: histogram(
                "sidecar_http_request_size_bytes",
                "Content of a request, without its head and framing.",
                &protocol,
                &BYTES,
            )?,
            response_size: histogram(
                "sidecar_http_response_size_bytes",
                "Content of a response, without its head and framing.",
                &protocol,
                &BYTES,
            )?,
            total: counter(
                "sidecar_http_requests_total",
                "Requests that have ended, by the class of their response's status.",
                &with(&["protocol", "method", "status", "outcome"]),
            )?,
        })
    }

    pub(super) fn collectors(&self) -> [Box<dyn Collector>; 8] {
        [
            Box::new(self.duration.clone()),
            Box::new(self.first_byte.clone()),
            Box::new(self.grpc.clone()),
            Box::new(self.in_flight.clone()),
            Box::new(self.lost.clone()),
            Box::new(self.request_size.clone()),
            Box::new(self.response_size.clone()),
            Box::new(self.total.clone()),
        ]
    }

    /// One more request is in flight, or one less: the handle for a connection of this protocol.
    pub(super) fn in_flight(&self, parties: &Parties<'_>, protocol: Protocol) -> IntGauge {
        self.in_flight
            .with_label_values(&with(parties, &[protocol.as_str()]))
    }

    /// A connection is not followed any more.
    pub(super) fn lost(&self, parties: &Parties<'_>, lost: &Lost) {
        self.lost
            .with_label_values(&with(parties, &[lost.as_str()]))
            .inc();
    }

    /// A request has ended.
    pub(super) fn ended(&self, parties: &Parties<'_>, exchange: &Exchange) {
        let protocol = [exchange.protocol.as_str()];
        let labels = with(parties, &protocol);
        self.total
            .with_label_values(&with(
                parties,
                &[
                    protocol[0],
                    exchange.method.as_str(),
                    status_class(exchange.status),
                    exchange.outcome.as_str(),
                ],
            ))
            .inc();
        self.duration
            .with_label_values(&labels)
            .observe(exchange.duration.as_secs_f64());
        if let Some(first_byte) = exchange.first_byte {
            self.first_byte
                .with_label_values(&labels)
                .observe(first_byte.as_secs_f64());
        }
        #[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52 bytes")]
        for (sizes, bytes) in [
            (&self.request_size, exchange.request_bytes),
            (&self.response_size, exchange.response_bytes),
        ] {
            sizes.with_label_values(&labels).observe(bytes as f64);
        }
        if exchange.protocol == Protocol::Grpc {
            let status = exchange
                .grpc_status
                .map_or("none", |status| status.as_str());
            self.grpc.with_label_values(&with(parties, &[status])).inc();
        }
    }
}

/// The class of a status, such as `2xx`; `none` without response.
pub(super) const fn status_class(status: Option<u16>) -> &'static str {
    match status {
        None => "none",
        Some(100..200) => "1xx",
        Some(200..300) => "2xx",
        Some(300..400) => "3xx",
        Some(400..500) => "4xx",
        Some(_) => "5xx",
    }
}

fn with<'a>(parties: &'a Parties<'_>, more: &[&'a str]) -> Vec<&'a str> {
    [&parties.values()[..], more].concat()
}
