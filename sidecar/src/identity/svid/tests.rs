use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use super::*;
use crate::identity::Ca;
use crate::identity::testing::{ca, id, uri};

/// What is wrong with a certificate that is right but for `adjust`.
fn flaw(ca: &Ca, adjust: impl FnOnce(&mut CertificateParams)) -> Option<Flaw> {
    let (certificate, key) = ca.issue_adjusted(&id("web"), adjust);
    let bundle = ca.trust();
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
    let svid = Svid::new(vec![certificate], key, ca.trust());
    let hour = Duration::from_hours(1);
    assert!(svid.expect("identity").not_after() > SystemTime::now() + hour);
}

#[test]
fn an_svid_chains_to_the_bundle() {
    let (_dir, ours) = ca("example.org");
    // Same name, same trust domain, another key.
    let (_dir, theirs) = ca("example.org");
    let (certificate, key) = theirs.issue_adjusted(&id("web"), |_| {});
    let refused = Svid::new(vec![certificate], key, ours.trust());
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
    let between =
        CertifiedIssuer::signed_by(authority("between"), new_key(), &root).expect("intermediate");
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
    let refused = Svid::new(vec![certificate], key, ca.trust());
    assert!(matches!(refused, Err(SvidError::KeyMismatch)));
}

#[test]
fn mangled_certificates_are_refused_without_panic() {
    let (_dir, ca) = ca("example.org");
    let bundle = ca.trust();
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
