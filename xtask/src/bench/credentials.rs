//! What peers show each other: certificates of ECDSA P-256, as the sidecars' are.

use std::path::PathBuf;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use sidecar_tests::Pod;

/// The name in every peer's certificate: some cannot verify one without.
pub const NAME: &str = "peer.sidecar.local";

/// An authority for the peers of one site.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// PEM files in a pod's directory.
pub struct Files {
    /// The pod's own certificate.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The certificate and the key, for those who want both in one file.
    pub bundle: PathBuf,
    /// The authority's certificate.
    pub ca: PathBuf,
}

impl Authority {
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = called("authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("cannot make an authority's key")?;
        let certificate = params
            .self_signed(&key)
            .context("cannot make an authority's certificate")?
            .pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// Issues to a pod, whose peer may be on either side.
    pub fn issue(&self, pod: &Pod) -> anyhow::Result<Files> {
        let mut params = CertificateParams::new([NAME.to_owned()]).context("cannot name a peer")?;
        params.distinguished_name = called("peer");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate().context("cannot make a peer's key")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("cannot make a peer's certificate")?
            .pem();
        let key = key.serialize_pem();
        let sandbox = pod.sandbox();
        Ok(Files {
            bundle: sandbox.file("peer-bundle.pem", format!("{certificate}{key}")),
            certificate: sandbox.file("peer.pem", certificate),
            key: sandbox.file("peer-key.pem", key),
            ca: sandbox.file("peer-ca.pem", &self.certificate),
        })
    }
}

/// The subject of a certificate. OpenSSL takes one that is called as its issuer is for self-signed.
fn called(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}
