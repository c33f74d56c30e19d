use std::{fmt, sync::Arc};

use rustls::CommonState;
use rustls::pki_types::{CertificateDer, UnixTime};
use spiffe::SpiffeId;

use super::{ALPN, HandshakeError, Refused};
use crate::identity::{End, Leaf, Trust};

/// Who is at the other end of a connection, and what proved it.
#[derive(Clone, Debug)]
pub struct Peer {
    id: SpiffeId,
    /// The certificates it showed, its own first.
    chain: Arc<[CertificateDer<'static>]>,
    /// Which end it is.
    end: End,
    /// When it showed them.
    met: UnixTime,
    /// What they were last found to hold under.
    trust: Arc<Trust>,
}

impl Peer {
    /// The peer of a connection whose handshake is done.
    pub(super) fn of(
        connection: &CommonState,
        end: End,
        trust: &Arc<Trust>,
    ) -> Result<Self, HandshakeError> {
        // To rustls a peer that names no protocol at all is fine.
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(rustls::Error::NoApplicationProtocol.into());
        }
        let chain = connection
            .peer_certificates()
            .ok_or(Refused::NoCertificate)?;
        let certificate = chain.first().ok_or(Refused::NoCertificate)?;
        // The verifier let it pass, so this does.
        let leaf =
            Leaf::parse(certificate).map_err(|flaw| Refused::Certificate { shown: None, flaw })?;
        Ok(Self {
            id: leaf.id,
            chain: chain
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
            end,
            met: UnixTime::now(),
            trust: Arc::clone(trust),
        })
    }

    /// Its identity, verified.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub(super) fn end(&self) -> End {
        self.end
    }

    pub(super) fn met(&self) -> UnixTime {
        self.met
    }

    pub(super) fn holds_under(&self, trust: &Arc<Trust>) -> bool {
        Arc::ptr_eq(&self.trust, trust)
    }

    pub(super) fn found_to_hold_under(&mut self, trust: &Arc<Trust>) {
        self.trust = Arc::clone(trust);
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}
