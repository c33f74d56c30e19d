//! The ports on which the app listens, as the kernel side knows them.
//!
//! The kernel side sees sockets begin and cease to listen. What it cannot see is done here:
//! sockets that listened before it was attached are found by `sock_diag`, and forgotten when a
//! connection to one is refused.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use aya::maps::{HashMap as BpfHashMap, MapData, MapError};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use sidecar_common::Endpoint;

use super::Error;
use crate::pod::Cgroup;

/// Attribute with the id of a socket's cgroup, `INET_DIAG_CGROUP_ID` (Linux 5.8).
const CGROUP_ID: u16 = 21;

/// How many sockets listen on each address and port of the app.
pub(super) struct Listening {
    /// The map that `sk_lookup` asks. Locked because aya's interface wants exclusive access.
    map: Mutex<BpfHashMap<MapData, Endpoint, u64>>,
    /// The pod's cgroup: listeners outside it are nobody's business.
    cgroup: Cgroup,
    /// Id of the cgroup of this process; none if it cannot be told.
    own: Option<u64>,
}

impl Listening {
    /// Name of the map.
    pub(super) const MAP: &'static str = "SC_LISTENING";

    pub(super) fn new(
        map: BpfHashMap<MapData, Endpoint, u64>,
        cgroup: &Cgroup,
    ) -> Result<Self, Error> {
        Ok(Self {
            map: Mutex::new(map),
            cgroup: cgroup.try_clone().map_err(Error::SockDiag)?,
            own: Cgroup::of_this_process().ok().map(|own| own.id()),
        })
    }

    /// Does a socket with one of these cookies listen in this network namespace?
    pub(super) fn is_any_open(cookies: &[u64]) -> Result<bool, Error> {
        let listeners = dump(AF_INET, StateFlags::LISTEN).map_err(Error::SockDiag)?;
        Ok(listeners
            .iter()
            .map(|listener| u64::from_ne_bytes(listener.header.socket_id.cookie))
            .any(|cookie| cookies.contains(&cookie)))
    }

    /// Notes the sockets of the pod that listen already.
    ///
    /// Call it before the sidecar listens itself: the kernel side tells the two apart, this does not.
    pub(super) fn scan(&self) -> Result<(), Error> {
        self.note(|_| true)
    }

    /// Notes those sockets of the pod that listen already where it is asked for.
    fn note(&self, is_asked_for: impl Fn(&Endpoint) -> bool) -> Result<(), Error> {
        /// `BPF_NOEXIST`: what the kernel side has counted itself is right.
        const UNLESS_PRESENT: u64 = 1;
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let mut listeners = self.listeners().map_err(Error::SockDiag)?;
        listeners.retain(|endpoint, _| is_asked_for(endpoint));
        for (endpoint, sockets) in listeners {
            match map.insert(endpoint, sockets, UNLESS_PRESENT) {
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result.map_err(|source| Error::Map {
                    map: Self::MAP,
                    source,
                })?,
            }
        }
        Ok(())
    }

    /// Forgets a port on which a connection was refused, if indeed nobody listens there any more.
    pub(super) fn forget_if_gone(&self, destination: SocketAddr) {
        let destination = Endpoint::from(destination);
        let places = [destination, destination.wildcard(), destination.wildcard6()];
        let listeners = match self.listeners() {
            Ok(listeners) => listeners,
            Err(error) => {
                tracing::warn!(%error, "cannot list the sockets that listen in the pod");
                return;
            }
        };
        {
            let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
            for endpoint in places {
                if !listeners.contains_key(&endpoint) {
                    // Most of the three were never there.
                    let _ = map.remove(&endpoint);
                }
            }
        }
        // A socket may have begun to listen since they were listed.
        if let Err(error) = self.note(|endpoint| places.contains(endpoint)) {
            tracing::warn!("{error}");
        }
    }

