use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::authority::Authority;
use super::{Flaw, Revocations, certificate};

/// The authorities of one trust domain: what its workloads' certificates must chain to (X509-SVID
/// section 5.1).
#[derive(Debug, Clone)]
pub struct TrustBundle {
    /// As they were given, to hand on.
    authorities: Vec<CertificateDer<'static>>,
    /// The same, parsed.
    parsed: Arc<[Authority]>,
    /// What certificates may be signed with.
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
}

/// An end of a TLS connection: what a certificate has to be good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// Who makes the connection.
    Client,
    /// Who takes it.
    Server,
}

impl TrustBundle {
    /// Trusts `authorities`, of which there is at least one.
    pub fn new(authorities: Vec<CertificateDer<'static>>) -> Result<Self, Flaw> {
        let parsed: Arc<[_]> = authorities
            .iter()
            .map(Authority::parse)
            .collect::<Result<_, _>>()?;
        if parsed.is_empty() {
            return Err(Flaw::Malformed);
        }
        Ok(Self {
            authorities,
            parsed,
            algorithms: default_provider().signature_verification_algorithms.all,
        })
    }

    /// The authorities' certificates.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Whether an authority vouches, at the time `now`, for `leaf` as the certificate of `end`, and
    /// has not revoked it. `intermediates` may lead from one to the other.
    pub(crate) fn verify(
        &self,
        end: End,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        revocations: &Revocations,
        now: UnixTime,
    ) -> Result<(), Flaw> {
        let leaf = EndEntityCert::try_from(leaf)?;
        let intermediates = certificate::issuers(intermediates);
        let presented = revocations.issuers(&intermediates);
        let mut flaw = Flaw::Untrusted;
        for authority in &*self.parsed {
            let lists = revocations.under(authority, &presented);
            let usage = match end {
                End::Client => KeyUsage::client_auth(),
                End::Server => KeyUsage::server_auth(),
            };
            let verified = leaf.verify_for_usage(
                self.algorithms,
                std::slice::from_ref(authority.anchor()),
                &intermediates,
                now,
                usage,
                Revocations::options(&lists),
                None,
            );
            match verified.map_err(Flaw::from) {
                Ok(_) => return Ok(()),
                // What another authority did not issue says less than why one refuses its own.
                Err(Flaw::Untrusted) => {}
                Err(found) => flaw = found,
            }
        }
        Err(flaw)
    }

    /// What is wrong with a revocation list that claims to be of one of the authorities.
    pub(super) fn fault_of(&self, revocations: &Revocations) -> Option<webpki::Error> {
        let mut authorities = self.parsed.iter();
        authorities.find_map(|authority| revocations.fault_under(authority, self.algorithms))
    }
}

/// Two bundles are the same if they trust the same authorities, in whatever order.
impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |bundle: &Self| {
            let mut authorities = bundle.authorities.clone();
            authorities.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
            authorities
        };
        sorted(self) == sorted(other)
    }
}
