//! What is done on the stage, and what is seen of it.

use std::time::Duration;

use sidecar_tests::{Connection, Pod, Stream, Wire, tls::Records, wait};

use super::{
    evidence::Evidence,
    stage::{Stage, load},
};
use crate::{
    nginx::{WORDS, address},
    wrk::Load,
};

/// What anyone on the wire could read of a request in the clear, and of its answer.
const READABLE: [&str; 4] = ["GET /", WORDS, "curl/", "nginx/"];

/// Plays the demo; `direct` is what the load brought before there were sidecars.
pub fn play(stage: &Stage, direct: &Load) -> Vec<Evidence> {
    let (client, server, plain) = (&stage.pods.client, &stage.pods.server, &stage.plain);
    let meshed = Exchange::between(client, server);
    let (outbound, inbound) = (logged(client, "outbound", 0), logged(server, "inbound", 0));
    let counted = counted(client, server);
    let from_plain = Exchange::between(plain, server);
    let to_plain = Exchange::between(client, plain);
    vec![
        answered(&meshed),
        encrypted(&meshed, &from_plain),
        negotiated(&meshed),
        true_addresses(&meshed, stage),
        identities(stage, outbound.as_ref(), inbound.as_ref()),
        counted,
        plain_peers(stage, &from_plain, &to_plain),
        no_rules(&[client, server]),
        latency(direct, &load(&stage.pods)),
    ]
}

/// A request by curl, and what passed the client's end of the wire meanwhile.
struct Exchange {
    /// The page that curl got.
    page: String,
    /// The status and the addresses, as curl sees them.
    status: String,
    server_seen: String,
    wire: Wire,
}

impl Exchange {
    fn between(client: &Pod, server: &Pod) -> Self {
        let capture = client.capture();
        let output = client
            .program("/usr/bin/curl")
            .args(["-sS", "--max-time", "5", "--write-out"])
            .arg("%{http_code} %{remote_ip}:%{remote_port}")
            .arg(format!("http://{}/{WORDS}", address(server)))
            .run();
        let wire = capture.finish();
        let (page, report) = output.stdout.split_once('\n').unwrap_or_default();
        let (status, server_seen) = report.split_once(' ').unwrap_or_default();
        Self {
            page: page.to_owned(),
            status: status.to_owned(),
            server_seen: server_seen.to_owned(),
            wire,
        }
    }

    fn succeeded(&self) -> bool {
        self.status == "200" && self.page == WORDS
    }

    fn stream(&self) -> Option<&Stream> {
        self.wire.streams.first()
    }

    /// How many of the words that could be read were.
    fn read(&self) -> usize {
        let readable = |word: &&str| self.wire.contains(word);
        READABLE.iter().filter(|word| readable(word)).count()
    }
}

fn answered(meshed: &Exchange) -> Evidence {
    let Exchange { page, status, .. } = meshed;
    Evidence::all(
        "an unmodified client reaches an unmodified server",
        [(
            format!("nginx answers curl with {status}: {page}"),
            meshed.succeeded(),
        )],
    )
}

fn encrypted(meshed: &Exchange, in_the_clear: &Exchange) -> Evidence {
    let words = READABLE.map(|word| format!("{word:?}")).join(", ");
    let (read, control) = (meshed.read(), in_the_clear.read());
    let all = READABLE.len();
    let flow = |name: &str, records: Option<Records>| match records {
        Some(records) => (
            format!(
                "{name}: {} handshake, {} change cipher spec, {} application data",
                records.handshake, records.change_cipher_spec, records.application_data
            ),
            records.handshake > 0 && records.application_data > 0,
        ),
        None => (format!("{name}: no TLS"), false),
    };
    let stream = meshed.stream();
    Evidence::all(
        "the wire carries TLS records and none of the words",
        [
            flow(
                "client to server",
                stream.and_then(|stream| stream.sent.records()),
            ),
            flow(
                "server to client",
                stream.and_then(|stream| stream.received.records()),
            ),
            (format!("of {words}: {read} of {all}"), read == 0),
            (
                format!("and where the plain pod asks the same: {control} of {all}"),
                control == all,
            ),
        ],
    )
}

fn negotiated(meshed: &Exchange) -> Evidence {
    let stream = meshed.stream();
    let offered = stream.is_some_and(|stream| stream.offers.contains(&true));
    let answered = stream.is_some_and(|stream| stream.answers.contains(&true));
    let seen = |packet, there| {
        let verb = if there { "carries" } else { "lacks" };
        (
            format!("the {packet} {verb} TCP option 253 with ExID 0x5ca1"),
            there,
        )
    };
    Evidence::all(
        "the sidecars find each other in the TCP handshake",
        [seen("SYN", offered), seen("SYN-ACK", answered)],
    )
}

