use std::{future::pending, sync::Arc};

use spiffe::SpiffeId;
use tokio::sync::watch;

use super::{ClientAddr, Close, OrigDst, Proxy};
use crate::{
    policy::{Direction, Mode, Policy},
    telemetry::TlsUse,
};

/// What an open connection was admitted by, asked again whenever it changes.
///
/// It costs nothing per byte: it sleeps until somebody publishes a change.
pub(super) struct Standing {
    /// What is known of the connection.
    facts: Facts,
    /// What connections need and who may open them, as of now.
    policy: watch::Receiver<Arc<Policy>>,
}

/// What a connection is admitted by; it does not change while the connection lasts.
struct Facts {
    /// Which way it runs.
    direction: Direction,
    /// Where it comes from.
    client: ClientAddr,
    /// Where it goes to.
    destination: OrigDst,
    /// Who the other side is, where TLS is used.
    peer: Option<SpiffeId>,
}

/// Why an open connection has to end.
#[derive(Debug)]
pub(super) struct Lost {
    /// The reason, for the access log and the metrics.
    pub(super) close: Close,
    /// One sentence more.
    pub(super) explanation: String,
}

impl<K> Proxy<K> {
    /// The standing of a connection that has just been admitted.
    pub(super) fn standing(
        &self,
        direction: Direction,
        client: ClientAddr,
        destination: OrigDst,
        tls: &TlsUse,
    ) -> Standing {
        Standing {
            facts: Facts {
                direction,
                client,
                destination,
                peer: tls.peer().cloned(),
            },
            policy: self.policy.clone(),
        }
    }
}

impl Standing {
    /// Waits until the connection is no longer allowed; as long as it is, for ever.
    pub(super) async fn lost(mut self) -> Lost {
        loop {
            // Looked at before the first change too: it may have come since the admission.
            let policy = Arc::clone(&self.policy.borrow_and_update());
            if let Some(explanation) = self.facts.violated(&policy) {
                return Lost {
                    close: Close::NoLongerAllowed,
                    explanation,
                };
            }
            if self.policy.changed().await.is_err() {
                // Nobody is left who could change it.
                pending::<()>().await;
            }
        }
    }
}

impl Facts {
    /// What the policy has against the connection, if anything.
    fn violated(&self, policy: &Policy) -> Option<String> {
        let (table, other, remote) = match self.direction {
            Direction::Inbound => (&policy.inbound, self.client.0, self.client.0.ip()),
            Direction::Outbound => (
                &policy.outbound,
                self.destination.0,
                self.destination.0.ip(),
            ),
        };
        let mode = table.mode(self.destination.0.port(), remote);
        (mode == Mode::Strict && self.peer.is_none())
            .then(|| format!("it is in plaintext, and the mode for {other} is strict now"))
    }
}
