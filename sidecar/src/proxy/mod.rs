//! The proxy: takes the connections that the kernel side steers to it, finds out what they need,
//! and carries their bytes.
//!
//! It reaches the kernel only through [`Kernel`], so its logic is tested without privileges.

mod accept;
mod addr;
mod carry;
mod close;
mod copy;
mod dial;
mod drain;
mod inbound;
mod kernel;
mod outbound;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

pub use self::{
    addr::{ClientAddr, OrigDst},
    close::Close,
    copy::Meter,
    drain::Drain,
    kernel::Kernel,
};
use crate::{
    policy::{Direction, ModeTable},
    telemetry::Telemetry,
    tls::Tls,
};

/// Everything a connection needs, shared by all of them.
pub struct Proxy<K> {
    /// Facts about sockets that only the kernel side knows.
    pub kernel: Arc<K>,
    /// The own identity, and who may be trusted.
    pub tls: Tls,
    /// What happens to connections from the network to the app.
    pub inbound: ModeTable,
    /// What happens to connections from the app to the network.
    pub outbound: ModeTable,
    /// Counters, histograms, the access log and the list of open connections.
    pub telemetry: Telemetry,
    /// How long a dial may take.
    pub connect_timeout: Duration,
    /// How long a TLS handshake may take, and how long a server waits for one to begin.
    pub handshake_timeout: Duration,
}

impl<K: Kernel> Proxy<K> {
    /// Serves one listener until the drain begins. Connections outlive it.
    pub async fn serve(
        self: Arc<Self>,
        direction: Direction,
        listener: tokio::net::TcpListener,
        drain: Drain,
    ) {
        let mut acceptor = accept::Acceptor::new(listener, direction);
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept(&self.telemetry) => accepted,
                () = drain.begun() => return,
            };
            let proxy = Arc::clone(&self);
            drain.spawn(async move {
                match direction {
                    Direction::Inbound => inbound::serve(&proxy, accepted).await,
                    Direction::Outbound => outbound::serve(&proxy, accepted).await,
                }
            });
        }
    }
}
