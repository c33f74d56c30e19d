use crate::Role;

/// What the kernel's TCP has measured on one socket of the proxy since it was established.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct SocketStatistics {
    /// A number that no other socket of this boot has.
    pub cookie: u64,
    /// Bytes sent that the other end has acknowledged. SYN and FIN count as one byte each.
    pub acknowledged: u64,
    /// Bytes received, each once. The FIN counts as one.
    pub received: u64,
    /// What the socket is for.
    pub role: Role,
    /// The last that will be told of this socket? 1 if so.
    pub last: u32,
    /// Smoothed round-trip time (RFC 6298) in eighths of a microsecond; 0 if none was measured.
    pub smoothed_rtt: u32,
    /// The shortest round-trip time of the last minutes in microseconds; [`NOT_MEASURED`](Self::NOT_MEASURED)
    /// if there was none.
    pub min_rtt: u32,
    /// Segments sent again.
    pub retransmitted: u32,
    /// The congestion window in segments.
    pub congestion_window: u32,
}

impl SocketStatistics {
    /// The shortest round-trip time where there was none.
    pub const NOT_MEASURED: u32 = u32::MAX;

    /// How many seconds pass at least from one telling of a socket to the next, but for the last.
    pub const PERIOD: u32 = 10;
}
