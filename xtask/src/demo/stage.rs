//! The pods of the demo and what runs in them.

use sidecar_tests::{Pod, Pods, Process};

use crate::{
    nginx,
    wrk::{self, Load},
};

/// Two pods with sidecars, one without, and nginx in two of them.
///
/// Dropped in this order: programs before the pods they run in.
pub struct Stage {
    /// nginx behind a sidecar.
    pub server: Process,
    /// nginx in the pod without.
    _plain_server: Process,
    /// The pod without a sidecar.
    pub plain: Pod,
    /// The pods with sidecars.
    pub pods: Pods,
}

/// Two pods without sidecars, and what a load between them brings.
pub fn plain() -> (Pods, Load) {
    let pods = Pods::plain();
    let server = nginx::start(&pods.server);
    let direct = load(&pods);
    drop(server);
    (pods, direct)
}

/// Gives both pods their sidecars.
pub fn mesh(pods: &mut Pods) {
    let dev_ca = pods.dev_ca();
    for pod in [&mut pods.client, &mut pods.server] {
        pod.mesh(&dev_ca, &[]);
    }
    for pod in [&mut pods.client, &mut pods.server] {
        pod.wait_until_ready();
    }
}

/// One request after the other over one connection, from the client's pod to the server's.
pub fn load(pods: &Pods) -> Load {
    wrk::run(
        &pods.client,
        1,
        1,
        &[&nginx::empty_page(nginx::address(&pods.server))],
    )
}

impl Stage {
    /// Puts the servers into their pods, after the sidecars.
    pub fn new(pods: Pods) -> Self {
        let plain = pods.join("plain");
        Self {
            server: nginx::start(&pods.server),
            _plain_server: nginx::start(&plain),
            plain,
            pods,
        }
    }
}
