//! Reading ahead for TLS, which asks for 4 KB at a time: a fifth of what a record may be long.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{buffer::Buffer, tcp::Tcp};

/// A TCP connection from which more is read than is asked for, as long as more comes.
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
                ready!(Pin::new(&mut this.tcp).poll_read(cx, buf))?;
                this.is_bulk = wanted > 0 && buf.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            let mut buffer = Buffer::take();
            let mut into = ReadBuf::new(&mut buffer);
            // The buffer goes back at once where nothing is there.
            ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut into))?;
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
