use std::{
    io,
    os::fd::BorrowedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{MapData, MapError, SkStorage};
use sidecar_common::{Endpoint, Mesh, Role, SocketFacts};
use socket2::SockRef;

use super::{listening::Listening, maps::into_io};
use crate::proxy::{ClientAddr, Kernel, OrigDst};

/// The kernel's facts about single sockets, read and written by file descriptor.
pub struct Sockets {
    /// Facts of each socket. The kernel needs no lock; aya's interface asks for exclusive access
    /// to write, and holding it for one system call costs less than a map handle per thread.
    facts: Mutex<SkStorage<MapData, SocketFacts>>,
    /// The ports on which the app listens.
    listening: Listening,
}

impl Sockets {
    pub(super) fn new(facts: SkStorage<MapData, SocketFacts>, listening: Listening) -> Self {
        Self {
            facts: Mutex::new(facts),
            listening,
        }
    }

    /// Gives a socket of the proxy its role, before the kernel side sees it connect or listen.
    pub(super) fn mark(&self, socket: BorrowedFd<'_>, facts: SocketFacts) -> io::Result<()> {
        self.lock().insert(&socket, facts, 0).map_err(into_io)
    }

    /// Has the kernel side seen this socket begin to listen?
    pub(super) fn is_followed(&self, listener: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(self
            .read(listener)?
            .is_some_and(|facts| facts.followed != 0))
    }

    /// Has the app ended, as far as its sockets tell, and all that it has said arrived?
    pub fn is_app_done(&self) -> bool {
        self.listening.is_app_done().unwrap_or_else(|error| {
            tracing::debug!("cannot tell whether the app has ended: {error}");
            false
        })
    }

    pub(super) fn listening(&self) -> &Listening {
        &self.listening
    }

    fn read(&self, socket: BorrowedFd<'_>) -> io::Result<Option<SocketFacts>> {
        match self.lock().get(&socket, 0) {
            Ok(facts) => Ok(Some(facts)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(into_io(error)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, SkStorage<MapData, SocketFacts>> {
        // The map handle has no state that a panic could leave half-written.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kernel for Sockets {
    fn app_refused(&self, destination: OrigDst) {
        self.listening.forget_if_gone(destination.0);
    }

    fn cookie(&self, socket: BorrowedFd<'_>) -> io::Result<u64> {
        SockRef::from(&socket).cookie()
    }

    fn mark_to_app(&self, socket: BorrowedFd<'_>, client: ClientAddr) -> io::Result<()> {
        self.mark(
            socket,
            SocketFacts {
                role: Role::TO_APP,
                peer: client.0.into(),
                ..SocketFacts::default()
            },
        )
    }

    fn mark_upstream(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.mark(
            socket,
            SocketFacts {
                role: Role::UPSTREAM,
                mesh: Mesh::OFFERED,
                ..SocketFacts::default()
            },
        )
    }

    fn original_destination(&self, accepted: BorrowedFd<'_>) -> io::Result<Option<OrigDst>> {
        let facts = self
            .read(accepted)?
            .filter(|facts| facts.peer != Endpoint::default());
        Ok(facts.map(|facts| OrigDst(facts.peer.into())))
    }

    fn peer_is_meshed(&self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(self
            .read(socket)?
            .is_some_and(|facts| facts.mesh == Mesh::AGREED))
    }
}
