//! What happened to connections: metrics, the access log, and the list of those that are open.

mod access_log;
mod connection;
mod connections;
mod kernel_events;
mod metrics;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::SystemTime};

use spiffe::SpiffeId;

pub use self::{
    access_log::{AccessLog, Format},
    connection::{Connection, TlsUse},
    connections::Snapshot,
    kernel_events::KernelEvents,
};
use self::{connections::Connections, metrics::Metrics};
use crate::{
    policy::Direction,
    proxy::{ClientAddr, Close, OrigDst},
};

/// Where connections report to. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

struct Shared {
    /// One line for each connection.
    access_log: AccessLog,
    /// The connections that are open.
    connections: Connections,
    /// Counters and histograms.
    metrics: Metrics,
    /// The own identity, a label of every metric of a connection.
    own: String,
}

impl Telemetry {
    /// Begins with nothing counted.
    pub fn new(own: &SpiffeId, access_log: AccessLog) -> Result<Self, prometheus::Error> {
        Ok(Self {
            shared: Arc::new(Shared {
                access_log,
                connections: Connections::default(),
                metrics: Metrics::new()?,
                own: own.to_string(),
            }),
        })
    }

    /// Adds the counters of the kernel side.
    pub fn watch_kernel(&self, events: KernelEvents) -> Result<(), prometheus::Error> {
        self.shared.metrics.register(Box::new(events))
    }

    /// Adds the expiry of the own certificate.
    pub fn certificate_expires(&self, not_after: SystemTime) {
        self.shared.metrics.certificate_expires(not_after);
    }

    /// A connection was accepted.
    pub fn begin(
        &self,
        direction: Direction,
        client: ClientAddr,
        destination: OrigDst,
    ) -> Connection {
        Connection::begin(self.clone(), direction, client, destination)
    }

    /// A connection ended before anything was known of it but its direction.
    pub fn not_accepted(&self, direction: Direction, close: Close) {
        self.shared.metrics.failed(direction, close);
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        self.shared.metrics.render()
    }

    /// The connections that are open, oldest first.
    pub fn open_connections(&self) -> Vec<Snapshot> {
        self.shared.connections.snapshot()
    }
}
