//! Mutual TLS 1.3 between sidecars, each of which knows the other by its X.509-SVID.

mod error;
mod hello;
mod keeper;
mod peer;
mod sessions;
mod verifier;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, HandshakeKind, ServerConfig};
use spiffe::SpiffeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use self::verifier::Verifier;
use crate::identity::{End, Svid, Trust};

pub use self::error::{HandshakeError, Refused};
pub use self::hello::begins_with_our_hello;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::hello::{Verdict, judge};
pub use self::keeper::keep;
pub use self::peer::Peer;

/// What sidecars speak within TLS, as ALPN names it (RFC 7301). Another is added when that changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// The application's bytes as they are, of one connection.
    Bytes,
    /// They are framed, and one connection follows another.
    Frames,
}

impl Protocol {
    /// All of them, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Frames, Self::Bytes];

    /// Its name in ALPN.
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Bytes => b"sidecar/1",
            Self::Frames => b"sidecar/2",
        }
    }

    /// The one with this name.
    pub fn named(alpn: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.alpn() == alpn)
    }

    fn names() -> Vec<Vec<u8>> {
        Self::ALL.map(|protocol| protocol.alpn().to_vec()).into()
    }
}

/// Makes and takes connections under one identity.
///
/// Only TLS 1.3, both sides show an X.509-SVID that the other trusts, both speak a [`Protocol`]. Sessions
/// are resumed as long as what they rest upon lasts: this, and the certificates of the peer.
#[derive(Clone)]
pub struct Tls {
    own: SpiffeId,
    not_after: SystemTime,
    /// Judges peers, those of open connections again.
    verifier: Arc<Verifier>,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Prepares for connections as `svid` with peers of its own trust domain.
    pub fn new(svid: &Svid) -> Self {
        Self::trusting(svid, Trust::of(svid).into())
    }

    /// Prepares for connections as `svid` with peers that `trust` holds for trustworthy.
    ///
    /// The private key is held ready to sign, and not in its encoded form. That is elsewhere in
    /// memory as long as the identity is used: whoever keeps the [`Svid`] has it, to try the
    /// identity again when whom to trust changes, and so has whoever watches its files.
    pub fn trusting(svid: &Svid, trust: Arc<Trust>) -> Self {
        let provider = Arc::new(provider());
        let verifier = Arc::new(Verifier::new(trust, &provider));
        let signer = Arc::new(SingleCertAndKey::from(svid.signer()));
        let until = svid.not_after();
        Self {
            own: svid.id().clone(),
            not_after: until,
            connector: Arc::new(client_config(&provider, &verifier, &signer, until)).into(),
            acceptor: Arc::new(server_config(&provider, &verifier, &signer, until)).into(),
            verifier,
        }
    }

    /// The same, for a peer that speaks one protocol only.
    #[cfg(test)]
    pub(crate) fn speaking(self, protocol: Protocol) -> Self {
        let names = vec![protocol.alpn().to_vec()];
        let mut client = (**self.connector.config()).clone();
        client.alpn_protocols.clone_from(&names);
        let mut server = (**self.acceptor.config()).clone();
        server.alpn_protocols = names;
        Self {
            connector: Arc::new(client).into(),
            acceptor: Arc::new(server).into(),
            ..self
        }
    }

    /// Who this side is.
    pub fn own(&self) -> &SpiffeId {
        &self.own
    }

