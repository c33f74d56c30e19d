//! Types that cross the boundary between the daemon and its kernel side.
//!
//! Both sides compile this crate, so a layout can never drift apart: what the kernel programs
//! write into a map is what the daemon reads. Everything is plain data without padding.

#![no_std]

mod endpoint;
mod event;
mod flow;
pub mod option;
mod owner;
pub mod policy;
mod socket;
mod statistics;
#[cfg(feature = "user")]
mod user;

pub use endpoint::{Endpoint, Tuple};
pub use event::Event;
pub use flow::{Flow, Route};
pub use owner::{ABI, Owner};
pub use socket::{Mesh, Role, SocketFacts};
pub use statistics::SocketStatistics;

/// Slot of the socket map in which a listener of the proxy stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Slot {
    /// Connections from the network to the app, over IPv4.
    Inbound4 = 0,
    /// Connections from the network to the app, over IPv6.
    Inbound6 = 1,
    /// Connections from the app to the network, over IPv4.
    Outbound4 = 2,
    /// Connections from the app to the network, over IPv6.
    Outbound6 = 3,
}

impl Slot {
    /// How many slots the socket map has.
    pub const COUNT: usize = 4;

    /// The slot for connections from the network to this address of the pod.
    #[inline]
    pub const fn inbound(server: &Endpoint) -> Self {
        if server.is_v4() {
            Self::Inbound4
        } else {
            Self::Inbound6
        }
    }

    /// The slot for connections that are redirected to this address.
    #[inline]
    pub const fn outbound(place: &Endpoint) -> Self {
        if place.is_v4() {
            Self::Outbound4
        } else {
            Self::Outbound6
        }
    }
}

/// First address of the loopback block that redirected IPv4 connections are spread over.
///
/// One loopback address and port would cap a pod at one connection per ephemeral port, about
/// 28,000. The block is cut by [`BLOCK4_MASK`]; it is not the upper half of 127.0.0.0/8 because
/// 127.255.255.255 is a broadcast address, to which `connect()` fails.
pub const SPREAD4_BASE: u32 = 0x7f80_0000;

/// First address of the loopback block from which the proxy dials the app over IPv4.
///
/// Like [`SPREAD4_BASE`] it keeps ephemeral ports from running out, and it tells the proxy's dials
/// from everybody else's.
pub const DIAL4_BASE: u32 = 0x7f40_0000;

/// Network mask of both blocks: 127.128.0.0/10 and 127.64.0.0/10.
pub const BLOCK4_MASK: u32 = 0xffc0_0000;
