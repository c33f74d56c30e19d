//! `connect`: redirects the app's connections. `getpeername`, `getsockname`: hide that.

use aya_ebpf::{
    helpers::bpf_get_current_uid_gid, macros::cgroup_sock_addr, programs::SockAddrContext,
};
use aya_log_ebpf::{debug, warn};
use sidecar_common::{
    BLOCK4_MASK, Endpoint, Event, Role, SPREAD4_BASE, Slot, SocketFacts,
    policy::{Direction, Mode},
};

use crate::{
    ctx::{SockAddr, Socket},
    maps,
};

/// Let the call go on.
const PROCEED: i32 = 1;
/// Fail the call with `EPERM`.
const REFUSE: i32 = 0;

/// Redirects IPv4 connections.
#[cgroup_sock_addr(connect4)]
pub fn sc_connect4(ctx: SockAddrContext) -> i32 {
    connect(&ctx, &SockAddr::<false>::new(&ctx))
}

/// Redirects IPv6 connections, and IPv4 ones of dual-stack sockets.
#[cgroup_sock_addr(connect6)]
pub fn sc_connect6(ctx: SockAddrContext) -> i32 {
    connect(&ctx, &SockAddr::<true>::new(&ctx))
}

/// Shows the app its true peer, on connected and on accepted IPv4 sockets.
#[cgroup_sock_addr(getpeername4)]
pub fn sc_peername4(ctx: SockAddrContext) -> i32 {
    getpeername(&SockAddr::<false>::new(&ctx))
}

/// Shows the app its true peer, on connected and on accepted IPv6 sockets.
#[cgroup_sock_addr(getpeername6)]
pub fn sc_peername6(ctx: SockAddrContext) -> i32 {
    getpeername(&SockAddr::<true>::new(&ctx))
}

/// Shows the app the pod's own address instead of loopback, on IPv4 sockets.
#[cgroup_sock_addr(getsockname4)]
pub fn sc_sockname4(ctx: SockAddrContext) -> i32 {
    getsockname(&SockAddr::<false>::new(&ctx))
}

/// Shows the app the pod's own address instead of loopback, on IPv6 sockets.
#[cgroup_sock_addr(getsockname6)]
pub fn sc_sockname6(ctx: SockAddrContext) -> i32 {
    getsockname(&SockAddr::<true>::new(&ctx))
}

#[inline(always)]
fn connect<const V6: bool>(log: &SockAddrContext, call: &SockAddr<'_, V6>) -> i32 {
    if !call.is_tcp() {
        maps::count(Event::OutboundNotTcp);
        return PROCEED;
    }
    let socket = call.socket();
    if let Some(facts) = maps::facts(socket) {
        // A tag that only the daemon can set, unlike a user or a mark that an app could share.
        if facts.role.is_proxy() {
            maps::count(Event::OutboundOwnSocket);
            return PROCEED;
        }
        // An app may connect a socket again after a failure; what was true then is no longer.
        maps::forget(socket);
    }

    let destination = call.address();
    if destination.is_loopback() || destination.is_unspecified() {
        maps::count(Event::OutboundLoopback);
        if destination.is_spread() {
            // Published at the SYN, so that it can be told from a redirected connection.
            maps::remember(socket, &facts(Role::APP_OWN, destination));
        }
        return PROCEED;
    }
    let uid = bpf_get_current_uid_gid() as u32;
    if maps::is_excluded_port(Direction::Outbound, destination.port) {
        return leave_alone(socket, uid, Event::OutboundExcludedPort);
    }
    if maps::is_excluded_net(&destination) {
        return leave_alone(socket, uid, Event::OutboundExcludedCidr);
    }
    if maps::is_excluded_uid(uid) {
        return leave_alone(socket, uid, Event::OutboundExcludedUid);
    }
    let mode = maps::mode(Direction::Outbound, destination.port, &destination);
    if mode == Mode::OFF {
        return leave_alone(socket, uid, Event::OutboundOff);
    }

    // Neither kind would survive the redirection: a socket bound to a device cannot reach
    // loopback, and a link-local address loses the interface that gives it a meaning.
    let obstacle = if socket.bound_device() != 0 {
        Some(Event::OutboundBoundDevice)
    } else if destination.is_link_local6() {
        Some(Event::OutboundLinkLocal)
    } else {
        None
    };
    if let Some(event) = obstacle {
        if mode == Mode::STRICT {
            maps::count(Event::DroppedCannotRedirect);
            warn!(
                log,
                "refused a connection to port {} that cannot be redirected", destination.port
            );
            return REFUSE;
        }
        return leave_alone(socket, uid, event);
    }

    // Asked here, because once it is redirected its server does not matter: it is refused. And
    // asked only if it may pass, because most pods are closed.
    if mode != Mode::STRICT
        && maps::fails_open(Direction::Outbound)
        && !maps::has_listener(Slot::outbound(&destination))
    {
        return leave_alone(socket, uid, Event::OutboundFailedOpen);
    }

    let Some(place) = spread(call.cookie(), &destination) else {
        maps::count(Event::DroppedCannotRedirect);
        warn!(
            log,
            "refused a connection to port {}: no loopback port is free for it", destination.port
        );
        return REFUSE;
    };
    if !maps::remember(socket, &facts(Role::APP_CLIENT, destination)) {
        // Redirected without its destination, it would be lost; let through, it would be plain.
        maps::count(Event::DroppedNoStorage);
        warn!(
            log,
            "refused a connection to port {}: no memory for its destination", destination.port
        );
        return REFUSE;
    }
    call.set_address(&place);
    maps::count(Event::OutboundRedirected);
    debug!(log, "redirected a connection to port {}", destination.port);
    PROCEED
}

