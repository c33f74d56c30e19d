//! `cgroup_skb`: the net under the other programs. Where the mode is strict, no TCP leaves the pod
//! past the proxy.
//!
//! The other programs decide when a connection begins. This one looks at each packet of the pod's
//! sockets that is about to leave, and so finds what they did not see begin: connections older than
//! the sidecar, raw sockets, and sockets that were led off loopback after they were redirected.
//!
//! Segments that the kernel sends without a socket never come here: resets to nobody, and answers to
//! SYNs while SYN cookies are sent. They carry no bytes of any app. Nor do packets of `AF_PACKET`
//! sockets, which take `CAP_NET_RAW` and go to the device directly.

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
use sidecar_common::{
    Event, Role,
    policy::{Direction, Mode},
};

use crate::{
    ctx::{Packet, Socket},
    headers::{self, TcpSegment},
    maps,
};

/// Let the packet go.
const PASS: i32 = 1;
/// Drop the packet. A TCP socket sends it again until it gives up; a raw one gets `EPERM`.
const DROP: i32 = 0;

/// Drops TCP that leaves the pod past the proxy, where the mode is strict.
#[cgroup_skb(egress)]
pub fn sc_egress(ctx: SkBuffContext) -> i32 {
    match objection(&Packet::new(&ctx)) {
        Some(event) => {
            maps::count(event);
            DROP
        }
        None => PASS,
    }
}

/// Why the packet must not leave, if it must not. What is frequent is answered first.
#[inline(always)]
fn objection(packet: &Packet<'_>) -> Option<Event> {
    if packet.is_on_loopback() {
        return None;
    }
    let socket = packet.socket();
    let facts = socket.and_then(maps::facts);
    let role = facts.as_ref().map_or(Role::NONE, |facts| facts.role);
    // A role that only the daemon can give.
    if role.is_proxy() {
        return None;
    }
    let segment = headers::tcp(packet)?;
    // It carries nothing, and the peer learns at once that there is no connection.
    if segment.is_bare_reset {
        return None;
    }
    // The other end is the proxy, on loopback. Bound to a device, or routed by its mark, the socket
    // would tell the network what was meant for the proxy.
    if role.hides_proxy() {
        return Some(Event::DroppedOffLoopback);
    }
    match origin(role, socket) {
        Origin::Accepted => must_be_proxied(Direction::Inbound, &segment),
        // Only here is the user known for certain. Whose a socket is that `connect()` did not see,
        // the kernel tells by a number of the pod's own user namespace, which may be anybody's.
        Origin::Connected if facts.is_some_and(|facts| maps::is_excluded_uid(facts.uid)) => None,
        Origin::Connected => must_be_proxied(Direction::Outbound, &segment),
        Origin::Raw => {
            must_be_proxied(Direction::Outbound, &segment).map(|_| Event::DroppedRawSegment)
        }
        Origin::Unknown => {
            let either = |holds: fn(Direction, &TcpSegment) -> bool| {
                holds(Direction::Inbound, &segment) || holds(Direction::Outbound, &segment)
            };
            (either(is_strict) && !either(is_excluded)).then_some(Event::DroppedOldConnection)
        }
    }
}

/// Who began the connection that a segment belongs to.
enum Origin {
    /// The app accepted it, or is about to.
    Accepted,
    /// The app connected it.
    Connected,
    /// Nobody: the segment was written by hand.
    Raw,
    /// It is older than the sidecar, and may have been either.
    Unknown,
}

#[inline(always)]
fn origin(role: Role, socket: Option<Socket>) -> Origin {
    match (role, socket) {
        (Role::APP_DIRECT_CLIENT, _) => Origin::Connected,
        (Role::APP_DIRECT_SERVER, _) => Origin::Accepted,
        (_, Some(socket)) if !socket.is_tcp() => Origin::Raw,
        (_, Some(socket)) if socket.is_listening() => Origin::Accepted,
        _ => Origin::Unknown,
    }
}

/// Objects to a segment that the rules do not leave alone. They are asked anew for each: they may
/// have become stricter since the connection began.
#[inline(always)]
fn must_be_proxied(direction: Direction, segment: &TcpSegment) -> Option<Event> {
    (is_strict(direction, segment) && !is_excluded(direction, segment))
        .then_some(Event::DroppedPastProxy)
}

#[inline(always)]
fn is_strict(direction: Direction, segment: &TcpSegment) -> bool {
    maps::mode(
        direction,
        destination_port(direction, segment),
        &segment.remote,
    ) == Mode::STRICT
}

#[inline(always)]
fn is_excluded(direction: Direction, segment: &TcpSegment) -> bool {
    let port = destination_port(direction, segment);
    maps::is_excluded_port(direction, port)
        || match direction {
            Direction::Inbound => maps::is_probe(port, &segment.remote),
            Direction::Outbound => maps::is_excluded_net(&segment.remote),
        }
}

/// The port that the client of the connection dialled.
#[inline(always)]
fn destination_port(direction: Direction, segment: &TcpSegment) -> u32 {
    match direction {
        Direction::Inbound => segment.local.port,
        Direction::Outbound => segment.remote.port,
    }
}
