use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use spiffe::SpiffeId;
use zeroize::Zeroizing;

use super::{Flaw, Leaf, SvidError, TrustBundle};

/// A workload's X.509-SVID with its private key and the trust bundle of its trust domain. Was
/// usable when it was made: the certificate fulfils the SPIFFE rules, is within its lifetime,
/// belongs to the key, and chains to the bundle for both ends of TLS.
#[derive(Debug)]
pub struct Svid {
    id: SpiffeId,
    /// The leaf first.
    chain: Vec<CertificateDer<'static>>,
    /// To hand on; `signer` is the one at work.
    key: Zeroizing<PrivateKeyDer<'static>>,
    signer: Arc<CertifiedKey>,
    bundle: TrustBundle,
    not_after: SystemTime,
}

impl Svid {
    /// Checks that the parts make an identity. `chain` begins with the workload's certificate.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        bundle: TrustBundle,
    ) -> Result<Self, SvidError> {
        let key = Zeroizing::new(key);
        let (certificate, intermediates) = chain.split_first().ok_or(Flaw::Malformed)?;
        let leaf = Leaf::parse(certificate)?;

        let signer = any_supported_type(&key).map_err(|_| SvidError::Key)?;
        let signer = CertifiedKey::new(chain.clone(), signer);
        signer.keys_match().map_err(|_| SvidError::KeyMismatch)?;

        let now = UnixTime::now();
        bundle.verify_server(certificate, intermediates, now)?;
        bundle.verify_client(certificate, intermediates, now)?;

        Ok(Self {
            id: leaf.id,
            not_after: leaf.not_after.into(),
            chain,
            key,
            signer: Arc::new(signer),
            bundle,
        })
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
            signer: Arc::new(CertifiedKey::new(chain.clone(), signer)),
            chain,
            key: Zeroizing::new(key),
            bundle,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, KeyUsagePurpose, SanType,
    };

    use super::*;
    use crate::identity::Ca;
    use crate::identity::ca::testing::{ca, id, uri};

    /// What is wrong with a certificate that is right but for `adjust`.
    fn flaw(ca: &Ca, adjust: impl FnOnce(&mut CertificateParams)) -> Option<Flaw> {
        let (certificate, key) = ca.issue_adjusted(&id("web"), adjust);
        let bundle = ca.bundle().expect("bundle");
        match Svid::new(vec![certificate], key, bundle) {
            Ok(_) => None,
            Err(SvidError::Certificate(flaw)) => Some(flaw),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn an_svid_names_exactly_one_workload() {
        let (_dir, ca) = ca("example.org");
        let names = |names: Vec<SanType>| flaw(&ca, |params| params.subject_alt_names = names);
        let web = || uri("spiffe://example.org/web");

        assert!(matches!(names(vec![]), Some(Flaw::NoUri)));
        assert!(matches!(
            names(vec![web(), uri("spiffe://example.org/db")]),
            Some(Flaw::ManyUris(2))
        ));
        assert!(matches!(
            names(vec![uri("https://example.org/"), web()]),
            Some(Flaw::ManyUris(2))
        ));
        assert!(matches!(
            names(vec![uri("https://example.org/")]),
            Some(Flaw::NotSpiffe { .. })
        ));
        assert!(matches!(
            names(vec![uri("spiffe://example.org/a/../b")]),
            Some(Flaw::NotSpiffe { .. })
        ));
        assert!(matches!(
            names(vec![uri("spiffe://example.org")]),
            Some(Flaw::NoWorkload(_))
        ));

        let dns = SanType::DnsName("web.example.org".try_into().expect("ASCII"));
        assert!(names(vec![dns, web()]).is_none());
    }

    #[test]
    fn an_svid_signs_handshakes_and_no_certificates() {
        use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign, KeyEncipherment};

        let (_dir, ca) = ca("example.org");
        let usages = |usages: &[_]| flaw(&ca, |params| params.key_usages = usages.to_vec());

        assert!(matches!(usages(&[]), Some(Flaw::NoDigitalSignature)));
        assert!(matches!(
            usages(&[KeyEncipherment]),
            Some(Flaw::NoDigitalSignature)
        ));
        assert!(matches!(
            usages(&[DigitalSignature, KeyCertSign]),
            Some(Flaw::Signing)
        ));
        assert!(matches!(
            usages(&[DigitalSignature, CrlSign]),
            Some(Flaw::Signing)
        ));
        assert!(usages(&[DigitalSignature, KeyEncipherment]).is_none());

        let is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert!(matches!(
            flaw(&ca, |params| params.is_ca = is_ca),
            Some(Flaw::Signing)
        ));
    }

    #[test]
    fn an_svid_is_for_both_ends_of_tls_or_for_anything() {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

        let (_dir, ca) = ca("example.org");
        let usages = |usages| flaw(&ca, |params| params.extended_key_usages = usages);

        assert!(matches!(usages(vec![ServerAuth]), Some(Flaw::WrongPurpose)));
        assert!(matches!(usages(vec![ClientAuth]), Some(Flaw::WrongPurpose)));
        assert!(usages(vec![]).is_none());
    }

    #[test]
    fn an_svid_is_used_within_its_lifetime() {
        let (_dir, ca) = ca("example.org");
        let now = SystemTime::now();
        let hour = Duration::from_hours(1);

        let expired = flaw(&ca, |params| {
            params.not_before = (now - 2 * hour).into();
            params.not_after = (now - hour).into();
        });
        assert!(matches!(expired, Some(Flaw::Expired(_))));
        let early = flaw(&ca, |params| params.not_before = (now + hour).into());
        assert!(matches!(early, Some(Flaw::NotYetValid(_))));
    }

    #[test]
    fn a_certificate_without_end_is_fine() {
        let (_dir, ca) = ca("example.org");
        let (certificate, key) = ca.issue_adjusted(&id("web"), |params| {
            // The last second of the year 9999 (RFC 5280 section 4.1.2.5).
            let end = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
            params.not_after = end.into();
        });
        let svid = Svid::new(vec![certificate], key, ca.bundle().expect("bundle"));
        let hour = Duration::from_hours(1);
        assert!(svid.expect("identity").not_after() > SystemTime::now() + hour);
    }

    #[test]
    fn an_svid_chains_to_the_bundle() {
        let (_dir, ours) = ca("example.org");
        // Same name, same trust domain, another key.
        let (_dir, theirs) = ca("example.org");
        let (certificate, key) = theirs.issue_adjusted(&id("web"), |_| {});
        let refused = Svid::new(vec![certificate], key, ours.bundle().expect("bundle"));
        assert!(matches!(
            refused,
            Err(SvidError::Certificate(Flaw::Untrusted))
        ));
    }

    #[test]
    fn intermediates_lead_to_the_bundle() {
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params
        };
        let new_key = || KeyPair::generate().expect("key");
        let root = CertifiedIssuer::self_signed(authority("root"), new_key()).expect("root");
        let between = CertifiedIssuer::signed_by(authority("between"), new_key(), &root)
            .expect("intermediate");
        let (_dir, ca) = ca("example.org");
        let params = ca.leaf(&id("web"), Duration::from_hours(1)).expect("leaf");
        let key = new_key();
        let leaf = params.signed_by(&key, &between).expect("certificate");

        let svid = |chain: &[&CertificateDer<'static>]| {
            let chain = chain
                .iter()
                .map(|&certificate| certificate.clone())
                .collect();
            let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
            Svid::new(
                chain,
                key,
                TrustBundle::new(vec![root.der().clone()]).expect("bundle"),
            )
        };
        svid(&[leaf.der(), between.der()]).expect("complete chain");
        assert!(matches!(
            svid(&[leaf.der()]),
            Err(SvidError::Certificate(Flaw::Untrusted))
        ));
    }

    #[test]
    fn the_key_belongs_to_the_certificate() {
        let (_dir, ca) = ca("example.org");
        let (certificate, _) = ca.issue_adjusted(&id("web"), |_| {});
        let (_, key) = ca.issue_adjusted(&id("web"), |_| {});
        let refused = Svid::new(vec![certificate], key, ca.bundle().expect("bundle"));
        assert!(matches!(refused, Err(SvidError::KeyMismatch)));
    }

    #[test]
    fn mangled_certificates_are_refused_without_panic() {
        let (_dir, ca) = ca("example.org");
        let bundle = ca.bundle().expect("bundle");
        let (certificate, key) = ca.issue_adjusted(&id("web"), |_| {});
        let refused = |mangled: Vec<u8>| {
            let mangled = CertificateDer::from(mangled);
            Svid::new(vec![mangled], key.clone_key(), bundle.clone()).is_err()
        };
        assert!(refused(vec![]));
        for position in 0..certificate.len() {
            assert!(refused(certificate[..position].to_vec()));
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut mangled = certificate.to_vec();
                if mangled[position] != value {
                    mangled[position] = value;
                    assert!(refused(mangled), "{position} {value:#x}");
                }
            }
        }
    }

    #[test]
    fn the_key_is_not_printed() {
        let (_dir, ca) = ca("example.org");
        let svid = ca
            .issue(&id("web"), Duration::from_hours(1))
            .expect("identity");
        let printed = format!("{svid:?} {ca:?}");
        let first_bytes: Vec<_> = svid.key().secret_der()[..8]
            .iter()
            .map(u8::to_string)
            .collect();
        assert!(!printed.contains(&first_bytes.join(", ")));
    }
}
