use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};
use spiffe::TrustDomain;

use super::Refused;
use crate::identity::{Flaw, Leaf, Svid, TrustBundle, shown_id};

/// Judges peers, as either end: a peer is a workload of our own trust domain that the trust bundle
/// vouches for (X509-SVID section 5).
#[derive(Debug)]
pub(super) struct Verifier {
    own: TrustDomain,
    bundle: TrustBundle,
    /// Checks the peer's proof that it holds its key.
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(svid: &Svid, provider: &CryptoProvider) -> Self {
        Self {
            own: svid.id().trust_domain().clone(),
            bundle: svid.bundle().clone(),
            algorithms: provider.signature_verification_algorithms,
        }
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        is_vouched_for: impl FnOnce() -> Result<(), Flaw>,
    ) -> Result<(), Refused> {
        let refuse = |flaw| Refused::Certificate {
            shown: shown_id(certificate),
            flaw,
        };
        let leaf = Leaf::parse(certificate).map_err(refuse)?;
        // Before the chain, which cannot hold either: this is the reason that helps.
        if !leaf.id.is_member_of(&self.own) {
            return Err(Refused::ForeignTrustDomain {
                shown: leaf.id,
                own: self.own.clone(),
            });
        }
        is_vouched_for().map_err(refuse)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(certificate, || {
            self.bundle.verify_server(certificate, intermediates, now)
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A hint helps a client choose among certificates; a sidecar has one.
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(certificate, || {
            self.bundle.verify_client(certificate, intermediates, now)
        })?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The configurations allow TLS 1.3 alone, so nothing gets here.
fn tls12() -> Error {
    PeerIncompatible::Tls12NotOffered.into()
}
