use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    TlsUse,
    latency::{Latencies, Latency},
};
use crate::{
    observe::Exchange,
    policy::Direction,
    proxy::{ClientAddr, Close, OrigDst},
};

/// Edges that are kept. Clients choose their addresses, so there is no natural end to them.
const MOST: usize = 1024;

/// Who has talked to whom, and how, since the sidecar began: the edges of the service graph that end
/// at this workload.
pub(super) struct Edges {
    began: Instant,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    edges: HashMap<Key, Arc<Edge>>,
    /// Edges that had to make room.
    forgotten: u64,
}

/// What tells edges apart: everything but what differs from one connection to the next.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Key {
    direction: Direction,
    server: SocketAddr,
    /// The client, unless it is this workload.
    client: Option<IpAddr>,
    tls: &'static str,
    /// Own and peer, where TLS is really used.
    identities: Option<(String, String)>,
}

/// The counters of one edge, which the connections of it share.
#[derive(Debug)]
pub(super) struct Edge {
    began: Instant,
    opened: AtomicU64,
    closed: AtomicU64,
    /// By the number of the reason in [`Close::ALL`].
    failed: [AtomicU64; Close::ALL.len()],
    sent: AtomicU64,
    received: AtomicU64,
    requests: AtomicU64,
    failed_requests: AtomicU64,
    latency: Latency,
    /// When a connection last began or ended, in milliseconds since the sidecar began.
    last_used: AtomicU64,
}

/// All edges as they are now.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Graph {
    /// Seconds since the sidecar began to count.
    pub uptime: f64,
    /// Edges that had to make room for others, and whose counts are lost.
    pub forgotten: u64,
    /// The edges, those of one server side by side.
    pub edges: Vec<EdgeSnapshot>,
}

/// One edge as it is now.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct EdgeSnapshot {
    /// Which way its connections run.
    pub direction: Direction,
    /// The client's address, unless the client is this workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The server's address and port.
    pub server: SocketAddr,
    /// Whether it is encrypted, and if not, why.
    pub tls: Cow<'static, str>,
    /// The own identity, where TLS is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<String>,
    /// The peer's identity, where TLS is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Connections that were established on both legs.
    pub opened: u64,
    /// Those of them that are open.
    pub open: u64,
    /// Connections that ended before that, by the code of the reason.
    pub failed: BTreeMap<Cow<'static, str>, u64>,
    /// Bytes from client to server.
    pub sent: u64,
    /// Bytes from server to client.
    pub received: u64,
    /// Requests that have ended.
    pub requests: u64,
    /// Those of them that failed on the server's side.
    pub failed_requests: u64,
    /// How long they took.
    pub latency: Latencies,
    /// Seconds for which there has been no connection; 0 while one is open.
    pub idle: f64,
}

impl Default for Edges {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            kept: Mutex::default(),
        }
    }
}

impl Edges {
    /// The edge that a connection belongs to, now that it is known whether it is encrypted.
    pub(super) fn of(
        &self,
        direction: Direction,
        client: ClientAddr,
        destination: OrigDst,
        tls: &TlsUse,
        own: &str,
    ) -> Arc<Edge> {
        let key = Key {
            direction,
            server: destination.0,
            client: (direction == Direction::Inbound).then(|| client.0.ip()),
            tls: tls.as_str(),
            identities: tls.peer().map(|peer| (own.to_owned(), peer.to_string())),
        };
        let mut kept = self.lock();
        if let Some(edge) = kept.edges.get(&key) {
            return Arc::clone(edge);
        }
        if kept.edges.len() >= MOST {
            kept.forget_one();
        }
        let edge = Arc::new(Edge::new(self.began));
        kept.edges.insert(key, Arc::clone(&edge));
        edge
    }

