//! The sidecar's access log, read back.

use std::net::SocketAddr;

use serde::Deserialize;

/// One line of the JSON access log: a connection that has ended.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// When it ended (RFC 3339).
    pub time: String,
    /// `closed`, `denied` or `failed`.
    pub event: String,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// Who connected.
    pub client: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// `mutual`, or why TLS was not used.
    pub tls: String,
    /// The sidecar's own identity, if TLS was used.
    pub own: Option<String>,
    /// The other side's identity, if TLS was used.
    pub peer: Option<String>,
    /// Plaintext bytes from client to server.
    pub sent: u64,
    /// Plaintext bytes from server to client.
    pub received: u64,
    /// How long it lasted, in seconds.
    pub duration: f64,
    /// The rule of the authorization that decided, if it was asked.
    pub rule: Option<String>,
    /// What it spoke, if that is known.
    pub protocol: Option<String>,
    /// Why its requests were not followed to the end.
    pub opaque: Option<String>,
    /// The server's name, of an app's own TLS.
    pub sni: Option<String>,
    /// The protocols offered, of an app's own TLS.
    pub alpn: Option<String>,
    /// What ended it.
    pub close: String,
    /// A sentence about that, where there is one.
    pub reason: Option<String>,
    /// The namespace of the pod, where that is known; so are all that follow.
    pub namespace: Option<String>,
    /// The pod.
    pub pod: Option<String>,
    /// The node.
    pub node: Option<String>,
    /// The pod's service account.
    pub service_account: Option<String>,
    /// What the pod belongs to.
    pub workload: Option<String>,
    /// The namespace of the other end.
    pub peer_namespace: Option<String>,
    /// The service that was dialled.
    pub peer_service: Option<String>,
    /// What the other end belongs to.
    pub peer_workload: Option<String>,
    /// `peer_misnamed` where the server is not who the cluster says.
    pub naming: Option<String>,
}

/// One line of the JSON access log: a connection that was established.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    /// When both legs stood (RFC 3339).
    pub time: String,
    /// `opened`
    pub event: String,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// Who connected.
    pub client: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// `mutual`, or why TLS was not used.
    pub tls: String,
    /// The sidecar's own identity, if TLS was used.
    pub own: Option<String>,
    /// The other side's identity, if TLS was used.
    pub peer: Option<String>,
    /// The rule of the authorization that decided, if it was asked.
    pub rule: Option<String>,
}

/// One line of the JSON access log: a request and its response.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// When both had ended (RFC 3339).
    pub time: String,
    /// `request`
    pub event: String,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// Who connected.
    pub client: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// `mutual`, or why TLS was not used.
    pub tls: String,
    /// The sidecar's own identity, if TLS was used.
    pub own: Option<String>,
    /// The other side's identity, if TLS was used.
    pub peer: Option<String>,
    /// The rule of the authorization that decided, if it was asked.
    pub rule: Option<String>,
    /// `http1`, `http2` or `grpc`.
    pub protocol: String,
    /// What was asked for, or `_OTHER`.
    pub method: String,
    /// Whom it was for.
    pub authority: Option<String>,
    /// What it was about.
    pub path: Option<String>,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// The status of the call, by name.
    pub grpc_status: Option<String>,
    /// The content of the request, in bytes.
    pub sent: u64,
    /// The content of the response, in bytes.
    pub received: u64,
    /// How long the response took to begin, in seconds.
    pub first_byte: Option<f64>,
    /// How long both took, in seconds.
    pub duration: f64,
    /// `complete`, or how it failed.
    pub outcome: String,
}

/// One line of the JSON access log.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A connection that has ended.
    Connection(Box<Connection>),
    /// A connection that was established.
    Opened(Box<Opened>),
    /// A request and its response.
    Request(Box<Request>),
}

impl Line {
    fn parse(line: &str) -> serde_json::Result<Self> {
        let value: serde_json::Value = serde_json::from_str(line)?;
        match value["event"].as_str() {
            Some("opened") => serde_json::from_value(value).map(Self::Opened),
            Some("request") => serde_json::from_value(value).map(Self::Request),
            _ => serde_json::from_value(value).map(Self::Connection),
        }
    }

    /// The connection that has ended.
    pub fn connection(self) -> Option<Connection> {
        match self {
            Self::Connection(connection) => Some(*connection),
            _ => None,
        }
    }

    /// The request that has ended.
    pub fn request(self) -> Option<Request> {
        match self {
            Self::Request(request) => Some(*request),
            _ => None,
        }
    }
}

impl Connection {
    /// Whether it never carried anything.
    pub fn has_failed(&self) -> bool {
        ![
            "eof",
            "client_reset",
            "server_reset",
            "no_longer_allowed",
            "no_longer_trusted",
            "drained",
            "tls_broken",
        ]
        .contains(&&*self.close)
    }
}

/// What stands in a log, whose last line may not be whole yet.
pub fn parse(log: &str) -> Vec<Line> {
    log.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| {
            Line::parse(line)
                .unwrap_or_else(|error| panic!("a bad line in the access log: {error}: {line}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"time":"2026-11-22T11:53:00.123456Z","event":"closed","direction":"outbound","client":"198.18.0.1:40000","destination":"[fd00:5ca::2]:80","tls":"no_peer_option","own":null,"sent":120,"received":4096,"duration":0.001,"close":"eof"}"#;

    #[test]
    fn a_connection_without_tls_names_no_identity() {
        let log = format!("{LINE}\n");
        let [Line::Connection(connection)] = &parse(&log)[..] else {
            panic!("one line");
        };
        assert_eq!(connection.peer, None);
        assert_eq!(
            connection.destination,
            "[fd00:5ca::2]:80".parse().expect("an address")
        );
    }

    #[test]
    fn a_line_that_is_still_being_written_waits() {
        assert!(parse(&LINE[..40]).is_empty());
        assert!(parse(LINE).is_empty());
    }
}
