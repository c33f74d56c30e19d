//! How a wire says where bytes begin and end: four bytes, and what they announce.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// How long each header is, in bytes: one that says what it is, three with the length of what follows,
/// most significant first.
pub const HEADER: usize = 4;

/// How long an address is, in bytes: an IPv6 one, in which IPv4 is mapped (RFC 4291, section
/// 2.5.5.2), and a port.
pub(super) const REACHED: usize = 18;

/// How many bytes a frame can announce.
const LONGEST: usize = (1 << 24) - 1;

/// What one side tells the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Frame {
    /// So many of the app's bytes follow; at least one.
    Bytes(usize),
    /// The app has ended this direction. A server that would take another connection says where it
    /// was reached, in [`REACHED`] bytes that follow.
    End { says_where: bool },
    /// A client begins another connection, to where the wire goes.
    Open,
    /// The server's app has taken it.
    Opened,
}

impl Frame {
    const BYTES: u8 = 0;
    const END: u8 = 1;
    const OPEN: u8 = 2;
    const OPENED: u8 = 3;

    /// For as many of these bytes as one frame can announce.
    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.len().min(LONGEST))
    }

    pub(super) fn header(self) -> [u8; HEADER] {
        let (kind, length) = match self {
            Self::Bytes(length) => (Self::BYTES, length),
            Self::End { says_where } => (Self::END, if says_where { REACHED } else { 0 }),
            Self::Open => (Self::OPEN, 0),
            Self::Opened => (Self::OPENED, 0),
        };
        let length = u32::try_from(length).expect("no frame announces more");
        let [_, length @ ..] = length.to_be_bytes();
        let mut header = [kind, 0, 0, 0];
        header[1..].copy_from_slice(&length);
        header
    }
}

impl TryFrom<[u8; HEADER]> for Frame {
    type Error = io::Error;

    fn try_from([kind, high, middle, low]: [u8; HEADER]) -> io::Result<Self> {
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        match (kind, length) {
            (Self::BYTES, 1..) => Ok(Self::Bytes(length)),
            (Self::END, 0) => Ok(Self::End { says_where: false }),
            (Self::END, REACHED) => Ok(Self::End { says_where: true }),
            (Self::OPEN, 0) => Ok(Self::Open),
            (Self::OPENED, 0) => Ok(Self::Opened),
            _ => Err(malformed(&format!(
                "the peer sent a frame of kind {kind} and {length} bytes, which there is not"
            ))),
        }
    }
}

/// Where a server was reached, as it says it.
pub(super) fn encode_address(address: SocketAddr) -> [u8; REACHED] {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut bytes = [0; REACHED];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

/// Where a server says that it was reached.
pub(super) fn decode_address(bytes: [u8; REACHED]) -> SocketAddr {
    let [ip @ .., high, low] = bytes;
    let ip = Ipv6Addr::from(ip).to_canonical();
    SocketAddr::new(ip, u16::from_be_bytes([high, low]))
}

pub(super) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for frame in [
            Frame::Bytes(1),
            Frame::Bytes(LONGEST),
            Frame::End { says_where: false },
            Frame::End { says_where: true },
            Frame::Open,
            Frame::Opened,
        ] {
            let understood = Frame::try_from(frame.header()).expect("a frame of ours");
            assert_eq!(understood, frame);
        }
        assert_eq!(Frame::bytes(&vec![0; LONGEST + 1]), Frame::Bytes(LONGEST));
    }

    #[test]
    fn frames_that_there_are_not_are_refused() {
        for header in [
            [0, 0, 0, 0],
            [1, 0, 0, 17],
            [2, 0, 0, 1],
            [3, 1, 0, 0],
            [4, 0, 0, 0],
        ] {
            Frame::try_from(header).expect_err("nobody sends that");
        }
    }

    #[test]
    fn addresses_of_both_families_come_across() {
        for address in ["198.18.0.1:80", "[fd00::1]:65535"] {
            let address: SocketAddr = address.parse().expect("an address");
            assert_eq!(decode_address(encode_address(address)), address);
        }
    }
}
