use std::time::Duration;

use jiff::Timestamp;
use rcgen::SerialNumber;
use rustls::pki_types::{CertificateDer, UnixTime};
use spiffe::SpiffeId;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::Flaw;

/// The shortest RSA key that counts, in bits: what rustls takes, too.
const SHORTEST_RSA: usize = 2048;

/// How much of a URI that is no SPIFFE ID an error repeats, in characters.
const SHOWN_URI: usize = 200;

/// What a certificate says that fulfils the rules for a workload's X.509-SVID (X509-SVID sections
/// 2 to 5.2). Who issued it and when it is valid is not looked at: see
/// [`TrustBundle`](super::TrustBundle).
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) not_after: Timestamp,
    pub(crate) not_before: Timestamp,
}

impl Leaf {
    pub(crate) fn parse(der: &CertificateDer<'_>) -> Result<Self, Flaw> {
        let certificate = parse(der)?;
        let id = sole_id(&certificate)?;
        if id.path().is_empty() {
            return Err(Flaw::NoWorkload(id.trust_domain().clone()));
        }
        check_usage(&certificate)?;
        check_key(&certificate)?;
        Ok(Self {
            id,
            not_after: not_after(&certificate),
            not_before: Timestamp::from_second(certificate.validity().not_before.timestamp())
                .unwrap_or(Timestamp::MIN),
        })
    }
}

/// The SPIFFE ID that a certificate shows, whether or not it has a right to it. For logs.
pub(crate) fn shown_id(der: &CertificateDer<'_>) -> Option<SpiffeId> {
    sole_id(&parse(der).ok()?).ok()
}

/// The last moment at which a certificate is valid; `None` if it cannot be read.
pub(crate) fn not_after_of(der: &CertificateDer<'_>) -> Option<UnixTime> {
    let seconds = not_after(&parse(der).ok()?).as_second();
    let since_epoch = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Some(UnixTime::since_unix_epoch(since_epoch))
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Flaw> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Flaw::Malformed),
    }
}

pub(super) fn sole_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, Flaw> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| Flaw::Malformed)?
        .map_or(&[][..], |names| &names.value.general_names);
    // A name that cannot be read could be a second URI.
    if names
        .iter()
        .any(|name| matches!(name, GeneralName::Invalid(..)))
    {
        return Err(Flaw::Malformed);
    }
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris[..] {
        [] => Err(Flaw::NoUri),
        [uri] => SpiffeId::new(uri).map_err(|error| Flaw::NotSpiffe {
            uri: uri.chars().take(SHOWN_URI).collect(),
            error,
        }),
        _ => Err(Flaw::ManyUris(uris.len())),
    }
}

/// Whether the cA flag of the basic constraints is set (RFC 5280 section 4.2.1.9).
pub(super) fn is_ca(certificate: &X509Certificate<'_>) -> Result<bool, Flaw> {
    let constraints = certificate
        .get_extension_unique(&OID_X509_EXT_BASIC_CONSTRAINTS)
        .map_err(|_| Flaw::Malformed)?;
    match constraints.map(X509Extension::parsed_extension) {
        None => Ok(false),
        Some(ParsedExtension::BasicConstraints(constraints)) => Ok(constraints.ca),
        Some(_) => Err(Flaw::Malformed),
    }
}

/// Those of `certificates` that may sign others, by their key usage (RFC 5280 section 6.1.4 (n)):
/// path validation looks at the cA flag alone.
pub(super) fn issuers<'a>(certificates: &'a [CertificateDer<'_>]) -> Vec<CertificateDer<'a>> {
    certificates
        .iter()
        .filter(|der| parse(der).is_ok_and(|certificate| may_issue(&certificate)))
        .map(|der| CertificateDer::from(der.as_ref()))
        .collect()
}

fn may_issue(certificate: &X509Certificate<'_>) -> bool {
    match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    }
}

pub(super) fn not_after(certificate: &X509Certificate<'_>) -> Timestamp {
    // "No well-defined expiry" is the last second of the year 9999 (RFC 5280 section 4.1.2.5),
    // which is past what can be printed in every time zone.
    Timestamp::from_second(certificate.validity().not_after.timestamp()).unwrap_or(Timestamp::MAX)
}

/// What tells it from others of its authority.
pub(super) fn serial(der: &CertificateDer<'_>) -> Result<SerialNumber, Flaw> {
    Ok(parse(der)?.raw_serial().to_vec().into())
}

/// What tells the key of an authority from others (RFC 5280 section 4.2.1.2).
pub(super) fn key_id(certificate: &X509Certificate<'_>) -> Result<Option<Vec<u8>>, Flaw> {
    let extension = certificate
        .get_extension_unique(&OID_X509_EXT_SUBJECT_KEY_IDENTIFIER)
        .map_err(|_| Flaw::Malformed)?;
    match extension.map(X509Extension::parsed_extension) {
        Some(ParsedExtension::SubjectKeyIdentifier(id)) => Ok(Some(id.0.to_vec())),
        _ => Ok(None),
    }
}

fn check_usage(certificate: &X509Certificate<'_>) -> Result<(), Flaw> {
    if is_ca(certificate)? {
        return Err(Flaw::Signing);
    }
    let usage = certificate
        .key_usage()
        .map_err(|_| Flaw::Malformed)?
        .ok_or(Flaw::NoDigitalSignature)?
        .value;
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(Flaw::Signing);
    }
    if !usage.digital_signature() {
        return Err(Flaw::NoDigitalSignature);
    }
    Ok(())
}

/// A short key would not be taken as proof in the handshake, which could not say why.
fn check_key(certificate: &X509Certificate<'_>) -> Result<(), Flaw> {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < SHORTEST_RSA => {
            Err(Flaw::ShortKey(key.key_size()))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(Flaw::Malformed),
    }
}
