//! The only place that reads and writes context fields.
//!
//! Each access is volatile and 32 bits wide (16 or 64 where the field is): LLVM otherwise merges
//! neighbouring ones, and the verifier refuses that with "invalid bpf_context access off=32
//! size=8" or "dereference of modified ctx ptr". Byte orders are undone here; elsewhere ports are
//! in host order and addresses in network order.

use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_TCP_LISTEN, bpf_sk_lookup, bpf_sock},
    helpers::{
        bpf_get_socket_cookie,
        generated::{
            bpf_ktime_get_ns, bpf_load_hdr_opt, bpf_reserve_hdr_opt, bpf_sk_fullsock,
            bpf_sock_ops_cb_flags_set, bpf_store_hdr_opt,
        },
    },
    programs::{SkBuffContext, SkLookupContext, SockAddrContext, SockOpsContext},
};
use sidecar_common::{Endpoint, SocketStatistics, Tuple, option};

/// Address family of IPv4.
const AF_INET: u32 = 2;
/// Socket type of a byte stream.
const SOCK_STREAM: u32 = 1;
/// Protocol number of TCP.
const IPPROTO_TCP: u32 = 6;

/// Bit of the SYN in the TCP flags.
const TCP_FLAG_SYN: u32 = 0x02;
/// Bit of the ACK in the TCP flags.
const TCP_FLAG_ACK: u32 = 0x10;

macro_rules! read {
    ($ctx:expr, $($field:tt)+) => {
        // SAFETY: the kernel hands out a valid context for as long as the program runs.
        unsafe { read_volatile(addr_of!((*$ctx).$($field)+)) }
    };
}

macro_rules! write {
    ($ctx:expr, $($field:tt)+) => {
        // SAFETY: as for `read!`.
        |value| unsafe { write_volatile(addr_of_mut!((*$ctx).$($field)+), value) }
    };
}

/// Reads the address of one end, of whichever family the connection has.
///
/// Both forms are read in any case and one is chosen afterwards: from two branches LLVM makes one
/// load through a chosen pointer, which the verifier refuses ("dereference of modified ctx ptr R2
/// off=44 disallowed").
macro_rules! read_endpoint {
    ($ctx:expr, $v4:ident, $v6:ident, $port:expr) => {{
        let is_v4 = read!($ctx, family) == AF_INET;
        let v4 = read!($ctx, $v4);
        let v6 = [
            read!($ctx, $v6[0]),
            read!($ctx, $v6[1]),
            read!($ctx, $v6[2]),
            read!($ctx, $v6[3]),
        ];
        let port = $port;
        if is_v4 {
            Endpoint::v4(v4, port)
        } else {
            Endpoint { addr: v6, port }
        }
    }};
}

/// A full socket, never null.
#[derive(Clone, Copy)]
pub struct Socket(*mut bpf_sock);

impl Socket {
    /// The pointer for helpers.
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut bpf_sock {
        self.0
    }

    /// Index of the device the socket is bound to, 0 for none.
    #[inline(always)]
    pub fn bound_device(self) -> u32 {
        read!(self.0, bound_dev_if)
    }

    /// Is it a TCP socket, and no raw one that writes segments by hand?
    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        read!(self.0, type_) == SOCK_STREAM && read!(self.0, protocol) == IPPROTO_TCP
    }

    /// Does it wait for connections? Its segments are then the answers to their SYNs.
    #[inline(always)]
    pub fn is_listening(self) -> bool {
        read!(self.0, state) == BPF_TCP_LISTEN
    }
}

/// The context of the `connect`, `getpeername` and `getsockname` hooks, of one family.
pub struct SockAddr<'a, const V6: bool> {
    ctx: &'a SockAddrContext,
}

impl<'a, const V6: bool> SockAddr<'a, V6> {
    /// Wraps the context of a hook of this family.
    #[inline(always)]
    pub const fn new(ctx: &'a SockAddrContext) -> Self {
        Self { ctx }
    }

