use std::{future::pending, sync::Arc};

use spiffe::SpiffeId;
use tokio::sync::watch;

use super::{ClientAddr, Close, OrigDst, Proxy, admission::denial};
use crate::{
    policy::{
        Direction, Mode, Policy,
        authorization::{Decision, Verdict},
    },
    tls::{Peer, Tls},
};

/// What an open connection was admitted by, asked again whenever it changes.
///
/// It is polled whenever its connection wakes, which costs two looks at whether something was
/// published, however many bytes there are.
pub(super) struct Standing {
    /// What is known of the connection.
    facts: Facts,
    /// What connections need and who may open them, as of now.
    policy: watch::Receiver<Arc<Policy>>,
    /// The other side, where TLS is used.
    peer: Option<Peer>,
    /// Whom to trust, as of now.
    identity: watch::Receiver<Option<Arc<Tls>>>,
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
    /// That the cluster named others for its address when it was asked, in words.
    misnamed: Option<String>,
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
        peer: Option<&Peer>,
    ) -> Standing {
        Standing {
            facts: Facts {
                direction,
                client,
                destination,
                peer: peer.map(|peer| peer.id().clone()),
                misnamed: None,
            },
            policy: self.policy.clone(),
            peer: peer.cloned(),
            identity: self.identity.clone(),
        }
    }
}

impl Standing {
    /// The same of a connection whose server the cluster names otherwise, in words.
    pub(super) fn misnamed(mut self, misnamed: Option<String>) -> Self {
        self.facts.misnamed = misnamed;
        self
    }

    /// Waits until the connection is no longer allowed; as long as it is, for ever.
    pub(super) async fn lost(&mut self) -> Lost {
        loop {
            // Looked at before the first change too: it may have come since the admission.
            let policy = Arc::clone(&self.policy.borrow_and_update());
            if let Some(lost) = self.facts.lost_under(&policy) {
                return lost;
            }
            if let Some(lost) = self.distrusted() {
                return lost;
            }
            // Where nobody is left who could change something, nothing is waited for.
            tokio::select! {
                biased;
                Ok(()) = self.policy.changed() => {}
                Ok(()) = self.identity.changed() => {}
                else => pending::<()>().await,
            }
        }
    }

    /// What speaks against the peer, if it is no longer trusted.
    fn distrusted(&mut self) -> Option<Lost> {
        let identity = self.identity.borrow_and_update().clone()?;
        let refused = identity.still_trusts(self.peer.as_mut()?).err()?;
        Some(Lost {
            close: Close::NoLongerTrusted,
            explanation: refused.to_string(),
            decision: None,
        })
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
            Direction::Outbound => policy
                .unexpected(self.destination, peer)
                .or_else(|| self.misnamed_under(policy))
                .map(lost),
        }
    }
    /// What the cluster has against the server, if the policy cares. It is not asked again: the
    /// address may be another's by now, and the connection is still with whom it was.
    fn misnamed_under(&self, policy: &Policy) -> Option<String> {
        let (port, remote) = (self.destination.0.port(), self.destination.0.ip());
        let is_expected = policy.expectations.of(port, remote).is_some();
        self.misnamed
            .clone()
            .filter(|_| !is_expected && policy.refuses_misnamed(self.destination))
    }
}