/// Lets a connection go past the proxy, and remembers that it began so. Without memory for that, it
/// counts as one that nobody saw begin.
#[inline(always)]
fn leave_alone(socket: Socket, uid: u32, event: Event) -> i32 {
    maps::count(event);
    let _ = maps::remember(
        socket,
        &SocketFacts {
            role: Role::APP_DIRECT_CLIENT,
            uid,
            ..SocketFacts::default()
        },
    );
    PROCEED
}

#[inline(always)]
fn getpeername<const V6: bool>(call: &SockAddr<'_, V6>) -> i32 {
    if let Some(facts) = maps::facts(call.socket())
        && facts.role.hides_proxy()
    {
        call.set_address(&facts.peer);
    }
    PROCEED
}

#[inline(always)]
fn getsockname<const V6: bool>(call: &SockAddr<'_, V6>) -> i32 {
    let Some(facts) = maps::facts(call.socket()) else {
        return PROCEED;
    };
    // A socket that the app bound to an address of its own already reports the truth.
    if facts.role == Role::APP_CLIENT
        && call.address().is_loopback()
        && let Some(own) = maps::own_addr(&facts.peer)
    {
        call.set_ip(own);
    }
    PROCEED
}

#[inline(always)]
fn facts(role: Role, peer: Endpoint) -> SocketFacts {
    SocketFacts {
        role,
        peer,
        ..SocketFacts::default()
    }
}

/// Where on loopback a connection goes; `None` if there is no place for it.
///
/// `sk_lookup` does not care which address it is, so each socket gets one of its own: no pair of
/// ports can run out. IPv6 has a single loopback address and spreads over ports instead; the
/// mapped form of 127.0.0.0/8 would fail on sockets that are IPv6 only or bound to an IPv6 source.
#[inline(always)]
fn spread(cookie: u64, destination: &Endpoint) -> Option<Endpoint> {
    /// 2^32 divided by the golden ratio: spreads consecutive cookies evenly (Knuth, TAOCP 6.4).
    const GOLDEN: u32 = 2_654_435_769;
    /// Ports below are for privileged services.
    const FIRST_PORT: u32 = 1024;
    /// How many ports are tried.
    const TRIES: u32 = 4;
    let hash = (cookie as u32).wrapping_mul(GOLDEN);
    if destination.is_v4() {
        let addr = SPREAD4_BASE | (hash >> BLOCK4_MASK.count_ones());
        return Some(Endpoint::v4(addr.to_be(), destination.port));
    }
    // Were the table of flows full, a connection to a port of the app's would reach the app.
    (0..TRIES)
        .map(|attempt| Endpoint {
            addr: [0, 0, 0, 1u32.to_be()],
            port: FIRST_PORT + (hash >> 17) + attempt,
        })
        .find(|place| !maps::is_listening(place))
}
