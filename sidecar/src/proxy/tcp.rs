use std::{
    io,
    net::Shutdown,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

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

impl Tcp {
    pub(super) fn new(stream: TcpStream) -> Self {
        // It fails only on a connection that is gone already, as does the call below.
        let _ = stream.set_zero_linger();
        Self(Arc::new(stream))
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
