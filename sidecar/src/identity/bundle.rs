use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};

use super::Flaw;

/// The authorities of a trust domain: what a certificate must chain to (X509-SVID section 5.1).
#[derive(Debug, Clone)]
pub struct TrustBundle {
    /// As they were given, to hand on.
    authorities: Vec<CertificateDer<'static>>,
    /// The same, parsed. Checks chains of TLS servers.
    roots: Arc<RootCertStore>,
    /// Checks chains of TLS clients against `roots`.
    clients: Arc<dyn ClientCertVerifier>,
    /// What certificates may be signed with.
    algorithms: WebPkiSupportedAlgorithms,
}

impl TrustBundle {
    /// Trusts `authorities`, of which there is at least one.
    pub fn new(authorities: Vec<CertificateDer<'static>>) -> Result<Self, Flaw> {
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone())?;
        }
        let roots = Arc::new(roots);
        let provider = default_provider();
        let algorithms = provider.signature_verification_algorithms;
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.into())
            .build()
            // There are no revocation lists, so what is wrong is that there are no authorities.
            .map_err(|_| Flaw::Malformed)?;
        Ok(Self {
            authorities,
            roots,
            clients,
            algorithms,
        })
    }

    /// The authorities' certificates.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Whether an authority vouches, at the time `now`, for `leaf` as a TLS client's certificate.
    /// `intermediates` may lead from one to the other.
    pub(crate) fn verify_client(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Flaw> {
        self.clients.verify_client_cert(leaf, intermediates, now)?;
        Ok(())
    }

    /// Like [`Self::verify_client`], for a TLS server's certificate. The name of the server is not
    /// looked at.
    pub(crate) fn verify_server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Flaw> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        Ok(())
    }
}
