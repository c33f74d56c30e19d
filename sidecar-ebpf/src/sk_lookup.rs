//! `sk_lookup`: chooses the socket for each new connection that arrives in the pod's namespace.

use aya_ebpf::{
    bindings::sk_action::{SK_DROP, SK_PASS},
    macros::sk_lookup,
    programs::SkLookupContext,
};
use aya_log_ebpf::warn;
use sidecar_common::{
    Endpoint, Event, Flow, Route, Slot,
    policy::{Direction, Mode},
};

use crate::{ctx::SkLookup, maps};

/// Steers a new connection to the proxy, or leaves it to the kernel's own look-up.
///
/// It may run twice for one connection: with SYN cookies the kernel looks up again when the ACK
/// arrives. So it only reads.
#[sk_lookup]
pub fn sc_sk_lookup(ctx: SkLookupContext) -> u32 {
    let lookup = SkLookup::new(&ctx);
    if !lookup.is_tcp() {
        return SK_PASS;
    }
    let tuple = lookup.tuple();
    if tuple.client.is_loopback() || tuple.server.is_spread() || tuple.server.is_loopback() {
        // An app may bind its end to an address of the pod and still be redirected, so the flow
        // is looked up for either end.
        if let Some(flow) = maps::published(&tuple) {
            return published(&ctx, &flow, &tuple.server);
        }
        if tuple.server.is_spread() {
            // Most often a late segment of a connection that is over, to which the kernel answers
            // with a reset either way. But were the table of flows full, its own look-up could
            // find an app that listens on the port by chance, and hand it a stranger's connection.
            maps::count(Event::DroppedUnknownFlow);
            return SK_DROP;
        }
        if tuple.server.is_loopback() {
            maps::count(Event::InboundLocalhost);
            return SK_PASS;
        }
    }
    from_network(&ctx, &tuple.client, &tuple.server)
}

/// A connection whose connecting side has told where it belongs.
#[inline(always)]
fn published(ctx: &SkLookupContext, flow: &Flow, server: &Endpoint) -> u32 {
    match flow.route {
        // Its address on loopback leads nowhere else, so this is never open.
        Route::OUTBOUND => match assign(ctx, Slot::outbound(server)) {
            Assigned::Done => SK_PASS,
            Assigned::NobodyListens => {
                maps::count(Event::DroppedNoListener);
                warn!(ctx, "refused a connection of the app: no proxy listens");
                SK_DROP
            }
            Assigned::Failed => SK_DROP,
        },
        // Our own dial, which must not come back to us.
        Route::TO_APP => {
            maps::count(Event::InboundDialledApp);
            SK_PASS
        }
        _ => {
            maps::count(Event::InboundLocalhost);
            SK_PASS
        }
    }
}

/// A connection from somewhere else, or from the pod to itself.
#[inline(always)]
fn from_network(ctx: &SkLookupContext, client: &Endpoint, server: &Endpoint) -> u32 {
    if !maps::is_listening(server) {
        // The kernel answers with a reset, as without us.
        maps::count(Event::InboundNotListening);
        return SK_PASS;
    }
    if client.is_dial_source() {
        // The same for our dials to the app. Steered, an unpublished one would go round for ever. To a
        // port of nobody's here it is the dial of another sidecar in this network namespace.
        maps::count(Event::DroppedUnknownFlow);
        return SK_DROP;
    }
    if maps::is_excluded_port(Direction::Inbound, server.port) {
        maps::count(Event::InboundExcludedPort);
        return SK_PASS;
    }
    let mode = maps::mode(Direction::Inbound, server.port, client);
    if mode == Mode::OFF {
        maps::count(Event::InboundOff);
        return SK_PASS;
    }
    if maps::is_probe(server.port, client) {
        maps::count(Event::InboundProbe);
        return SK_PASS;
    }
    match assign(ctx, Slot::inbound(server)) {
        Assigned::Done => {
            maps::count(Event::InboundSteered);
            SK_PASS
        }
        Assigned::NobodyListens if mode != Mode::STRICT && maps::fails_open(Direction::Inbound) => {
            maps::count(Event::InboundFailedOpen);
            SK_PASS
        }
        Assigned::NobodyListens => {
            maps::count(Event::DroppedNoListener);
            warn!(ctx, "refused a connection to the app: no proxy listens");
            SK_DROP
        }
        Assigned::Failed => SK_DROP,
    }
}

/// What came of handing a connection to the proxy.
enum Assigned {
    /// The proxy has it.
    Done,
    /// The slot is empty. Unless the rules say otherwise the connection is refused: the client sees
    /// `ECONNREFUSED` at once, and nothing travels in plaintext.
    NobodyListens,
    /// The kernel would not, which is counted and logged. The connection is refused.
    Failed,
}

/// Gives the connection to a listener of the proxy, whatever another program has chosen before: that is
/// chosen again when the proxy dials the app.
#[inline(always)]
fn assign(ctx: &SkLookupContext, slot: Slot) -> Assigned {
    /// `BPF_SK_LOOKUP_F_REPLACE` of the UAPI.
    const REPLACE: u64 = 1;
    /// Negated errno of an empty slot.
    const NO_ENTRY: i32 = -2;
    match maps::listeners().redirect_sk_lookup(ctx, slot as u32, REPLACE) {
        Ok(()) => Assigned::Done,
        Err(NO_ENTRY) => Assigned::NobodyListens,
        Err(errno) => {
            maps::count(Event::DroppedAssignFailed);
            warn!(
                ctx,
                "refused a connection: errno {} on assigning slot {}", errno, slot as u32
            );
            Assigned::Failed
        }
    }
}
