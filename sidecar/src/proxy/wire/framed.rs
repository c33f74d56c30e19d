use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::super::copy::Leg;
use super::frame::{Frame, HEADER, REACHED, decode_address, encode_address, malformed};

/// How much a client may say with the word that begins a connection: as much as fits with it into one
/// TLS record (RFC 8446, section 5.1). Whoever has heard the word has then heard all.
pub(in super::super) const FIRST: usize = (1 << 14) - 2 * HEADER;

/// A stream that carries one connection after another.
///
/// Reading and writing are the connection's: its end is an end of file here, and the stream goes on.
/// Where the stream ends without that, the connection has failed, whatever TLS says.
#[derive(Debug)]
pub(in super::super) struct Framed<S> {
    stream: S,
    reading: Reading,
    writing: Writing,
    /// Where the client reached us, if we are the server and would take another connection.
    reached: Option<SocketAddr>,
    /// Where the server says that it was reached.
    says_reached: Option<SocketAddr>,
}

/// How far the direction towards us has got.
#[derive(Debug)]
enum Reading {
    /// So much of a header.
    Header(Part<HEADER>),
    /// As many bytes of the app are still to come.
    Bytes(usize),
    /// So much of where the server was reached.
    Reached(Part<REACHED>),
    /// The peer has ended it.
    Ended,
}

/// How far the direction from us has got.
#[derive(Debug)]
enum Writing {
    /// Between two frames.
    Between,
    /// What is left of a header, and how many bytes it announces that have not been written.
    Bytes(Part<HEADER>, usize),
    /// What is left of the frame that ends it.
    Ending(Part<{ HEADER + REACHED }>),
    /// That is written, and may not have left.
    Flushing,
    /// The peer has been told its end.
    Ended,
}

/// Some bytes, and how many of them have come or gone.
#[derive(Debug)]
struct Part<const LENGTH: usize> {
    bytes: [u8; LENGTH],
    done: usize,
}

impl<const LENGTH: usize> Part<LENGTH> {
    const NOTHING: Self = Self {
        bytes: [0; LENGTH],
        done: 0,
    };

    const fn to_send(bytes: [u8; LENGTH]) -> Self {
        Self { bytes, done: 0 }
    }

    fn left(&self) -> &[u8] {
        &self.bytes[self.done..]
    }

    /// Reads what is missing; `None` if the stream has ended in front of its first byte.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<Option<[u8; LENGTH]>>> {
        while self.done < LENGTH {
            let mut into = ReadBuf::new(&mut self.bytes[self.done..]);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut into))?;
            let read = into.filled().len();
            if read == 0 {
                return Poll::Ready(if self.done == 0 {
                    Ok(None)
                } else {
                    Err(truncated())
                });
            }
            self.done += read;
        }
        Poll::Ready(Ok(Some(self.bytes)))
    }
}

impl<S> Framed<S> {
    /// A stream that has just been opened, and with it its first connection, from the client's side.
    pub(in super::super) fn client(stream: S) -> Self {
        Self {
            stream,
            reading: Reading::Header(Part::NOTHING),
            writing: Writing::Between,
            reached: None,
            says_reached: None,
        }
    }

    /// The same from the side of the server, which was reached there.
    pub(in super::super) fn server(stream: S, reached: SocketAddr) -> Self {
        Self {
            reached: Some(reached),
            ..Self::client(stream)
        }
    }

    pub(in super::super) fn stream(&self) -> &S {
        &self.stream
    }

    /// Where the server says that it was reached, if it would take another connection. Known when
    /// a connection has ended.
    pub(in super::super) fn says_reached(&self) -> Option<SocketAddr> {
        self.says_reached
    }

