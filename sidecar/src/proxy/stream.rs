use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{client, server};

use super::{ahead::Ahead, tcp::Tcp};
use crate::tls::Peer;

/// One leg of a connection: towards the network in mutual TLS or in plaintext, towards the app
/// always in plaintext.
#[derive(Debug)]
pub(super) enum Stream {
    /// We dialled, the peer answered as a TLS server.
    Client(Box<client::TlsStream<Ahead>>, Peer),
    /// Bytes as they are.
    Plain(Tcp),
    /// The peer dialled as a TLS client.
    Server(Box<server::TlsStream<Ahead>>, Peer),
}

impl Stream {
    /// The TCP connection below.
    pub(super) fn tcp(&self) -> &Tcp {
        match self {
            Self::Client(stream, _) => stream.get_ref().0.tcp(),
            Self::Plain(stream) => stream,
            Self::Server(stream, _) => stream.get_ref().0.tcp(),
        }
    }

    /// Who is at the other end, where that is known.
    pub(super) fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Client(_, peer) | Self::Server(_, peer) => Some(peer),
            Self::Plain(_) => None,
        }
    }
}

macro_rules! on_each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Client($stream, _) => $call,
            Stream::Plain($stream) => $call,
            Stream::Server($stream, _) => $call,
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
