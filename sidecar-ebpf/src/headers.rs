//! What the headers of a packet say, read from its bytes: a raw socket writes there what it likes,
//! whatever kind of socket it is.

use sidecar_common::Endpoint;

use crate::ctx::Packet;

/// Protocol numbers (IANA), of which IPv6 calls the last four extension headers.
mod protocol {
    pub const TCP: u8 = 6;
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// Extension headers that are looked through. RFC 8200, section 4.1, has seven at the most.
const MAX_EXTENSIONS: u32 = 8;

/// A TCP segment on its way out.
pub struct TcpSegment {
    /// Its source. Port 0 if it cannot be read.
    pub local: Endpoint,
    /// Its destination. Port 0 if it cannot be read.
    pub remote: Endpoint,
    /// Is it a reset that carries nothing?
    pub is_bare_reset: bool,
}

/// The TCP segment that a packet carries, or a part of; `None` if it carries something else.
///
/// The kernel cuts segments into fragments after it has asked us. So a fragment comes from a socket
/// that has cut it itself, and all but the first have no ports. Nor can they be read in a packet
/// that is malformed, or deeper than [`MAX_EXTENSIONS`]: it counts as TCP, lest that be a way out.
#[inline(always)]
pub fn tcp(packet: &Packet<'_>) -> Option<TcpSegment> {
    if packet.is_v4() {
        tcp4(packet)
    } else {
        tcp6(packet)
    }
}

#[inline(always)]
fn tcp4(packet: &Packet<'_>) -> Option<TcpSegment> {
    /// The offset in the field that it shares with three flags (RFC 791, section 3.1).
    const FRAGMENT_OFFSET: u16 = 0x1fff;
    let header = packet.bytes::<20>(0)?;
    if header[9] != protocol::TCP {
        return None;
    }
    let local = Endpoint::v4(word(&header, 12), 0);
    let remote = Endpoint::v4(word(&header, 16), 0);
    if u16::from_be_bytes([header[6], header[7]]) & FRAGMENT_OFFSET != 0 {
        return Some(unreadable(local, remote));
    }
    Some(segment(
        packet,
        u32::from(header[0] & 0xf) * 4,
        local,
        remote,
    ))
}

#[inline(always)]
fn tcp6(packet: &Packet<'_>) -> Option<TcpSegment> {
    /// The offset in the field that it shares with three other bits (RFC 8200, section 4.5).
    const FRAGMENT_OFFSET: u16 = 0xfff8;
    let header = packet.bytes::<40>(0)?;
    let local = address6(&header, 8);
    let remote = address6(&header, 24);
    let (mut next, mut offset) = (header[6], 40);
    for _ in 0..MAX_EXTENSIONS {
        if next == protocol::TCP {
            return Some(segment(packet, offset, local, remote));
        }
        if !is_extension(next) {
            return None;
        }
        let Some(extension) = packet.bytes::<4>(offset) else {
            return Some(unreadable(local, remote));
        };
        let length = u32::from(extension[1]);
        offset += match next {
            // RFC 4302, section 2.2: in words of four bytes, less two.
            protocol::AUTHENTICATION => (length + 2) * 4,
            protocol::FRAGMENT => {
                if u16::from_be_bytes([extension[2], extension[3]]) & FRAGMENT_OFFSET != 0 {
                    let may_be_tcp = extension[0] == protocol::TCP || is_extension(extension[0]);
                    return may_be_tcp.then(|| unreadable(local, remote));
                }
                8
            }
            // RFC 8200, section 4.3: in words of eight bytes, less one.
            _ => (length + 1) * 8,
        };
        next = extension[0];
    }
    Some(unreadable(local, remote))
}

/// The segment whose TCP header begins at `offset`, between two addresses.
#[inline(always)]
fn segment(packet: &Packet<'_>, offset: u32, local: Endpoint, remote: Endpoint) -> TcpSegment {
    /// Bit of the RST in the flags.
    const RST: u8 = 0x04;
    // Up to the flags (RFC 9293, section 3.1). A first fragment may end before.
    let Some(header) = packet.bytes::<14>(offset) else {
        return unreadable(local, remote);
    };
    let port = |at| u16::from_be_bytes([header[at], header[at + 1]]).into();
    let end_of_header = offset + u32::from(header[12] >> 4) * 4;
    TcpSegment {
        local: Endpoint {
            port: port(0),
            ..local
        },
        remote: Endpoint {
            port: port(2),
            ..remote
        },
        is_bare_reset: header[13] & RST != 0 && packet.length() == end_of_header,
    }
}

/// A segment of whose TCP header nothing is known.
#[inline(always)]
const fn unreadable(local: Endpoint, remote: Endpoint) -> TcpSegment {
    TcpSegment {
        local,
        remote,
        is_bare_reset: false,
    }
}

/// Is this an extension header of IPv6, behind which TCP can follow?
#[inline(always)]
const fn is_extension(header: u8) -> bool {
    matches!(
        header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
    )
}

#[inline(always)]
fn address6(header: &[u8; 40], at: usize) -> Endpoint {
    Endpoint {
        addr: [
            word(header, at),
            word(header, at + 4),
            word(header, at + 8),
            word(header, at + 12),
        ],
        port: 0,
    }
}

/// Four bytes as they stand.
#[inline(always)]
fn word<const COUNT: usize>(header: &[u8; COUNT], at: usize) -> u32 {
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}
