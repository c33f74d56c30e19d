//! Who talks to whom, of all sidecars together.

use std::collections::BTreeMap;

use super::{
    flow::{Flow, Parties},
    format,
};

/// What stands for identities that are too many to be told apart.
const OVERFLOW: &str = "overflow";

/// One end of connections.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Node {
    /// Clients that have proved nothing.
    OutsideClients,
    /// A workload, by its SPIFFE ID.
    Workload(String),
    /// Servers that have proved nothing.
    OutsideServers,
    /// Clients that a sidecar did not tell apart, and whom they talked to: see [`OVERFLOW`].
    MoreClients,
    /// Servers that a sidecar did not tell apart, and who talked to them.
    MoreServers,
}

/// Connections from one node to another.
#[derive(Debug)]
pub struct Edge<'a> {
    /// Number of the client's node.
    pub client: usize,
    /// Number of the server's node.
    pub server: usize,
    /// How they are encrypted, or why not.
    pub parties: &'a Parties,
    /// What they did, as the sidecar has it that saw all of it.
    pub flow: &'a Flow,
}

/// All of it.
#[derive(Debug)]
pub struct Network<'a> {
    /// In order.
    pub nodes: Vec<Node>,
    /// In the order of their clients, then servers.
    pub edges: Vec<Edge<'a>>,
}

impl Node {
    fn of(id: &str, nobody: Self) -> Self {
        if id.is_empty() {
            nobody
        } else {
            Self::Workload(id.to_owned())
        }
    }

    /// Client and server of a flow.
    fn ends(parties: &Parties) -> (Self, Self) {
        let Parties { own, peer, .. } = parties;
        let is_inbound = parties.direction == "inbound";
        if peer == OVERFLOW {
            let more = if is_inbound {
                Self::MoreClients
            } else {
                Self::MoreServers
            };
            return (more.clone(), more);
        }
        let (client, server) = if is_inbound { (peer, own) } else { (own, peer) };
        (
            Self::of(client, Self::OutsideClients),
            Self::of(server, Self::OutsideServers),
        )
    }

    /// A name that is short.
    pub fn name(&self) -> &str {
        match self {
            Self::OutsideClients => "clients without identity",
            Self::OutsideServers => "servers without identity",
            Self::MoreClients => "more clients",
            Self::MoreServers => "more servers",
            Self::Workload(id) => id.rsplit('/').next().unwrap_or(id),
        }
    }

    /// What is proved of it.
    pub fn identity(&self) -> &str {
        match self {
            Self::OutsideClients | Self::OutsideServers => "not in the mesh",
            Self::MoreClients | Self::MoreServers => "beyond max-peers, not told apart",
            Self::Workload(id) => id,
        }
    }
}

impl<'a> Network<'a> {
    /// Of flows. Two sidecars that count the same connections make one edge, as the client has it; as
    /// the server has it where it counts more, which is so if not all clients of that identity were
    /// asked.
    pub fn of(flows: &'a BTreeMap<Parties, Flow>) -> Self {
        let mut joined: BTreeMap<_, (&Parties, &Flow)> = BTreeMap::new();
        for (parties, flow) in flows {
            let (client, server) = Node::ends(parties);
            let edge = joined
                .entry((client, server, &parties.tls))
                .or_insert((parties, flow));
            if parties.direction == "outbound" && flow.opened.total >= edge.1.opened.total {
                *edge = (parties, flow);
            }
        }
        let ends = joined
            .keys()
            .flat_map(|(client, server, _)| [client, server]);
        let mut nodes: Vec<_> = ends.cloned().collect();
        nodes.sort();
        nodes.dedup();
        let number = |node: &Node| nodes.binary_search(node).unwrap_or_default();
        let edges = joined
            .iter()
            .map(|((client, server, _), (parties, flow))| Edge {
                client: number(client),
                server: number(server),
                parties,
                flow,
            })
            .collect();
        Self { nodes, edges }
    }
}

