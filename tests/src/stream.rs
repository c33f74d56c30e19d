//! A TCP connection as it was seen on the wire.

use std::net::SocketAddr;

use etherparse::TcpSlice;

use crate::Flow;

/// One TCP connection, or an attempt at one.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Who sent the SYN.
    pub client: SocketAddr,
    /// To where.
    pub server: SocketAddr,
    /// How many more hops the first SYN might have gone.
    pub hops: u8,
    /// For each SYN, retransmissions included, whether it offers the mesh.
    pub offers: Vec<bool>,
    /// For each SYN-ACK whether it accepts the mesh.
    pub answers: Vec<bool>,
    /// What the client sent.
    pub sent: Flow,
    /// What the server sent.
    pub received: Flow,
}

impl Stream {
    pub(crate) fn new(client: SocketAddr, server: SocketAddr, hops: u8) -> Self {
        Self {
            client,
            server,
            hops,
            offers: Vec::new(),
            answers: Vec::new(),
            sent: Flow::default(),
            received: Flow::default(),
        }
    }

    /// Whether the mesh was offered and accepted in the TCP handshake.
    pub fn is_meshed(&self) -> bool {
        self.offers.iter().any(|offer| *offer) && self.answers.iter().any(|answer| *answer)
    }

    /// Whether the handshake was completed.
    pub fn is_established(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether both directions hold nothing but TLS records, the application's data among them.
    pub fn is_tls(&self) -> bool {
        [&self.sent, &self.received].into_iter().all(|flow| {
            flow.records().is_some_and(|records| records.handshake > 0)
                && flow
                    .records()
                    .is_some_and(|records| records.application_data > 0)
        })
    }

    /// Whether both directions begin with a TLS handshake, as far as they were captured.
    pub fn starts_as_tls(&self) -> bool {
        let flows = [&self.sent, &self.received];
        flows
            .into_iter()
            .all(|flow| flow.records().is_some_and(|records| records.handshake > 0))
    }

    /// Whether `bytes` crossed the wire in one piece, in either direction.
    pub fn contains(&self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        self.sent.contains(bytes) || self.received.contains(bytes)
    }

    pub(crate) fn add_from_client(&mut self, tcp: &TcpSlice<'_>) {
        if tcp.syn() {
            self.offers.push(has_mesh_option(tcp.options()));
        }
        self.sent.add(tcp);
    }

    pub(crate) fn add_from_server(&mut self, tcp: &TcpSlice<'_>) {
        if tcp.syn() {
            self.answers.push(has_mesh_option(tcp.options()));
        }
        self.received.add(tcp);
    }
}

/// Whether TCP options hold the sidecar's: experimental kind 253 with its `ExID` (RFC 6994).
fn has_mesh_option(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const EXPERIMENT: u8 = 253;
    const EXID: [u8; 2] = [0x5c, 0xa1];
    while let [kind, rest @ ..] = options {
        options = match (*kind, rest) {
            (END, _) => return false,
            (NO_OPERATION, rest) => rest,
            (EXPERIMENT, [_, high, low, ..]) if [*high, *low] == EXID => return true,
            (_, [length, ..]) => options
                .get(usize::from(*length).max(2)..)
                .unwrap_or_default(),
            (_, []) => return false,
        };
    }
    false
}
