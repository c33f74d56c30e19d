//! What happens to connections: metrics, the access log, the list of those that are open, who has
//! talked to whom, and lines for those who watch.

mod access_log;
mod connection;
mod connections;
mod counted;
mod edges;
mod exposition;
mod kernel_events;
mod labels;
mod latency;
mod legs;
mod metrics;
mod observing;
mod record;
mod reloads;
mod requests;
mod series;
mod series_table;
mod tap;
mod tcp;
#[cfg(test)]
mod tests;
mod traces;

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::{Instant, SystemTime},
};

use prometheus::{Encoder as _, TextEncoder, proto::MetricFamily};
use sidecar_common::SocketStatistics;
use spiffe::SpiffeId;

pub use self::{
    access_log::{AccessLog, Choice, Format},
    connection::{Connection, TlsUse},
    connections::Snapshot,
    edges::{EdgeSnapshot, Graph},
    kernel_events::KernelEvents,
    labels::PodLabels,
    latency::Latencies,
    observing::Observing,
    record::Kind,
    series_table::SeriesLimits,
    tap::{Filter, ParseFilterError, Tap},
    tcp::Leg,
    traces::{Collector, CollectorError, Export, Exporting, Traces},
};
use self::{
    connections::Connections, edges::Edges, exposition::merged, labels::PeerNames, legs::Legs,
    metrics::Metrics, record::Record, tap::Taps,
};
use crate::{
    naming::Directory,
    policy::Direction,
    proxy::{ClientAddr, Close, OrigDst},
};

/// What users choose of it.
pub struct Options {
    /// Where lines go.
    pub access_log: AccessLog,
    /// Who is behind the addresses of peers.
    pub directory: Directory,
    /// Which pod it is, in every metric and line.
    pub labels: PodLabels,
    /// Which connections are watched for what they say.
    pub observing: Observing,
    /// How many parties are told apart in metrics.
    pub series: SeriesLimits,
    /// Where spans go.
    pub traces: Traces,
}

impl Default for Options {
    /// Every connection is watched, and nothing is logged.
    fn default() -> Self {
        Self {
            access_log: AccessLog::off(),
            directory: Directory::default(),
            labels: PodLabels::default(),
            observing: Observing::default(),
            series: SeriesLimits::default(),
            traces: Traces::default(),
        }
    }
}

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
    /// Who is behind the addresses of peers.
    directory: Directory,
    /// Who has talked to whom.
    edges: Edges,
    /// Which pod it is.
    labels: PodLabels,
    /// The sockets of connections, of which the kernel side tells.
    legs: Arc<Legs>,
    /// Counters and histograms.
    metrics: Metrics,
    /// Which connections are watched.
    observing: Observing,
    /// Takes requests that become spans.
    traces: Traces,
    /// The own identity as of now, a label of every metric of a connection; empty before there is
    /// one.
    own: RwLock<Arc<str>>,
    /// Who watches.
    taps: Arc<Taps>,
}

impl Telemetry {
    /// Begins with nothing counted.
    pub fn new(options: Options) -> Result<Self, prometheus::Error> {
        let Options {
            access_log,
            directory,
            labels,
            observing,
            series,
            traces,
        } = options;
        let metrics = Metrics::new(series)?;
        metrics.register(Box::new(access_log.dropped_lines()?))?;
        for collector in traces.collectors()? {
            metrics.register(collector)?;
        }
        Ok(Self {
            shared: Arc::new(Shared {
                access_log,
                connections: Connections::default(),
                directory,
                edges: Edges::default(),
                labels,
                legs: Arc::default(),
                metrics,
                observing,
                traces,
                own: RwLock::new("".into()),
                taps: Arc::default(),
            }),
        })
    }

    /// Who is behind the addresses of peers, as it was given.
    pub fn directory(&self) -> Directory {
        self.shared.directory.clone()
    }

    /// Adds the counters of the kernel side.
    pub fn watch_kernel(&self, events: KernelEvents) -> Result<(), prometheus::Error> {
        let legs = Arc::clone(&self.shared.legs);
        let events = events.beside(Arc::new(move || legs.lost(Instant::now())));
        self.shared.metrics.register(Box::new(events))
    }

    /// The kernel side tells what TCP has measured on a socket.
    pub fn measured(&self, statistics: &SocketStatistics) {
        self.shared.legs.tell(statistics);
    }

    /// The workload is `own` from now on, by a certificate that expires at `not_after`.
    pub fn identity(&self, own: &SpiffeId, not_after: SystemTime) {
        *self
            .shared
            .own
            .write()
            .unwrap_or_else(PoisonError::into_inner) = own.to_string().into();
        self.shared.metrics.certificate_expires(not_after);
    }

    /// A new certificate has taken the place of another.
    pub fn identity_rotated(&self) {
        self.shared.metrics.identity_rotated();
    }

    /// `source` gave nothing that can be used.
    pub fn identity_failed(&self, source: &'static str) {
        self.shared.metrics.identity_failed(source);
    }

    /// Changed settings were taken over, or were refused and those of before kept.
    pub fn reloaded(&self, is_taken_over: bool) {
        self.shared.metrics.reloaded(is_taken_over);
    }

    /// Forgets, again and again, the parties that have not been heard of for long enough.
    pub async fn forget_idle_parties(self) {
        let series = &self.shared.metrics.series;
        let mut ticks = tokio::time::interval(series.sweep_interval());
        loop {
            ticks.tick().await;
            series.sweep(Instant::now());
        }
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
        Self::render_all([self], Vec::new())
    }

    /// The metrics of several pods that one process serves, each once, and more of the process.
    ///
    /// Where two are of pods of one name, of which the first is ending, the last one counts.
    pub fn render_all<'a>(
        all: impl IntoIterator<Item = &'a Self>,
        more: Vec<MetricFamily>,
    ) -> Result<String, prometheus::Error> {
        let families = { all.into_iter() }
            .flat_map(|telemetry| telemetry.shared.metrics.families(&telemetry.shared.labels));
        let families = merged(families.chain(more));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    /// The connections that are open, oldest first.
    pub fn open_connections(&self) -> Vec<Snapshot> {
        self.shared.connections.snapshot()
    }

    /// Who has talked to whom since the start.
    pub fn graph(&self) -> Graph {
        self.shared.edges.graph()
    }

    /// Lines about what fits from now on; `None` if as many taps as may be are open already.
    pub fn tap(&self, format: Format, filter: Filter) -> Option<Tap> {
        self.shared.taps.open(format, filter)
    }
}

impl Shared {
    /// Tells everybody who listens what has happened.
    fn tell(&self, record: &Record<'_>) {
        self.access_log.write(record);
        self.taps.tell(record);
    }

    /// What the cluster calls whoever is behind an address.
    fn names(&self, address: SocketAddr) -> PeerNames {
        self.directory
            .of(address)
            .map(|known| (&*known).into())
            .unwrap_or_default()
    }

    /// The own identity as of now.
    fn own(&self) -> Arc<str> {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&own)
    }
}