impl Edge<'_> {
    /// Rate and success, or the rate of connections where no requests were seen.
    pub fn traffic(&self) -> String {
        match self.flow.success() {
            Some(success) => format!(
                "{} req/s · {} ok",
                format::number(self.flow.requests.rate),
                format::percent(success)
            ),
            None => format!("{} conn/s", format::number(self.flow.opened.rate)),
        }
    }

    /// p99, and whether it is encrypted.
    pub fn manner(&self) -> String {
        let encryption = if self.parties.is_mutual() {
            "mutual TLS"
        } else {
            "plaintext"
        };
        match self.flow.duration.quantile(0.99) {
            Some(p99) => format!("p99 {} · {encryption}", format::seconds(p99)),
            None => encryption.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::pair::Count;

    fn parties(direction: &str, own: &str, peer: &str, tls: &str) -> Parties {
        let [direction, own, peer, tls] = [direction, own, peer, tls].map(str::to_owned);
        Parties {
            direction,
            own,
            peer,
            tls,
        }
    }

    #[test]
    fn both_sides_of_a_connection_are_one_edge_as_the_client_has_it() {
        let flow = |increase| Flow {
            requests: Count {
                total: increase,
                ..Count::default()
            },
            ..Flow::default()
        };
        let flows = BTreeMap::from([
            (
                parties("inbound", "s://d/b", "s://d/a", "mutual"),
                flow(1.0),
            ),
            (
                parties("outbound", "s://d/a", "s://d/b", "mutual"),
                flow(2.0),
            ),
            (
                parties("inbound", "s://d/b", "", "no_peer_option"),
                flow(3.0),
            ),
        ]);
        let network = Network::of(&flows);
        let names: Vec<_> = network.nodes.iter().map(Node::name).collect();
        assert_eq!(names, ["clients without identity", "a", "b"]);
        let edges: Vec<_> = network
            .edges
            .iter()
            .map(|edge| (edge.client, edge.server, edge.flow.requests.total))
            .collect();
        assert_eq!(edges, [(0, 2, 3.0), (1, 2, 2.0)]);
    }

    #[test]
    fn a_server_that_counts_more_than_the_clients_that_were_asked_is_believed() {
        let opened = |total| Flow {
            opened: Count {
                total,
                ..Count::default()
            },
            ..Flow::default()
        };
        let flows = |inbound, outbound| {
            BTreeMap::from([
                (
                    parties("inbound", "s://d/b", "s://d/a", "mutual"),
                    opened(inbound),
                ),
                (
                    parties("outbound", "s://d/a", "s://d/b", "mutual"),
                    opened(outbound),
                ),
            ])
        };
        for (inbound, outbound, direction) in [
            (3.0, 1.0, "inbound"),
            (1.0, 3.0, "outbound"),
            (2.0, 2.0, "outbound"),
        ] {
            let flows = flows(inbound, outbound);
            let network = Network::of(&flows);
            let directions = network.edges.iter().map(|edge| &*edge.parties.direction);
            assert_eq!(directions.collect::<Vec<_>>(), [direction]);
        }
    }

    #[test]
    fn who_is_not_told_apart_stands_apart_by_direction() {
        let flows = ["inbound", "outbound"].map(|direction| {
            (
                parties(direction, OVERFLOW, OVERFLOW, "mutual"),
                Flow::default(),
            )
        });
        let flows = BTreeMap::from(flows);
        let network = Network::of(&flows);
        assert_eq!(network.nodes, [Node::MoreClients, Node::MoreServers]);
        let ends = network.edges.iter().map(|edge| (edge.client, edge.server));
        assert_eq!(ends.collect::<Vec<_>>(), [(0, 0), (1, 1)]);
    }

    #[test]
    fn an_edge_without_requests_tells_of_connections() {
        let flows = BTreeMap::from([(
            parties("outbound", "s://d/a", "", "no_peer_option"),
            Flow {
                opened: Count {
                    increase: 5.0,
                    rate: 0.5,
                    total: 9.0,
                },
                ..Flow::default()
            },
        )]);
        let network = Network::of(&flows);
        let [edge] = &network.edges[..] else {
            panic!("one edge: {network:?}")
        };
        assert_eq!(edge.traffic(), "0.500 conn/s");
        assert_eq!(edge.manner(), "plaintext");
    }
}