    pub(super) fn graph(&self) -> Graph {
        // The lock is held only to copy the handles: connections open and close meanwhile.
        let (mut edges, forgotten) = {
            let kept = self.lock();
            let edges = kept.edges.iter();
            let edges = edges.map(|(key, edge)| (key.clone(), Arc::clone(edge)));
            (edges.collect::<Vec<_>>(), kept.forgotten)
        };
        edges.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        Graph {
            uptime: self.began.elapsed().as_secs_f64(),
            forgotten,
            edges: edges
                .into_iter()
                .map(|(key, edge)| edge.snapshot(key))
                .collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing is left half-done by a panic that the next caller would stumble over.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Makes room: the edge goes that has had no connection for longest, or if all have some, the one
    /// whose last began first.
    fn forget_one(&mut self) {
        let idlest = self
            .edges
            .iter()
            .min_by_key(|(_, edge)| (edge.open() > 0, edge.last_used.load(Ordering::Relaxed)))
            .map(|(key, _)| key.clone());
        if let Some(key) = idlest {
            self.edges.remove(&key);
            self.forgotten += 1;
        }
    }
}

impl Edge {
    fn new(began: Instant) -> Self {
        let edge = Self {
            began,
            opened: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            failed: [const { AtomicU64::new(0) }; Close::ALL.len()],
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            failed_requests: AtomicU64::new(0),
            latency: Latency::default(),
            last_used: AtomicU64::new(0),
        };
        edge.touch();
        edge
    }

    /// A connection was established.
    pub(super) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.touch();
    }

    /// One that was established has ended.
    pub(super) fn closed(&self) {
        self.touch();
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ended before it was established.
    pub(super) fn failed(&self, close: Close) {
        self.failed[close as usize].fetch_add(1, Ordering::Relaxed);
        self.touch();
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A request and its response have ended.
    pub(super) fn request(&self, exchange: &Exchange) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if exchange.has_failed() {
            self.failed_requests.fetch_add(1, Ordering::Relaxed);
        }
        self.latency.observe(exchange.duration);
    }

    fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_used.store(now, Ordering::Relaxed);
    }

    fn open(&self) -> u64 {
        // In this order it is never less than nothing.
        let closed = self.closed.load(Ordering::Relaxed);
        self.opened.load(Ordering::Relaxed).saturating_sub(closed)
    }

    fn snapshot(&self, key: Key) -> EdgeSnapshot {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let failed = Close::ALL.iter().map(|close| {
            let count = count(&self.failed[*close as usize]);
            (Cow::Borrowed(close.as_str()), count)
        });
        let open = self.open();
        let last_used = Duration::from_millis(count(&self.last_used));
        let idle = self.began.elapsed().saturating_sub(last_used);
        let (own, peer) = key.identities.unzip();
        EdgeSnapshot {
            direction: key.direction,
            client: key.client,
            server: key.server,
            tls: key.tls.into(),
            own,
            peer,
            opened: count(&self.opened),
            open,
            failed: failed.filter(|(_, count)| *count > 0).collect(),
            sent: count(&self.sent),
            received: count(&self.received),
            requests: count(&self.requests),
            failed_requests: count(&self.failed_requests),
            latency: self.latency.now(),
            idle: if open > 0 { 0.0 } else { idle.as_secs_f64() },
        }
    }
}

#[cfg(test)]
mod tests {
    use spiffe::SpiffeId;

    use super::*;

    const OWN: &str = "spiffe://sidecar.local/own";

    fn mutual() -> TlsUse {
        TlsUse::Mutual(SpiffeId::new("spiffe://sidecar.local/peer").expect("a SPIFFE ID"))
    }

    /// The edge of a connection from one address to another.
    fn edge(
        edges: &Edges,
        direction: Direction,
        client: &str,
        server: &str,
        tls: &TlsUse,
    ) -> Arc<Edge> {
        let client = ClientAddr(client.parse().expect("an address"));
        let server = OrigDst(server.parse().expect("an address"));
        edges.of(direction, client, server, tls, OWN)
    }

