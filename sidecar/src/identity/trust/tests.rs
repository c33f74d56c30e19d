use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rcgen::{KeyUsagePurpose, SanType};

use super::*;
use crate::identity::Ca;
use crate::identity::testing::{Namesake, ca, id, uri};

fn issue(ca: &Ca, path: &str) -> Svid {
    let id = format!("spiffe://{}/{path}", ca.trust_domain());
    let id = spiffe::SpiffeId::new(id).expect("SPIFFE ID");
    ca.issue(&id, Duration::from_hours(1)).expect("identity")
}

fn federated(ca: &Ca) -> BTreeMap<TrustDomain, TrustBundle> {
    BTreeMap::from([(ca.trust_domain().clone(), ca.trust())])
}

/// What both ends make of a certificate that says it is of `domain`; they agree.
fn verdict(
    trust: &Trust,
    domain: &str,
    certificate: &CertificateDer<'_>,
) -> Option<Result<(), Flaw>> {
    let domain = TrustDomain::new(domain).expect("trust domain");
    let [client, server] = [End::Client, End::Server]
        .map(|end| trust.verify(&domain, end, certificate, &[], UnixTime::now()));
    assert_eq!(format!("{client:?}"), format!("{server:?}"));
    client
}

#[test]
fn a_workload_of_a_federated_domain_is_trusted_by_its_own_bundle() {
    let (_dir, ours) = ca("example.org");
    let (_dir, theirs) = ca("example.com");
    let trust = Trust::of(&issue(&ours, "web")).with_federated(&federated(&theirs));
    let db = issue(&theirs, "db");
    assert!(matches!(
        verdict(&trust, "example.com", &db.chain()[0]),
        Some(Ok(()))
    ));
    let alone = Trust::of(&issue(&ours, "web"));
    assert!(verdict(&alone, "example.com", &db.chain()[0]).is_none());
}

#[test]
fn no_authority_vouches_for_workloads_of_another_domain() {
    let (_dir, ours) = ca("example.org");
    let (_dir, theirs) = ca("example.com");
    let trust = Trust::of(&issue(&ours, "web")).with_federated(&federated(&theirs));
    for (signer, victim) in [(&ours, "example.com"), (&theirs, "example.org")] {
        let (forged, _) = signer.issue_adjusted(&id("web"), |params| {
            params.subject_alt_names = vec![uri(&format!("spiffe://{victim}/db"))];
        });
        assert!(matches!(
            verdict(&trust, victim, &forged),
            Some(Err(Flaw::Untrusted))
        ));
    }
}

#[test]
fn the_own_bundle_is_not_replaced_by_a_federated_one() {
    let (_dir, ours) = ca("example.org");
    let (_dir, impostor) = ca("example.org");
    let trust = Trust::of(&issue(&ours, "web")).with_federated(&federated(&impostor));
    let forged = issue(&impostor, "db");
    assert!(matches!(
        verdict(&trust, "example.org", &forged.chain()[0]),
        Some(Err(Flaw::Untrusted))
    ));
}

#[test]
fn old_and_new_roots_are_trusted_while_both_are_in_the_bundle() {
    let (_dir, old) = ca("example.org");
    let (_dir, new) = ca("example.org");
    let both = [old.trust().authorities(), new.trust().authorities()].concat();
    let both = TrustBundle::new(both).expect("bundle");
    let svid = issue(&old, "web");
    let key = svid.key().clone_key();
    let svid = Svid::new(svid.chain().to_vec(), key, both).expect("identity");
    let trust = Trust::of(&svid);
    for ca in [&old, &new] {
        let peer = issue(ca, "db");
        assert!(matches!(
            verdict(&trust, "example.org", &peer.chain()[0]),
            Some(Ok(()))
        ));
    }
}

#[test]
fn a_revoked_certificate_is_refused_as_client_and_as_server() {
    let (_dir, ca) = ca("example.org");
    let (revoked, other) = (issue(&ca, "revoked"), issue(&ca, "other"));
    let lists = ca.revoked(&[&revoked.chain()[0]]);
    let trust = Trust::of(&other).without(lists);
    assert!(matches!(
        verdict(&trust, "example.org", &revoked.chain()[0]),
        Some(Err(Flaw::Revoked))
    ));
    assert!(matches!(
        verdict(&trust, "example.org", &other.chain()[0]),
        Some(Ok(()))
    ));
}

#[test]
fn the_later_of_two_lists_counts() {
    let (_dir, ca) = ca("example.org");
    let svid = issue(&ca, "web");
    let older = ca.revoked(&[&svid.chain()[0]]);
    // Times in lists are whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let newer = ca.revoked(&[]);
    for lists in [[&older, &newer], [&newer, &older]] {
        let mut both = Revocations::default();
        for list in lists {
            both.extend(list);
        }
        let trust = Trust::of(&svid).without(both);
        assert!(matches!(
            verdict(&trust, "example.org", &svid.chain()[0]),
            Some(Ok(()))
        ));
    }
}