    /// Is the socket TCP?
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        read!(self.ctx.sock_addr, type_) == SOCK_STREAM
            && read!(self.ctx.sock_addr, protocol) == IPPROTO_TCP
    }

    /// The socket the call is made on.
    #[inline(always)]
    pub fn socket(&self) -> Socket {
        Socket(read!(self.ctx.sock_addr, __bindgen_anon_1.sk))
    }

    /// A number that no other socket of this boot has.
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_socket_cookie(self.ctx.sock_addr.cast()) }
    }

    /// The address the call is about.
    #[inline(always)]
    pub fn address(&self) -> Endpoint {
        // The field is 32 bits wide and holds 16 bits in network order.
        let port = u16::from_be(read!(self.ctx.sock_addr, user_port) as u16).into();
        if V6 {
            Endpoint {
                addr: [
                    read!(self.ctx.sock_addr, user_ip6[0]),
                    read!(self.ctx.sock_addr, user_ip6[1]),
                    read!(self.ctx.sock_addr, user_ip6[2]),
                    read!(self.ctx.sock_addr, user_ip6[3]),
                ],
                port,
            }
        } else {
            Endpoint::v4(read!(self.ctx.sock_addr, user_ip4), port)
        }
    }

    /// Replaces the address, leaving the port.
    ///
    /// On an IPv6 socket an IPv4 address takes its mapped form, as the kernel itself reports it.
    #[inline(always)]
    pub fn set_ip(&self, addr: [u32; 4]) {
        if V6 {
            write!(self.ctx.sock_addr, user_ip6[0])(addr[0]);
            write!(self.ctx.sock_addr, user_ip6[1])(addr[1]);
            write!(self.ctx.sock_addr, user_ip6[2])(addr[2]);
            write!(self.ctx.sock_addr, user_ip6[3])(addr[3]);
        } else {
            write!(self.ctx.sock_addr, user_ip4)(addr[3]);
        }
    }

    /// Replaces address and port.
    #[inline(always)]
    pub fn set_address(&self, endpoint: &Endpoint) {
        self.set_ip(endpoint.addr);
        write!(self.ctx.sock_addr, user_port)((endpoint.port as u16).to_be().into());
    }
}

/// The context of `sock_ops`.
pub struct SockOps<'a> {
    ctx: &'a SockOpsContext,
}

impl<'a> SockOps<'a> {
    /// Wraps the context.
    #[inline(always)]
    pub const fn new(ctx: &'a SockOpsContext) -> Self {
        Self { ctx }
    }

    /// What has happened to the socket: one of `BPF_SOCK_OPS_*_CB`.
    #[inline(always)]
    pub fn op(&self) -> u32 {
        read!(self.ctx.ops, op)
    }

    /// The socket, unless it is only a request for one.
    #[inline(always)]
    pub fn socket(&self) -> Option<Socket> {
        let socket: *mut bpf_sock = read!(self.ctx.ops, __bindgen_anon_2.sk);
        (!socket.is_null()).then_some(Socket(socket))
    }

    /// First argument of the callback.
    #[inline(always)]
    pub fn arg0(&self) -> u32 {
        read!(self.ctx.ops, __bindgen_anon_1.args[0])
    }

    /// Second argument of the callback.
    #[inline(always)]
    pub fn arg1(&self) -> u32 {
        read!(self.ctx.ops, __bindgen_anon_1.args[1])
    }

    /// This end.
    #[inline(always)]
    pub fn local(&self) -> Endpoint {
        read_endpoint!(
            self.ctx.ops,
            local_ip4,
            local_ip6,
            read!(self.ctx.ops, local_port)
        )
    }

    /// The other end.
    #[inline(always)]
    pub fn remote(&self) -> Endpoint {
        // The field holds 32 bits in network order of which the port is the first 16.
        let port = u32::from_be(read!(self.ctx.ops, remote_port));
        read_endpoint!(self.ctx.ops, remote_ip4, remote_ip6, port)
    }

