use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
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

/// The largest file that is read, in bytes: a revocation list of some fifty thousand certificates.
/// A list costs each handshake time in proportion to its size.
const LARGEST: u64 = 4 << 20;

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

    /// The names in a Kubernetes secret of type `kubernetes.io/tls`, and in volumes of cert-manager's
    /// CSI drivers.
    pub fn as_mounted(dir: &Path) -> Self {
        Self {
            certificate: dir.join("tls.crt"),
            key: dir.join("tls.key"),
            trust_bundle: dir.join("ca.crt"),
        }
    }

    /// Refuses what can never be an identity, whatever is written later.
    pub(super) fn check_paths(&self) -> Result<(), Error> {
        refuse_directories(self.paths().into_iter().map(PathBuf::as_path))
    }

    /// All of them.
    pub fn paths(&self) -> [&PathBuf; 3] {
        [&self.certificate, &self.key, &self.trust_bundle]
    }

    pub(crate) fn load(&self) -> Result<Svid, Error> {
        let chain = certificates(&self.certificate)?;
        let key = private_key(&self.key)?;
        let bundle = TrustBundle::parse(&self.trust_bundle, &read(&self.trust_bundle)?)?;
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

impl TrustBundle {
    /// Trusts the authorities in the text of a PEM file.
    pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Self, Error> {
        Self::new(parse_certificates(path, text)?).map_err(|flaw| Error::Authority {
            path: path.to_owned(),
            flaw,
        })
    }
}

/// None of these will ever be a file to read.
pub(super) fn refuse_directories<'a>(
    mut paths: impl Iterator<Item = &'a Path>,
) -> Result<(), Error> {
    match paths.find(|path| path.is_dir()) {
        Some(path) => Err(Error::Read {
            path: path.to_owned(),
            error: io::ErrorKind::IsADirectory.into(),
        }),
        None => Ok(()),
    }
}

/// Every certificate in a PEM file; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    parse_certificates(path, &read(path)?)
}

fn parse_certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(path, &error))?;
    if certificates.is_empty() {
        return Err(lacks(path, "certificate", text));
    }
    Ok(certificates)
}

/// The first private key in a PEM file.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => lacks(path, "plain private key", &text),
        error => damaged(path, &error),
    })
}

/// Any file may hold a key, in the wrong place too.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let read = || -> io::Result<Zeroizing<Vec<u8>>> {
        let mut contents = Zeroizing::new(Vec::new());
        let mut file = File::open(path)?.take(LARGEST + 1);
        file.read_to_end(&mut contents)?;
        Ok(contents)
    };
    match read() {
        Ok(contents) if contents.len() as u64 > LARGEST => Err(Error::TooLarge {
            path: path.to_owned(),
            limit: LARGEST >> 20,
        }),
        contents => contents.map_err(|error| Error::Read {
            path: path.to_owned(),
            error,
        }),
    }
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
    place().map_err(|error| Error::Write {
        path: path.to_owned(),
        error,
    })
}

/// rustls has the same, with the bytes in question as numbers.
pub(super) fn damaged(path: &Path, error: &pem::Error) -> Error {
    let fault = match error {
        pem::Error::MissingSectionEnd { .. } => "the END line of a PEM block is missing",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a PEM block is not base64",
        _ => "it is not PEM",
    };
    Error::Pem {
        path: path.to_owned(),
        fault,
    }
}

pub(super) fn lacks(path: &Path, wanted: &'static str, text: &[u8]) -> Error {
    let says = |label: &str| {
        text.windows(label.len())
            .any(|window| window == label.as_bytes())
    };
    let found = if text.is_empty() {
        "nothing"
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
mod tests;