    /// When this side's certificate expires. New connections fail from then on.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Shakes hands as the client with the server at an address, with which there may have been
    /// a session before. Gives the stream and who the server is.
    ///
    /// Waits for the peer as long as it takes: bound it with a timeout.
    ///
    /// In TLS 1.3 the client is done *before the server has looked at its certificate*. A server
    /// that refuses it says so by an alert, which arrives in place of the first bytes: the first
    /// read fails. [`HandshakeError::from`] that error is [`HandshakeError::RefusedByPeer`]. What
    /// was written until then never reached the server's application. A write may fail before the
    /// read does, without saying why; the alert is still there to be read. There is none where a
    /// session was taken up again and this side's certificate is over by the server's clock alone: the
    /// server hangs up.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        server: IpAddr,
        stream: S,
    ) -> Result<(client::TlsStream<S>, Peer), HandshakeError> {
        // Names take no part in this: SPIFFE IDs do. An address keeps SNI off the wire, and tells
        // sessions apart.
        let name = ServerName::from(server);
        let stream = self.connector.connect(name, stream).await?;
        let peer = self.met(stream.get_ref().1, End::Server)?;
        Ok((stream, peer))
    }

    /// Shakes hands as the server. Gives the stream and who the client is, verified.
    ///
    /// Waits for the peer as long as it takes: bound it with a timeout.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<(server::TlsStream<S>, Peer), HandshakeError> {
        let stream = self.acceptor.accept(stream).await?;
        let peer = self.met(stream.get_ref().1, End::Client)?;
        Ok((stream, peer))
    }

    /// Who is at the other end of a connection whose handshake is done.
    fn met(&self, connection: &CommonState, end: End) -> Result<Peer, HandshakeError> {
        let peer = Peer::of(connection, end, self.trust())?;
        if connection.handshake_kind() == Some(HandshakeKind::Resumed) && peer.was_over() {
            self.judge(&peer)?;
        }
        Ok(peer)
    }

    /// Whether `peer`, to whom there is an open connection, could still connect: its authority is
    /// still trusted, and has not revoked its certificate.
    ///
    /// A certificate that has expired since does not end a connection: who held it then is still at
    /// the other end.
    pub fn still_trusts(&self, peer: &mut Peer) -> Result<(), Refused> {
        // Most often it is the own certificate alone that is new.
        if peer.holds_under(self.trust()) {
            return Ok(());
        }
        self.judge(peer)?;
        peer.found_to_hold_under(self.trust());
        Ok(())
    }

    /// Whether what the peer showed held when it was met.
    fn judge(&self, peer: &Peer) -> Result<(), Refused> {
        let (certificate, intermediates) =
            peer.chain().split_first().ok_or(Refused::NoCertificate)?;
        self.verifier
            .verify(peer.end(), certificate, intermediates, peer.met())
    }

    /// Whom this side trusts.
    fn trust(&self) -> &Arc<Trust> {
        self.verifier.trust()
    }

    /// Shakes hands with itself in memory: whether a peer that trusts whom we trust would take us
    /// for who we are, as either end.
    ///
    /// It goes through all that a peer looks at, down to the proof that the key is held.
    pub(crate) async fn would_be_accepted(&self) -> Result<(), HandshakeError> {
        /// More than one side sends before it waits for the other.
        const BUFFER: usize = 1 << 17;
        let (client, server) = tokio::io::duplex(BUFFER);
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let (connected, accepted) =
            tokio::join!(self.connect(nowhere, client), self.accept(server));
        // The client first: a server that it refuses knows but the alert.
        connected?;
        accepted?;
        Ok(())
    }
}

/// Post-quantum key agreement first: recorded traffic stays secret when quantum computers come.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..default_provider()
    }
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    verifier: &Arc<Verifier>,
    signer: &Arc<SingleCertAndKey>,
    until: SystemTime,
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_cert_resolver(signer.clone());
    config.alpn_protocols = Protocol::names();
    config.resumption = sessions::of_client(until);
    config
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    verifier: &Arc<Verifier>,
    signer: &Arc<SingleCertAndKey>,
    until: SystemTime,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(verifier.clone())
        .with_cert_resolver(signer.clone());
    config.alpn_protocols = Protocol::names();
    config.session_storage = sessions::of_server(until);
    config.send_tls13_tickets = sessions::GIVEN;
    config
}

#[cfg(test)]
mod tests;
