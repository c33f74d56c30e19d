use prometheus::{
    IntCounterVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use sidecar_common::Event;

/// Reads the counters: each event with how often it happened, or why that cannot be known.
type Read = Box<dyn Fn() -> Result<Vec<(Event, u64)>, String> + Send + Sync>;

/// The counters of the kernel side as a metric. They are read when somebody asks.
pub struct KernelEvents {
    /// Where they are read from.
    read: Read,
    /// Describes the metric; its own values are never shown.
    description: IntCounterVec,
}

impl KernelEvents {
    /// Shows what `read` reads.
    pub fn new(
        read: impl Fn() -> Result<Vec<(Event, u64)>, String> + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            read: Box::new(read),
            description: empty()?,
        })
    }
}

fn empty() -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(
        Opts::new(
            "sidecar_kernel_events_total",
            "What the kernel side decided, by event.",
        ),
        &["event"],
    )
}

impl Collector for KernelEvents {
    fn desc(&self) -> Vec<&Desc> {
        self.description.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counts = match (self.read)() {
            Ok(counts) => counts,
            Err(error) => {
                tracing::warn!("cannot read the counters of the kernel side: {error}");
                return Vec::new();
            }
        };
        let Ok(metric) = empty() else {
            return Vec::new();
        };
        for (event, count) in counts {
            metric.with_label_values(&[event.name()]).inc_by(count);
        }
        metric.collect()
    }
}
