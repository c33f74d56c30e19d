//! Authorities and certificates for tests, wrong ones too.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use spiffe::{SpiffeId, TrustDomain};
use tempfile::TempDir;

use super::certificate::serial;
use super::{Ca, Revocations, Svid, TrustBundle};

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

/// An authority of example.org with a name and a key identifier that others may have too.
pub(crate) struct Namesake {
    key_id: Vec<u8>,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Namesake {
    /// A root with this key identifier (RFC 5280 section 4.2.1.2).
    pub(crate) fn root(name: &str, key_id: &[u8]) -> Self {
        let params = namesake(name, key_id);
        Self {
            key_id: key_id.to_vec(),
            issuer: CertifiedIssuer::self_signed(params, new_key()).expect("root"),
        }
    }

    /// An intermediate that this one vouches for.
    pub(crate) fn intermediate(&self, name: &str, key_id: &[u8]) -> Self {
        let params = namesake(name, key_id);
        Self {
            key_id: key_id.to_vec(),
            issuer: CertifiedIssuer::signed_by(params, new_key(), &self.issuer)
                .expect("intermediate"),
        }
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub(crate) fn trust(&self) -> TrustBundle {
        TrustBundle::new(vec![self.certificate()]).expect("bundle")
    }

    /// A workload that it vouches for, and that trusts it as a root.
    pub(crate) fn issue(&self, path: &str) -> Svid {
        let (_dir, ca) = ca("example.org");
        let params = ca.leaf(&id(path), Duration::from_hours(1));
        let key = new_key();
        let leaf = params.expect("parameters").signed_by(&key, &self.issuer);
        let leaf = leaf.expect("certificate").der().clone();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        Svid::unchecked(&id(path), vec![leaf], key.into(), self.trust())
    }

    /// What it says of certificates that it has taken back.
    pub(crate) fn revoked(&self, certificates: &[&CertificateDer<'_>]) -> Revocations {
        let now = SystemTime::now();
        let revoked = certificates.iter().map(|certificate| RevokedCertParams {
            serial_number: serial(certificate).expect("a certificate"),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_hours(1)).into(),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(self.key_id.clone()),
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        Revocations::new(&[list.der().clone()]).expect("a list")
    }
}

fn namesake(name: &str, key_id: &[u8]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_id.to_vec());
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("key")
}
