//! `sock_ops`: hands facts from the connecting to the accepting side of a loopback connection,
//! learns on which ports the app listens, writes and reads the mesh option, and follows the legs of
//! the proxy's connections.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_HDR_OPT_LEN_CB, BPF_SOCK_OPS_NEEDS_ECN,
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB,
        BPF_SOCK_OPS_WRITE_HDR_OPT_CB, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG, BPF_TCP_CLOSE,
        BPF_TCP_LISTEN,
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use sidecar_common::{Event, Flow, Mesh, Role, Route, SocketFacts, Tuple, option};

use crate::{
    ctx::{Segment, SockOps, Socket},
    maps, statistics,
};

/// The callback was understood; the kernel ignores anything else for these callbacks too.
const HANDLED: u32 = 1;

/// Where to look for the option: in the segment at hand.
const IN_SEGMENT: u64 = 0;
/// Where to look for the option: in the peer's SYN, `BPF_LOAD_HDR_OPT_TCP_SYN` of the UAPI.
const IN_SYN: u64 = 1;

/// Follows the life of every TCP socket of the pod, app's and proxy's alike.
#[sock_ops]
pub fn sc_sock_ops(ctx: SockOpsContext) -> u32 {
    let sock = SockOps::new(&ctx);
    match sock.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(&sock),
        BPF_SOCK_OPS_NEEDS_ECN => about_to_send(&sock),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => connected(&sock),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&sock),
        BPF_SOCK_OPS_RTT_CB => round_trip_measured(&sock),
        BPF_SOCK_OPS_STATE_CB => state_changed(&sock),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listening(&sock),
        BPF_SOCK_OPS_HDR_OPT_LEN_CB => reserve_option(&sock),
        BPF_SOCK_OPS_WRITE_HDR_OPT_CB => write_option(&sock),
        _ => {}
    }
    HANDLED
}

/// The SYN is about to leave and its source port is chosen: the accepting side cannot be faster.
#[inline(always)]
fn connecting(sock: &SockOps<'_>) {
    let Some(facts) = sock.socket().and_then(maps::facts) else {
        return;
    };
    if let Some(route) = route(facts.role) {
        maps::publish(
            &dialled(sock),
            &Flow {
                route,
                peer: facts.peer,
            },
        );
    }
    sock.watch(callbacks(facts));
}

/// The SYN is about to be made. The kernel wants to know whether it should negotiate ECN, of which we
/// say nothing; but a program that was asked after us may have set its own callbacks in the place of
/// ours when the socket connected.
#[inline(always)]
fn about_to_send(sock: &SockOps<'_>) {
    if let Some(facts) = sock.socket().and_then(maps::facts) {
        sock.watch(callbacks(facts));
    }
}

/// The callbacks by which a socket that connects is followed.
#[inline(always)]
fn callbacks(facts: &SocketFacts) -> u32 {
    let mut flags = 0;
    if route(facts.role).is_some() {
        // Tells when the socket closes, in case nobody accepts.
        flags |= BPF_SOCK_OPS_STATE_CB_FLAG;
    }
    if facts.role.is_leg() {
        flags |= statistics::CALLBACKS;
    }
    if facts.role == Role::UPSTREAM && facts.mesh == Mesh::OFFERED {
        flags |= BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
    }
    flags
}

/// The SYN-ACK has come.
#[inline(always)]
fn connected(sock: &SockOps<'_>) {
    let Some(facts) = sock.socket().and_then(maps::facts) else {
        return;
    };
    if facts.role != Role::UPSTREAM || facts.mesh == Mesh::NONE {
        return;
    }
    let flags = sock.option(IN_SEGMENT);
    if flags.is_some() {
        facts.mesh = Mesh::AGREED;
        maps::count(Event::OptionAgreed);
    }
    // Else it goes on to be shown, until the server has acknowledged what carries it.
    if flags.unwrap_or_default() & option::AGAIN == 0 {
        show_no_more(sock, facts);
    }
}

