use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An address and a port, the same for both families.
///
/// IPv4 is held in its mapped form `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2), so a dual-stack
/// socket and an IPv4 socket that talk to the same peer compare equal.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[repr(C)]
pub struct Endpoint {
    /// The address as four words in network byte order.
    pub addr: [u32; 4],
    /// The port in host byte order.
    pub port: u32,
}

impl Endpoint {
    /// Third word of every mapped IPv4 address, in network byte order.
    const MAPPED: u32 = 0x0000_ffff_u32.to_be();

    /// Makes an endpoint of an IPv4 address in network byte order and a port in host byte order.
    #[inline]
    pub const fn v4(addr: u32, port: u32) -> Self {
        Self {
            addr: [0, 0, Self::MAPPED, addr],
            port,
        }
    }

    /// Is this an IPv4 address?
    #[inline]
    pub const fn is_v4(&self) -> bool {
        self.addr[0] == 0 && self.addr[1] == 0 && self.addr[2] == Self::MAPPED
    }

    /// Is this 127.0.0.0/8 or `::1`?
    #[inline]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            u32::from_be(self.addr[3]) >> 24 == 127
        } else {
            self.addr[0] == 0
                && self.addr[1] == 0
                && self.addr[2] == 0
                && self.addr[3] == 1u32.to_be()
        }
    }

    /// Is this `0.0.0.0` or `::`? Connecting to it reaches the host itself.
    #[inline]
    pub const fn is_unspecified(&self) -> bool {
        self.addr[0] == 0
            && self.addr[1] == 0
            && (self.addr[2] == 0 || self.addr[2] == Self::MAPPED)
            && self.addr[3] == 0
    }

    /// Is this in `fe80::/10`? Such an address means nothing without its interface.
    #[inline]
    pub const fn is_link_local6(&self) -> bool {
        u32::from_be(self.addr[0]) & 0xffc0_0000 == 0xfe80_0000
    }

    /// Is this in the loopback block that redirected connections are spread over?
    #[inline]
    pub const fn is_spread(&self) -> bool {
        self.is_in_block(crate::SPREAD4_BASE)
    }

    /// Is this an address that the proxy dials the app from? IPv6 has no block for it, only `::1`.
    #[inline]
    pub const fn is_dial_source(&self) -> bool {
        self.is_in_block(crate::DIAL4_BASE) || (!self.is_v4() && self.is_loopback())
    }

    #[inline]
    const fn is_in_block(&self, base: u32) -> bool {
        self.is_v4() && u32::from_be(self.addr[3]) & crate::BLOCK4_MASK == base
    }

    /// The address that a wildcard listener of this address' family is bound to, same port.
    #[inline]
    #[must_use]
    pub const fn wildcard(&self) -> Self {
        if self.is_v4() {
            Self::v4(0, self.port)
        } else {
            Self {
                addr: [0; 4],
                port: self.port,
            }
        }
    }

    /// The wildcard `::`, on which a dual-stack listener takes both families, same port.
    #[inline]
    #[must_use]
    pub const fn wildcard6(&self) -> Self {
        Self {
            addr: [0; 4],
            port: self.port,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(socket: SocketAddr) -> Self {
        Self {
            addr: words(socket.ip()),
            port: socket.port().into(),
        }
    }
}

impl From<Endpoint> for SocketAddr {
    /// IPv4 comes back as IPv4, not in its mapped form.
    fn from(endpoint: Endpoint) -> Self {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(endpoint.addr) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        // A port never exceeds 16 bits: it was read from a 16-bit header field.
        #[expect(clippy::cast_possible_truncation, reason = "ports are 16 bits wide")]
        let port = endpoint.port as u16;
        Self::new(Ipv6Addr::from(octets).to_canonical(), port)
    }
}

/// An address as four words in network byte order, IPv4 in its mapped form.
pub(crate) fn words(addr: IpAddr) -> [u32; 4] {
    let octets = match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    }
    words
}

/// The two ends of a TCP connection, named by who connected.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[repr(C)]
pub struct Tuple {
    /// The end that called `connect()`.
    pub client: Endpoint,
    /// The end that accepted.
    pub server: Endpoint,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<SocketAddr>()
            .expect("a literal address")
            .into()
    }

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["198.18.0.1:8080", "[fd00::1]:443", "127.0.0.1:1"] {
            let socket: SocketAddr = text.parse().expect("a literal address");
            assert_eq!(SocketAddr::from(Endpoint::from(socket)), socket);
        }
    }

    #[test]
    fn mapped_and_plain_ipv4_are_one_endpoint() {
        assert_eq!(
            endpoint("[::ffff:198.18.0.1]:80"),
            endpoint("198.18.0.1:80")
        );
        assert!(endpoint("[::ffff:198.18.0.1]:80").is_v4());
    }

    #[test]
    fn loopback_is_known_in_every_form() {
        for text in [
            "127.0.0.1:1",
            "127.130.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(endpoint(text).is_loopback(), "{text}");
        }
        for text in ["128.0.0.1:1", "[::2]:1", "[fd00::1]:1", "0.0.0.0:1"] {
            assert!(!endpoint(text).is_loopback(), "{text}");
        }
    }

    #[test]
    fn the_spread_block_holds_no_broadcast_address() {
        assert!(endpoint("127.128.0.0:1").is_spread());
        assert!(endpoint("127.191.255.255:1").is_spread());
        assert!(!endpoint("127.255.255.255:1").is_spread());
        assert!(!endpoint("127.0.0.1:1").is_spread());
    }

    #[test]
    fn dials_to_the_app_are_told_from_other_loopback_traffic() {
        assert!(endpoint("127.64.0.0:1").is_dial_source());
        assert!(endpoint("127.127.255.255:1").is_dial_source());
        assert!(endpoint("[::1]:1").is_dial_source());
        assert!(!endpoint("127.0.0.1:1").is_dial_source());
        assert!(!endpoint("127.128.0.0:1").is_dial_source());
        assert!(!endpoint("198.18.0.1:1").is_dial_source());
    }

    #[test]
    fn wildcards_are_unspecified() {
        for text in ["198.18.0.1:80", "[fd00::1]:80"] {
            assert!(endpoint(text).wildcard().is_unspecified());
            assert!(endpoint(text).wildcard6().is_unspecified());
            assert_eq!(endpoint(text).wildcard().port, 80);
        }
        assert!(!endpoint("198.18.0.1:80").is_unspecified());
    }

    #[test]
    fn link_local_is_the_whole_block() {
        assert!(endpoint("[fe80::1]:1").is_link_local6());
        assert!(endpoint("[febf::1]:1").is_link_local6());
        assert!(!endpoint("[fec0::1]:1").is_link_local6());
        assert!(!endpoint("198.18.0.1:1").is_link_local6());
    }
}