#[test]
fn the_list_of_one_authority_is_not_held_against_another_of_the_same_name() {
    let (_dir, old) = ca("example.org");
    let (_dir, new) = ca("example.org");
    let both = [old.trust().authorities(), new.trust().authorities()].concat();
    let both = TrustBundle::new(both).expect("bundle");
    let revoked = issue(&old, "revoked");
    let svid = issue(&new, "web");
    let key = svid.key().clone_key();
    let svid = Svid::new(svid.chain().to_vec(), key, both).expect("identity");
    let lists = old.revoked(&[&revoked.chain()[0]]);
    assert!(Trust::of(&svid).fault_of(&lists).is_none());
    let trust = Trust::of(&svid).without(lists);
    assert!(matches!(
        verdict(&trust, "example.org", &svid.chain()[0]),
        Some(Ok(()))
    ));
    assert!(matches!(
        verdict(&trust, "example.org", &revoked.chain()[0]),
        Some(Err(Flaw::Revoked))
    ));
}

#[test]
fn the_list_of_one_intermediate_is_not_held_against_another_of_the_same_name() {
    let root = Namesake::root("root", b"root");
    let [old, new] = [&b"old"[..], b"new"].map(|key_id| root.intermediate("issuing", key_id));
    let (revoked, other, renewed) = (old.issue("db"), old.issue("web"), new.issue("web"));
    let lists = old.revoked(&[&revoked.chain()[0]]);
    let verify = |svid: &Svid, intermediates: &[&Namesake]| {
        let intermediates = intermediates.iter().map(|issuer| issuer.certificate());
        let intermediates: Vec<_> = intermediates.collect();
        let leaf = &svid.chain()[0];
        let bundle = root.trust();
        bundle.verify(End::Client, leaf, &intermediates, &lists, UnixTime::now())
    };
    assert!(matches!(verify(&revoked, &[&old]), Err(Flaw::Revoked)));
    assert!(verify(&other, &[&old]).is_ok());
    assert!(verify(&renewed, &[&new]).is_ok());
    // Nobody escapes the list by showing the other's certificate too.
    assert!(matches!(
        verify(&revoked, &[&old, &new]),
        Err(Flaw::Revoked)
    ));
    assert!(matches!(
        verify(&revoked, &[&new, &old]),
        Err(Flaw::Revoked)
    ));
}

#[test]
fn a_list_that_its_authority_has_not_signed_is_found_out() {
    use rustls::pki_types::CertificateRevocationListDer;
    use rustls::pki_types::pem::PemObject;

    let (_dir, ca) = ca("example.org");
    let svid = issue(&ca, "web");
    let text = ca.revoked_pem(&[]);
    let list = CertificateRevocationListDer::from_pem_slice(text.as_bytes()).expect("PEM");
    let mut forged = list.to_vec();
    *forged.last_mut().expect("a signature") ^= 1;
    let forged = Revocations::new(&[forged.into()]).expect("well-formed");
    let trust = Trust::of(&svid);
    assert!(matches!(
        trust.fault_of(&forged),
        Some(webpki::Error::InvalidCrlSignatureForPublicKey)
    ));
    assert!(
        trust
            .fault_of(&Revocations::new(&[list]).expect("a list"))
            .is_none()
    );
}

#[test]
fn what_a_revoked_intermediate_has_issued_is_refused() {
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    };
    let new_key = || KeyPair::generate().expect("key");
    let root = CertifiedIssuer::self_signed(authority("root"), new_key()).expect("root");
    let between =
        CertifiedIssuer::signed_by(authority("between"), new_key(), &root).expect("intermediate");
    let (_dir, ca) = ca("example.org");
    let mut params = ca.leaf(&id("web"), Duration::from_hours(1)).expect("leaf");
    params.subject_alt_names = vec![SanType::URI(
        "spiffe://example.org/web".try_into().expect("ASCII"),
    )];
    let leaf = params.signed_by(&new_key(), &between).expect("certificate");

    let now = SystemTime::now();
    let list = rcgen::CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + Duration::from_hours(1)).into(),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: certificate_serial(between.der()),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&root).expect("a list");
    let bundle = TrustBundle::new(vec![root.der().clone()]).expect("bundle");
    let verify = |lists: &Revocations| {
        let intermediates = [between.der().clone()];
        bundle.verify(
            End::Server,
            leaf.der(),
            &intermediates,
            lists,
            UnixTime::now(),
        )
    };
    assert!(verify(&Revocations::default()).is_ok());
    let lists = Revocations::new(&[list.der().clone()]).expect("a list");
    assert!(matches!(verify(&lists), Err(Flaw::Revoked)));
}

fn certificate_serial(certificate: &CertificateDer<'_>) -> rcgen::SerialNumber {
    crate::identity::certificate::serial(certificate).expect("a certificate")
}
