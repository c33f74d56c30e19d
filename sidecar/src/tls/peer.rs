use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::CommonState;
use rustls::pki_types::{CertificateDer, UnixTime};
use spiffe::SpiffeId;

use super::{HandshakeError, Protocol, Refused};
use crate::identity::{End, Leaf, Trust, not_after_of};

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
    /// When the first of them is over.
    not_after: UnixTime,
    /// What it speaks.
    protocol: Protocol,
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
        let protocol = connection
            .alpn_protocol()
            .and_then(Protocol::named)
            .ok_or(rustls::Error::NoApplicationProtocol)?;
        let chain = connection
            .peer_certificates()
            .ok_or(Refused::NoCertificate)?;
        let certificate = chain.first().ok_or(Refused::NoCertificate)?;
        // The verifier let it pass, so this does.
        let leaf =
            Leaf::parse(certificate).map_err(|flaw| Refused::Certificate { shown: None, flaw })?;
        // One that cannot be read is over already.
        let ends = chain.iter().map(|certificate| {
            not_after_of(certificate).unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO))
        });
        Ok(Self {
            id: leaf.id,
            not_after: ends
                .min()
                .unwrap_or(UnixTime::since_unix_epoch(Duration::ZERO)),
            protocol,
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

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// When the first of the certificates that it showed expires.
    pub fn not_after(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.not_after.as_secs())
    }

    /// Whether one of the certificates that it showed had expired then.
    pub(super) fn was_over(&self) -> bool {
        self.not_after < self.met
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
