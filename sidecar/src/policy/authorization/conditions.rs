use std::str::FromStr;

use spiffe::{SpiffeId, TrustDomain};
use thiserror::Error;

use super::{Access, workload::Workload};
use crate::policy::{Cidr, IdentityPattern, PortRange, text::deserialize_from_str};

/// When a rule fits: all of its conditions do, each by any one of its values.
///
/// A condition on who the peer is never fits a client in plaintext: nobody has verified it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Conditions {
    /// By the whole SPIFFE ID, or the beginning of it.
    pub(super) identities: Option<Vec<IdentityPattern>>,
    /// By the trust domain.
    pub(super) trust_domains: Option<Vec<TrustDomainName>>,
    /// By the Kubernetes namespace in the path.
    pub(super) namespaces: Option<Vec<Segment>>,
    /// By the Kubernetes service account in the path.
    pub(super) service_accounts: Option<Vec<Segment>>,
    /// Clients in plaintext alone, or such with a verified identity alone.
    pub(super) unauthenticated: Option<bool>,
    /// By where the client is.
    pub(super) cidrs: Option<Vec<Cidr>>,
    /// By the destination port.
    pub(super) ports: Option<Vec<PortRange>>,
}

impl Conditions {
    /// The key of the first condition that does not fit; `None` when all do.
    ///
    /// Those that take least to look at come first: most rules fit few connections.
    pub(super) fn mismatch(&self, access: &Access<'_>) -> Option<&'static str> {
        let peer = access.peer;
        if self
            .unauthenticated
            .is_some_and(|plain| plain != peer.is_none())
        {
            return Some("unauthenticated");
        }
        if !any(self.ports.as_ref(), |range| range.contains(access.port)) {
            return Some("ports");
        }
        if let Some(cidrs) = &self.cidrs {
            let source = access.source.to_canonical();
            if !cidrs.iter().any(|cidr| cidr.net().contains(&source)) {
                return Some("cidrs");
            }
        }
        if !any(self.trust_domains.as_ref(), |known| {
            peer.is_some_and(|peer| peer.is_member_of(&known.0))
        }) {
            return Some("trust-domains");
        }
        if self.namespaces.is_some() || self.service_accounts.is_some() {
            let workload = peer.and_then(Workload::of);
            if !any(self.namespaces.as_ref(), |known| {
                workload.is_some_and(|workload| workload.namespace == known.0)
            }) {
                return Some("namespaces");
            }
            if !any(self.service_accounts.as_ref(), |known| {
                workload.is_some_and(|workload| workload.service_account == known.0)
            }) {
                return Some("service-accounts");
            }
        }
        if !any(self.identities.as_ref(), |pattern| {
            peer.is_some_and(|peer| pattern.fits(peer))
        }) {
            return Some("identities");
        }
        None
    }

    /// Does it depend on where the client is?
    pub(super) const fn ask_for_source(&self) -> bool {
        self.cidrs.is_some()
    }

    /// Refuses conditions that fit always or never: nobody means that.
    pub(super) fn check(&self) -> Result<(), ConditionsError> {
        if *self == Self::default() {
            return Err(ConditionsError::None);
        }
        let lists = [
            ("identities", self.identities.as_ref().map(Vec::len)),
            ("trust-domains", self.trust_domains.as_ref().map(Vec::len)),
            ("namespaces", self.namespaces.as_ref().map(Vec::len)),
            (
                "service-accounts",
                self.service_accounts.as_ref().map(Vec::len),
            ),
        ];
        let others = [
            ("cidrs", self.cidrs.as_ref().map(Vec::len)),
            ("ports", self.ports.as_ref().map(Vec::len)),
        ];
        if let Some((key, _)) = lists.iter().chain(&others).find(|(_, len)| *len == Some(0)) {
            return Err(ConditionsError::Empty(key));
        }
        match lists.iter().find(|(_, len)| len.is_some()) {
            Some((key, _)) if self.unauthenticated == Some(true) => {
                Err(ConditionsError::Contradiction(key))
            }
            _ => Ok(()),
        }
    }
}

/// No condition, or one of its values fits.
fn any<T>(values: Option<&Vec<T>>, fits: impl FnMut(&T) -> bool) -> bool {
    values.is_none_or(|values| values.iter().any(fits))
}

/// Conditions that nobody can mean.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ConditionsError {
    /// A client in plaintext has no identity.
    #[error(
        "can never fit: with `unauthenticated: true` there is no peer for `{0}`; make it two rules"
    )]
    Contradiction(&'static str),
    /// A list without values.
    #[error("can never fit: its `{0}` are none; name one, or leave `{0}` out")]
    Empty(&'static str),
    /// A rule without conditions.
    #[error("has no condition and would fit every connection; add one, or set `default` instead")]
    None,
}

/// A trust domain by name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustDomainName(TrustDomain);

impl FromStr for TrustDomainName {
    type Err = ParseWordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The library would take the trust domain out of any SPIFFE ID.
        TrustDomain::new(text)
            .ok()
            .filter(|_| !text.contains('/'))
            .map(Self)
            .ok_or_else(|| ParseWordError {
                text: text.to_owned(),
                what: "a trust domain",
                form: "a name such as example.org",
            })
    }
}

/// One segment of the path of a SPIFFE ID.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Segment(String);

impl FromStr for Segment {
    type Err = ParseWordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The segment of some ID: what none can have would never fit.
        if text.contains('/') || SpiffeId::new(format!("spiffe://x/{text}")).is_err() {
            return Err(ParseWordError {
                text: text.to_owned(),
                what: "a name in a SPIFFE ID",
                form: "letters, digits, `-`, `_` or `.`",
            });
        }
        Ok(Self(text.to_owned()))
    }
}

deserialize_from_str!(Segment, TrustDomainName);

/// A word that no SPIFFE ID holds.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{text}` is not {what}; write {form}")]
pub struct ParseWordError {
    /// What was given.
    text: String,
    /// What it should have been.
    what: &'static str,
    /// How that is written.
    form: &'static str,
}
