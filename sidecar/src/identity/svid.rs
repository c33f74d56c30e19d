use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use spiffe::SpiffeId;
use zeroize::Zeroizing;

use super::{End, Flaw, Leaf, Revocations, SvidError, TrustBundle};

/// A workload's X.509-SVID with its private key and the trust bundle of its trust domain. Was
/// usable when it was made: the certificate fulfils the SPIFFE rules, is within its lifetime,
/// belongs to the key, and chains to the bundle for both ends of TLS.
#[derive(Clone, Debug)]
pub struct Svid {
    id: SpiffeId,
    /// The leaf first.
    chain: Vec<CertificateDer<'static>>,
    /// To hand on; `signer` is the one at work.
    key: Arc<Zeroizing<PrivateKeyDer<'static>>>,
    signer: Arc<CertifiedKey>,
    bundle: TrustBundle,
    not_after: SystemTime,
    not_before: SystemTime,
}

impl Svid {
    /// Checks that the parts make an identity. `chain` begins with the workload's certificate.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundle: TrustBundle,
    ) -> Result<Self, SvidError> {
        let key = Arc::new(Zeroizing::new(key));
        let (certificate, intermediates) = chain.split_first().ok_or(Flaw::Malformed)?;
        let leaf = Leaf::parse(certificate)?;

        let signer = any_supported_type(&key).map_err(|_| SvidError::Key)?;
        let signer = CertifiedKey::new(chain.clone(), signer);
        signer.keys_match().map_err(|_| SvidError::KeyMismatch)?;

        let now = UnixTime::now();
        for end in [End::Server, End::Client] {
            let revocations = Revocations::default();
            bundle.verify(end, certificate, intermediates, &revocations, now)?;
        }

        Ok(Self {
            id: leaf.id,
            not_after: leaf.not_after.into(),
            not_before: leaf.not_before.into(),
            chain,
            key,
            signer: Arc::new(signer),
            bundle,
        })
    }

    /// Whether this is the same certificate, judging peers by the same bundle.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.chain == other.chain && self.bundle == other.bundle
    }

    /// Who the workload is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The certificates that a peer is shown: the workload's own, then intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key of the first certificate.
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// Chain and key, ready to sign handshakes.
    pub(crate) fn signer(&self) -> Arc<CertifiedKey> {
        self.signer.clone()
    }

    /// What peers' certificates must chain to.
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// How long the workload's certificate is valid in all.
    pub fn lifetime(&self) -> Duration {
        let lifetime = self.not_after.duration_since(self.not_before);
        lifetime.unwrap_or_default()
    }

    /// When the workload's certificate expires.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

#[cfg(test)]
impl Svid {
    /// What a hostile or broken peer shows: says `own` of itself, trusts `bundle`, and shows
    /// whatever `chain` is.
    pub(crate) fn unchecked(
        own: &SpiffeId,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundle: TrustBundle,
    ) -> Self {
        let signer = any_supported_type(&key).expect("supported key");
        Self {
            id: own.clone(),
            not_after: SystemTime::now(),
            not_before: SystemTime::now(),
            signer: Arc::new(CertifiedKey::new(chain.clone(), signer)),
            chain,
            key: Arc::new(Zeroizing::new(key)),
            bundle,
        }
    }
}

#[cfg(test)]
mod tests;
