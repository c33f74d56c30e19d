//! What the policy says of a connection, in terms of the proxy.

use spiffe::SpiffeId;

use super::{ClientAddr, OrigDst};
use crate::{
    naming::Directory,
    policy::{
        Naming, Policy,
        authorization::{Access, Decision, RuleName},
    },
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

    /// Who the cluster says is at a destination, if whoever answers there is somebody else; in
    /// words. What is expected by the settings comes before what the cluster says.
    pub(super) fn misnamed(
        &self,
        destination: OrigDst,
        own: &SpiffeId,
        answers: &SpiffeId,
        directory: &Directory,
    ) -> Option<String> {
        let (port, remote) = (destination.0.port(), destination.0.ip());
        if self.naming == Naming::Off || self.expectations.of(port, remote).is_some() {
            return None;
        }
        let known = directory.of(destination.0)?;
        let named = known.identities(own.trust_domain());
        if named.is_empty() || named.contains(answers) {
            return None;
        }
        let named: Vec<_> = named.iter().map(SpiffeId::to_string).collect();
        let named = named.join(" or ");
        let what = if known.service.is_empty() {
            "a pod"
        } else {
            "a service"
        };
        Some(format!(
            "{answers} answers at {destination}, which is {what} of {named} by what the cluster says"
        ))
    }

    /// Is a server refused that is none of those the cluster names for its address?
    pub(super) fn refuses_misnamed(&self, destination: OrigDst) -> bool {
        let mode = self.outbound.mode(destination.0.port(), destination.0.ip());
        self.naming.refuses(mode)
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
