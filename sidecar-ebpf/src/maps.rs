//! The maps, and the few things that programs do with them.

use core::{ffi::c_void, ptr::read_volatile};

use aya_ebpf::{
    bindings::{
        BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE,
        bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
    },
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, SockMap, lpm_trie::Key},
    helpers::generated::{
        bpf_map_lookup_elem, bpf_sk_release, bpf_sk_storage_delete, bpf_sk_storage_get,
    },
    macros::btf_map,
};
use sidecar_common::{
    Endpoint, Event, Flow, Owner, Slot, SocketFacts, SocketStatistics, Tuple,
    policy::{Direction, Failure, Mode, ModeKey, port_key, room},
};

use crate::ctx::Socket;

/// What is known of each socket of the pod, app's and proxy's alike.
#[btf_map]
static SC_SOCKETS: SocketStorage = SocketStorage::new();

/// Handshakes over loopback under way, by their addresses and ports.
///
/// Not an LRU map: an eviction would send somebody's connection astray.
#[btf_map]
static SC_FLOWS: HashMap<Tuple, Flow, 65_536> = HashMap::new();

/// How many sockets of the app listen on each address and port.
///
/// Entries are never taken out by programs, so there is room for every port on both wildcards.
#[btf_map]
static SC_LISTENING: HashMap<Endpoint, u64, 131_072, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// The proxy's listeners.
#[btf_map]
static SC_LISTENERS: SockMap<{ Slot::COUNT }> = SockMap::new();

/// What happens to a connection, by direction, port and remote address.
#[btf_map]
static SC_MODES: LpmTrie<ModeKey, u32, { room::NETWORKS }> = LpmTrie::new();

/// Who may ask whether the app lives, past the proxy: its ports, each with remote networks. Keys are
/// those of the modes, inbound; only that they are there matters.
#[btf_map]
static SC_PROBES: LpmTrie<ModeKey, u32, { room::NETWORKS }> = LpmTrie::new();

/// What happens to connections of each direction while no proxy serves.
#[btf_map]
static SC_FAILURES: Array<u32, { Direction::COUNT }> = Array::new();

/// Networks to which connections are left alone.
#[btf_map]
static SC_EXCLUDED_NETS: LpmTrie<[u32; 4], u32, { room::NETWORKS }> = LpmTrie::new();

/// Ports, each with a direction, whose connections are left alone.
#[btf_map]
static SC_EXCLUDED_PORTS: HashMap<u32, u32, { room::PORTS }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// Users whose connections are left alone.
#[btf_map]
static SC_EXCLUDED_UIDS: HashMap<u32, u32, { room::USERS }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// The pod's own address towards each network, for `getsockname()` of redirected sockets.
#[btf_map]
static SC_OWN_ADDRS: LpmTrie<[u32; 4], [u32; 4], 1_024> = LpmTrie::new();

/// How often each [`Event`] happened.
#[btf_map]
static SC_EVENTS: PerCpuArray<u64, { Event::ALL.len() }> = PerCpuArray::new();

/// What TCP has measured on the proxy's sockets, for whoever serves the pod to read: room for some
/// 9,000 records.
#[btf_map]
static SC_STATISTICS: RingBuf<SocketStatistics, 524_288> = RingBuf::new();

/// Version of the layout of everything pinned ([`sidecar_common::ABI`]); for daemons alone.
#[btf_map]
static SC_ABI: Array<u32, 1> = Array::new();

/// Who serves the pod; for daemons alone.
#[btf_map]
static SC_OWNER: Array<Owner, 1> = Array::new();

/// Counts one event.
#[inline(always)]
pub fn count(event: Event) {
    if let Some(counter) = SC_EVENTS.get_ptr_mut(event as u32) {
        // SAFETY: the pointer is to this CPU's slot. An interrupt that counts the same event in
        // between can cost one count, never more.
        unsafe { *counter += 1 };
    }
}

/// Tells the daemon what was measured on a socket.
#[inline(always)]
pub fn tell(statistics: &SocketStatistics) {
    if SC_STATISTICS.output(*statistics, 0).is_err() {
        count(Event::StatisticsLost);
    }
}

