use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

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

/// The source addresses that the kernel picks for destinations far away.
fn default_addresses() -> impl Iterator<Item = (IpNet, IpAddr)> {
    /// Documentation prefixes (RFC 5737, RFC 3849), which are routed like any other.
    const FAR_AWAY: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ];
    FAR_AWAY.into_iter().filter_map(|far| {
        let everything: IpNet = if far.is_ipv4() {
            ipnet::Ipv4Net::default().into()
        } else {
            ipnet::Ipv6Net::default().into()
        };
        Some((everything, source_towards(far).ok()?))
    })
}

/// The address from which the current network namespace reaches another one: on a node, what its
/// kubelet is to a pod of this address.
///
/// Nothing is sent: a datagram socket only asks the routing table when it connects. It fails where no
/// route leads there.
pub fn source_towards(address: IpAddr) -> io::Result<IpAddr> {
    /// Any port does.
    const DISCARD: u16 = 9;
    let unspecified: IpAddr = if address.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((unspecified, 0))?;
    socket.connect(SocketAddr::new(address, DISCARD))?;
    Ok(socket.local_addr()?.ip())
}

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    address
        .as_sockaddr_in()
        .map(|v4| IpAddr::V4(v4.ip()))
        .or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reaches_loopback_from_loopback() {
        for address in ["127.0.0.2", "::1"] {
            let address: IpAddr = address.parse().expect("an address");
            let source = source_towards(address).expect("a route over loopback");
            assert!(source.is_loopback(), "{source}");
        }
    }
}
