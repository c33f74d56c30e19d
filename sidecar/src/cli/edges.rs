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
    endpoint: endpoint::OfPod,

    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,

    /// Show every column and identity whole, however narrow the terminal is
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
    let whole = whole(graph, width);
    let table = if whole.fits() {
        whole
    } else {
        brief(graph, width)
    };
    let mut text = table.to_string();
    if graph.forgotten > 0 {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} more had to make room for these", graph.forgotten);
    }
    text
}

/// All there is to tell.
fn whole(graph: &Graph, width: Option<usize>) -> Table {
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
            client(edge),
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
    table
}

/// What matters most: the peer's identity alone, and how many connections failed, but not why.
fn brief(graph: &Graph, width: Option<usize>) -> Table {
    let columns = [
        Column::Left("CLIENT"),
        Column::Left("SERVER"),
        Column::Identity("SECURED"),
        Column::Right("OPEN"),
        Column::Right("ALL"),
        Column::Right("SENT"),
        Column::Right("RECEIVED"),
        Column::Right("IDLE"),
        Column::Rare("FAILED"),
    ];
    let mut table = Table::new(columns, width).spare(["IDLE", "RECEIVED", "SENT"]);
    for edge in &graph.edges {
        let failed: u64 = edge.failed.values().sum();
        table.row([
            client(edge),
            edge.server.to_string(),
            match &edge.peer {
                Some(peer) => format!("{TICK} {peer}"),
                None => edge.tls.clone().into_owned(),
            },
            edge.open.to_string(),
            edge.opened.to_string(),
            bytes(edge.sent),
            bytes(edge.received),
            idle(edge),
            if failed > 0 {
                failed.to_string()
            } else {
                String::new()
            },
        ]);
    }
    table
}

fn client(edge: &EdgeSnapshot) -> String {
    match edge.client {
        Some(client) => client.to_string(),
        None => SELF.into(),
    }
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
        let far = EdgeSnapshot {
            opened: 1_234_567,
            open: 12_345,
            tls: "plaintext_refused".into(),
            failed: [("plaintext_refused".into(), 123_456)].into(),
            ..edge(
                Direction::Inbound,
                "[2001:db8:1111:2222:3333:4444:5555:6666]:65535",
                "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff",
                "",
            )
        };
        Graph {
            uptime: 9000.0,
            forgotten: 0,
            edges: vec![web, plain, refused, stock, far],
        }
    }

    /// The same without the longest addresses.
    fn near() -> Graph {
        let mut graph = graph();
        graph.edges.pop();
        graph
    }

    #[test]
    fn edges_are_one_line_each() {
        golden::assert("edges-wide.txt", &text(&graph(), None));
        golden::assert_narrow("edges-v6.txt", &text(&graph(), Some(80)));
        golden::assert_narrow("edges.txt", &text(&near(), Some(80)));
    }

    #[test]
    fn a_terminal_with_room_for_both_identities_shows_them() {
        let text = text(&near(), Some(160));
        assert!(text.contains("CLIENT_ID") && text.contains("40 plaintext_refused, 1 handshake"));
        assert!(
            text.lines().all(|line| line.chars().count() <= 160),
            "{text}"
        );
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