    /// A number that no other socket of this boot has.
    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_socket_cookie(self.ctx.ops.cast()) }
    }

    /// What TCP has measured so far, of a full socket. Whose it is, and whether it is the last, is
    /// left open.
    #[inline(always)]
    pub fn statistics(&self) -> SocketStatistics {
        SocketStatistics {
            cookie: self.cookie(),
            acknowledged: read!(self.ctx.ops, bytes_acked),
            received: read!(self.ctx.ops, bytes_received),
            smoothed_rtt: read!(self.ctx.ops, srtt_us),
            min_rtt: read!(self.ctx.ops, rtt_min),
            retransmitted: read!(self.ctx.ops, total_retrans),
            congestion_window: read!(self.ctx.ops, snd_cwnd),
            ..SocketStatistics::default()
        }
    }

    /// Asks for more callbacks on this socket.
    #[inline(always)]
    pub fn watch(&self, flags: u32) {
        self.watch_instead(0, flags);
    }

    /// Asks for no more callbacks of a kind on this socket.
    #[inline(always)]
    pub fn unwatch(&self, flags: u32) {
        self.watch_instead(flags, 0);
    }

    /// Asks for other callbacks on this socket. What is in neither is left as it is: other programs
    /// may have asked for it.
    #[inline(always)]
    pub fn watch_instead(&self, gone: u32, flags: u32) {
        let now = read!(self.ctx.ops, bpf_sock_ops_cb_flags);
        let flags = (now & !gone) | flags;
        if flags != now {
            // SAFETY: the context is valid. It fails only on a request socket, where nobody asks.
            let _ = unsafe { bpf_sock_ops_cb_flags_set(self.ctx.ops, flags as i32) };
        }
    }

    /// What segment a header-option callback is about.
    #[inline(always)]
    pub fn segment(&self) -> Segment {
        match read!(self.ctx.ops, skb_tcp_flags) & (TCP_FLAG_SYN | TCP_FLAG_ACK) {
            TCP_FLAG_SYN => Segment::Syn,
            flags if flags & TCP_FLAG_SYN != 0 => Segment::SynAck,
            _ => Segment::Other,
        }
    }

    /// Is the segment of a header-option callback an answer in place of which nothing is kept: a SYN
    /// cookie?
    #[inline(always)]
    pub fn is_cookie(&self) -> bool {
        /// Of the UAPI.
        const BPF_WRITE_HDR_TCP_SYNACK_COOKIE: u32 = 2;
        self.arg0() == BPF_WRITE_HDR_TCP_SYNACK_COOKIE
    }

    /// Does the segment at hand (or, with `BPF_LOAD_HDR_OPT_TCP_SYN`, the peer's SYN) carry our
    /// option, in a version that we speak?
    #[inline(always)]
    pub fn has_option(&self, flags: u64) -> bool {
        self.option(flags).is_some()
    }

    /// The flags of our option in that segment, if it carries it in a version that we speak.
    #[inline(always)]
    pub fn option(&self, flags: u64) -> Option<u8> {
        // The helper searches for kind and experiment identifier, then fills in the rest. It
        // wants room for the longest match that the search pattern allows.
        let mut found = [
            option::KIND,
            4,
            option::EXPERIMENT[0],
            option::EXPERIMENT[1],
            0,
            0,
            0,
            0,
        ];
        // SAFETY: the context is valid and the length is that of the buffer.
        let length = unsafe {
            bpf_load_hdr_opt(
                self.ctx.ops,
                found.as_mut_ptr().cast(),
                found.len() as u32,
                flags,
            )
        };
        (length >= option::LENGTH as i64 && found[4] == option::VERSION).then_some(found[5])
    }

    /// Makes room for our option in the segment at hand.
    #[inline(always)]
    pub fn reserve_option(&self) {
        // SAFETY: the context is valid. Without room the option is simply not written.
        let _ = unsafe { bpf_reserve_hdr_opt(self.ctx.ops, option::LENGTH as u32, 0) };
    }

    /// Writes our option with these flags into the segment at hand; `false` if there is no room.
    #[inline(always)]
    pub fn write_option(&self, flags: u8) -> bool {
        let bytes = option::bytes(flags);
        // SAFETY: the context is valid and the length is that of the bytes.
        let result = unsafe {
            bpf_store_hdr_opt(
                self.ctx.ops,
                bytes.as_ptr().cast(),
                option::LENGTH as u32,
                0,
            )
        };
        result == 0
    }
}

