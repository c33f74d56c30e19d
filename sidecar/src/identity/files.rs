use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::{Error, Svid, SvidError, TrustBundle};

/// Permissions of a file that anyone may read.
pub(super) const PUBLIC: u32 = 0o644;
/// Permissions of a file that holds a private key.
pub(super) const PRIVATE: u32 = 0o600;

/// An identity in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The workload's certificate, then intermediates.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, SEC1 or PKCS#1, not encrypted. May be the same file.
    pub key: PathBuf,
    /// The authorities that peers must chain to.
    pub trust_bundle: PathBuf,
}

impl Files {
    /// The names that `sidecar ca issue` uses.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            certificate: dir.join("svid.pem"),
            key: dir.join("svid_key.pem"),
            trust_bundle: dir.join("svid_bundle.pem"),
        }
    }

    pub(super) fn load(&self) -> Result<Svid, Error> {
        let chain = certificates(&self.certificate)?;
        let key = private_key(&self.key)?;
        let bundle = certificates(&self.trust_bundle)?;
        let bundle = TrustBundle::new(bundle).map_err(|flaw| Error::Authority {
            path: self.trust_bundle.clone(),
            flaw,
        })?;
        Svid::new(chain, key, bundle).map_err(|error| match error {
            SvidError::Certificate(flaw) => Error::Certificate {
                path: self.certificate.clone(),
                flaw,
            },
            SvidError::Key => Error::Key {
                path: self.key.clone(),
            },
            SvidError::KeyMismatch => Error::KeyMismatch {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
            },
        })
    }

    /// Writes `svid` to these files, over what is there. Each appears whole or not at all; the
    /// certificate is the last, so whoever waits for it finds the others in place.
    pub fn save(&self, svid: &Svid) -> Result<(), Error> {
        write(
            &self.trust_bundle,
            PUBLIC,
            encode(svid.bundle().authorities()).as_bytes(),
        )?;
        write(&self.key, PRIVATE, encode_key(svid.key()).as_bytes())?;
        write(&self.certificate, PUBLIC, encode(svid.chain()).as_bytes())
    }
}

/// Every certificate in a PEM file; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|source| Error::Pem {
            path: path.to_owned(),
            source,
        })?;
    if certificates.is_empty() {
        return Err(lacks(path, "certificate", &text));
    }
    Ok(certificates)
}

/// The first private key in a PEM file.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => lacks(path, "private key", &text),
        source => Error::Pem {
            path: path.to_owned(),
            source,
        },
    })
}

/// Any file may hold a key, in the wrong place too.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    fs::read(path)
        .map(Zeroizing::new)
        .map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })
}

/// Puts a file in place in one step.
pub(super) fn write(path: &Path, mode: u32, contents: &[u8]) -> Result<(), Error> {
    let place = || -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new(""));
        let mut file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(dir)?;
        file.write_all(contents)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    place().map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

fn lacks(path: &Path, wanted: &'static str, text: &[u8]) -> Error {
    let says = |label: &str| {
        text.windows(label.len())
            .any(|window| window == label.as_bytes())
    };
    let found = if text.is_empty() {
        "emptiness"
    } else if says("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        "an encrypted private key"
    } else if says("PRIVATE KEY-----") {
        "a private key"
    } else if says("-----BEGIN CERTIFICATE-----") {
        "certificates"
    } else if says("-----BEGIN ") {
        "PEM blocks of other kinds"
    } else {
        "data that is not PEM"
    };
    Error::Lacks {
        path: path.to_owned(),
        wanted,
        found,
    }
}

fn encode(certificates: &[CertificateDer<'_>]) -> String {
    certificates
        .iter()
        .map(|certificate| block("CERTIFICATE", certificate))
        .collect()
}

fn encode_key(key: &PrivateKeyDer<'_>) -> Zeroizing<String> {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    Zeroizing::new(block(label, key.secret_der()))
}

fn block(label: &str, der: &[u8]) -> String {
    let unix = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
    ::pem::encode_config(&::pem::Pem::new(label, der), unix)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::identity::Ca;
    use crate::identity::ca::testing::{ca, id};

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
                "{} holds no certificate, only a private key; give a PEM file that has a certificate",
                files.key.display()
            ),
        );
        let key = Files {
            certificate: files.certificate.clone(),
            ..swapped
        };
        assert!(refusal(&key).contains("holds no private key, only certificates;"));
    }

    #[test]
    fn what_is_no_key_is_said() {
        let (_dir, files) = files();
        let says = |contents: &str| {
            fs::write(&files.key, contents).expect("write");
            refusal(&files)
        };
        assert!(says("").contains("only emptiness;"));
        assert!(says("0\x01\x02").contains("only data that is not PEM;"));
        let encrypted = block("ENCRYPTED PRIVATE KEY", b"secret");
        assert!(says(&encrypted).contains("only an encrypted private key;"));
        assert!(says(&block("PRIVATE KEY", b"secret")).contains("cannot be used;"));
        assert!(says("-----BEGIN PRIVATE KEY-----\nAAAA\n").contains("cannot parse"));
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
}
