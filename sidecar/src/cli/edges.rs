use std::fmt::Write as _;

use super::{
    endpoint,
    output::{Output, json, print},
    table::{Column, TICK, Table, room},
    units::{age, bytes},
};
use crate::telemetry::{EdgeSnapshot, Graph};

/// The end of an edge that is this workload.
const SELF: &str = "self";

/// Options of `sidecar edges`.
#[derive(clap::Args, Debug)]
pub struct Edges {
    #[command(flatten)]
    endpoint: endpoint::Args,

    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,

    /// Show identities whole, however narrow the terminal is
    #[arg(long)]
    wide: bool,
}

impl Edges {
    /// Prints who has talked to whom since the sidecar began.
    pub fn run(self) -> anyhow::Result<()> {
        let (runtime, endpoint) = self.endpoint.enter()?;
        let graph: Graph = runtime.block_on(endpoint.get("/edges"))?;
        let text = match self.output {
            Output::Json => json(&graph)?,
            Output::Text => text(&graph, room().filter(|_| !self.wide)),
        };
        // Whether anybody reads on does not matter: there is no more.
        let _ = print(&text, self.output)?;
        Ok(())
    }
}

fn text(graph: &Graph, width: Option<usize>) -> String {
    if graph.edges.is_empty() {
        return "nobody has talked to this workload or been talked to\n".into();
    }
    let columns = [
        Column::Left("CLIENT"),
        Column::Left("SERVER"),
        Column::Identity("CLIENT_ID"),
        Column::Identity("SERVER_ID"),
        Column::Left("SECURED"),
        Column::Right("OPEN"),
        Column::Right("ALL"),
        Column::Right("SENT"),
        Column::Right("RECEIVED"),
        Column::Right("IDLE"),
        Column::Rare("FAILED"),
    ];
    let mut table = Table::new(columns, width);
    for edge in &graph.edges {
        let (client_id, server_id) = match edge.client {
            Some(_) => (&edge.peer, &edge.own),
            None => (&edge.own, &edge.peer),
        };
        table.row([
            edge.client
                .map_or_else(|| SELF.into(), |client| client.to_string()),
            edge.server.to_string(),
            client_id.clone().unwrap_or_default(),
            server_id.clone().unwrap_or_default(),
            secured(edge).to_owned(),
            edge.open.to_string(),
            edge.opened.to_string(),
            bytes(edge.sent),
            bytes(edge.received),
            idle(edge),
            failed(edge),
        ]);
    }
    let mut text = table.to_string();
    if graph.forgotten > 0 {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} more had to make room for these", graph.forgotten);
    }
    text
}

/// A tick where it is encrypted, the reason where not.
fn secured(edge: &EdgeSnapshot) -> &str {
    match &edge.peer {
        Some(_) => TICK,
        None => &edge.tls,
    }
}

fn idle(edge: &EdgeSnapshot) -> String {
    match edge.open {
        0 => age(edge.idle),
        _ => String::new(),
    }
}

/// How many connections failed, and why: the most frequent reason first.
fn failed(edge: &EdgeSnapshot) -> String {
    let mut failed: Vec<_> = edge.failed.iter().collect();
    failed.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let failed = failed.iter().map(|(code, count)| format!("{count} {code}"));
    failed.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::golden::{self, edge},
        policy::Direction,
    };

    fn graph() -> Graph {
        let web = EdgeSnapshot {
            opened: 1204,
            open: 3,
            sent: 150_000,
            received: 8 << 20,
            ..edge(Direction::Inbound, "198.18.0.1:80", "198.18.0.7", "web")
        };
        let plain = EdgeSnapshot {
            opened: 12,
            sent: 1440,
            received: 52_000,
            idle: 75.0,
            ..edge(Direction::Inbound, "198.18.0.1:80", "198.18.0.9", "")
        };
        let refused = EdgeSnapshot {
            tls: "failed".into(),
            failed: [
                ("handshake_broken".into(), 1),
                ("plaintext_refused".into(), 40),
            ]
            .into(),
            idle: 7300.0,
            ..edge(Direction::Inbound, "198.18.0.1:80", "198.18.0.9", "")
        };
        let stock = EdgeSnapshot {
            opened: 8,
            open: 8,
            sent: 700,
            received: 900,
            ..edge(Direction::Outbound, "198.18.0.2:5432", "", "stock")
        };
        Graph {
            uptime: 9000.0,
            forgotten: 0,
            edges: vec![web, plain, refused, stock],
        }
    }

    #[test]
    fn edges_are_one_line_each() {
        let mut graph = graph();
        golden::assert("edges-wide.txt", &text(&graph, None));
        graph.edges.remove(2);
        golden::assert("edges.txt", &text(&graph, Some(80)));
    }

    #[test]
    fn edges_that_were_forgotten_are_told() {
        let graph = Graph {
            forgotten: 7,
            ..graph()
        };
        assert!(text(&graph, None).ends_with("\n7 more had to make room for these\n"));
    }

    #[test]
    fn that_there_is_none_is_said() {
        let graph = Graph {
            edges: Vec::new(),
            ..graph()
        };
        assert_eq!(
            text(&graph, None),
            "nobody has talked to this workload or been talked to\n"
        );
    }
}
