//! Reading ahead for TLS, which asks for 4 KB at a time: a fifth of what a record may be long.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{buffer::Buffer, tcp::Tcp};

/// A TCP connection from which more is read than is asked for, as long as more comes. Its peer speaks TLS,
/// and sends no urgent data.
#[derive(Debug)]
pub(super) struct Ahead {
    tcp: Tcp,
    /// What was read ahead; held only while something is left of it.
    read: Option<Read>,
    /// Whether the last read was filled, so that there is more.
    is_bulk: bool,
}

#[derive(Debug)]
struct Read {
    buffer: Buffer,
    start: usize,
    end: usize,
}

impl Ahead {
    pub(super) fn new(tcp: Tcp) -> Self {
        Self {
            tcp,
            read: None,
            is_bulk: false,
        }
    }

    pub(super) fn tcp(&self) -> &Tcp {
        &self.tcp
    }
}

impl AsyncRead for Ahead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.read.is_none() {
            if !this.is_bulk {
                let wanted = buf.remaining();
                ready!(this.tcp.poll_read_all(cx, buf))?;
                this.is_bulk = wanted > 0 && buf.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            let mut buffer = Buffer::take();
            let mut into = ReadBuf::new(&mut buffer);
            // The buffer goes back at once where nothing is there.
            ready!(this.tcp.poll_read_all(cx, &mut into))?;
            let end = into.filled().len();
            // Less than TLS asks for: what comes is small again.
            this.is_bulk = end > buf.remaining();
            if end == 0 {
                return Poll::Ready(Ok(()));
            }
            this.read = Some(Read {
                buffer,
                start: 0,
                end,
            });
        }
        if let Some(read) = &mut this.read {
            let length = buf.remaining().min(read.end - read.start);
            buf.put_slice(&read.buffer[read.start..read.start + length]);
            read.start += length;
            if read.start == read.end {
                this.read = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// What TLS asks for.
    const ASKED: usize = 4096;

    async fn connected() -> (TcpStream, Ahead) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let peer = TcpStream::connect(address).await.expect("connected");
        let (stream, _) = listener.accept().await.expect("accepted");
        (peer, Ahead::new(Tcp::new(stream)))
    }

    #[tokio::test]
    async fn bytes_come_in_order_and_their_end_after_them() {
        let (mut peer, mut ahead) = connected().await;
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let send = async {
            peer.write_all(&bytes).await.expect("an open leg");
            peer.shutdown().await.expect("an open leg");
            peer
        };
        let receive = async {
            let mut received = Vec::new();
            let mut buffer = [0; ASKED];
            loop {
                match ahead.read(&mut buffer).await.expect("an open leg") {
                    0 => return received,
                    length => received.extend_from_slice(&buffer[..length]),
                }
            }
        };
        let (_peer, received) = tokio::join!(send, receive);
        assert!(received == bytes, "what came is not what was sent");
    }

    #[tokio::test]
    async fn nothing_is_held_of_a_connection_that_says_little() {
        let (mut peer, mut ahead) = connected().await;
        let mut buffer = [0; ASKED];
        peer.write_all(&[7; 2 * ASKED]).await.expect("an open leg");
        ahead.read_exact(&mut buffer).await.expect("an open leg");
        assert!(ahead.is_bulk, "there is more");
        ahead.read_exact(&mut buffer).await.expect("an open leg");
        assert!(ahead.read.is_none(), "all of it was read");
        for _ in 0..2 {
            peer.write_all(b"little").await.expect("an open leg");
            let length = ahead.read(&mut buffer).await.expect("an open leg");
            assert_eq!(&buffer[..length], b"little");
            assert!(!ahead.is_bulk && ahead.read.is_none());
        }
    }
}
