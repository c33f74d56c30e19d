use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use webpki::{EndEntityCert, anchor_from_trusted_cert};

use super::{Flaw, certificate};

/// An authority of a trust bundle, and what is needed to check what it signed.
#[derive(Debug)]
pub(super) struct Authority {
    certificate: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    /// Tells apart authorities of one name (RFC 5280 section 4.2.1.2).
    key_id: Option<Vec<u8>>,
    /// Whether its key may sign revocation lists (RFC 5280 section 4.2.1.3).
    signs_revocations: bool,
}

impl Authority {
    pub(super) fn parse(certificate: &CertificateDer<'static>) -> Result<Self, Flaw> {
        let parsed = certificate::parse(certificate)?;
        let usage = parsed.key_usage().map_err(|_| Flaw::Malformed)?;
        Ok(Self {
            anchor: anchor_from_trusted_cert(certificate)?.to_owned(),
            key_id: certificate::key_id(&parsed)?,
            signs_revocations: usage.is_none_or(|usage| usage.value.crl_sign()),
            certificate: certificate.clone(),
        })
    }

    pub(super) fn anchor(&self) -> &TrustAnchor<'static> {
        &self.anchor
    }

    /// Its name, as those whom it issued to and its revocation lists repeat it.
    pub(super) fn name(&self) -> &[u8] {
        self.anchor.subject.as_ref()
    }

    pub(super) fn key_id(&self) -> Option<&Vec<u8>> {
        self.key_id.as_ref()
    }

    pub(super) fn signs_revocations(&self) -> bool {
        self.signs_revocations
    }

    /// Whether it is its key by which `message` was signed, by one of `algorithms`.
    pub(super) fn signed(
        &self,
        message: &[u8],
        signature: &[u8],
        algorithms: &[&'static dyn SignatureVerificationAlgorithm],
    ) -> bool {
        EndEntityCert::try_from(&self.certificate).is_ok_and(|certificate| {
            algorithms.iter().any(|algorithm| {
                let verified = certificate.verify_signature(*algorithm, message, signature);
                verified.is_ok()
            })
        })
    }
}
