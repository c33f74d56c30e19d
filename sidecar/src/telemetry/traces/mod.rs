//! Spans for requests that say which trace they belong to, sent to a collector by OTLP.
//!
//! Whoever carries bytes only puts what it has seen into a queue; one task makes spans of it and
//! sends them. Its connection to the collector leaves the pod as an app's does, through our own
//! proxy. What it says carries no trace, so it makes no spans of its own.

mod collector;
mod export;
mod resource;
mod span;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use tokio::sync::mpsc;

pub use self::{
    collector::{Collector, Error as CollectorError},
    export::{Export, Exporting},
};
use super::{
    TlsUse,
    counted::Counted,
    labels::{PeerNames, PodLabels},
};
use crate::{
    observe::{Exchange, TraceParent},
    policy::Direction,
};

/// Spans that may wait to be sent; more are dropped.
const QUEUE: usize = 4096;

/// Takes what becomes spans. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    /// `None` if nobody wants them.
    queue: Option<mpsc::Sender<Passed>>,
    counts: Arc<Counts>,
}

/// What became of spans.
#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

/// A request and its response that have passed, of a trace that is recorded.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) exchange: Box<Exchange>,
    pub(super) direction: Direction,
    pub(super) client: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) own: Arc<str>,
    pub(super) tls: TlsUse,
    pub(super) pod: PodLabels,
    pub(super) names: PeerNames,
    /// One moment by two clocks.
    pub(super) now: (Instant, SystemTime),
}

impl Passed {
    fn parent(&self) -> Option<&TraceParent> {
        self.exchange.trace.as_ref()
    }

    /// When the request began, by the clock of the world.
    fn started(&self) -> SystemTime {
        let (now, time) = self.now;
        time - now.saturating_duration_since(self.exchange.started)
    }
}

impl Traces {
    /// Spans go to this collector, once the task runs.
    pub fn to(collector: SocketAddr) -> (Self, Export) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let counts = Arc::default();
        let traces = Self {
            queue: Some(queue),
            counts: Arc::clone(&counts),
        };
        (traces, Export::new(collector, waiting, counts))
    }

    /// Does this request make a span?
    pub(super) fn want(&self, exchange: &Exchange) -> bool {
        let parent = exchange.trace.as_ref();
        self.queue.is_some() && parent.is_some_and(|parent| parent.is_sampled)
    }

    /// Queues a request, or drops it where too many wait.
    pub(super) fn offer(&self, passed: Passed) {
        if let Some(queue) = &self.queue
            && queue.try_send(passed).is_err()
        {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn collectors(&self) -> Result<[Box<Counted>; 2], prometheus::Error> {
        let (exported, dropped) = (Arc::clone(&self.counts), Arc::clone(&self.counts));
        Ok([
            Box::new(Counted::new(
                "sidecar_trace_spans_exported_total",
                "Spans that the collector has taken.",
                Arc::new(move || exported.exported.load(Ordering::Relaxed)),
            )?),
            Box::new(Counted::new(
                "sidecar_trace_spans_dropped_total",
                "Spans that the collector did not take, or not fast enough.",
                Arc::new(move || dropped.dropped.load(Ordering::Relaxed)),
            )?),
        ])
    }
}

#[cfg(test)]
mod testing {
    use std::time::Duration;

    use super::*;
    use crate::observe::{Method, Outcome, Protocol, Text};

    /// A request of HTTP/1 that has passed through a server's sidecar, all well.
    pub(super) fn passed() -> Passed {
        let now = Instant::now();
        Passed {
            exchange: Box::new(Exchange {
                protocol: Protocol::Http1,
                method: Method::Get,
                authority: Some(Text::new(b"shop.example:8080")),
                path: Some(Text::of_path(b"/cart?token=secret")),
                status: Some(200),
                grpc_status: None,
                started: now,
                first_byte: Some(Duration::from_millis(1)),
                duration: Duration::from_millis(5),
                request_bytes: 7,
                response_bytes: 9,
                outcome: Outcome::Complete,
                trace: Some(TraceParent {
                    trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
                    span_id: 0xb7ad_6b71_6920_3331,
                    is_sampled: true,
                    state: Some("foo=1, bar=2,".into()),
                }),
            }),
            direction: Direction::Inbound,
            client: "198.18.0.1:40000".parse().expect("an address"),
            destination: "[fd00::2]:8080".parse().expect("an address"),
            own: "spiffe://sidecar.local/ns/default/sa/stock".into(),
            tls: TlsUse::Mutual(
                "spiffe://sidecar.local/ns/default/sa/shop"
                    .parse()
                    .expect("a SPIFFE ID"),
            ),
            pod: PodLabels::default(),
            names: PeerNames::default(),
            now: (now, SystemTime::UNIX_EPOCH + Duration::from_secs(1000)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sampled_requests_are_wanted_and_only_by_a_collector() {
        let passed = testing::passed();
        let mut exchange = *passed.exchange;
        let (traces, _export) = Traces::to("127.0.0.1:1".parse().expect("an address"));
        assert!(traces.want(&exchange));
        assert!(!Traces::default().want(&exchange));
        if let Some(parent) = &mut exchange.trace {
            parent.is_sampled = false;
        }
        assert!(!traces.want(&exchange));
        exchange.trace = None;
        assert!(!traces.want(&exchange));
    }

    #[test]
    fn what_does_not_fit_the_queue_is_dropped_and_counted() {
        let (traces, _export) = Traces::to("127.0.0.1:1".parse().expect("an address"));
        for _ in 0..QUEUE + 3 {
            traces.offer(testing::passed());
        }
        assert_eq!(traces.counts.dropped.load(Ordering::Relaxed), 3);
    }
}
