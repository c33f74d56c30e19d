//! Certificates that are right, and certificates that are wrong in one way.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

use crate::svid::Svid;

/// The trust domain of everything made here that does not name another.
pub const TRUST_DOMAIN: &str = "sidecar.local";

/// Whoever holds a certificate and its key: an authority or a workload. Signs whatever it is asked
/// to, also where it has no right to.
#[derive(Debug)]
pub struct Holder {
    /// What the certificate says.
    params: CertificateParams,
    /// The key that it is for.
    key: KeyPair,
    /// The certificate, signed.
    certificate: CertificateDer<'static>,
}

/// What a peer shows in the TLS handshake, and the key with which it proves it.
#[derive(Debug)]
pub struct Shown {
    /// The peer's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key, in PKCS#8.
    pub key: PrivateKeyDer<'static>,
}

/// A [`Shown`] in PEM files, for OpenSSL.
#[derive(Debug)]
pub struct Files {
    /// The peer's own certificate.
    pub certificate: PathBuf,
    /// The certificates that it shows with it.
    pub chain: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Holder {
    /// A new root.
    pub fn root() -> Self {
        Self::vouching_for_itself(authority("root"))
    }

    /// A workload `web` that has nobody but itself to vouch for it.
    pub fn self_signed() -> Self {
        Self::vouching_for_itself(workload("web"))
    }

    fn vouching_for_itself(params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").into();
        Self {
            params,
            key,
            certificate,
        }
    }

    /// Issues to a workload `web`: a right certificate, but for what `adjust` does to it.
    #[must_use]
    pub fn issue(&self, adjust: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = workload("web");
        adjust(&mut params);
        self.sign(params, KeyPair::generate().expect("a key"))
    }

    /// Issues to another authority of this name, likewise.
    #[must_use]
    pub fn issue_authority(&self, name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority(name);
        adjust(&mut params);
        self.sign(params, KeyPair::generate().expect("a key"))
    }

    /// Issues by OpenSSL, for keys and signatures that nothing else makes any more: `new_key` is
    /// what `openssl req` is told of the key, `digest` what `openssl x509` is told to sign with.
    pub fn issue_by_openssl(&self, directory: &Path, new_key: &[&str], digest: &str) -> Shown {
        let extensions = format!(
            "subjectAltName=URI:spiffe://{TRUST_DOMAIN}/web\nbasicConstraints=critical,CA:false\n\
             keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        );
        fs::write(directory.join("extensions"), extensions).expect("writing a file");
        fs::write(
            directory.join("issuer.pem"),
            pem("CERTIFICATE", &self.certificate),
        )
        .expect("writing a file");
        fs::write(directory.join("issuer_key.pem"), self.key.serialize_pem())
            .expect("writing a file");
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl")
                .args(arguments)
                .current_dir(directory)
                .output();
            let output = output.expect("running openssl");
            assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
        };
        let request = [
            "req",
            "-nodes",
            "-subj",
            "/O=sidecar",
            "-out",
            "request.pem",
        ];
        openssl(&[&request[..], &["-keyout", "key.pem"], new_key].concat());
        let sign = ["x509", "-req", "-in", "request.pem", "-days", "1", digest];
        let issuer = [
            "-CA",
            "issuer.pem",
            "-CAkey",
            "issuer_key.pem",
            "-CAcreateserial",
        ];
        let out = ["-extfile", "extensions", "-out", "certificate.pem"];
        openssl(&[&sign[..], &issuer, &out].concat());
        let certificate = CertificateDer::from_pem_file(directory.join("certificate.pem"));
        let key = PrivateKeyDer::from_pem_file(directory.join("key.pem"));
        Shown {
            chain: vec![certificate.expect("a certificate")],
            key: key.expect("a key"),
        }
    }

    /// Shows the own certificate, and those of `others` with it.
    pub fn show(&self, others: &[&Self]) -> Shown {
        let others = others.iter().map(|other| other.certificate.clone());
        Shown {
            chain: [self.certificate.clone()]
                .into_iter()
                .chain(others)
                .collect(),
            key: PrivatePkcs8KeyDer::from(self.key.serialize_der()).into(),
        }
    }

    /// Writes what a sidecar takes: a right identity of this path in the trust domain, issued by
    /// this root.
    pub fn svid(&self, directory: &Path, path: &str) -> Svid {
        let holder = self.issue(|params| *params = workload(path));
        let Files {
            certificate, key, ..
        } = holder.show(&[]).save(directory, path);
        let bundle = directory.join(format!("{path}_bundle.pem"));
        fs::write(&bundle, pem("CERTIFICATE", &self.certificate)).expect("writing a file");
        Svid {
            certificate,
            key,
            bundle,
        }
    }

    /// Itself, as a secret of Kubernetes has a development CA: file names and contents.
    pub fn dev_ca(&self) -> [(&'static str, Vec<u8>); 2] {
        let root = pem("CERTIFICATE", &self.certificate);
        [
            ("root.pem", root.into()),
            ("root_key.pem", self.key.serialize_pem().into()),
        ]
    }

    /// The same as a secret of Kubernetes has it: file names and contents.
    pub fn secret(&self, path: &str) -> [(&'static str, Vec<u8>); 3] {
        let holder = self.issue(|params| *params = workload(path));
        let certificate = pem("CERTIFICATE", &holder.certificate);
        let root = pem("CERTIFICATE", &self.certificate);
        [
            ("tls.crt", certificate.into()),
            ("tls.key", holder.key.serialize_pem().into()),
            ("ca.crt", root.into()),
        ]
    }

    fn sign(&self, params: CertificateParams, key: KeyPair) -> Self {
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        Self {
            params,
            key,
            certificate: certificate.into(),
        }
    }
}

impl Shown {
    /// The same certificates with the key of others.
    #[must_use]
    pub fn with_key_of(self, other: Self) -> Self {
        Self {
            key: other.key,
            ..self
        }
    }

    /// Writes the parts to files that begin with this name.
    pub fn save(&self, directory: &Path, name: &str) -> Files {
        let write = |what: &str, text: String| {
            let path = directory.join(format!("{name}{what}.pem"));
            fs::write(&path, text).expect("writing a file");
            path
        };
        let (own, others) = self.chain.split_first().expect("a certificate");
        Files {
            certificate: write("", pem("CERTIFICATE", own)),
            chain: write(
                "_chain",
                others.iter().map(|der| pem("CERTIFICATE", der)).collect(),
            ),
            key: write("_key", pem("PRIVATE KEY", self.key.secret_der())),
        }
    }
}

/// A name in a certificate.
pub fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().expect("ASCII"))
}

/// So much before now, or after it if `hours` is positive.
pub fn hours_from_now(hours: i64) -> SystemTime {
    let span = Duration::from_hours(hours.unsigned_abs());
    if hours < 0 {
        SystemTime::now() - span
    } else {
        SystemTime::now() + span
    }
}

fn workload(path: &str) -> CertificateParams {
    let mut params = params(path);
    params.subject_alt_names = vec![uri(&format!("spiffe://{TRUST_DOMAIN}/{path}"))];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.subject_alt_names = vec![uri(&format!("spiffe://{TRUST_DOMAIN}"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = hours_from_now(-1).into();
    params.not_after = hours_from_now(24).into();
    params
}

fn pem(label: &str, der: &[u8]) -> String {
    ::pem::encode(&::pem::Pem::new(label, der))
}