    #[test]
    fn connections_that_differ_in_the_clients_port_are_of_one_edge() {
        let edges = Edges::default();
        for client in ["198.18.0.1:40000", "198.18.0.1:40001"] {
            let edge = edge(
                &edges,
                Direction::Inbound,
                client,
                "198.18.0.2:80",
                &mutual(),
            );
            edge.opened();
            edge.sent(10);
            edge.received(20);
        }
        let [edge] = edges.graph().edges.try_into().expect("one edge");
        assert_eq!(edge.client, Some([198, 18, 0, 1].into()));
        assert_eq!((edge.opened, edge.open), (2, 2));
        assert_eq!((edge.sent, edge.received), (20, 40));
        assert_eq!(edge.own.as_deref(), Some(OWN));
        assert_eq!(edge.peer.as_deref(), Some("spiffe://sidecar.local/peer"));
    }

    #[test]
    fn what_differs_in_who_proved_what_is_of_different_edges() {
        let edges = Edges::default();
        for tls in [mutual(), TlsUse::NoPeerOption, TlsUse::Failed] {
            edge(
                &edges,
                Direction::Outbound,
                "127.0.0.1:4",
                "198.18.0.2:80",
                &tls,
            );
        }
        let graph = edges.graph();
        let tls: Vec<_> = graph.edges.iter().map(|edge| &*edge.tls).collect();
        assert_eq!(tls, ["failed", "mutual", "no_peer_option"]);
        assert!(graph.edges.iter().all(|edge| edge.client.is_none()));
        let named = |edge: &&EdgeSnapshot| edge.own.is_some() && edge.peer.is_some();
        assert_eq!(graph.edges.iter().filter(named).count(), 1);
    }

    #[test]
    fn an_edge_outlives_its_connections() {
        let edges = Edges::default();
        let edge = edge(
            &edges,
            Direction::Inbound,
            "198.18.0.1:40000",
            "198.18.0.2:80",
            &TlsUse::NoPeerOption,
        );
        edge.opened();
        assert!(edges.graph().edges[0].idle.abs() < f64::EPSILON);
        edge.closed();
        edge.failed(Close::PlaintextRefused);
        drop(edge);
        let [edge] = edges.graph().edges.try_into().expect("one edge");
        assert_eq!((edge.opened, edge.open), (1, 0));
        assert_eq!(edge.failed, [("plaintext_refused".into(), 1)].into());
    }

    #[test]
    fn edges_are_bounded_and_the_open_ones_stay() {
        let edges = Edges::default();
        let client = |number: usize| {
            let number = u32::try_from(number).expect("few clients");
            SocketAddr::from((std::net::Ipv4Addr::from_bits(number), 1)).to_string()
        };
        let server = "198.18.0.2:80";
        let used = |number| {
            edge(
                &edges,
                Direction::Inbound,
                &client(number),
                server,
                &TlsUse::Pending,
            )
        };
        let first = used(0);
        first.opened();
        for number in 1..=MOST + 9 {
            used(number);
        }
        let graph = edges.graph();
        assert_eq!((graph.edges.len(), graph.forgotten), (MOST, 10));
        assert!(graph.edges.iter().any(|edge| edge.open == 1));
    }

    #[test]
    fn a_graph_is_read_as_it_is_written() {
        let edges = Edges::default();
        let edge = edge(
            &edges,
            Direction::Inbound,
            "[fd00::1]:4",
            "[fd00::2]:80",
            &mutual(),
        );
        edge.failed(Close::Denied);
        let graph = edges.graph();
        let json = serde_json::to_string(&graph).expect("plain values");
        assert_eq!(
            serde_json::from_str::<Graph>(&json).expect("the same"),
            graph
        );
    }

    #[test]
    fn reasons_are_numbered_in_the_order_of_their_list() {
        for (number, close) in Close::ALL.iter().enumerate() {
            assert_eq!(*close as usize, number);
        }
    }
}
