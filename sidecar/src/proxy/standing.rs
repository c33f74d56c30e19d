use std::{future::pending, sync::Arc};

use spiffe::SpiffeId;
use tokio::sync::watch;

use super::{ClientAddr, Close, OrigDst, Proxy, admission::denial};
use crate::{
    policy::{
        Direction, Mode, Policy,
        authorization::{Decision, Verdict},
    },
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
    /// The decision that denies it, if that is the reason.
    pub(super) decision: Option<Decision>,
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
            if let Some(lost) = self.facts.lost_under(&policy) {
                return lost;
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
    fn lost_under(&self, policy: &Policy) -> Option<Lost> {
        let lost = |explanation| Lost {
            close: Close::NoLongerAllowed,
            explanation,
            decision: None,
        };
        let (port, peer) = (self.destination.0.port(), self.peer.as_ref());
        let (table, other) = match self.direction {
            Direction::Inbound => (&policy.inbound, self.client.0),
            Direction::Outbound => (&policy.outbound, self.destination.0),
        };
        if peer.is_none() && table.mode(port, other.ip()) == Mode::Strict {
            let explanation = format!("it is in plaintext, and the mode for {other} is strict now");
            return Some(lost(explanation));
        }
        match self.direction {
            Direction::Inbound => {
                let decision = policy.decide(self.client, self.destination, peer)?;
                (decision.verdict == Verdict::Deny).then(|| Lost {
                    explanation: denial(self.client, self.destination, peer, &decision.rule),
                    decision: Some(decision),
                    ..lost(String::new())
                })
            }
            Direction::Outbound => policy.unexpected(self.destination, peer).map(lost),
        }
    }
}