/// Seconds since the boot.
#[inline(always)]
pub fn seconds() -> u32 {
    const NANOSECONDS: u64 = 1_000_000_000;
    // SAFETY: it may be called at any time.
    (unsafe { bpf_ktime_get_ns() } / NANOSECONDS) as u32
}

/// Which segment of a connection an option could go into.
#[derive(Clone, Copy, PartialEq)]
pub enum Segment {
    /// The first of the client.
    Syn,
    /// The first of the server.
    SynAck,
    /// Any later one.
    Other,
}

/// The context of `sk_lookup`.
pub struct SkLookup<'a> {
    ctx: &'a SkLookupContext,
}

impl<'a> SkLookup<'a> {
    /// Wraps the context.
    #[inline(always)]
    pub const fn new(ctx: &'a SkLookupContext) -> Self {
        Self { ctx }
    }

    /// Is the packet TCP?
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        read!(self.lookup(), protocol) == IPPROTO_TCP
    }

    /// The two ends of the connection that the packet wants to open.
    #[inline(always)]
    pub fn tuple(&self) -> Tuple {
        let lookup = self.lookup();
        let remote_port = u16::from_be(read!(lookup, remote_port)).into();
        let local_port = read!(lookup, local_port);
        Tuple {
            client: read_endpoint!(lookup, remote_ip4, remote_ip6, remote_port),
            server: read_endpoint!(lookup, local_ip4, local_ip6, local_port),
        }
    }

    #[inline(always)]
    const fn lookup(&self) -> *mut bpf_sk_lookup {
        self.ctx.lookup
    }
}

/// The context of `cgroup_skb`: a packet, from its IP header on.
pub struct Packet<'a> {
    ctx: &'a SkBuffContext,
}

impl<'a> Packet<'a> {
    /// Wraps the context.
    #[inline(always)]
    pub const fn new(ctx: &'a SkBuffContext) -> Self {
        Self { ctx }
    }

    /// Is it about to go over loopback, and so to stay in the pod?
    #[inline(always)]
    pub fn is_on_loopback(&self) -> bool {
        /// Index of the loopback device in every network namespace.
        const LOOPBACK: u32 = 1;
        read!(self.skb(), ifindex) == LOOPBACK
    }

    /// Is it IPv4?
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        /// `ETH_P_IP`.
        const IPV4: u16 = 0x0800;
        // The field is 32 bits wide and holds 16 bits in network order.
        u16::from_be(read!(self.skb(), protocol) as u16) == IPV4
    }

    /// Its length in bytes.
    #[inline(always)]
    pub fn length(&self) -> u32 {
        read!(self.skb(), len)
    }

    /// Bytes at a distance from the start of the IP header; `None` if it ends before.
    #[inline(always)]
    pub fn bytes<const COUNT: usize>(&self, offset: u32) -> Option<[u8; COUNT]> {
        self.ctx.load(offset as usize).ok()
    }

    /// The socket that sends it.
    #[inline(always)]
    pub fn socket(&self) -> Option<Socket> {
        let socket: *mut bpf_sock = read!(self.skb(), __bindgen_anon_2.sk);
        if socket.is_null() {
            return None;
        }
        // SAFETY: the context's pointer is to a socket of some kind, and not null.
        let socket = unsafe { bpf_sk_fullsock(socket) };
        (!socket.is_null()).then_some(Socket(socket))
    }

    #[inline(always)]
    const fn skb(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }
}
