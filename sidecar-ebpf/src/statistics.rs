//! What TCP has measured on the legs of a connection: told when a leg closes, and now and then before.

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_SYN_RECV, BPF_TCP_SYN_SENT,
};
use sidecar_common::{SocketFacts, SocketStatistics};

use crate::{
    ctx::{self, SockOps},
    maps,
};

/// The callbacks by which a leg is followed: once per round trip at most, and when it closes.
pub const CALLBACKS: u32 = BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG;

/// A round trip was measured: tells of a leg that has not been told of for a while.
#[inline(always)]
pub fn round_trip(sock: &SockOps<'_>, facts: &mut SocketFacts) {
    let now = ctx::seconds();
    if facts.told == 0 {
        // It may not last so long.
        facts.told = now;
    } else if now - facts.told >= SocketStatistics::PERIOD {
        facts.told = now;
        maps::tell(&SocketStatistics {
            role: facts.role,
            last: 0,
            ..sock.statistics()
        });
    }
}

/// A leg closes. Of one that was never established there is nothing to tell.
#[inline(always)]
pub fn closing(sock: &SockOps<'_>, facts: &SocketFacts, before: u32) {
    if before != BPF_TCP_SYN_SENT && before != BPF_TCP_SYN_RECV {
        maps::tell(&SocketStatistics {
            role: facts.role,
            last: 1,
            ..sock.statistics()
        });
    }
}
