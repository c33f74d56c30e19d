use std::collections::BTreeMap;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, UnixTime};
use spiffe::TrustDomain;

use super::{End, Flaw, Revocations, Svid, TrustBundle};

/// Whom a workload trusts: for each trust domain the authorities that vouch for its workloads, and
/// what they have revoked.
///
/// An authority vouches for its own trust domain and for no other, whatever it signs (SPIFFE Trust
/// Domain and Bundle section 6.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Trust {
    bundles: BTreeMap<TrustDomain, TrustBundle>,
    revocations: Revocations,
}

impl Trust {
    /// Trusts the own trust domain alone.
    pub fn of(svid: &Svid) -> Self {
        Self {
            bundles: BTreeMap::from([(svid.id().trust_domain().clone(), svid.bundle().clone())]),
            revocations: Revocations::default(),
        }
    }

    /// Trusts other domains too. A domain that is trusted already keeps its bundle.
    #[must_use]
    pub fn with_federated(mut self, federated: &BTreeMap<TrustDomain, TrustBundle>) -> Self {
        for (domain, bundle) in federated {
            let entry = self.bundles.entry(domain.clone());
            entry.or_insert_with(|| bundle.clone());
        }
        self
    }

    /// Refuses what is revoked.
    #[must_use]
    pub fn without(mut self, revocations: Revocations) -> Self {
        self.revocations = revocations;
        self
    }

    /// What is wrong with a revocation list that claims to be of an authority that is trusted.
    pub(crate) fn fault_of(&self, revocations: &Revocations) -> Option<webpki::Error> {
        let mut bundles = self.bundles.values();
        bundles.find_map(|bundle| bundle.fault_of(revocations))
    }

    /// From when on a revocation list is overdue.
    pub(crate) fn overdue(&self) -> Option<SystemTime> {
        Some(self.revocations.due()?.into())
    }

    /// The trust domains whose workloads may be trusted.
    pub fn domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.bundles.keys()
    }

    /// Whether an authority of `domain` vouches, at the time `now`, for `leaf` as the certificate of
    /// `end`; `None` if the domain is not known.
    pub(crate) fn verify(
        &self,
        domain: &TrustDomain,
        end: End,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<Result<(), Flaw>> {
        let bundle = self.bundles.get(domain)?;
        Some(bundle.verify(end, leaf, intermediates, &self.revocations, now))
    }
}

#[cfg(test)]
mod tests;
