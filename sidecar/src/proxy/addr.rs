use std::{fmt, net::SocketAddr};

/// The address a connection really comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientAddr(pub SocketAddr);

/// The address the client wanted to reach, before anything was steered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OrigDst(pub SocketAddr);

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for OrigDst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The address without the mapped form that dual-stack sockets report.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
