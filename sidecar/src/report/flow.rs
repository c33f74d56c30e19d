use std::collections::BTreeMap;

use super::{
    histogram::Histogram,
    pair::{Count, Pair},
    scrape::Labels,
};

/// Who talks to whom, and how: the labels that metrics of connections have in common.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Parties {
    /// `inbound` or `outbound`, seen from `own`.
    pub direction: String,
    /// Whose sidecar counts.
    pub own: String,
    /// The other one, if it has proved who it is; else empty.
    pub peer: String,
    /// `mutual`, or why TLS is not used.
    pub tls: String,
}

impl Parties {
    fn of(labels: &Labels) -> Option<Self> {
        let label = |name| labels.get(name).cloned();
        Some(Self {
            direction: label("direction")?,
            own: label("own")?,
            peer: label("peer")?,
            tls: label("tls")?,
        })
    }

    /// Whether it is encrypted.
    pub fn is_mutual(&self) -> bool {
        self.tls == "mutual"
    }
}

/// What connections of one kind did.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// Connections that were opened.
    pub opened: Count,
    /// Connections that ended.
    pub closed: Count,
    /// Bytes of the apps, both ways.
    pub bytes: Count,
    /// Requests that ended.
    pub requests: Count,
    /// Those that failed on the server's side.
    pub failed: Count,
    /// Requests in flight, at the second scrape.
    pub in_flight: f64,
    /// Time of whole requests.
    pub duration: Histogram,
    /// Time to the first byte of responses.
    pub first_byte: Histogram,
    /// To the other pod.
    pub network: Leg,
    /// To the workload itself.
    pub app: Leg,
}

/// What the kernel measured of one leg of connections.
#[derive(Clone, Debug, Default)]
pub struct Leg {
    /// Smoothed round trips.
    pub rtt: Histogram,
    /// Shortest round trips.
    pub min_rtt: Histogram,
    /// Congestion windows at the end of connections, in segments.
    pub window: Histogram,
    /// Segments that were sent again.
    pub retransmitted: Count,
    /// Bytes that were acknowledged.
    pub sent: Count,
}

impl Flow {
    /// Of all sidecars together, by who talks to whom.
    pub fn all(pairs: &[Pair]) -> BTreeMap<Parties, Self> {
        let mut flows = BTreeMap::new();
        for pair in pairs {
            counters(pair, &mut flows);
            histograms(pair, &mut flows);
        }
        flows
    }

    /// Open connections, at the second scrape.
    pub fn open(&self) -> f64 {
        self.opened.total - self.closed.total
    }

    /// Share of requests that did not fail: between the scrapes, or since the start if there were
    /// none.
    pub fn success(&self) -> Option<f64> {
        let share = |failed: f64, all: f64| (all > 0.0).then(|| 1.0 - failed / all);
        share(self.failed.increase, self.requests.increase)
            .or_else(|| share(self.failed.total, self.requests.total))
    }

    fn leg(&mut self, labels: &Labels) -> Option<&mut Leg> {
        match &**labels.get("leg")? {
            "network" => Some(&mut self.network),
            "app" => Some(&mut self.app),
            _ => None,
        }
    }
}

fn counters(pair: &Pair, flows: &mut BTreeMap<Parties, Flow>) {
    let mut each = |name: &str, add: &dyn Fn(&mut Flow, &Labels, Count)| {
        for (labels, count) in pair.counts(name) {
            if let Some(parties) = Parties::of(labels) {
                add(flows.entry(parties).or_default(), labels, count);
            }
        }
    };
    each("sidecar_connections_opened_total", &|flow, _, count| {
        flow.opened.add(count);
    });
    each("sidecar_connections_closed_total", &|flow, _, count| {
        flow.closed.add(count);
    });
    for name in ["sidecar_sent_bytes_total", "sidecar_received_bytes_total"] {
        each(name, &|flow, _, count| flow.bytes.add(count));
    }
    each("sidecar_http_requests_total", &|flow, _, count| {
        flow.requests.add(count);
    });
    each("sidecar_http_requests_failed_total", &|flow, _, count| {
        flow.failed.add(count);
    });
    each("sidecar_http_requests_in_flight", &|flow, _, count| {
        flow.in_flight += count.total;
    });
    each(
        "sidecar_tcp_retransmitted_segments_total",
        &|flow, labels, count| {
            if let Some(leg) = flow.leg(labels) {
                leg.retransmitted.add(count);
            }
        },
    );
    each("sidecar_tcp_sent_bytes_total", &|flow, labels, count| {
        if let Some(leg) = flow.leg(labels) {
            leg.sent.add(count);
        }
    });
}