    /// Has the connection ended in good order, both ways?
    fn has_ended(&self) -> bool {
        matches!(
            (&self.reading, &self.writing),
            (Reading::Ended, Writing::Ended)
        )
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Framed<S> {
    /// Whether nothing has come since the last connection ended, not even the end of the stream.
    pub(in super::super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        self.has_ended()
            && Pin::new(&mut self.stream)
                .poll_read(&mut cx, &mut ReadBuf::new(&mut byte))
                .is_pending()
    }

    /// As the client, begins another connection, with what the app has said already, at most [`FIRST`]
    /// bytes; returns when the server's app has taken it, and `false` if nothing of it ever will be.
    ///
    /// If it fails, nobody knows.
    pub(in super::super) async fn open(&mut self, first: &[u8]) -> io::Result<bool> {
        let mut words = Frame::Open.header().to_vec();
        if !first.is_empty() {
            words.extend_from_slice(&Frame::bytes(first).header());
            words.extend_from_slice(first);
        }
        self.stream.write_all(&words).await?;
        self.stream.flush().await?;
        match self.next().await? {
            Some(Frame::Opened) => {
                self.begin();
                Ok(true)
            }
            Some(other) => Err(malformed(&format!(
                "the server answered a new connection with {other:?}"
            ))),
            None => Ok(false),
        }
    }

    /// As the server, waits for another connection; `false` if there will be none.
    pub(in super::super) async fn is_opened(&mut self) -> io::Result<bool> {
        match self.next().await? {
            Some(Frame::Open) => Ok(true),
            Some(other) => Err(malformed(&format!(
                "the client began a connection with {other:?}"
            ))),
            None => Ok(false),
        }
    }

    /// As the server, says that the app has taken it.
    pub(in super::super) async fn accept(&mut self) -> io::Result<()> {
        self.stream.write_all(&Frame::Opened.header()).await?;
        self.stream.flush().await?;
        self.begin();
        Ok(())
    }

    /// Tells the peer that nothing will follow.
    pub(in super::super) async fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    fn begin(&mut self) {
        self.reading = Reading::Header(Part::NOTHING);
        self.writing = Writing::Between;
    }

    /// The next frame between two connections; `None` at the end of the stream.
    ///
    /// Not to be called again when it was dropped half-way.
    async fn next(&mut self) -> io::Result<Option<Frame>> {
        let mut header = Part::<HEADER>::NOTHING;
        let header = std::future::poll_fn(|cx| header.poll_read(cx, &mut self.stream)).await?;
        header.map(Frame::try_from).transpose()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.reading {
                Reading::Header(header) => {
                    let header = ready!(header.poll_read(cx, &mut this.stream))?;
                    this.reading = match Frame::try_from(header.ok_or_else(truncated)?)? {
                        Frame::Bytes(length) => Reading::Bytes(length),
                        Frame::End { says_where: false } => Reading::Ended,
                        Frame::End { says_where: true } => Reading::Reached(Part::NOTHING),
                        other => {
                            let what = format!("the peer sent {other:?} within a connection");
                            return Poll::Ready(Err(malformed(&what)));
                        }
                    };
                }
                Reading::Bytes(left) => {
                    // The callers' buffers are initialised already, so this zeroes nothing.
                    let room = buf.remaining().min(*left);
                    let mut into = ReadBuf::new(buf.initialize_unfilled_to(room));
                    ready!(Pin::new(&mut this.stream).poll_read(cx, &mut into))?;
                    let read = into.filled().len();
                    if read == 0 && room > 0 {
                        return Poll::Ready(Err(truncated()));
                    }
                    buf.advance(read);
                    *left -= read;
                    if *left == 0 {
                        this.reading = Reading::Header(Part::NOTHING);
                    }
                    return Poll::Ready(Ok(()));
                }
                Reading::Reached(reached) => {
                    let reached = ready!(reached.poll_read(cx, &mut this.stream))?;
                    this.says_reached = Some(decode_address(reached.ok_or_else(truncated)?));
                    this.reading = Reading::Ended;
                }
                Reading::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Framed<S> {
    /// Writes bytes, and behind them the end, if they are the last.
    fn poll_write_framed(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
        is_last: bool,
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if matches!(self.writing, Writing::Between) {
            let frame = Frame::bytes(buf);
            let Frame::Bytes(left) = frame else {
                unreachable!("it was made of bytes");
            };
            self.writing = Writing::Bytes(Part::to_send(frame.header()), left);
        }
        let end = self.end();
        let Writing::Bytes(header, left) = &mut self.writing else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let bytes = &buf[..buf.len().min(*left)];
        let is_whole = is_last && bytes.len() == buf.len() && *left == buf.len();
        loop {
            let slices = [header.left(), bytes, end.left()].map(IoSlice::new);
            let slices = if is_whole { &slices[..] } else { &slices[..2] };
            let mut written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_header = written.min(header.left().len());
            header.done += of_header;
            written -= of_header;
            if written == 0 {
                continue;
            }
            let of_bytes = written.min(bytes.len());
            *left -= of_bytes;
            if *left == 0 {
                let done = end.done + written - of_bytes;
                self.writing = if written > of_bytes {
                    Writing::Ending(Part { done, ..end })
                } else {
                    Writing::Between
                };
            }
            return Poll::Ready(Ok(of_bytes));
        }
    }

    /// The frame that ends this direction.
    fn end(&self) -> Part<{ HEADER + REACHED }> {
        let frame = Frame::End {
            says_where: self.reached.is_some(),
        };
        let mut bytes = [0; HEADER + REACHED];
        let mut done = REACHED;
        if let Some(reached) = self.reached {
            bytes[HEADER..].copy_from_slice(&encode_address(reached));
            done = 0;
        }
        bytes[done..done + HEADER].copy_from_slice(&frame.header());
        Part { bytes, done }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_framed(cx, buf, false)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Ends the connection, in this direction. The stream goes on.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.writing {
                Writing::Between => this.writing = Writing::Ending(this.end()),
                // Whoever ends it half-way through a write would have the peer take what follows for bytes.
                Writing::Bytes(..) => {
                    return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
                }
                Writing::Ending(frame) => {
                    if frame.left().is_empty() {
                        this.writing = Writing::Flushing;
                        continue;
                    }
                    let written = ready!(Pin::new(&mut this.stream).poll_write(cx, frame.left()))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    frame.done += written;
                }
                Writing::Flushing => {
                    ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
                    this.writing = Writing::Ended;
                }
                Writing::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Leg for Framed<S> {
    fn poll_write_last(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_framed(cx, buf, true)
    }
}

/// The stream has ended, or a frame was cut, where the connection went on.
fn truncated() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

#[cfg(test)]
mod tests;
