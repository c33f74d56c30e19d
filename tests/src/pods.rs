//! The fixture most tests start from: a client pod and a server pod.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use crate::{Connection, Network, Pod, cgroup::Naming};

/// Two pods on one network, and a development CA their sidecars share.
///
/// Declare what runs in the pods after the pods: it is then dropped, and has closed its
/// connections, before the sidecars stop.
#[derive(Debug)]
pub struct Pods {
    /// Where clients run: `198.18.0.1` and `fd00:5ca::1`.
    pub client: Pod,
    /// Where servers run: `198.18.0.2` and `fd00:5ca::2`.
    pub server: Pod,
    /// What joins the pods; the client's, where they are on two.
    pub network: Arc<Network>,
    /// The number of the next pod that joins.
    next: AtomicU8,
}

impl Pods {
    /// Two pods without sidecars.
    pub fn plain() -> Self {
        Self::named_by(Naming::Own)
    }

    /// Two pods without sidecars, with cgroups that somebody else would have named.
    pub fn named_by(naming: Naming) -> Self {
        let network = Arc::new(Network::new());
        Self::named_by_on(naming, [&network, &network])
    }

    /// Two pods without sidecars, with a router between them.
    pub fn routed() -> Self {
        let network = Arc::new(Network::routed());
        Self::on([&network, &network])
    }

    /// Two pods without sidecars, the client on one network and the server on another, or the same.
    pub fn on(networks: [&Arc<Network>; 2]) -> Self {
        Self::named_by_on(Naming::Own, networks)
    }

    fn named_by_on(naming: Naming, [clients, servers]: [&Arc<Network>; 2]) -> Self {
        Self {
            client: Pod::named_by(naming, clients, "client", 1),
            server: Pod::named_by(naming, servers, "server", 2),
            network: Arc::clone(clients),
            next: AtomicU8::new(3),
        }
    }

    /// Two pods, each with a sidecar at its defaults.
    pub fn meshed() -> Self {
        Self::meshed_with(&[], &[])
    }

    /// Two pods, each with a sidecar that has these additional flags.
    pub fn meshed_with(client: &[&str], server: &[&str]) -> Self {
        let mut pods = Self::plain();
        pods.mesh(Some(client), Some(server));
        pods
    }

    /// Two pods, of which only the client has a sidecar, with these additional flags.
    pub fn client_meshed(flags: &[&str]) -> Self {
        let mut pods = Self::plain();
        pods.mesh(Some(flags), None);
        pods
    }

    /// Two pods, of which only the server has a sidecar, with these additional flags.
    pub fn server_meshed(flags: &[&str]) -> Self {
        let mut pods = Self::plain();
        pods.mesh(None, Some(flags));
        pods
    }

    /// Gives the pods sidecars with these flags, both at once, and waits until they are ready.
    pub fn mesh(&mut self, client: Option<&[&str]>, server: Option<&[&str]>) {
        let dev_ca = self.dev_ca();
        for (pod, flags) in [(&mut self.client, client), (&mut self.server, server)] {
            if let Some(flags) = flags {
                pod.mesh(&dev_ca, flags);
            }
        }
        for pod in [&mut self.client, &mut self.server] {
            pod.wait_until_ready();
        }
    }

    /// One more pod on the same network, without a sidecar.
    pub fn join(&self, role: &str) -> Pod {
        Pod::new(
            &self.network,
            role,
            self.next.fetch_add(1, Ordering::Relaxed),
        )
    }

    /// Waits until both sidecars have logged the first connection to `port` that has ended, and
    /// checks that they agree: mutual TLS between the two pods' identities, over which the same
    /// bytes went.
    ///
    /// Returns the client's entry and the server's.
    #[track_caller]
    pub fn mutual_connection(&self, port: u16) -> (Connection, Connection) {
        let outbound = self
            .client
            .sidecar()
            .connection(|entry| entry.direction == "outbound" && entry.destination.port() == port);
        let inbound = self
            .server
            .sidecar()
            .connection(|entry| entry.direction == "inbound" && entry.client == outbound.client);
        let (client, server) = (Some(self.client.identity()), Some(self.server.identity()));
        assert_eq!((&*outbound.tls, &*inbound.tls), ("mutual", "mutual"));
        assert_eq!((&outbound.own, &outbound.peer), (&client, &server));
        assert_eq!((&inbound.own, &inbound.peer), (&server, &client));
        assert_eq!(outbound.destination, inbound.destination);
        assert_eq!(
            (outbound.sent, outbound.received),
            (inbound.sent, inbound.received)
        );
        (outbound, inbound)
    }

    /// The directory of the development CA that the sidecars share.
    pub fn dev_ca(&self) -> PathBuf {
        self.network.sandbox().directory().join("dev-ca")
    }
}