    /// Has the app ended, as far as its sockets tell, and all that it has said arrived?
    ///
    /// No if it shares our cgroup, or before Linux 5.8: then its sockets cannot be told from ours.
    pub(super) fn is_app_done(&self) -> io::Result<bool> {
        let mut apps = self.cgroup.subtree_ids()?;
        if !self
            .own
            .is_some_and(|own| own != self.cgroup.id() && apps.remove(&own))
        {
            return Ok(false);
        }
        for family in [AF_INET, AF_INET6] {
            // What is left of a socket in TIME_WAIT belongs to nobody, and has nothing to send.
            let sockets = dump(family, StateFlags::all() - StateFlags::TIME_WAIT)?;
            let is_in_use = |socket| match cgroup_id(socket) {
                // One that nobody holds any more is on its way out by itself, and has no inode.
                Some(id) if apps.contains(&id) => socket.header.inode != 0,
                Some(_) => has_bytes(socket),
                // What is left of a socket that nobody holds may have no cgroup any more.
                None => socket.header.inode != 0,
            };
            if sockets.iter().any(is_in_use) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The sockets of the pod that listen now, counted by address and port.
    fn listeners(&self) -> io::Result<HashMap<Endpoint, u64>> {
        let cgroups = self.cgroup.subtree_ids()?;
        let mut listeners = HashMap::new();
        for family in [AF_INET, AF_INET6] {
            for response in dump(family, StateFlags::LISTEN)? {
                // Kernels before 5.8 do not say; then every listener of the namespace counts.
                if cgroup_id(&response).is_none_or(|id| cgroups.contains(&id)) {
                    *listeners.entry(endpoint(&response)).or_default() += 1;
                }
            }
        }
        Ok(listeners)
    }
}

fn endpoint(response: &InetResponse) -> Endpoint {
    let id = &response.header.socket_id;
    // The kernel gives an unspecified IPv6 address as it is, so `::` stays apart from `0.0.0.0`.
    let mut endpoint = Endpoint::from(SocketAddr::new(id.source_address, id.source_port));
    if id.source_address == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) {
        endpoint = endpoint.wildcard6();
    }
    endpoint
}

/// Are there bytes in it that have not been read, or not been acknowledged?
fn has_bytes(response: &InetResponse) -> bool {
    /// `TCP_LISTEN`: one that listens counts connections there.
    const LISTEN: u8 = 10;
    let header = &response.header;
    header.state != LISTEN && (header.recv_queue, header.send_queue) != (0, 0)
}

fn cgroup_id(response: &InetResponse) -> Option<u64> {
    response.nlas.iter().find_map(|nla| match nla {
        Nla::Other(attribute) => {
            use netlink_packet_core::Nla as _;
            if attribute.kind() != CGROUP_ID {
                return None;
            }
            let mut value = vec![0; attribute.value_len()];
            attribute.emit_value(&mut value);
            value.try_into().ok().map(u64::from_ne_bytes)
        }
        _ => None,
    })
}

/// Lists the TCP sockets of one family in this network namespace that are in one of these states.
fn dump(family: u8, states: StateFlags) -> io::Result<Vec<InetResponse>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;

    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let socket_id = if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    let mut request = NetlinkMessage::new(
        header,
        SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states,
            socket_id,
        })
        .into(),
    );
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut responses = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if read(&datagram, &mut responses)? {
            return Ok(responses);
        }
    }
}

/// What the kernel means by an error.
fn refused(code: i32) -> io::Error {
    let error = io::Error::from_raw_os_error(code);
    if code != libc::ENOENT {
        return error;
    }
    // Most load it themselves when they are asked, if there is a modprobe to do it.
    io::Error::new(
        io::ErrorKind::NotFound,
        "the kernel has no module for it: `modprobe tcp_diag` on the node loads it",
    )
}

/// Takes the sockets out of a datagram from the kernel. Says whether it was the last one.
fn read(datagram: &[u8], responses: &mut Vec<InetResponse>) -> io::Result<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        // A length of zero would keep us here for ever.
        let length = (message.header.length as usize).max(1).next_multiple_of(4);
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => {
                return Err(refused(error.raw_code().saturating_neg()));
            }
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                responses.push(*response);
            }
            _ => {}
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(false)
}

/// The sockets in a datagram, each with its cgroup's id if the kernel says it.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn listed(datagram: &[u8]) -> io::Result<Vec<(Endpoint, Option<u64>)>> {
    let mut responses = Vec::new();
    read(datagram, &mut responses)?;
    let listed = responses
        .iter()
        .map(|response| (endpoint(response), cgroup_id(response)));
    Ok(listed.collect())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_listed_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let found = dump(AF_INET, StateFlags::LISTEN)
            .expect("sock_diag needs no privileges")
            .iter()
            .filter(|response| response.header.socket_id.source_port == port)
            .count();
        assert_eq!(found, 1);
    }

    #[test]
    fn a_kernel_without_the_module_is_told_to_load_it() {
        assert!(refused(libc::ENOENT).to_string().contains("tcp_diag"));
        let other = refused(libc::EPERM).to_string();
        assert!(other.contains("not permitted"), "{other}");
    }

    #[test]
    fn the_two_wildcards_are_told_apart() {
        let listener = TcpListener::bind("[::]:0").expect("IPv6");
        let port = listener.local_addr().expect("a bound socket").port();
        let response = dump(AF_INET6, StateFlags::LISTEN)
            .expect("sock_diag needs no privileges")
            .into_iter()
            .find(|response| response.header.socket_id.source_port == port)
            .expect("the listener is listed");
        assert_eq!(endpoint(&response).addr, [0; 4]);
    }
}
