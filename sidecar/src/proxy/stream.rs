use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::{ahead::Ahead, copy::Leg, tcp::Tcp, wire::Wire};
use crate::tls::{Peer, Protocol, Tls};

/// One leg of a connection: towards the network in mutual TLS or in plaintext, towards the app
/// always in plaintext.
pub(super) enum Stream {
    /// Bytes as they are.
    Plain(Tcp),
    /// Mutual TLS with a peer that keeps no connection for a second use.
    Tls(Box<Secured>),
    /// Mutual TLS that outlives this connection.
    Wire(Box<Wire>),
}

/// Mutual TLS, and who is at the other end.
pub(super) struct Secured {
    stream: TlsStream<Ahead>,
    peer: Peer,
}

impl Stream {
    /// Mutual TLS with a server.
    pub(super) fn to_server(stream: TlsStream<Ahead>, peer: Peer, identity: Arc<Tls>) -> Self {
        match peer.protocol() {
            Protocol::Bytes => Self::Tls(Secured { stream, peer }.into()),
            Protocol::Frames => Self::Wire(Wire::client(stream, peer, identity).into()),
        }
    }

    /// Mutual TLS with a client, which has reached us there.
    pub(super) fn to_client(
        stream: TlsStream<Ahead>,
        peer: Peer,
        identity: Arc<Tls>,
        reached: SocketAddr,
    ) -> Self {
        match peer.protocol() {
            Protocol::Bytes => Self::Tls(Secured { stream, peer }.into()),
            Protocol::Frames => Self::Wire(Wire::server(stream, peer, identity, reached).into()),
        }
    }

    /// The TCP connection below.
    pub(super) fn tcp(&self) -> &Tcp {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(secured) => secured.stream.get_ref().0.tcp(),
            Self::Wire(wire) => wire.tcp(),
        }
    }

    /// Who is at the other end, where that is known.
    pub(super) fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(secured) => Some(&secured.peer),
            Self::Wire(wire) => Some(&wire.peer),
        }
    }
}

macro_rules! on_each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain($stream) => $call,
            Stream::Tls(secured) => {
                let $stream = &mut secured.stream;
                $call
            }
            Stream::Wire(wire) => {
                let $stream = &mut wire.stream;
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl Leg for Stream {
    fn poll_write_last(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_write(cx, buf),
            Self::Wire(wire) => Pin::new(&mut wire.stream).poll_write_last(cx, buf),
        }
    }
}
