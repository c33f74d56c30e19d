use std::{collections::BTreeMap, time::Duration};

use crate::{
    policy::Direction,
    telemetry::{EdgeSnapshot, Graph, Latencies},
};

/// One peer, between one look and the next.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) direction: Direction,
    /// The peer's identity, or its address where it has proved none.
    pub(super) peer: String,
    /// Why it is not encrypted; `None` where it is.
    pub(super) plain: Option<String>,
    /// Connections that are open.
    pub(super) open: u64,
    /// Connections that failed, since the sidecar began.
    pub(super) failed: u64,
    /// What cannot be said before some time has passed.
    pub(super) rates: Option<Rates>,
}

/// What happened, by the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    /// Connections established.
    pub(super) opened: f64,
    /// Requests that ended.
    pub(super) requests: f64,
    /// The share of them that did not fail, from 0 to 1; `None` without any.
    pub(super) success: Option<f64>,
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
    /// Bytes from the peer to the workload.
    pub(super) incoming: f64,
    /// Bytes from the workload to the peer.
    pub(super) outgoing: f64,
}

/// The rows that the difference of two looks makes.
pub(super) fn rows(before: &Graph, now: &Graph) -> Vec<Row> {
    let fresh = Graph {
        uptime: 0.0,
        forgotten: 0,
        edges: Vec::new(),
    };
    // A sidecar that began in between counts from nothing.
    let before = if before.uptime > now.uptime {
        &fresh
    } else {
        before
    };
    let seconds = now.uptime - before.uptime;
    let earlier = totals(before);
    totals(now)
        .into_iter()
        .map(|(key, totals)| {
            let rates = (seconds > 0.0).then(|| {
                let since = earlier.get(&key).map(|earlier| totals.since(earlier));
                since.as_ref().unwrap_or(&totals).by_second(seconds)
            });
            Row {
                direction: key.direction,
                peer: key.peer,
                plain: key.plain,
                open: totals.open,
                failed: totals.failed,
                rates,
            }
        })
        .collect()
}

#[derive(Eq, Ord, PartialEq, PartialOrd)]
struct Key {
    direction: Direction,
    peer: String,
    plain: Option<String>,
}

/// The sums of a peer's edges.
#[derive(Default)]
struct Totals {
    open: u64,
    opened: u64,
    failed: u64,
    incoming: u64,
    outgoing: u64,
    requests: u64,
    failed_requests: u64,
    latency: Latencies,
}

fn totals(graph: &Graph) -> BTreeMap<Key, Totals> {
    let mut all: BTreeMap<Key, Totals> = BTreeMap::new();
    for edge in &graph.edges {
        let address = || match edge.client {
            Some(client) => client.to_string(),
            None => edge.server.to_string(),
        };
        let key = Key {
            direction: edge.direction,
            peer: edge.peer.clone().unwrap_or_else(address),
            plain: edge.peer.is_none().then(|| edge.tls.clone().into_owned()),
        };
        all.entry(key).or_default().add(edge);
    }
    all
}

impl Totals {
    fn add(&mut self, edge: &EdgeSnapshot) {
        let (incoming, outgoing) = match edge.direction {
            Direction::Inbound => (edge.sent, edge.received),
            Direction::Outbound => (edge.received, edge.sent),
        };
        self.open += edge.open;
        self.opened += edge.opened;
        self.failed += edge.failed.values().sum::<u64>();
        self.incoming += incoming;
        self.outgoing += outgoing;
        self.requests += edge.requests;
        self.failed_requests += edge.failed_requests;
        self.latency.add(&edge.latency);
    }