/// Ceases to write the option. That other programs have themselves asked what to write does not change
/// that.
#[inline(always)]
fn show_no_more(sock: &SockOps<'_>, facts: &mut SocketFacts) {
    facts.offers = 0;
    sock.unwatch(BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
}

/// The handshake of an accepted socket is complete. `accept()` cannot return it earlier: it waits
/// for the socket's lock, which is held until this program has run.
#[inline(always)]
fn accepted(sock: &SockOps<'_>) {
    let Some(socket) = sock.socket() else {
        return;
    };
    match maps::facts(socket) {
        Some(facts) if facts.role == Role::OUTBOUND => {
            if let Some(flow) = take_flow(sock) {
                facts.peer = flow.peer;
                maps::count(Event::OutboundSteered);
            }
            sock.watch(statistics::CALLBACKS);
        }
        Some(facts) if facts.role == Role::INBOUND => {
            // After a SYN cookie there is no SYN any more, and the client shows the option again in
            // what completes the handshake.
            if sock.has_option(IN_SYN) || sock.has_option(IN_SEGMENT) {
                facts.mesh = Mesh::AGREED;
                maps::count(Event::OptionAgreed);
            }
            // Inherited from the listener, which answers SYNs.
            sock.watch_instead(BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG, statistics::CALLBACKS);
        }
        Some(_) => {}
        // That it closes is of no interest, and we are told because the listener is. Another program may
        // have asked for it, too.
        None => tell_app(sock, socket),
    }
}

/// Tells the app's accepted socket who its true client is, and the net below us whether the
/// connection went past the proxy.
#[inline(always)]
fn tell_app(sock: &SockOps<'_>, socket: Socket) {
    let facts = match take_flow(sock) {
        Some(flow) if flow.route == Route::TO_APP => SocketFacts {
            role: Role::APP_SERVER,
            peer: flow.peer,
            ..SocketFacts::default()
        },
        None if !sock.remote().is_loopback() => SocketFacts {
            role: Role::APP_DIRECT_SERVER,
            ..SocketFacts::default()
        },
        // It stays in the pod.
        _ => return,
    };
    maps::remember(socket, &facts);
}

#[inline(always)]
fn round_trip_measured(sock: &SockOps<'_>) {
    if let Some(facts) = sock.socket().and_then(maps::facts)
        && facts.role.is_leg()
    {
        if is_to_be_shown_again(facts) {
            // What carried it has arrived.
            show_no_more(sock, facts);
        }
        statistics::round_trip(sock, facts);
    }
}

#[inline(always)]
fn state_changed(sock: &SockOps<'_>) {
    let (before, now) = (sock.arg0(), sock.arg1());
    if before == BPF_TCP_LISTEN {
        maps::unlisten(&sock.local());
        return;
    }
    if now != BPF_TCP_CLOSE {
        return;
    }
    let facts = sock.socket().and_then(maps::facts);
    if let Some(facts) = &facts
        && facts.role.is_leg()
    {
        statistics::closing(sock, facts, before);
    }
    // Accepted, it has published nothing, and what is published may be another's.
    if facts.is_some_and(|facts| route(facts.role).is_some()) {
        maps::unpublish(&dialled(sock));
    }
}

#[inline(always)]
fn listening(sock: &SockOps<'_>) {
    match sock.socket().and_then(maps::facts) {
        Some(facts) if facts.role.is_proxy() => {
            // Tells the daemon that its own sockets are in the cgroup, as they must be.
            facts.followed = 1;
            if facts.role == Role::INBOUND {
                sock.watch(BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
            }
        }
        _ => {
            if let Some(socket) = sock.socket() {
                // Of a connection that failed before; accepted sockets would inherit it.
                maps::forget(socket);
            }
            // The port is known here also without `bind()`: `listen()` chooses one before.
            maps::listen(&sock.local());
            sock.watch(BPF_SOCK_OPS_STATE_CB_FLAG);
        }
    }
}

#[inline(always)]
fn reserve_option(sock: &SockOps<'_>) {
    match sock.segment() {
        Segment::Syn => {
            let Some(facts) = sock.socket().and_then(maps::facts) else {
                return;
            };
            if facts.offers < option::MAX_OFFERS {
                sock.reserve_option();
            } else {
                facts.mesh = Mesh::LEFT_OUT;
                maps::count(Event::OptionLeftOut);
            }
        }
        // A request has no storage. Only our inbound listener asks for this callback.
        Segment::SynAck if sock.has_option(IN_SYN) => sock.reserve_option(),
        Segment::SynAck => {}
        Segment::Other => {
            if let Some(facts) = sock.socket().and_then(maps::facts)
                && is_to_be_shown_again(facts)
            {
                sock.reserve_option();
            }
        }
    }
}

#[inline(always)]
fn write_option(sock: &SockOps<'_>) {
    match sock.segment() {
        Segment::Syn => {
            if let Some(facts) = sock.socket().and_then(maps::facts)
                && facts.mesh == Mesh::OFFERED
                && sock.write_option(0)
            {
                facts.offers += 1;
                maps::count(Event::OptionOffered);
            }
        }
        Segment::SynAck => {
            let flags = if sock.is_cookie() { option::AGAIN } else { 0 };
            if sock.has_option(IN_SYN) && sock.write_option(flags) {
                maps::count(Event::OptionAnswered);
            }
        }
        Segment::Other => {
            if let Some(facts) = sock.socket().and_then(maps::facts)
                && is_to_be_shown_again(facts)
            {
                sock.write_option(0);
            }
        }
    }
}

/// Has the server answered by a SYN cookie, and nothing since?
#[inline(always)]
fn is_to_be_shown_again(facts: &SocketFacts) -> bool {
    facts.role == Role::UPSTREAM && facts.mesh == Mesh::AGREED && facts.offers > 0
}

/// The route that a socket of this role publishes when it connects.
#[inline(always)]
fn route(role: Role) -> Option<Route> {
    match role {
        Role::APP_CLIENT => Some(Route::OUTBOUND),
        Role::APP_OWN => Some(Route::OWN),
        Role::TO_APP => Some(Route::TO_APP),
        _ => None,
    }
}

/// Takes what the connecting side has published for this accepted socket.
#[inline(always)]
fn take_flow(sock: &SockOps<'_>) -> Option<Flow> {
    let tuple = Tuple {
        client: sock.remote(),
        server: sock.local(),
    };
    let flow = maps::published(&tuple)?;
    maps::unpublish(&tuple);
    Some(flow)
}

/// The ends of a connection that this socket opened.
#[inline(always)]
fn dialled(sock: &SockOps<'_>) -> Tuple {
    Tuple {
        client: sock.local(),
        server: sock.remote(),
    }
}