fn true_addresses(meshed: &Exchange, stage: &Stage) -> Evidence {
    let server = address(&stage.pods.server).to_string();
    let log = stage.server.stdout();
    let (client_seen, itself) = log
        .split_once(' ')
        .and_then(|(client, rest)| Some((client, rest.split(' ').next()?)))
        .unwrap_or(("nobody", "nowhere"));
    let on_the_wire = meshed.stream().map(|stream| stream.client.to_string());
    Evidence::all(
        "each app sees the other's true address",
        [
            (
                format!("curl sees {}", meshed.server_seen),
                meshed.server_seen == server,
            ),
            (
                format!("nginx sees {client_seen}, itself at {itself}"),
                Some(client_seen) == on_the_wire.as_deref() && itself == server,
            ),
        ],
    )
}

fn identities(
    stage: &Stage,
    outbound: Option<&Connection>,
    inbound: Option<&Connection>,
) -> Evidence {
    let (client, server) = (stage.pods.client.identity(), stage.pods.server.identity());
    let line = |side, logged: Option<&Connection>, own: &str, peer: &str| {
        let seen = logged.and_then(|logged| logged.own.as_deref().zip(logged.peer.as_deref()));
        match seen {
            Some((o, p)) => (format!("{side}: own={o} peer={p}"), (o, p) == (own, peer)),
            None => (format!("{side}: no identities"), false),
        }
    };
    Evidence::all(
        "both sides know who the other is",
        [
            line("log of client", outbound, &client, &server),
            line("log of server", inbound, &server, &client),
        ],
    )
}

fn counted(client: &Pod, server: &Pod) -> Evidence {
    let sample = |pod: &Pod, direction: &str| {
        let labels = [("direction", direction), ("tls", "mutual")];
        let metrics = pod.sidecar().get("/metrics");
        let line = metrics.lines().find(|line| {
            line.starts_with(OPENED)
                && labels
                    .iter()
                    .all(|(name, value)| line.contains(&format!("{name}=\"{value}\"")))
        });
        match line {
            // The format allows spaces there, and lines break at them.
            Some(line) => (line.replace("\",", "\", "), line.ends_with("} 1")),
            None => (format!("no {OPENED} for {direction}"), false),
        }
    };
    Evidence::all(
        "metrics count it under both identities",
        [sample(client, "outbound"), sample(server, "inbound")],
    )
}

const OPENED: &str = "sidecar_connections_opened_total";

fn plain_peers(stage: &Stage, from: &Exchange, to: &Exchange) -> Evidence {
    let line = |exchange: &Exchange, pod, direction, peer| {
        let tls = logged(pod, direction, 1).map_or("nothing".to_owned(), |logged| logged.tls);
        (
            format!("{peer}: {}, logged as tls={tls}", exchange.status),
            exchange.succeeded() && tls == "no_peer_option",
        )
    };
    let (client, server) = (&stage.pods.client, &stage.pods.server);
    Evidence::all(
        "a pod without a sidecar is served too (permissive, the default)",
        [
            line(from, server, "inbound", "plain pod to server"),
            line(to, client, "outbound", "client to plain pod"),
        ],
    )
}

fn no_rules(pods: &[&Pod]) -> Evidence {
    // Every namespace starts with routing rules for these three tables.
    let is_added = |rule: &str| {
        let mut tables = ["local", "main", "default"].iter();
        !tables.any(|table| rule.ends_with(&format!("lookup {table}")))
    };
    let count = |command: &str, is_rule: fn(&str) -> bool| {
        let mut words = command.split(' ');
        let program = words.next().unwrap_or_default();
        let arguments: Vec<_> = words.collect();
        let print = |pod: &&Pod| pod.program(program).args(&arguments).succeed();
        let outputs = pods.iter().map(print);
        let rules: usize = outputs
            .map(|output| output.lines().filter(|line| is_rule(line)).count())
            .sum();
        (format!("{command}: {rules}"), rules == 0)
    };
    let is_appended = |line: &str| line.starts_with("-A");
    let (counts, none): (Vec<_>, Vec<_>) = [
        count("nft list ruleset", |_| true),
        count("iptables-save", is_appended),
        count("ip6tables-save", is_appended),
        count("ip -4 rule", is_added),
        count("ip -6 rule", is_added),
    ]
    .into_iter()
    .unzip();
    Evidence::all(
        "neither pod got any rule",
        [(counts.join(", "), none.iter().all(|none| *none))],
    )
}

fn latency(direct: &Load, meshed: &Load) -> Evidence {
    let line = |name: &str, load: &Load| {
        let Load { median, rate, .. } = load;
        (
            format!(
                "{name}: {} µs at the median, {rate:.0}/s",
                median.as_micros()
            ),
            load.errors == 0 && load.requests > 0,
        )
    };
    Evidence::all(
        "one request at a time gets its answer soon",
        [
            line("direct", direct),
            line("mutual TLS, debug build", meshed),
        ],
    )
}

/// The `index`th connection that the sidecar of `pod` has logged in this direction.
fn logged(pod: &Pod, direction: &str, index: usize) -> Option<Connection> {
    wait::within(Duration::from_secs(5), || {
        let connections = pod.sidecar().connections().into_iter();
        connections
            .filter(|connection| connection.direction == direction)
            .nth(index)
    })
}
