#![expect(unsafe_code, reason = "no crate offers TCP_SAVE_SYN")]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

use sidecar_common::{Role, Slot, SocketFacts};
use socket2::Socket;

use super::{Error, Sockets};
use crate::{bound::Bound, proxy::prepare_listener};

/// The proxy's listeners: one for each direction and family, each on a loopback port of the
/// kernel's choice.
///
/// Connections come to them by `sk_lookup`, whatever their destination. Bound to loopback, they
/// cannot be reached from the network by their own port.
pub struct Listeners {
    /// From the network to the app.
    pub inbound: Vec<std::net::TcpListener>,
    /// From the app to the network.
    pub outbound: Vec<std::net::TcpListener>,
}

impl Listeners {
    /// Opens the listeners in the current network namespace. Call it after
    /// [`Datapath::follow`](super::Datapath::follow): the kernel side arranges for the mesh option
    /// when they begin to listen.
    pub fn open(sockets: &Sockets) -> Result<Self, Error> {
        let mut listeners = Self {
            inbound: Vec::new(),
            outbound: Vec::new(),
        };
        for address in loopback_addresses() {
            listeners
                .inbound
                .push(open(sockets, Role::INBOUND, address)?);
            listeners
                .outbound
                .push(open(sockets, Role::OUTBOUND, address)?);
        }
        for listener in &listeners.inbound {
            let followed = sockets.is_followed(listener.as_fd());
            if !followed.map_err(Error::Facts)? {
                return Err(Error::OutsideCgroup);
            }
        }
        Ok(listeners)
    }

    /// Can connections over IPv6 come to them?
    pub fn take_ipv6(&self) -> bool {
        self.by_slot().any(|(slot, _)| slot == Slot::Inbound6)
    }

    /// The one by whose cookie its owner is known.
    pub(super) fn first(&self) -> &std::net::TcpListener {
        self.inbound
            .first()
            .expect("there is always a listener for IPv4")
    }

    pub(super) fn by_slot(&self) -> impl Iterator<Item = (Slot, &std::net::TcpListener)> {
        let inbound = self.inbound.iter().zip([Slot::Inbound4, Slot::Inbound6]);
        let outbound = self.outbound.iter().zip([Slot::Outbound4, Slot::Outbound6]);
        inbound
            .chain(outbound)
            .map(|(listener, slot)| (slot, listener))
    }
}

/// A listener for the sidecar itself, such as the admin endpoint, which is never captured.
///
/// It is bound early, while a bad address can be refused with nothing attached, and listens late:
/// the kernel side takes whatever listens before it is attached for the app's.
pub struct OwnListener {
    bound: Bound,
    address: SocketAddr,
}

impl OwnListener {
    /// Binds to the address.
    pub fn bind(sockets: &Sockets, address: SocketAddr) -> Result<Self, Error> {
        let bound = bind(sockets, Role::OWN, address)?;
        Ok(Self { bound, address })
    }

    /// Listens on an address as soon as the sidecar that is being replaced lets go of it.
    pub async fn when_free(sockets: &Sockets, address: SocketAddr) -> std::net::TcpListener {
        const PERIOD: Duration = Duration::from_millis(50);
        /// How often it is tried between two warnings.
        const PATIENCE: u32 = 200;
        let mut attempts = 0;
        loop {
            match Self::bind(sockets, address).and_then(Self::listen) {
                Ok(listener) => return listener,
                Err(error) => {
                    attempts += 1;
                    let is_unexpected = attempts == 1 && !error.is_address_in_use();
                    if is_unexpected || attempts % PATIENCE == 0 {
                        tracing::warn!("{error}; trying again");
                    }
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Begins to listen. Call it after [`Datapath::follow`](super::Datapath::follow).
    pub fn listen(self) -> Result<std::net::TcpListener, Error> {
        listen(self.bound, self.address)
    }
}

/// IPv4 first, as the slots have it. Without IPv6 in the kernel nothing can arrive over it.
fn loopback_addresses() -> Vec<SocketAddr> {
    let mut addresses = vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)];
    let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);
    if std::net::TcpListener::bind(v6).is_ok() {
        addresses.push(v6);
    }
    addresses
}

fn open(
    sockets: &Sockets,
    role: Role,
    address: SocketAddr,
) -> Result<std::net::TcpListener, Error> {
    let listening = bind(sockets, role, address).and_then(|bound| listen(bound, address));
    match listening {
        // No other has asked for it: there is none.
        Err(error) if error.is_address_in_use() => Err(Error::NoPort(address.ip())),
        listening => listening,
    }
}

/// Binds a socket whose role the kernel side knows before it can see it.
fn bind(sockets: &Sockets, role: Role, address: SocketAddr) -> Result<Bound, Error> {
    let prepare = |socket: &Socket| {
        let facts = SocketFacts {
            role,
            ..SocketFacts::default()
        };
        sockets.mark(socket.as_fd(), facts)?;
        if matches!(role, Role::INBOUND | Role::OUTBOUND) {
            prepare_listener(socket)?;
        }
        if role == Role::INBOUND {
            save_syn(socket.as_fd())?;
        }
        io::Result::Ok(())
    };
    Bound::new(address, prepare).map_err(|source| Error::Listener { address, source })
}

fn listen(bound: Bound, address: SocketAddr) -> Result<std::net::TcpListener, Error> {
    bound
        .listen()
        .map_err(|source| Error::Listener { address, source })
}

/// Keeps each client's SYN until its connection is established, when the kernel side looks into
/// it for the mesh option (`TCP_SAVE_SYN`, Linux 4.3).
fn save_syn(socket: BorrowedFd<'_>) -> io::Result<()> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an integer takes four bytes"
    )]
    const LENGTH: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length are those of a live integer, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVE_SYN,
            std::ptr::from_ref(&on).cast(),
            LENGTH,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
