//! The hot paths, by themselves: nothing below them takes time. What `benches/` measures.

use std::{
    hint::black_box,
    io,
    net::{Ipv4Addr, SocketAddr},
};

use spiffe::SpiffeId;

use crate::{
    policy::{
        Direction,
        authorization::{Access, Authorization, Verdict},
    },
    proxy::{ClientAddr, Close, OrigDst, benchmarks as proxy},
    telemetry::{AccessLog, Choice, Connection, Format, Options, Telemetry, TlsUse},
};

/// Does something so many times.
pub type Scenario = fn(usize);

/// Each by its name.
pub const ALL: [(&str, Scenario); 6] = [
    ("one request on a connection that is watched", |count| {
        proxy::requests(&mut connection(&telemetry()), count);
    }),
    ("64 KiB of bulk", |count| {
        proxy::bulk(&mut connection(&telemetry()), count);
    }),
    ("a question and an answer in frames", proxy::frames),
    ("the record of a connection", records),
    ("a decision by 10 rules", |count| decisions(10, count)),
    ("a decision by 1,000 rules", |count| decisions(1000, count)),
];

/// What most sidecars have: metrics, and a line of JSON for each connection.
fn telemetry() -> Telemetry {
    Telemetry::new(Options {
        access_log: AccessLog::new(Format::Json, Choice::default(), io::sink(), || 0),
        ..Options::default()
    })
    .expect("metrics of unique names")
}

fn connection(telemetry: &Telemetry) -> Connection {
    let client = ClientAddr(SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)));
    let destination = OrigDst(SocketAddr::from(([198, 18, 0, 2], 8080)));
    let mut connection = telemetry.begin(Direction::Outbound, client, destination);
    connection.tls(TlsUse::Mutual(peer()));
    connection.established();
    connection
}

fn peer() -> SpiffeId {
    "spiffe://example.org/ns/shop/sa/web"
        .parse()
        .expect("a SPIFFE ID")
}

fn records(count: usize) {
    let telemetry = telemetry();
    for _ in 0..count {
        connection(&telemetry).closed(Close::Eof, None);
    }
}

/// The last rule of all decides.
fn decisions(rules: usize, count: usize) {
    let rule = |number| {
        format!(
            "  - {{ name: rule-{number}, action: allow, identities: [\"spiffe://example.org/ns/other-{number}/*\"], ports: [8080] }}\n"
        )
    };
    let rules: String = (1..rules).map(rule).collect();
    let text = format!(
        "default: deny\nrules:\n{rules}  - {{ name: last, action: allow, ports: [8080] }}\n"
    );
    let authorization: Authorization = serde_saphyr::from_str(&text).expect("rules");
    let peer = peer();
    let access = Access {
        peer: Some(&peer),
        source: Ipv4Addr::LOCALHOST.into(),
        port: 8080,
    };
    for _ in 0..count {
        let decision = black_box(&authorization).decide(black_box(&access));
        assert_eq!(decision.verdict, Verdict::Allow);
    }
}
