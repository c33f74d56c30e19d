use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

use super::error::IssueError;
use super::files::{self, PRIVATE, PUBLIC};
use super::{Error, Flaw, Svid, SvidError, TrustBundle, certificate};

/// How far the clocks of two machines may be apart: certificates are valid this much earlier than
/// they are made.
const CLOCK_SKEW: Duration = Duration::from_mins(1);

/// The longest lifetime of a certificate; longer ones are shortened. X.509 ends with the year 9999.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

/// A certificate authority for development and tests: one self-signed root in a directory, with
/// its key next to it, that issues SVIDs for one trust domain.
///
/// Keys are ECDSA P-256. The root's URI name is its trust domain (X509-SVID section 3.2).
#[derive(Debug)]
pub struct Ca {
    dir: PathBuf,
    trust_domain: TrustDomain,
    root: CertificateDer<'static>,
    key: Zeroizing<KeyPair>,
    not_after: Timestamp,
}

impl Ca {
    /// Makes an authority in `dir`, which is created if need be, for its owner alone.
    pub fn create(
        dir: &Path,
        trust_domain: &TrustDomain,
        lifetime: Duration,
    ) -> Result<Self, Error> {
        let _lock = lock(dir)?;
        if root_path(dir).exists() {
            return Err(Error::CaExists {
                dir: dir.to_owned(),
            });
        }
        Self::found(dir, trust_domain, lifetime)
    }