/// The mode of a connection.
///
/// An entry for the port wins over one for every port; among those the longest prefix wins. The
/// daemon always writes an entry for everything; if it is missing, the proxy decides.
#[inline(always)]
pub fn mode(direction: Direction, port: u32, remote: &Endpoint) -> Mode {
    let for_port = Key::new(
        ModeKey::BITS,
        ModeKey::new(direction, port as u16, remote.addr),
    );
    let for_every_port = Key::new(ModeKey::BITS, ModeKey::new(direction, 0, remote.addr));
    match SC_MODES
        .get(&for_port)
        .or_else(|| SC_MODES.get(&for_every_port))
    {
        Some(mode) => Mode(*mode),
        None => Mode::PERMISSIVE,
    }
}

/// May connections of this direction pass in plaintext while no proxy serves? Those whose mode is
/// [`Mode::STRICT`] never may.
#[inline(always)]
pub fn fails_open(direction: Direction) -> bool {
    SC_FAILURES
        .get(direction as u32)
        .is_some_and(|failure| Failure(*failure) == Failure::OPEN)
}

/// Is the port excluded in this direction?
#[inline(always)]
pub fn is_excluded_port(direction: Direction, port: u32) -> bool {
    SC_EXCLUDED_PORTS
        .get_ptr(port_key(direction, port as u16))
        .is_some()
}

/// May a connection from here to this port of the app pass in plaintext, whatever the mode?
#[inline(always)]
pub fn is_probe(port: u32, remote: &Endpoint) -> bool {
    let key = ModeKey::new(Direction::Inbound, port as u16, remote.addr);
    SC_PROBES.get(&Key::new(ModeKey::BITS, key)).is_some()
}

/// Is the address in an excluded network?
#[inline(always)]
pub fn is_excluded_net(remote: &Endpoint) -> bool {
    SC_EXCLUDED_NETS.get(&Key::new(128, remote.addr)).is_some()
}

/// Is the user excluded?
#[inline(always)]
pub fn is_excluded_uid(uid: u32) -> bool {
    SC_EXCLUDED_UIDS.get_ptr(uid).is_some()
}

/// The pod's own address towards `remote`, where the daemon knows one.
#[inline(always)]
pub fn own_addr(remote: &Endpoint) -> Option<[u32; 4]> {
    SC_OWN_ADDRS.get(&Key::new(128, remote.addr)).copied()
}

/// Publishes a handshake that is about to begin.
#[inline(always)]
pub fn publish(tuple: &Tuple, flow: &Flow) {
    if SC_FLOWS.insert(tuple, flow, 0).is_err() {
        count(Event::FlowTableFull);
    }
}

/// The published handshake between these two ends.
#[inline(always)]
pub fn published(tuple: &Tuple) -> Option<Flow> {
    // SAFETY: the value is copied out at once. A slot is only reused after its handshake is over.
    unsafe { SC_FLOWS.get(tuple) }.copied()
}

/// Takes a handshake back, whether or not it was published.
#[inline(always)]
pub fn unpublish(tuple: &Tuple) {
    // Most often it is gone already, because the accepting side took it.
    let _ = SC_FLOWS.remove(tuple);
}

/// Notes that one more socket of the app listens here.
#[inline(always)]
pub fn listen(local: &Endpoint) {
    if add_listener(local) {
        return;
    }
    // Sockets that share a port may begin to listen on two CPUs at once: one inserts, one adds.
    if SC_LISTENING.insert(local, 1, BPF_NOEXIST.into()).is_err() && !add_listener(local) {
        count(Event::ListenTableFull);
    }
}

/// Notes that one socket of the app no longer listens here.
///
/// The entry stays, at zero: taken out, it could be lost for a socket that begins to listen
/// meanwhile, whose connections would then reach the app unsteered.
#[inline(always)]
pub fn unlisten(local: &Endpoint) {
    if let Some(sockets) = SC_LISTENING.get_ptr_mut(local) {
        // Wraps to minus one.
        add(sockets, u64::MAX);
    }
}

