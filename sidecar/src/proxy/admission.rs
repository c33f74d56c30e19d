//! What the policy says of a connection, in terms of the proxy.

use spiffe::SpiffeId;

use super::{ClientAddr, OrigDst};
use crate::policy::{
    Policy,
    authorization::{Access, Decision, RuleName},
};

impl Policy {
    /// Whether a client may reach the app, if anything is said about that.
    pub(super) fn decide(
        &self,
        client: ClientAddr,
        destination: OrigDst,
        peer: Option<&SpiffeId>,
    ) -> Option<Decision> {
        let access = Access {
            peer,
            source: client.0.ip(),
            port: destination.0.port(),
        };
        Some(self.authorization.as_ref()?.decide(&access))
    }

    /// Who is expected at a destination, if it is not the one who answers; in words.
    pub(super) fn unexpected(
        &self,
        destination: OrigDst,
        answers: Option<&SpiffeId>,
    ) -> Option<String> {
        let expected = self
            .expectations
            .of(destination.0.port(), destination.0.ip())?;
        match answers {
            Some(peer) if expected.fits(peer) => None,
            Some(peer) => Some(format!(
                "{peer} answers at {destination}, where {expected} is expected"
            )),
            None => Some(format!(
                "it is in plaintext, and at {destination} {expected} is expected"
            )),
        }
    }
}

/// A denial in words: who, where, and by which rule.
pub(super) fn denial(
    client: ClientAddr,
    destination: OrigDst,
    peer: Option<&SpiffeId>,
    rule: &RuleName,
) -> String {
    let who = peer.map_or_else(|| "in plaintext".to_owned(), SpiffeId::to_string);
    let port = destination.0.port();
    format!("{client} ({who}) may not reach port {port}: denied by the rule `{rule}`")
}
