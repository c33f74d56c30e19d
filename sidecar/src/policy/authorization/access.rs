use std::net::IpAddr;

use spiffe::SpiffeId;

/// Somebody wants to reach the workload: all that a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// Who, as TLS has verified; `None` for a client in plaintext.
    pub peer: Option<&'a SpiffeId>,
    /// From where.
    pub source: IpAddr,
    /// The destination port.
    pub port: u16,
}
