//! Authorities and certificates for tests, wrong ones too.

use std::time::Duration;

use rcgen::{CertificateParams, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use spiffe::{SpiffeId, TrustDomain};
use tempfile::TempDir;

use super::certificate::serial;
use super::{Ca, Revocations, TrustBundle};

/// An authority in a directory that goes away with the first value.
pub(crate) fn ca(trust_domain: &str) -> (TempDir, Ca) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let trust_domain = TrustDomain::new(trust_domain).expect("trust domain");
    let ca = Ca::create(dir.path(), &trust_domain, Duration::from_hours(2)).expect("CA");
    (dir, ca)
}

/// A workload of example.org.
pub(crate) fn id(path: &str) -> SpiffeId {
    SpiffeId::new(format!("spiffe://example.org/{path}")).expect("SPIFFE ID")
}

/// A name for certificates.
pub(crate) fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().expect("ASCII"))
}

impl Ca {
    /// A certificate for `id` that is right but for what `adjust` does to it.
    pub(crate) fn issue_adjusted(
        &self,
        id: &SpiffeId,
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = self.leaf(id, Duration::from_hours(1)).expect("parameters");
        adjust(&mut params);
        self.sign(&params).expect("signature")
    }

    /// What this authority says of certificates that it has taken back.
    pub(crate) fn revoked(&self, certificates: &[&CertificateDer<'_>]) -> Revocations {
        let text = self.revoked_pem(certificates);
        let lists = CertificateRevocationListDer::pem_slice_iter(text.as_bytes());
        let lists: Vec<_> = lists.collect::<Result<_, _>>().expect("PEM");
        Revocations::new(&lists).expect("revocation lists")
    }

    /// The same as the text of a file.
    pub(crate) fn revoked_pem(&self, certificates: &[&CertificateDer<'_>]) -> String {
        let serials = certificates.iter();
        let serials = serials.map(|certificate| serial(certificate).expect("a certificate"));
        self.revocation_list(serials.collect(), Duration::from_hours(1))
            .expect("a revocation list")
    }

    /// What workloads of this authority trust.
    pub(crate) fn trust(&self) -> TrustBundle {
        self.bundle().expect("bundle")
    }
}
