use super::{
    endpoint,
    output::{Output, json, print},
    table::{Column, TICK, Table, room},
    units::{age, bytes},
};
use crate::{policy::Direction, telemetry::Snapshot};

/// Options of `sidecar connections`.
#[derive(clap::Args, Debug)]
pub struct Connections {
    #[command(flatten)]
    endpoint: endpoint::OfPod,

    /// How to show it
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,

    /// Show every column and identity whole, however narrow the terminal is
    #[arg(long)]
    wide: bool,
}

impl Connections {
    /// Prints the connections that are open.
    pub fn run(self) -> anyhow::Result<()> {
        let (runtime, endpoint) = self.endpoint.enter()?;
        let open: Vec<Snapshot> = runtime.block_on(endpoint.get("/connections"))?;
        let text = match self.output {
            Output::Json => json(&open)?,
            Output::Text => text(&open, room().filter(|_| !self.wide)),
        };
        // Whether anybody reads on does not matter: there is no more.
        let _ = print(&text, self.output)?;
        Ok(())
    }
}

fn text(open: &[Snapshot], width: Option<usize>) -> String {
    if open.is_empty() {
        return "no connection is open\n".into();
    }
    let columns = [
        Column::Left("DIR"),
        Column::Left("CLIENT"),
        Column::Left("DESTINATION"),
        Column::Identity("SECURED"),
        Column::Left("PROTO"),
        Column::Right("SENT"),
        Column::Right("RECEIVED"),
        Column::Right("AGE"),
    ];
    let mut table = Table::new(columns, width).spare(["RECEIVED", "AGE", "SENT"]);
    for connection in open {
        table.row([
            way(connection.direction).to_owned(),
            connection.client.to_string(),
            connection.destination.to_string(),
            match &connection.peer {
                Some(peer) => format!("{TICK} {peer}"),
                None => connection.tls.clone().into_owned(),
            },
            protocol(connection).to_owned(),
            bytes(connection.sent),
            bytes(connection.received),
            age(connection.age),
        ]);
    }
    table.to_string()
}

/// Which way it runs, in three columns.
pub(super) const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    }
}

/// What it speaks, or why that is not known.
fn protocol(connection: &Snapshot) -> &str {
    let known = connection.opaque.as_ref().or(connection.protocol.as_ref());
    known.map_or("", |word| word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::golden;

    fn open() -> Vec<Snapshot> {
        let connection = |direction, client: &str, destination: &str| Snapshot {
            direction,
            client: client.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
            tls: "mutual".into(),
            own: Some("spiffe://sidecar.local/ns/default/sa/shop".into()),
            peer: Some("spiffe://sidecar.local/ns/default/sa/stock".into()),
            protocol: Some("http1".into()),
            opaque: None,
            sent: 120,
            received: 4096,
            age: 12.3,
        };
        let out = connection(Direction::Outbound, "198.18.0.1:40000", "198.18.0.2:80");
        let database = Snapshot {
            protocol: None,
            opaque: Some("server_first".into()),
            sent: 5 << 30,
            age: 90_000.0,
            ..connection(Direction::Outbound, "198.18.0.1:40002", "198.18.0.4:3306")
        };
        let plain = Snapshot {
            tls: "no_peer_option".into(),
            own: None,
            peer: None,
            protocol: None,
            received: 0,
            ..connection(Direction::Inbound, "198.18.0.9:51000", "198.18.0.1:8080")
        };
        let v6 = connection(
            Direction::Inbound,
            "[fd00:5ca::2]:40000",
            "[fd00:5ca::1]:80",
        );
        let far = connection(
            Direction::Inbound,
            "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535",
            "[2001:db8:1111:2222:3333:4444:5555:6666]:65535",
        );
        vec![out, database, plain, v6, far]
    }

    #[test]
    fn connections_are_one_line_each() {
        golden::assert_narrow("connections.txt", &text(&open()[..4], Some(80)));
        golden::assert_narrow("connections-v6.txt", &text(&open(), Some(80)));
        golden::assert("connections-wide.txt", &text(&open(), None));
    }

    #[test]
    fn that_there_is_none_is_said() {
        assert_eq!(text(&[], Some(80)), "no connection is open\n");
    }
}
