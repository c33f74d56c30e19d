use std::sync::OnceLock;

use super::exposition::{Count, Distribution, Exposition, Family, Labels, Level, counts};
use crate::observe::{Exchange, GrpcStatus, Method, Outcome, Protocol};

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

static TOTAL: Family = Family::counter(
    "sidecar_http_requests_total",
    "Requests that have ended, by the class of their response's status.",
);
static FAILED: Family = Family::counter(
    "sidecar_http_requests_failed_total",
    "Requests that have failed on the server's side.",
);
static IN_FLIGHT: Family = Family::gauge(
    "sidecar_http_requests_in_flight",
    "Requests that have begun and not ended.",
);
static DURATION: Family = Family::histogram(
    "sidecar_http_request_duration_seconds",
    "Time from the first byte of a request to the last byte of either, request or response.",
    &SECONDS,
);
static FIRST_BYTE: Family = Family::histogram(
    "sidecar_http_time_to_first_byte_seconds",
    "Time from the first byte of a request to the first byte of its response.",
    &SECONDS,
);
static REQUEST_SIZE: Family = Family::histogram(
    "sidecar_http_request_size_bytes",
    "Content of a request, without its head and framing.",
    &BYTES,
);
static RESPONSE_SIZE: Family = Family::histogram(
    "sidecar_http_response_size_bytes",
    "Content of a response, without its head and framing.",
    &BYTES,
);
static GRPC: Family = Family::counter(
    "sidecar_grpc_calls_total",
    "gRPC calls that have ended, by their status.",
);

/// Classes of a response's status, by its first digit; the first is that of no response.
const STATUS_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// How many statuses gRPC has.
const GRPC_STATUSES: usize = 17;

/// Requests of one set of parties. What is counted for a protocol is made when it is first spoken.
#[derive(Default)]
pub(super) struct Requests {
    /// By the number of a [`Protocol`].
    by_protocol: [OnceLock<Box<Exchanges>>; Protocol::ALL.len()],
    /// By the number of a gRPC status; the last is that of calls that ended without.
    grpc: OnceLock<Box<[Count; GRPC_STATUSES + 1]>>,
}

/// Requests in one protocol.
struct Exchanges {
    /// By the numbers of [`Method`], status class and [`Outcome`].
    totals: [[[Count; Outcome::ALL.len()]; STATUS_CLASSES.len()]; Method::ALL.len()],
    /// Those that have failed on the server's side.
    failed: Count,
    in_flight: Level,
    duration: Distribution,
    first_byte: Distribution,
    request_size: Distribution,
    response_size: Distribution,
}

impl Requests {
    /// So many more requests are in flight on connections that speak this protocol, or fewer.
    pub(super) fn in_flight(&self, protocol: Protocol, more: i64) {
        self.of(protocol).in_flight.add(more);
    }

    /// A request has ended.
    pub(super) fn ended(&self, exchange: &Exchange) {
        let exchanges = self.of(exchange.protocol);
        exchanges.duration.observe(exchange.duration.as_secs_f64());
        if let Some(first_byte) = exchange.first_byte {
            exchanges.first_byte.observe(first_byte.as_secs_f64());
        }
        #[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52 bytes")]
        for (sizes, bytes) in [
            (&exchanges.request_size, exchange.request_bytes),
            (&exchanges.response_size, exchange.response_bytes),
        ] {
            sizes.observe(bytes as f64);
        }
        if exchange.protocol == Protocol::Grpc {
            let status = exchange
                .grpc_status
                .map_or(GRPC_STATUSES, |status| usize::from(status.number()));
            self.grpc.get_or_init(|| Box::new(counts()))[status].add(1);
        }
        if exchange.has_failed() {
            exchanges.failed.add(1);
        }
        // Last: whoever waits for it finds the rest.
        exchanges.totals[exchange.method as usize][status_class(exchange.status)]
            [exchange.outcome as usize]
            .add(1);
    }

    pub(super) fn show(&self, labels: &Labels, exposition: &mut Exposition) {
        for (exchanges, protocol) in self.by_protocol.iter().zip(Protocol::ALL) {
            if let Some(exchanges) = exchanges.get() {
                exchanges.show(&labels.and([("protocol", protocol.as_str())]), exposition);
            }
        }
        let names = GrpcStatus::all().map(GrpcStatus::as_str).chain(["none"]);
        for (count, status) in self
            .grpc
            .get()
            .into_iter()
            .flat_map(|all| all.iter())
            .zip(names)
        {
            if count.get() > 0 {
                exposition.count(&GRPC, &labels.and([("grpc_status", status)]), count);
            }
        }
    }

    fn of(&self, protocol: Protocol) -> &Exchanges {
        self.by_protocol[protocol as usize].get_or_init(Box::default)
    }
}

impl Default for Exchanges {
    fn default() -> Self {
        Self {
            totals: Default::default(),
            failed: Count::default(),
            in_flight: Level::default(),
            duration: Distribution::of(&DURATION),
            first_byte: Distribution::of(&FIRST_BYTE),
            request_size: Distribution::of(&REQUEST_SIZE),
            response_size: Distribution::of(&RESPONSE_SIZE),
        }
    }
}

impl Exchanges {
    fn show(&self, labels: &Labels, exposition: &mut Exposition) {
        exposition.level(&IN_FLIGHT, labels, &self.in_flight);
        exposition.count(&FAILED, labels, &self.failed);
        for (by_status, method) in self.totals.iter().zip(Method::ALL) {
            for (by_outcome, status) in by_status.iter().zip(STATUS_CLASSES) {
                for (count, outcome) in by_outcome.iter().zip(Outcome::ALL) {
                    if count.get() > 0 {
                        let more = [
                            ("method", method.as_str()),
                            ("status", status),
                            ("outcome", outcome.as_str()),
                        ];
                        exposition.count(&TOTAL, &labels.and(more), count);
                    }
                }
            }
        }
        for distribution in [
            &self.duration,
            &self.first_byte,
            &self.request_size,
            &self.response_size,
        ] {
            exposition.distribution(labels, distribution);
        }
    }
}

/// The place of a status among [`STATUS_CLASSES`].
fn status_class(status: Option<u16>) -> usize {
    status.map_or(0, |status| usize::from(status / 100).clamp(1, 5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_by_number_is_shown_by_the_word_of_that_number() {
        for (number, protocol) in Protocol::ALL.into_iter().enumerate() {
            assert_eq!(protocol as usize, number);
        }
        for (number, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, number);
        }
        for (number, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, number);
        }
        for (number, status) in GrpcStatus::all().enumerate() {
            assert_eq!(usize::from(status.number()), number);
        }
        assert_eq!(GrpcStatus::all().count(), GRPC_STATUSES);
    }

    #[test]
    fn a_status_belongs_to_the_class_of_its_first_digit() {
        let word = |status| STATUS_CLASSES[status_class(status)];
        assert_eq!(word(None), "none");
        assert_eq!(word(Some(101)), "1xx");
        assert_eq!(word(Some(204)), "2xx");
        assert_eq!(word(Some(599)), "5xx");
        // What is no status of HTTP stays in the closed set.
        assert_eq!(word(Some(0)), "1xx");
        assert_eq!(word(Some(u16::MAX)), "5xx");
    }
}