    fn since(&self, earlier: &Self) -> Self {
        // An edge that was forgotten and came again counts from nothing.
        Self {
            open: self.open,
            opened: self.opened.saturating_sub(earlier.opened),
            failed: self.failed.saturating_sub(earlier.failed),
            incoming: self.incoming.saturating_sub(earlier.incoming),
            outgoing: self.outgoing.saturating_sub(earlier.outgoing),
            requests: self.requests.saturating_sub(earlier.requests),
            failed_requests: self.failed_requests.saturating_sub(earlier.failed_requests),
            latency: self.latency.since(&earlier.latency),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    fn by_second(&self, seconds: f64) -> Rates {
        let rate = |count: u64| count as f64 / seconds;
        let failed = self.failed_requests as f64 / self.requests as f64;
        Rates {
            opened: rate(self.opened),
            requests: rate(self.requests),
            success: (self.requests > 0).then_some(1.0 - failed),
            p50: self.latency.quantile(0.5),
            p99: self.latency.quantile(0.99),
            incoming: rate(self.incoming),
            outgoing: rate(self.outgoing),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::golden::edge;

    /// So many requests of each bucket: the first is of those up to 100 µs.
    fn latency(counts: &[u64]) -> Latencies {
        serde_json::from_value(counts.into()).expect("counts")
    }

    /// Two looks with two seconds between them.
    pub(in crate::cli::top) fn graphs() -> (Graph, Graph) {
        let web = edge(Direction::Inbound, "198.18.0.1:80", "198.18.0.7", "web");
        // The same peer from another address.
        let web2 = edge(Direction::Inbound, "198.18.0.1:80", "198.18.0.8", "web");
        let plain = edge(Direction::Inbound, "198.18.0.1:80", "198.18.0.9", "");
        let stock = edge(Direction::Outbound, "198.18.0.2:5432", "", "stock");
        let before = Graph {
            uptime: 100.0,
            forgotten: 0,
            edges: vec![
                EdgeSnapshot {
                    opened: 10,
                    open: 2,
                    sent: 1000,
                    requests: 100,
                    latency: latency(&[100]),
                    ..web.clone()
                },
                plain.clone(),
                stock.clone(),
            ],
        };
        let now = Graph {
            uptime: 102.0,
            forgotten: 0,
            edges: vec![
                EdgeSnapshot {
                    opened: 12,
                    open: 4,
                    sent: 3000,
                    received: 4 << 20,
                    requests: 2090,
                    latency: latency(&[100, 0, 0, 1990]),
                    ..web
                },
                EdgeSnapshot {
                    opened: 1,
                    open: 1,
                    requests: 10,
                    failed_requests: 5,
                    latency: latency(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 10]),
                    ..web2
                },
                EdgeSnapshot {
                    failed: [("plaintext_refused".into(), 3)].into(),
                    ..plain
                },
                EdgeSnapshot {
                    open: 8,
                    opened: 8,
                    sent: 700,
                    received: 2048,
                    ..stock
                },
            ],
        };
        (before, now)
    }

    fn row<'a>(rows: &'a [Row], peer: &str) -> &'a Row {
        let row = rows.iter().find(|row| row.peer.ends_with(peer));
        row.expect("a row of this peer")
    }

    fn is(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 1e-9
    }

    #[test]
    fn rates_are_of_what_came_between_two_looks() {
        let (before, now) = graphs();
        let rows = rows(&before, &now);
        assert_eq!(rows.len(), 3);
        let web = row(&rows, "/web");
        assert_eq!((web.open, web.failed, &web.plain), (5, 0, &None));
        let rates = web.rates.expect("time has passed");
        assert!(is(rates.opened, 1.5), "{rates:?}");
        assert!(is(rates.requests, 1000.0), "{rates:?}");
        assert!(is(rates.incoming, 1000.0), "{rates:?}");
        assert!(is(rates.outgoing, f64::from(2 << 20)), "{rates:?}");
        assert!(rates.success.is_some_and(|share| is(share, 0.9975)));
        let millis = |quantile: Option<Duration>| quantile.map(|quantile| quantile.as_millis());
        assert_eq!((millis(rates.p50), millis(rates.p99)), (Some(0), Some(0)));
    }

    #[test]
    fn bytes_come_in_and_go_out_from_where_the_workload_stands() {
        let (before, now) = graphs();
        let rows = rows(&before, &now);
        let rates = row(&rows, "/stock").rates.expect("time has passed");
        assert!(is(rates.incoming, 1024.0) && is(rates.outgoing, 350.0));
    }

    #[test]
    fn who_has_proved_nothing_is_told_by_address_and_reason() {
        let (before, now) = graphs();
        let rows = rows(&before, &now);
        let plain = row(&rows, "198.18.0.9");
        assert_eq!(plain.plain.as_deref(), Some("no_peer_option"));
        assert_eq!(plain.failed, 3);
        let rates = plain.rates.expect("time has passed");
        assert_eq!((rates.success, rates.p50), (None, None));
    }

    #[test]
    fn a_sidecar_that_began_anew_counts_from_nothing() {
        let (before, now) = graphs();
        let later = Graph {
            uptime: 500.0,
            ..before
        };
        let rows = rows(&later, &now);
        let rates = row(&rows, "/web").rates.expect("time has passed");
        assert!(is(rates.requests, 2100.0 / 102.0), "{rates:?}");
    }

    #[test]
    fn before_time_has_passed_there_is_no_rate() {
        let (_, now) = graphs();
        assert!(rows(&now, &now).iter().all(|row| row.rates.is_none()));
    }
}
