//! Connections between two sidecars, which outlive those of the apps.
//!
//! A handshake costs more than most connections carry. So a wire, once its connection has ended in good
//! order, is kept for the next one to the same destination: that one costs a word to the server and its
//! answer. One connection at a time is on a wire, so none waits for another's bytes, and TCP's flow
//! control is the app's.
//!
//! What is spoken is `sidecar/2`: the bytes of the apps in frames ([`frame`]), so that their end is not
//! that of TLS. The first connection comes with the wire. For another the client says `Open`, and the
//! server, once its app has taken the connection, `Opened`; before that only a server is told anything of it
//! that was in use a moment ago, and no more than fits into the same TLS record. A server that cannot take
//! the connection, or does not want to, ends the wire in good order instead. The client dials anew then, and
//! the outcome of that counts.
//!
//! A wire serves another connection only as long as both would make it again: with the same identities,
//! none of which is over, and the policy is asked about each connection as if it had been dialled. It goes
//! where it was dialled to: a server that was reached by another address than it was dialled by (a Service
//! that is translated) stands for many, and is not kept.

mod frame;
mod framed;
mod spares;

use std::{io, net::SocketAddr, sync::Arc, time::SystemTime};

use tokio_rustls::TlsStream;

use self::framed::Framed;
pub use self::spares::Spares;
pub(super) use self::{frame::HEADER, framed::FIRST, spares::close};
use super::{ahead::Ahead, tcp::Tcp};
use crate::tls::{Peer, Tls};

/// A connection to another sidecar that can carry one connection of the apps after another.
pub(super) struct Wire {
    pub(super) stream: Framed<TlsStream<Ahead>>,
    /// Who is at the other end.
    pub(super) peer: Peer,
    /// What it was made under.
    identity: Arc<Tls>,
    /// The number by which the kernel side tells what TCP measures on it, once that was asked for.
    cookie: Option<u64>,
    /// Where the peer sees it come from, once that was asked for.
    source: Option<SocketAddr>,
}

impl Wire {
    /// To a server.
    pub(super) fn client(stream: TlsStream<Ahead>, peer: Peer, identity: Arc<Tls>) -> Self {
        Self {
            stream: Framed::client(stream),
            peer,
            identity,
            cookie: None,
            source: None,
        }
    }

    /// From a client that has reached us there.
    pub(super) fn server(
        stream: TlsStream<Ahead>,
        peer: Peer,
        identity: Arc<Tls>,
        reached: SocketAddr,
    ) -> Self {
        Self {
            stream: Framed::server(stream, reached),
            peer,
            identity,
            cookie: None,
            source: None,
        }
    }

    /// The TCP connection below.
    pub(super) fn tcp(&self) -> &Tcp {
        self.stream.stream().get_ref().0.tcp()
    }

    /// The number by which the kernel side tells what TCP measures on it, if it has been asked for.
    pub(super) fn cookie(&self) -> Option<u64> {
        self.cookie
    }

    pub(super) fn has_cookie(&mut self, cookie: u64) {
        self.cookie = Some(cookie);
    }

    /// Where the peer sees it come from.
    pub(super) fn source(&mut self) -> Option<SocketAddr> {
        self.source = self.source.or_else(|| self.tcp().local_addr().ok());
        self.source
    }

    /// Who we are on it.
    pub(super) fn identity(&self) -> &Tls {
        &self.identity
    }

    /// Whether both sides would make it again: we are who we were, and nobody's certificate is over.
    pub(super) fn holds_under(&self, identity: Option<&Arc<Tls>>) -> bool {
        let now = SystemTime::now();
        identity.is_some_and(|identity| Arc::ptr_eq(identity, &self.identity))
            && now <= self.identity.not_after()
            && now <= self.peer.not_after()
    }

    /// Ends it in good order, if the peer lets us.
    pub(super) async fn close(mut self) -> io::Result<()> {
        self.stream.close().await
    }
}

#[cfg(feature = "benchmarks")]
pub(super) mod benchmarks {
    use tokio::io::{DuplexStream, duplex};

    use super::Framed;

    /// Both ends of a stream that holds so many bytes each way.
    pub(in super::super) fn framed(room: usize) -> (Framed<DuplexStream>, Framed<DuplexStream>) {
        let (client, server) = duplex(room);
        let reached = ([198, 18, 0, 2], 80).into();
        (Framed::client(client), Framed::server(server, reached))
    }
}

#[cfg(test)]
pub(super) mod testing {
    use tokio::net::TcpStream;

    use super::*;

    /// The server's end of a wire, in the hands of a test.
    pub(in super::super) type Held = Framed<tokio_rustls::server::TlsStream<TcpStream>>;

    pub(in super::super) fn server(
        stream: tokio_rustls::server::TlsStream<TcpStream>,
        reached: SocketAddr,
    ) -> Held {
        Framed::server(stream, reached)
    }
}
