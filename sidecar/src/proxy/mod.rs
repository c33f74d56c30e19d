//! The proxy: takes the connections that the kernel side steers to it, finds out what they need,
//! and carries their bytes.
//!
//! It reaches the kernel only through [`Kernel`], so its logic is tested without privileges.

mod accept;
mod addr;
mod admission;
mod ahead;
#[cfg(feature = "benchmarks")]
pub(crate) mod benchmarks;
mod buffer;
mod carry;
mod close;
mod copy;
mod dial;
mod drain;
mod establishing;
mod first;
mod inbound;
mod kernel;
mod outbound;
mod standing;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;
mod wire;

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use tokio::sync::watch;

pub(crate) use self::tcp::prepare_listener;
pub use self::{
    addr::{ClientAddr, OrigDst},
    close::Close,
    copy::Meter,
    drain::Drain,
    establishing::Establishing,
    kernel::Kernel,
    wire::Spares,
};
use crate::{
    naming::Directory,
    policy::{Direction, Policy},
    telemetry::{Connection, Leg, Telemetry, TlsUse},
    tls::Tls,
};

/// Everything a connection needs, shared by all of them.
pub struct Proxy<K> {
    /// Facts about sockets that only the kernel side knows.
    pub kernel: Arc<K>,
    /// The own identity and who may be trusted, as of now; `None` until the first identity has come.
    pub identity: watch::Receiver<Option<Arc<Tls>>>,
    /// What connections need and who may open them, as of now.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// Who is behind the addresses that the app dials.
    pub directory: Directory,
    /// Counters, histograms, the access log and the list of open connections.
    pub telemetry: Telemetry,
    /// How many connections are in the making.
    pub establishing: Establishing,
    /// Connections to other sidecars that wait for a use.
    pub spares: Spares,
    /// How long things may take.
    pub limits: Limits,
}

/// How many things may be in the making, and how long they may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A dial.
    pub connect: Duration,
    /// A TLS handshake, and a server's wait for one to begin.
    pub handshake: Duration,
    /// Connections of each direction that are in the making at once.
    pub handshakes: usize,
    /// The wait for the first identity, during which connections are held.
    pub identity: Duration,
    /// How long a connection to another sidecar is kept for the next one; nothing: it is not.
    pub reuse: Duration,
}

impl<K> Proxy<K> {
    /// The own identity. A connection that comes before the first one is held.
    async fn identity(&self, connection: &mut Connection) -> Result<Arc<Tls>, Close> {
        let mut identity = self.identity.clone();
        let first = identity.wait_for(Option::is_some);
        // It fails too if nothing will ever provide one.
        if let Ok(Ok(identity)) = tokio::time::timeout(self.limits.identity, first).await
            && let Some(identity) = identity.as_ref()
        {
            return Ok(Arc::clone(identity));
        }
        connection.tls(TlsUse::Failed);
        connection.explain(format!(
            "no identity has come in {:?}",
            self.limits.identity
        ));
        Err(Close::NoIdentity)
    }
}

impl<K: Kernel> Proxy<K> {
    /// Has it counted what TCP measures on one leg of a connection.
    fn follow(&self, connection: &mut Connection, leg: Leg, socket: &tcp::Tcp) {
        // It fails only where the kernel has no such numbers (before 4.12).
        if let Ok(cookie) = self.kernel.cookie(socket.as_fd()) {
            connection.has_leg(leg, cookie);
        }
    }

    /// The same of a wire, whose number stays the same.
    fn follow_wire(&self, connection: &mut Connection, wire: &mut wire::Wire) {
        let cookie = wire.cookie();
        let cookie = cookie.or_else(|| self.kernel.cookie(wire.tcp().as_fd()).ok());
        if let Some(cookie) = cookie {
            wire.has_cookie(cookie);
            connection.has_leg(Leg::Network, cookie);
        }
    }

    /// Serves one listener until the drain begins, and then what waits in it: its app was told that it is connected, and may have
    /// said all it has to say and ended. Connections outlive it.
    pub fn serve(
        self: Arc<Self>,
        direction: Direction,
        listener: tokio::net::TcpListener,
        drain: Drain,
    ) -> impl Future<Output = ()> + Send + 'static {
        let accepts = drain.accepts();
        async move {
            let mut acceptor = accept::Acceptor::new(listener, direction);
            loop {
                let accepted = tokio::select! {
                    accepted = acceptor.accept(&self.telemetry) => accepted,
                    () = drain.begun() => break,
                };
                self.carry(direction, accepted, &drain);
            }
            for accepted in acceptor.waiting() {
                self.carry(direction, accepted, &drain);
            }
            drop(accepts);
        }
    }

    /// Serves a connection in a task of its own, if there is room for it.
    fn carry(self: &Arc<Self>, direction: Direction, accepted: accept::Accepted, drain: &Drain) {
        let Some(permit) = self.establishing.admit(direction) else {
            // Dropping the connection resets it.
            self.telemetry.not_accepted(direction, Close::Overloaded);
            return;
        };
        let proxy = Arc::clone(self);
        let until = drain.clone();
        drain.spawn(async move {
            match direction {
                Direction::Inbound => inbound::serve(&proxy, accepted, permit, &until).await,
                Direction::Outbound => outbound::serve(&proxy, accepted, permit).await,
            }
        });
    }
}
