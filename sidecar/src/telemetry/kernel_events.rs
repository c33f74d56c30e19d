use std::sync::Arc;

use prometheus::{
    IntCounterVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use sidecar_common::Event;

use super::counted;

/// Why statistics were lost: nobody has read those before.
const RING_FULL: &str = "ring_full";
/// Why statistics were lost: no connection has such a socket.
const UNKNOWN_SOCKET: &str = "unknown_socket";

/// Reads the counters: each event with how often it happened, or why that cannot be known.
type Read = Box<dyn Fn() -> Result<Vec<(Event, u64)>, String> + Send + Sync>;

/// The counters of the kernel side as metrics. They are read when somebody asks.
pub struct KernelEvents {
    /// Where they are read from.
    read: Read,
    /// What was told of sockets that nobody knows, counted by us.
    unknown_sockets: counted::Read,
    /// Describes the metrics; its own values are never shown.
    description: Counters,
}

impl KernelEvents {
    /// Every reason for which statistics are lost.
    pub const LOSSES: [&str; 2] = [RING_FULL, UNKNOWN_SOCKET];

    /// Shows what `read` reads.
    pub fn new(
        read: impl Fn() -> Result<Vec<(Event, u64)>, String> + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            read: Box::new(read),
            unknown_sockets: Arc::new(|| 0),
            description: Counters::new()?,
        })
    }

    /// Shows beside statistics that the kernel side has lost those that we have.
    pub(super) fn beside(self, unknown_sockets: counted::Read) -> Self {
        Self {
            unknown_sockets,
            ..self
        }
    }
}

/// What is shown.
struct Counters {
    events: IntCounterVec,
    statistics_lost: IntCounterVec,
}

impl Counters {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            events: IntCounterVec::new(
                Opts::new(
                    "sidecar_kernel_events_total",
                    "What the kernel side decided, by event.",
                ),
                &["event"],
            )?,
            statistics_lost: IntCounterVec::new(
                Opts::new(
                    "sidecar_kernel_statistics_lost_total",
                    "Times that the kernel side told of a socket and it was not counted, by reason.",
                ),
                &["reason"],
            )?,
        })
    }

    fn both(&self) -> [&IntCounterVec; 2] {
        [&self.events, &self.statistics_lost]
    }
}

impl Collector for KernelEvents {
    fn desc(&self) -> Vec<&Desc> {
        self.description
            .both()
            .into_iter()
            .flat_map(Collector::desc)
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counts = match (self.read)() {
            Ok(counts) => counts,
            Err(error) => {
                tracing::warn!("cannot read the counters of the kernel side: {error}");
                return Vec::new();
            }
        };
        let Ok(shown) = Counters::new() else {
            return Vec::new();
        };
        let lost = |reason| shown.statistics_lost.with_label_values(&[reason]);
        lost(UNKNOWN_SOCKET).inc_by((self.unknown_sockets)());
        for (event, count) in counts {
            shown
                .events
                .with_label_values(&[event.name()])
                .inc_by(count);
            if event == Event::StatisticsLost {
                lost(RING_FULL).inc_by(count);
            }
        }
        shown
            .both()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}
