use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError};
use spiffe::{SpiffeId, TrustDomain};

use crate::identity::Flaw;

/// Why a TLS handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer is not who it should be, or cannot show that it is.
    #[error(transparent)]
    PeerIdentity(#[from] Refused),
    /// The peer's bytes are no TLS records.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// The peer speaks TLS, but not as a sidecar does.
    #[error("the peer speaks TLS, but not as a sidecar does: {0}")]
    Incompatible(rustls::Error),
    /// The peer gave up, most likely because it refuses our certificate. Its log says why.
    #[error("the peer refused the handshake with the alert {0:?}; its log says why")]
    RefusedByPeer(AlertDescription),
    /// The connection broke.
    #[error("the connection broke during the TLS handshake: {0}")]
    Broken(io::Error),
}

/// Why a peer's identity is refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// It showed none.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// Its certificate is no valid X.509-SVID.
    #[error("the peer's certificate{} {flaw}", claim(shown.as_ref()))]
    Certificate {
        /// The identity the certificate names. Nothing vouches for it.
        shown: Option<SpiffeId>,
        /// What is wrong with the certificate.
        flaw: Flaw,
    },
    /// Its certificate names a trust domain that is not trusted. Whether it holds was not looked at.
    #[error(
        "the peer claims to be {shown}, which is not in trust domain {}",
        among(trusted)
    )]
    ForeignTrustDomain {
        /// The identity the certificate names. Nothing vouches for it.
        shown: SpiffeId,
        /// The trust domains that are.
        trusted: Vec<TrustDomain>,
    },
    /// It showed a valid certificate, and has not the key for it.
    #[error("the peer did not prove that it holds the key of the certificate it showed: {0}")]
    NoProof(CertificateError),
}

impl Refused {
    /// The identity that the peer claimed, for logs: nothing vouches for it.
    pub fn shown(&self) -> Option<&SpiffeId> {
        match self {
            Self::NoCertificate | Self::NoProof(_) => None,
            Self::Certificate { shown, .. } => shown.as_ref(),
            Self::ForeignTrustDomain { shown, .. } => Some(shown),
        }
    }
}

/// How a verifier tells rustls, which carries it through to [`HandshakeError`]. The peer is told
/// `certificate_unknown`.
impl From<Refused> for rustls::Error {
    fn from(refused: Refused) -> Self {
        CertificateError::Other(OtherError(Arc::new(refused))).into()
    }
}

impl From<CertificateError> for Refused {
    fn from(error: CertificateError) -> Self {
        match &error {
            CertificateError::Other(OtherError(other)) => other.downcast_ref().cloned(),
            _ => None,
        }
        // Certificates are judged by our verifier alone; what is left is the signature that
        // proves the key.
        .unwrap_or(Self::NoProof(error))
    }
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> Self {
        use rustls::Error as E;

        match error {
            E::InvalidCertificate(error) => Self::PeerIdentity(error.into()),
            E::NoCertificatesPresented => Self::PeerIdentity(Refused::NoCertificate),
            // What the five bytes of a record header can have wrong with them.
            E::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::InvalidEmptyPayload
                | InvalidMessage::MessageTooLarge,
            ) => Self::NotTls,
            E::AlertReceived(alert) => Self::RefusedByPeer(alert),
            error => Self::Incompatible(error),
        }
    }
}

/// Of an error that a TLS stream gave, during the handshake or later.
impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => error.into(),
            Err(error) => Self::Broken(error),
        }
    }
}

fn among(domains: &[TrustDomain]) -> String {
    let names: Vec<_> = domains.iter().map(TrustDomain::as_str).collect();
    names.join(" or ")
}

fn claim(shown: Option<&SpiffeId>) -> String {
    shown.map_or_else(String::new, |id| format!(", which names {id},"))
}
