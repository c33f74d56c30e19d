//! Authorities and certificates for tests, wrong ones too.

use std::time::Duration;

use rcgen::{CertificateParams, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use spiffe::{SpiffeId, TrustDomain};
use tempfile::TempDir;

use super::{Ca, TrustBundle};

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

    /// What workloads of this authority trust.
    pub(crate) fn trust(&self) -> TrustBundle {
        self.bundle().expect("bundle")
    }
}
