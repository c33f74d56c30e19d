use std::collections::BTreeSet;

use ipnet::IpNet;

/// Connections the kernel leaves alone, whatever any [`Mode`](super::Mode) says.
///
/// Such a connection never reaches the proxy: it keeps the exact behaviour it has without a
/// sidecar, is not encrypted, and shows only as a count per reason.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Exclusions {
    /// Ports of the workload whose clients are not steered.
    pub inbound_ports: BTreeSet<u16>,
    /// Destination addresses the workload reaches directly.
    pub outbound_cidrs: Vec<IpNet>,
    /// Destination ports the workload reaches directly.
    pub outbound_ports: BTreeSet<u16>,
    /// Users, by real id when they connect, whose outbound connections are not steered.
    pub uids: BTreeSet<u32>,
}
