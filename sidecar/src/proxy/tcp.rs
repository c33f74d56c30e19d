use std::{
    io,
    net::Shutdown,
    ops::Deref,
    os::fd::{AsFd, AsRawFd as _},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use nix::sys::socket::{MsgFlags, recv};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// A TCP connection with more than one owner, so that it can be watched while it is in use.
///
/// It is reset when it is closed, unless the peer has been told the end of what it was sent: whatever becomes of the task that
/// serves it, or of the process, the peer never takes a failure for that end, and never loses to a reset what it has not read yet.
#[derive(Clone, Debug)]
pub(super) struct Tcp(Arc<TcpStream>);

/// Makes connections that a socket is to accept, when it listens, such as [`Tcp::accepted`] expects: Linux
/// gives them what their listener has.
pub(crate) fn prepare_listener(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    // Bytes are passed on as they come; waiting to fill segments is the apps' choice.
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))
}

impl Tcp {
    pub(super) fn new(stream: TcpStream) -> Self {
        // It fails only on a connection that is gone already, as do the calls below.
        let _ = stream.set_zero_linger();
        Self(Arc::new(stream))
    }

    /// A connection from a listener that was [prepared](prepare_listener).
    pub(super) fn accepted(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }

    /// Reads from a peer that sends no urgent data (RFC 9293, section 3.8.5), at which alone a read stops
    /// while more is there: what comes short of `buf` was all, and is not asked for again in vain.
    pub(super) fn poll_read_all(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            let into = buf.initialize_unfilled();
            let mut read = None;
            // The runtime takes the socket for read empty when it is told that it would block.
            let result = self.0.try_io(Interest::READABLE, || {
                let length = recv(self.0.as_raw_fd(), into, MsgFlags::empty())?;
                read = Some(length);
                if length > 0 && length < into.len() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match (read, result) {
                (Some(length), _) => {
                    buf.advance(length);
                    return Poll::Ready(Ok(()));
                }
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                _ => {}
            }
        }
    }

    /// Has the kernel ask, while nothing is said, whether the peer is still there: after a minute, and
    /// a minute later it is taken to have vanished (RFC 9293, section 3.8.4).
    ///
    /// An app's own questions end at its proxy. Nobody would ask the peer otherwise.
    pub(super) fn ask_whether_alive(&self) {
        let questions = TcpKeepalive::new()
            .with_time(Duration::from_mins(1))
            .with_interval(Duration::from_secs(15))
            .with_retries(4);
        // It fails only on a connection that is gone already.
        let _ = SockRef::from(&*self.0).set_tcp_keepalive(&questions);
    }

    /// The connection has failed, whatever the peer has been told: closing resets it.
    pub(super) fn failed(&self) {
        let _ = self.0.set_zero_linger();
    }

    /// Waits until the peer has reset the connection, whether or not anybody reads from it.
    pub(super) async fn was_reset(self) {
        // Failing to wait means that the runtime is going down; there is no reset to tell of.
        if self.0.ready(Interest::ERROR).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Deref for Tcp {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

/// Calls until it succeeds, waiting for readiness whenever it would block.
macro_rules! when_ready {
    ($self:ident, $cx:ident, $poll_ready:ident, $call:expr) => {
        loop {
            ready!($self.0.$poll_ready($cx))?;
            match $call {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    };
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        when_ready!(self, cx, poll_read_ready, {
            // The callers' buffers are initialised already, so this zeroes nothing.
            self.0
                .try_read(buf.initialize_unfilled())
                .map(|read| buf.advance(read))
        })
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        when_ready!(self, cx, poll_write_ready, self.0.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        when_ready!(self, cx, poll_write_ready, self.0.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel holds nothing back: Nagle's algorithm is off.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = SockRef::from(&*self.0);
        let told = socket.shutdown(Shutdown::Write);
        if told.is_ok() {
            // Closing may deliver in peace what is still under way.
            let _ = socket.set_linger(None);
        }
        Poll::Ready(told)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A connection that has been given all that it takes, how much that was, and its peer, which has read nothing yet.
    async fn full() -> (Tcp, usize, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let peer = TcpStream::connect(address).await.expect("it listens");
        let (stream, _) = listener.accept().await.expect("a connection");
        let tcp = Tcp::new(stream);
        let mut given = 0;
        tcp.writable().await.expect("it is open");
        loop {
            match tcp.try_write(&[7; 1 << 14]) {
                Ok(written) => given += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        (tcp, given, peer)
    }

    #[tokio::test]
    async fn what_a_listener_was_prepared_for_its_connections_have() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        prepare_listener(&listener).expect("a socket");
        let address = listener.local_addr().expect("a bound socket");
        let mut peer = TcpStream::connect(address).await.expect("it listens");
        let (stream, _) = listener.accept().await.expect("a connection");
        assert!(stream.nodelay().expect("an open socket"));
        drop(Tcp::accepted(stream));
        let error = peer.read_u8().await.expect_err("it was not told an end");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_comes_after_a_read_that_was_short_is_read_and_so_is_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let mut peer = TcpStream::connect(address).await.expect("it listens");
        let (stream, _) = listener.accept().await.expect("a connection");
        let tcp = Tcp::new(stream);
        let read = async || {
            let mut bytes = [0; 8];
            let mut buf = ReadBuf::new(&mut bytes);
            let read = poll_fn(|cx| tcp.poll_read_all(cx, &mut buf)).await;
            read.expect("an open connection");
            buf.filled().to_vec()
        };
        for word in ["short", "exactly8", "short"] {
            peer.write_all(word.as_bytes()).await.expect("an open leg");
            assert_eq!(read().await, word.as_bytes());
        }
        // The end comes with the bytes in front of it.
        peer.write_all(b"last").await.expect("an open leg");
        peer.shutdown().await.expect("an open leg");
        tcp.ready(Interest::READABLE).await.expect("an open leg");
        assert_eq!((read().await, read().await), (b"last".to_vec(), Vec::new()));
    }

    #[tokio::test]
    async fn what_is_under_way_arrives_after_the_end_was_told_and_the_connection_closed() {
        let (mut tcp, given, mut peer) = full().await;
        tcp.shutdown().await.expect("it is open");
        drop(tcp);
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.expect("no reset");
        assert_eq!(heard.len(), given);
    }

    #[tokio::test]
    async fn a_connection_that_is_closed_before_its_end_was_told_or_that_has_failed_is_reset() {
        for has_failed in [false, true] {
            let (mut tcp, _, mut peer) = full().await;
            if has_failed {
                tcp.shutdown().await.expect("it is open");
                tcp.failed();
            }
            drop(tcp);
            let error = peer.read_to_end(&mut Vec::new()).await;
            let error = error.expect_err("an end that was none");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{has_failed}");
        }
    }
}
