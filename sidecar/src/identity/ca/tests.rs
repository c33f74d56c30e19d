use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use super::*;
use crate::identity::testing::{ca, id};

const HOUR: Duration = Duration::from_hours(1);

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

#[test]
fn the_key_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path().join("ca");
    let trust_domain = TrustDomain::new("example.org").expect("trust domain");
    Ca::create(&dir, &trust_domain, HOUR).expect("CA");
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&key_path(&dir)), 0o600);
}

#[test]
fn those_who_start_together_share_one_authority() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path().join("ca");
    let trust_domain = TrustDomain::new("example.org").expect("trust domain");
    let start = || {
        Ca::open_or_create(&dir, &trust_domain, HOUR)
            .expect("CA")
            .root
    };
    let roots: Vec<_> = thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        starts
            .into_iter()
            .map(|start| start.join().expect("no panic"))
            .collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
    assert_eq!(fs::read_dir(&dir).expect("directory").count(), 2);
}

#[test]
fn an_interrupted_creation_is_done_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(key_path(dir.path()), "half a k").expect("write");
    let trust_domain = TrustDomain::new("example.org").expect("trust domain");
    Ca::open_or_create(dir.path(), &trust_domain, HOUR).expect("CA");
}

#[test]
fn an_svid_never_outlives_its_root() {
    let (_dir, ca) = ca("example.org");
    let svid = ca.issue(&id("web"), Duration::MAX).expect("identity");
    assert_eq!(svid.not_after(), ca.not_after());
}

#[test]
fn identities_of_other_trust_domains_are_not_issued() {
    let (_dir, ca) = ca("example.com");
    assert!(matches!(
        ca.issue(&id("web"), HOUR),
        Err(Error::ForeignId { .. })
    ));
}

#[test]
fn a_trust_domain_is_no_workload() {
    let (_dir, ca) = ca("example.org");
    let id = SpiffeId::new("spiffe://example.org").expect("SPIFFE ID");
    assert!(matches!(ca.issue(&id, HOUR), Err(Error::NoWorkload { .. })));
}

#[test]
fn an_expired_root_is_not_used() {
    let (dir, ca) = ca("example.org");
    let (root, key) = root(ca.trust_domain(), Duration::ZERO).expect("root");
    fs::write(root_path(dir.path()), root.pem()).expect("write");
    fs::write(key_path(dir.path()), key.serialize_pem()).expect("write");
    assert!(matches!(
        Ca::open(dir.path()),
        Err(Error::Root {
            flaw: Flaw::Expired(_),
            ..
        })
    ));
}

#[test]
fn a_root_goes_with_its_key() {
    let (ours, _) = ca("example.org");
    let (theirs, _) = ca("example.org");
    fs::copy(key_path(theirs.path()), key_path(ours.path())).expect("copy");
    assert!(matches!(
        Ca::open(ours.path()),
        Err(Error::KeyMismatch { .. })
    ));
}

#[test]
fn a_workload_is_no_root() {
    let (dir, ca) = ca("example.org");
    let svid = ca.issue(&id("web"), HOUR).expect("identity");
    files::Files {
        certificate: root_path(dir.path()),
        key: key_path(dir.path()),
        trust_bundle: dir.path().join("bundle.pem"),
    }
    .save(&svid)
    .expect("save");
    assert!(matches!(
        Ca::open(dir.path()),
        Err(Error::Root {
            flaw: Flaw::NoRoot,
            ..
        })
    ));
}
