//! Keys and values of the tables by which the kernel side decides what to capture.

use core::net::{IpAddr, Ipv6Addr};

use crate::endpoint::words;

/// How many entries there is room for in the tables. They take memory only for those they have, but for
/// some bytes for each of [`PORTS`](room::PORTS) and [`USERS`](room::USERS).
pub mod room {
    /// Networks: in each table that has some.
    pub const NETWORKS: usize = 16_384;
    /// Ports, of both directions together.
    pub const PORTS: usize = 16_384;
    /// Users.
    pub const USERS: usize = 1_024;
}

/// Which way a connection runs, seen from the pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Direction {
    /// From the network to the app.
    Inbound = 0,
    /// From the app to the network.
    Outbound = 1,
}

impl Direction {
    /// How many there are.
    pub const COUNT: usize = 2;
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(transparent)]
pub struct Mode(pub u32);

impl Mode {
    /// The kernel leaves the connection alone.
    pub const OFF: Self = Self(0);
    /// Mutual TLS where the peer has a sidecar, plaintext where it has none.
    pub const PERMISSIVE: Self = Self(1);
    /// Mutual TLS or nothing.
    pub const STRICT: Self = Self(2);
}

/// What happens to a connection while no proxy serves.
///
/// Connections whose mode is [`Mode::STRICT`] are refused either way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(transparent)]
pub struct Failure(pub u32);

impl Failure {
    /// It is refused. What a table says that nobody has written to.
    pub const CLOSED: Self = Self(0);
    /// It goes past the proxy, in plaintext.
    pub const OPEN: Self = Self(1);
}

/// Bits in front of the address in [`ModeKey`]: direction, padding and port.
const MODE_KEY_HEAD_BITS: u32 = 32;

/// Bits in front of an IPv4 address in its mapped form.
const MAPPED_BITS: u32 = 96;

/// Key of the table of modes, matched by longest prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct ModeKey {
    direction: u8,
    padding: u8,
    /// The destination's port in host byte order, 0 in entries for every port.
    port: u16,
    /// The remote address: words in network byte order, IPv4 in its mapped form.
    addr: [u32; 4],
}

impl ModeKey {
    /// Length in bits of a key for one address, as a look-up uses it.
    pub const BITS: u32 = MODE_KEY_HEAD_BITS + 128;

    /// Makes a key. Port 0 stands for every port.
    #[inline]
    pub const fn new(direction: Direction, port: u16, addr: [u32; 4]) -> Self {
        Self {
            direction: direction as u8,
            padding: 0,
            port,
            addr,
        }
    }

    /// Which way connections run that this is about.
    #[inline]
    pub const fn direction(&self) -> Direction {
        if self.direction == Direction::Inbound as u8 {
            Direction::Inbound
        } else {
            Direction::Outbound
        }
    }

    /// The destination's port, `None` in entries for every port.
    #[inline]
    pub const fn port(&self) -> Option<u16> {
        match self.port {
            0 => None,
            port => Some(port),
        }
    }

    /// The remote range of a key of this length: its address in mapped form, and its prefix.
    pub fn range(&self, bits: u32) -> (Ipv6Addr, u8) {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(self.addr) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        let prefix = bits.saturating_sub(MODE_KEY_HEAD_BITS).min(128);
        (octets.into(), prefix as u8)
    }

    /// The key and its length in bits for all of `addr/prefix`.
    pub fn prefix(
        direction: Direction,
        port: Option<u16>,
        addr: IpAddr,
        prefix: u8,
    ) -> (Self, u32) {
        let (words, bits) = cidr(addr, prefix);
        (
            Self::new(direction, port.unwrap_or(0), words),
            MODE_KEY_HEAD_BITS + bits,
        )
    }
}

/// Key of the table of excluded ports.
#[inline]
pub const fn port_key(direction: Direction, port: u16) -> u32 {
    (direction as u32) << 16 | port as u32
}

/// The words and the length in bits of `addr/prefix` in a table of addresses.
pub fn cidr(addr: IpAddr, prefix: u8) -> ([u32; 4], u32) {
    let offset = match addr {
        IpAddr::V4(_) => MAPPED_BITS,
        IpAddr::V6(_) => 0,
    };
    (words(addr), offset + u32::from(prefix))
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn an_ipv4_prefix_counts_from_its_mapped_form() {
        let (words, bits) = cidr(Ipv4Addr::new(10, 0, 0, 0).into(), 8);
        assert_eq!(words[2], 0xffff_u32.to_be());
        assert_eq!(bits, 104);
        let (_, bits) = cidr(Ipv6Addr::LOCALHOST.into(), 64);
        assert_eq!(bits, 64);
    }

    #[test]
    fn a_whole_ipv4_address_uses_every_bit_of_the_key() {
        let addr = Ipv4Addr::new(198, 18, 0, 1).into();
        let (key, bits) = ModeKey::prefix(Direction::Outbound, Some(443), addr, 32);
        assert_eq!(bits, ModeKey::BITS);
        assert_eq!(key, ModeKey::new(Direction::Outbound, 443, words(addr)));
    }

    #[test]
    fn a_key_tells_what_it_was_made_of() {
        let addr = Ipv4Addr::new(198, 18, 0, 0);
        for (direction, port) in [(Direction::Inbound, None), (Direction::Outbound, Some(443))] {
            let (key, bits) = ModeKey::prefix(direction, port, addr.into(), 15);
            assert_eq!((key.direction(), key.port()), (direction, port));
            assert_eq!(key.range(bits), (addr.to_ipv6_mapped(), 96 + 15));
        }
    }

    #[test]
    fn port_keys_of_the_two_directions_differ() {
        assert_ne!(
            port_key(Direction::Inbound, 22),
            port_key(Direction::Outbound, 22)
        );
    }
}
