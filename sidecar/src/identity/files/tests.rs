use std::fs;
use std::time::Duration;

use spiffe::TrustDomain;
use tempfile::TempDir;

use super::*;
use crate::identity::testing::{ca, id};
use crate::identity::{Ca, TrustFile};

fn issue(ca: &Ca) -> Svid {
    ca.issue(&id("web"), Duration::from_hours(1))
        .expect("identity")
}

/// The files of a valid identity.
fn files() -> (TempDir, Files) {
    let (_dir, ca) = ca("example.org");
    let dir = tempfile::tempdir().expect("temporary directory");
    let files = Files::in_dir(dir.path());
    files.save(&issue(&ca)).expect("save");
    (dir, files)
}

fn refusal(files: &Files) -> String {
    files.load().expect_err("refused").to_string()
}

#[test]
fn what_is_saved_is_loaded() {
    let (_dir, ca) = ca("example.org");
    let dir = tempfile::tempdir().expect("temporary directory");
    let files = Files::in_dir(dir.path());
    // The second time over files that are there.
    for _ in 0..2 {
        let saved = issue(&ca);
        files.save(&saved).expect("save");
        let loaded = files.load().expect("load");
        assert_eq!(loaded.id(), saved.id());
        assert_eq!(loaded.chain(), saved.chain());
        assert_eq!(loaded.key(), saved.key());
        assert_eq!(loaded.bundle().authorities(), saved.bundle().authorities());
    }
    let mode = fs::metadata(&files.key)
        .expect("metadata")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn one_file_may_hold_it_all() {
    let (dir, files) = files();
    let all: Vec<u8> = [&files.key, &files.certificate, &files.trust_bundle]
        .iter()
        .flat_map(|path| fs::read(path).expect("read"))
        .collect();
    let path = dir.path().join("all.pem");
    fs::write(&path, all).expect("write");
    Files {
        certificate: path.clone(),
        key: path.clone(),
        trust_bundle: files.trust_bundle,
    }
    .load()
    .expect("load");
}

#[test]
fn a_key_may_be_in_sec1_form() {
    let (_dir, files) = files();
    let pkcs8 = private_key(&files.key).expect("key");
    // For a P-256 key, PKCS#8 is 29 bytes of wrapping around SEC1 (RFC 5958, RFC 5915).
    let sec1 = block("EC PRIVATE KEY", &pkcs8.secret_der()[29..]);
    fs::write(&files.key, sec1).expect("write");
    files.load().expect("load");
}

#[test]
fn a_missing_file_is_named() {
    let (_dir, files) = files();
    fs::remove_file(&files.key).expect("remove");
    let key = files.key.display();
    assert_eq!(
        refusal(&files),
        format!(
            "cannot read {key}: No such file or directory (os error 2); \
             check the path and who may read it"
        ),
    );
}

#[test]
fn swapped_files_are_told_apart() {
    let (_dir, files) = files();
    let swapped = Files {
        certificate: files.key.clone(),
        key: files.certificate.clone(),
        trust_bundle: files.trust_bundle,
    };
    assert_eq!(
        refusal(&swapped),
        format!(
            "{} holds a private key instead of a certificate in PEM form; give a file that has one",
            files.key.display()
        ),
    );
    let key = Files {
        certificate: files.certificate.clone(),
        ..swapped
    };
    assert!(refusal(&key).contains("holds certificates instead of a plain private key"));
}

#[test]
fn what_is_no_key_is_said() {
    let (_dir, files) = files();
    let says = |contents: &str| {
        fs::write(&files.key, contents).expect("write");
        refusal(&files)
    };
    assert!(says("").contains("holds nothing instead"));
    assert!(says("0\x01\x02").contains("holds data that is not PEM instead"));
    let encrypted = block("ENCRYPTED PRIVATE KEY", b"secret");
    assert!(says(&encrypted).contains("holds an encrypted private key instead"));
    assert!(says(&block("PRIVATE KEY", b"secret")).contains("cannot be used;"));
    assert!(
        says("-----BEGIN PRIVATE KEY-----\nAAAA\n").contains("END line of a PEM block is missing;")
    );
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (_dir, ours) = files();
    let (_dir, theirs) = files();
    let mixed = Files {
        key: theirs.key,
        ..ours
    };
    assert_eq!(
        refusal(&mixed),
        format!(
            "the private key in {} does not belong to the certificate in {}; \
             give the two files that were issued together",
            mixed.key.display(),
            mixed.certificate.display(),
        ),
    );
}

#[test]
fn a_bundle_of_another_authority_is_refused() {
    let (_dir, ours) = files();
    let (_dir, theirs) = files();
    let mixed = Files {
        trust_bundle: theirs.trust_bundle,
        ..ours
    };
    assert_eq!(
        refusal(&mixed),
        format!(
            "the certificate in {} is not issued by any authority in the trust bundle; \
             add its issuer to the trust bundle, or its intermediates to the file",
            mixed.certificate.display(),
        ),
    );
}

#[test]
fn a_damaged_bundle_is_refused() {
    let (_dir, files) = files();
    fs::write(&files.trust_bundle, block("CERTIFICATE", b"root")).expect("write");
    assert!(refusal(&files).starts_with(&format!(
        "a certificate in the trust bundle {} is not a well-formed X.509 certificate;",
        files.trust_bundle.display()
    )));
}

#[test]
fn a_file_without_an_end_is_refused_whatever_it_is_for() {
    let (_dir, files) = files();
    let endless = PathBuf::from("/dev/zero");
    let refused = "/dev/zero is larger than 4 MiB; check that it is the right file";
    let identities = [
        Files {
            certificate: endless.clone(),
            ..files.clone()
        },
        Files {
            key: endless.clone(),
            ..files.clone()
        },
        Files {
            trust_bundle: endless.clone(),
            ..files
        },
    ];
    for files in identities {
        assert_eq!(refusal(&files), refused);
    }
    let domain = TrustDomain::new("example.com").expect("trust domain");
    for file in [
        TrustFile::Crl(endless.clone()),
        TrustFile::Federated(domain, endless),
    ] {
        assert_eq!(file.load().expect_err("refused").to_string(), refused);
    }
}