    /// Opens the authority in `dir`.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = root_path(dir);
        let root = match files::certificates(&path) {
            Err(Error::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoCa {
                    dir: dir.to_owned(),
                });
            }
            root => root?.swap_remove(0),
        };
        let key_path = key_path(dir);
        let key = files::read(&key_path)?;
        let key = str::from_utf8(&key)
            .ok()
            .and_then(|key| KeyPair::from_pem(key).ok())
            .map(Zeroizing::new)
            .ok_or_else(|| Error::Key {
                path: key_path.clone(),
            })?;

        let (trust_domain, not_after) = check_root(&root).map_err(|flaw| Error::Root {
            path: path.clone(),
            flaw,
        })?;
        if !is_pair(&root, &key) {
            return Err(Error::KeyMismatch {
                certificate: path,
                key: key_path,
            });
        }
        Ok(Self {
            dir: dir.to_owned(),
            trust_domain,
            root,
            key,
            not_after,
        })
    }

    /// Opens the authority in `dir`, or makes it there. Of several processes that do this at the
    /// same moment one makes it and all open the same.
    pub fn open_or_create(
        dir: &Path,
        trust_domain: &TrustDomain,
        lifetime: Duration,
    ) -> Result<Self, Error> {
        // First without the lock: an authority that is there may be in a read-only directory.
        match Self::open(dir) {
            Err(Error::NoCa { .. }) => {}
            opened => return opened,
        }
        let _lock = lock(dir)?;
        match Self::open(dir) {
            Err(Error::NoCa { .. }) => Self::found(dir, trust_domain, lifetime),
            opened => opened,
        }
    }

    /// Issues an SVID that is valid from now for `lifetime`, or as long as the root if that is
    /// shorter.
    pub fn issue(&self, id: &SpiffeId, lifetime: Duration) -> Result<Svid, Error> {
        if !id.is_member_of(&self.trust_domain) {
            return Err(Error::ForeignId {
                dir: self.dir.clone(),
                own: self.trust_domain.clone(),
                id: id.clone(),
            });
        }
        if id.path().is_empty() {
            return Err(Error::NoWorkload { id: id.clone() });
        }
        let issue = || -> Result<Svid, IssueError> {
            let (certificate, key) = self.sign(&self.leaf(id, lifetime)?)?;
            Ok(Svid::new(
                vec![certificate],
                key,
                self.bundle().map_err(SvidError::from)?,
            )?)
        };
        issue().map_err(|error| Error::Issue {
            dir: self.dir.clone(),
            error,
        })
    }

    /// Writes a revocation list to `file`, over what is there: these certificates are revoked, and no
    /// others. It is due to be replaced after `lifetime`.
    pub fn revoke(
        &self,
        certificates: &[PathBuf],
        lifetime: Duration,
        file: &Path,
    ) -> Result<(), Error> {
        let serials = certificates
            .iter()
            .map(|path| {
                let certificate = files::certificates(path)?.swap_remove(0);
                let serial = certificate::serial(&certificate);
                serial.map_err(|flaw| Error::Certificate {
                    path: path.clone(),
                    flaw,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let list = self
            .revocation_list(serials, lifetime)
            .map_err(|error| Error::Issue {
                dir: self.dir.clone(),
                error: error.into(),
            })?;
        files::write(file, PUBLIC, list.as_bytes())
    }

    /// A revocation list of these serial numbers, in PEM form.
    pub(super) fn revocation_list(
        &self,
        serials: Vec<SerialNumber>,
        lifetime: Duration,
    ) -> Result<String, rcgen::Error> {
        let now = SystemTime::now();
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH);
        let revoked = |serial_number| RevokedCertParams {
            serial_number,
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: expiry(lifetime).into(),
            // It has to grow from list to list.
            crl_number: since_epoch.unwrap_or_default().as_secs().into(),
            issuing_distribution_point: None,
            revoked_certs: serials.into_iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = Issuer::from_ca_cert_der(&self.root, &*self.key)?;
        list.signed_by(&issuer)?.pem()
    }

    /// Refuses a trust domain that it does not issue for.
    pub(super) fn check_domain(&self, wanted: &TrustDomain) -> Result<(), Error> {
        if *wanted == self.trust_domain {
            return Ok(());
        }
        Err(Error::ForeignDomain {
            dir: self.dir.clone(),
            own: self.trust_domain.clone(),
            wanted: wanted.clone(),
        })
    }

    /// What it issues for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// When the root expires, and with it all that it issued.
    pub fn not_after(&self) -> SystemTime {
        self.not_after.into()
    }

    /// Makes a new root, whatever is there. The caller holds the lock.
    fn found(dir: &Path, trust_domain: &TrustDomain, lifetime: Duration) -> Result<Self, Error> {
        let (root, key) = root(trust_domain, lifetime).map_err(|error| Error::Issue {
            dir: dir.to_owned(),
            error: error.into(),
        })?;
        let key = Zeroizing::new(key.serialize_pem());
        // The certificate is what says that there is an authority, so it comes last.
        files::write(&key_path(dir), PRIVATE, key.as_bytes())?;
        files::write(&root_path(dir), PUBLIC, root.pem().as_bytes())?;
        Self::open(dir)
    }

    /// What a workload's certificate says (X509-SVID sections 2 to 4).
    pub(super) fn leaf(
        &self,
        id: &SpiffeId,
        lifetime: Duration,
    ) -> Result<CertificateParams, rcgen::Error> {
        let not_after = expiry(lifetime).min(self.not_after());
        let mut params = params(&id.to_string(), not_after)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    /// Signs a certificate for a new key.
    pub(super) fn sign(
        &self,
        params: &CertificateParams,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
        let key = new_key()?;
        let issuer = Issuer::from_ca_cert_der(&self.root, &*self.key)?;
        let certificate = params.signed_by(&*key, &issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((certificate.into(), key.into()))
    }

    pub(super) fn bundle(&self) -> Result<TrustBundle, Flaw> {
        TrustBundle::new(vec![self.root.clone()])
    }
}

fn root_path(dir: &Path) -> PathBuf {
    dir.join("root.pem")
}

fn key_path(dir: &Path) -> PathBuf {
    dir.join("root_key.pem")
}

/// Keeps other processes from making an authority in `dir` until it is dropped.
fn lock(dir: &Path) -> Result<File, Error> {
    let lock = || -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let dir = File::open(dir)?;
        dir.lock()?;
        Ok(dir)
    };
    lock().map_err(|error| Error::Write {
        path: dir.to_owned(),
        error,
    })
}

fn root(
    trust_domain: &TrustDomain,
    lifetime: Duration,
) -> Result<(Certificate, Zeroizing<KeyPair>), rcgen::Error> {
    let key = new_key()?;
    let mut params = params(&trust_domain.id_string(), expiry(lifetime))?;
    params
        .distinguished_name
        .push(DnType::CommonName, "development CA");
    // It issues to workloads, not to other authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params.self_signed(&*key)?, key))
}

/// What all certificates have in common.
fn params(uri: &str, not_after: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "sidecar");
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.not_before = (SystemTime::now() - CLOCK_SKEW).into();
    params.not_after = not_after.into();
    Ok(params)
}

fn new_key() -> Result<Zeroizing<KeyPair>, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Zeroizing::new)
}

fn expiry(lifetime: Duration) -> SystemTime {
    SystemTime::now() + lifetime.min(LONGEST)
}

/// What a root says, if it is one that can be used now.
fn check_root(root: &CertificateDer<'_>) -> Result<(TrustDomain, Timestamp), Flaw> {
    let certificate = certificate::parse(root)?;
    let id = certificate::sole_id(&certificate)?;
    if !certificate::is_ca(&certificate)? || !id.path().is_empty() {
        return Err(Flaw::NoRoot);
    }
    let not_after = certificate::not_after(&certificate);
    if not_after <= Timestamp::now() {
        return Err(Flaw::Expired(not_after));
    }
    Ok((id.trust_domain().clone(), not_after))
}

fn is_pair(root: &CertificateDer<'_>, key: &KeyPair) -> bool {
    certificate::parse(root)
        .is_ok_and(|root| root.public_key().raw == key.subject_public_key_info())
}

#[cfg(test)]
mod tests;
