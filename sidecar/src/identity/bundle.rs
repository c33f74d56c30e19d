use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{Flaw, Revocations, certificate};

/// The authorities of one trust domain: what its workloads' certificates must chain to (X509-SVID
/// section 5.1).
#[derive(Debug, Clone)]
pub struct TrustBundle {
    /// As they were given, to hand on.
    authorities: Vec<CertificateDer<'static>>,
    /// The same, parsed.
    anchors: Arc<[Anchor]>,
    /// What certificates may be signed with.
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
}

/// What is needed of an authority to check what it signed.
#[derive(Debug)]
struct Anchor {
    anchor: TrustAnchor<'static>,
    /// Tells apart authorities of one name (RFC 5280 section 4.2.1.2).
    key_id: Option<Vec<u8>>,
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
        let anchors: Arc<[_]> = authorities
            .iter()
            .map(Anchor::of)
            .collect::<Result<_, Flaw>>()?;
        if anchors.is_empty() {
            return Err(Flaw::Malformed);
        }
        Ok(Self {
            authorities,
            anchors,
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
        let mut flaw = Flaw::Untrusted;
        for Anchor { anchor, key_id } in &*self.anchors {
            let lists = revocations.under(anchor, key_id.as_deref());
            let usage = match end {
                End::Client => KeyUsage::client_auth(),
                End::Server => KeyUsage::server_auth(),
            };
            let verified = leaf.verify_for_usage(
                self.algorithms,
                std::slice::from_ref(anchor),
                intermediates,
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

impl Anchor {
    fn of(authority: &CertificateDer<'static>) -> Result<Self, Flaw> {
        Ok(Self {
            anchor: anchor_from_trusted_cert(authority)?.to_owned(),
            key_id: certificate::key_id(authority)?,
        })
    }
}
