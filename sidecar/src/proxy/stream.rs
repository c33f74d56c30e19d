use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// One leg of a connection: towards the network in mutual TLS or in plaintext, towards the app
/// always in plaintext.
#[derive(Debug)]
pub(super) enum Stream {
    /// We dialled, the peer answered as a TLS server.
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// Bytes as they are.
    Plain(TcpStream),
    /// The peer dialled as a TLS client.
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

impl Stream {
    /// The TCP connection below.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Client(stream) => stream.get_ref().0,
            Self::Plain(stream) => stream,
            Self::Server(stream) => stream.get_ref().0,
        }
    }

    /// Ends the connection at once with a reset, as an app does that fails.
    pub(super) fn reset(self) {
        reset(self.tcp());
    }
}

/// Makes the coming close of this connection a reset, which drops what was not yet delivered.
pub(super) fn reset(stream: &TcpStream) {
    // It fails only on a connection that is gone already.
    let _ = stream.set_zero_linger();
}

macro_rules! on_each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Client($stream) => $call,
            Stream::Plain($stream) => $call,
            Stream::Server($stream) => $call,
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