fn histograms(pair: &Pair, flows: &mut BTreeMap<Parties, Flow>) {
    let mut each =
        |name: &str, of: for<'a> fn(&'a mut Flow, &Labels) -> Option<&'a mut Histogram>| {
            for (labels, count) in pair.counts(&format!("{name}_bucket")) {
                let flow = Parties::of(labels).map(|parties| flows.entry(parties).or_default());
                if let Some(histogram) = flow.and_then(|flow| of(flow, labels)) {
                    histogram.count(labels, count);
                }
            }
        };
    each("sidecar_http_request_duration_seconds", |flow, _| {
        Some(&mut flow.duration)
    });
    each("sidecar_http_time_to_first_byte_seconds", |flow, _| {
        Some(&mut flow.first_byte)
    });
    each("sidecar_tcp_rtt_seconds", |flow, labels| {
        flow.leg(labels).map(|leg| &mut leg.rtt)
    });
    each("sidecar_tcp_min_rtt_seconds", |flow, labels| {
        flow.leg(labels).map(|leg| &mut leg.min_rtt)
    });
    each("sidecar_tcp_congestion_window_segments", |flow, labels| {
        flow.leg(labels).map(|leg| &mut leg.window)
    });
}

#[cfg(test)]
mod tests {
    use std::{
        fmt::Write as _,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::report::scrape::Scrape;

    fn pair(after: &str) -> Pair {
        Pair {
            source: String::new(),
            before: Scrape::default(),
            after: Scrape::parse(after).expect("a scrape"),
            interval: Duration::from_secs(1),
        }
    }

    #[test]
    fn each_histogram_goes_to_its_parties_and_leg() {
        let labels = "direction=\"inbound\",own=\"s://d/a\",peer=\"\",tls=\"failed\"";
        let text = format!(
            "sidecar_http_request_duration_seconds_bucket{{{labels},le=\"1\"}} 1\n\
             sidecar_tcp_rtt_seconds_bucket{{{labels},leg=\"network\",le=\"1\"}} 2\n\
             sidecar_tcp_rtt_seconds_bucket{{{labels},leg=\"app\",le=\"2\"}} 3\n\
             sidecar_tcp_rtt_seconds_bucket{{{labels},leg=\"other\",le=\"3\"}} 4\n"
        );
        let flows = Flow::all(&[pair(&text)]);
        let flow = flows.values().next().expect("a flow");
        assert_eq!(flow.duration.shares(), [(1.0, 1.0)]);
        assert_eq!(flow.network.rtt.shares(), [(1.0, 1.0)]);
        assert_eq!(flow.app.rtt.shares(), [(2.0, 1.0)]);
        assert_eq!(flow.first_byte.basis(), None);
    }

    #[test]
    fn many_peers_do_not_take_long() {
        const PEERS: usize = 1000;
        const BUCKETS: usize = 20;
        let mut text = String::new();
        for peer in 0..PEERS {
            for bucket in 1..=BUCKETS {
                for metric in [
                    "rtt_seconds",
                    "min_rtt_seconds",
                    "congestion_window_segments",
                ] {
                    for leg in ["network", "app"] {
                        writeln!(
                            text,
                            "sidecar_tcp_{metric}_bucket{{direction=\"inbound\",own=\"s://d/a\",\
                             peer=\"s://d/{peer}\",tls=\"mutual\",leg=\"{leg}\",le=\"{bucket}\"}} {bucket}"
                        )
                        .expect("a string has room");
                    }
                }
            }
        }
        let pairs = [pair(&text)];
        let began = Instant::now();
        let flows = Flow::all(&pairs);
        assert_eq!(flows.len(), PEERS);
        let full = |flow: &Flow| flow.app.window.shares().len() == BUCKETS;
        assert!(flows.values().all(full));
        // A walk over all of them for each peer takes minutes.
        let took = began.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}