/// Does the app listen where this connection is going?
#[inline(always)]
pub fn is_listening(local: &Endpoint) -> bool {
    let listens = |endpoint: &Endpoint| match SC_LISTENING.get_ptr(endpoint) {
        // SAFETY: the pointer is to a live map value.
        Some(sockets) => unsafe { read_volatile(sockets) != 0 },
        None => false,
    };
    listens(local) || listens(&local.wildcard()) || (local.is_v4() && listens(&local.wildcard6()))
}

/// Adds one to an entry; `false` if there is none.
#[inline(always)]
fn add_listener(local: &Endpoint) -> bool {
    let Some(sockets) = SC_LISTENING.get_ptr_mut(local) else {
        return false;
    };
    add(sockets, 1);
    true
}

/// Adds atomically. `core` has no such operation for this target, because kernels before 5.12 can
/// add but not fetch.
#[inline(always)]
fn add(sockets: *mut u64, number: u64) {
    // SAFETY: the address is that of a live map value of eight bytes, aligned to them.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({sockets} + 0) += {number}",
            sockets = in(reg) sockets,
            number = in(reg) number,
        );
    }
}

/// The listeners of the proxy, to which a new connection can be assigned.
#[inline(always)]
pub fn listeners() -> &'static SockMap<{ Slot::COUNT }> {
    &SC_LISTENERS
}

/// Does a listener of the proxy stand in this slot?
#[inline(always)]
pub fn has_listener(slot: Slot) -> bool {
    let slot = slot as u32;
    // SAFETY: the map holds sockets by a `u32`, which the pointer is to.
    let listener = unsafe {
        bpf_map_lookup_elem(
            core::ptr::from_ref(&SC_LISTENERS).cast_mut().cast(),
            core::ptr::from_ref(&slot).cast(),
        )
    };
    if listener.is_null() {
        return false;
    }
    // SAFETY: the look-up took a reference to the socket, and nothing else has given it back.
    let _ = unsafe { bpf_sk_release(listener) };
    true
}

/// What is known of the socket, if anything.
#[inline(always)]
pub fn facts(socket: Socket) -> Option<&'static mut SocketFacts> {
    // SAFETY: the verifier proved the pointer to be a full socket.
    let facts = unsafe {
        bpf_sk_storage_get(
            SC_SOCKETS.as_ptr(),
            socket.as_ptr().cast(),
            core::ptr::null_mut(),
            0,
        )
    };
    // SAFETY: storage lives as long as its socket, which is held while the program runs, and the
    // socket's own lock serialises the hooks that write to it.
    unsafe { facts.cast::<SocketFacts>().as_mut() }
}

/// Remembers the facts of a socket of which nothing was known; `false` if there is no memory.
#[inline(always)]
pub fn remember(socket: Socket, facts: &SocketFacts) -> bool {
    // SAFETY: the verifier proved the pointer to be a full socket, and the helper copies the
    // initial value.
    let stored = unsafe {
        bpf_sk_storage_get(
            SC_SOCKETS.as_ptr(),
            socket.as_ptr().cast(),
            core::ptr::from_ref(facts).cast_mut().cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    };
    // SAFETY: as in `facts`.
    let Some(stored) = (unsafe { stored.cast::<SocketFacts>().as_mut() }) else {
        return false;
    };
    *stored = *facts;
    true
}

/// Forgets what is known of a socket.
#[inline(always)]
pub fn forget(socket: Socket) {
    // SAFETY: the verifier proved the pointer to be a full socket.
    let _ = unsafe { bpf_sk_storage_delete(SC_SOCKETS.as_ptr(), socket.as_ptr().cast()) };
}

/// Definition of a socket storage map whose values an accepted socket inherits from its listener.
///
/// `aya_ebpf::btf_maps::SkStorage` cannot express that (`BPF_F_CLONE`), and takes no socket from
/// any other context than `sock_addr`.
#[repr(C)]
struct SocketStorage {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const SocketFacts,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the fields only carry types for the loader; nothing ever reads them.
unsafe impl Sync for SocketStorage {}

impl SocketStorage {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    const fn as_ptr(&self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}
