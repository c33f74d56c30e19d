use crate::Endpoint;

/// Who a connection over loopback is for, and what its accepting side has to know.
///
/// The connecting side publishes it under its [`Tuple`](crate::Tuple) before the SYN leaves; the
/// accepting side takes it out when the handshake is done. So the table holds handshakes under
/// way and nothing else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct Flow {
    /// Where the SYN has to go.
    pub route: Route,
    /// The original destination for the proxy, or the true client for the app.
    pub peer: Endpoint,
}

/// Where the SYN of a published flow has to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(transparent)]
pub struct Route(pub u32);

impl Route {
    /// From the app to the proxy's outbound listener.
    pub const OUTBOUND: Self = Self(1);
    /// From the proxy to the app: past the proxy's inbound listener.
    pub const TO_APP: Self = Self(2);
    /// From the app to itself, by an address inside the spread block.
    pub const OWN: Self = Self(3);
}
