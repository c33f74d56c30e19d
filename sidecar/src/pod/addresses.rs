use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

/// The pod's own address towards each network: those it is connected to, and the default route.
///
/// The app is told it by `getsockname()` on a redirected connection, whose real address is a
/// loopback one. A network that only a more specific route reaches counts as the default.
pub fn own_addresses() -> Vec<(IpNet, IpAddr)> {
    let mut addresses: Vec<_> = default_addresses().collect();
    let Ok(interfaces) = getifaddrs() else {
        return addresses;
    };
    for interface in interfaces {
        if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let address = interface.address.as_ref().and_then(ip);
        let netmask = interface.netmask.as_ref().and_then(ip);
        if let (Some(address), Some(netmask)) = (address, netmask)
            && let Ok(net) = IpNet::with_netmask(address, netmask)
        {
            addresses.push((net.trunc(), address));
        }
    }
    addresses
}

/// The source addresses that the kernel picks for destinations far away. Nothing is sent: a
/// datagram socket only asks the routing table when it connects.
fn default_addresses() -> impl Iterator<Item = (IpNet, IpAddr)> {
    /// Documentation prefixes (RFC 5737, RFC 3849), which are routed like any other.
    const FAR_AWAY: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    /// Any port does: nothing is sent.
    const DISCARD: u16 = 9;
    FAR_AWAY.into_iter().filter_map(|far| {
        let (unspecified, everything): (IpAddr, IpNet) = if far.is_ipv4() {
            (
                Ipv4Addr::UNSPECIFIED.into(),
                ipnet::Ipv4Net::default().into(),
            )
        } else {
            (
                Ipv6Addr::UNSPECIFIED.into(),
                ipnet::Ipv6Net::default().into(),
            )
        };
        let socket = UdpSocket::bind((unspecified, 0)).ok()?;
        socket.connect(SocketAddr::new(far, DISCARD)).ok()?;
        Some((everything, socket.local_addr().ok()?.ip()))
    })
}

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    address
        .as_sockaddr_in()
        .map(|v4| IpAddr::V4(v4.ip()))
        .or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}
