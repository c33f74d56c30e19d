//! Carries bytes both ways until both sides have finished or one has failed.
//!
//! What a side does to its leg, the other side sees on its own: bytes in order, the end of a
//! direction as the end of that direction, a failure as a reset. A side that does not read stops
//! the other from sending: at most one buffer each way is held, and as much that TLS
//! has read ahead or not sent yet. A reset is passed on at once, also
//! to a side that does not read.

use std::{
    future::poll_fn,
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Close, buffer::Buffer, first::First};

/// Is shown bytes once they have passed.
pub trait Meter {
    /// These bytes went from the client to the server.
    fn sent(&mut self, bytes: &[u8]);
    /// The client has ended its direction, and the server knows.
    fn client_ended(&mut self);
    /// These bytes went from the server to the client.
    fn received(&mut self, bytes: &[u8]);
    /// The server has ended its direction, and the client knows.
    fn server_ended(&mut self);
}

/// What bytes are carried between.
pub(super) trait Leg: AsyncRead + AsyncWrite + Unpin {
    /// Writes what is the last of its direction: whoever has the means tells the end with it, and knows
    /// of it when it is shut down.
    fn poll_write_last(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write(cx, buf)
    }
}

/// How the carrying ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Why.
    pub(super) close: Close,
    /// What the failing side's leg said.
    pub(super) error: Option<io::Error>,
}

/// Carries bytes between the two legs. Unless it ends with [`Close::Eof`], the caller resets both.
///
/// What the functions return is ready once a leg was reset, which nobody would meet by reading. They are
/// only asked while the other leg takes no bytes: what came before a reset is delivered if it can be.
///
/// `first` has been read from the client already.
pub(super) async fn copy<C, S, F, G>(
    client: &mut C,
    server: &mut S,
    first: Option<First>,
    client_was_reset: impl Fn() -> F,
    server_was_reset: impl Fn() -> G,
    meter: &mut impl Meter,
) -> Ended
where
    C: Leg,
    S: Leg,
    F: Future<Output = ()>,
    G: Future<Output = ()>,
{
    let mut sending = Half::new(client_was_reset);
    sending.held = first.map(Held::from);
    let mut receiving = Half::new(server_was_reset);
    poll_fn(|cx| {
        let sent = sending.poll(cx, client, server, |passed| match passed {
            Passed::Bytes(bytes) => meter.sent(bytes),
            Passed::End => meter.client_ended(),
        });
        if let Poll::Ready(Err(failure)) = sent {
            return Poll::Ready(failure.ended(Close::ClientReset, Close::ServerReset));
        }
        let received = receiving.poll(cx, server, client, |passed| match passed {
            Passed::Bytes(bytes) => meter.received(bytes),
            Passed::End => meter.server_ended(),
        });
        if let Poll::Ready(Err(failure)) = received {
            return Poll::Ready(failure.ended(Close::ServerReset, Close::ClientReset));
        }
        if sent.is_ready() && received.is_ready() {
            return Poll::Ready(Ended {
                close: Close::Eof,
                error: None,
            });
        }
        Poll::Pending
    })
    .await
}

/// Which end of a direction failed.
enum Failure {
    /// The leg bytes come from.
    Reader(io::Error),
    /// The leg bytes go to.
    Writer(io::Error),
}

impl Failure {
    fn ended(self, reader: Close, writer: Close) -> Ended {
        let (close, error) = match self {
            Self::Reader(error) => (reader, error),
            Self::Writer(error) => (writer, error),
        };
        Ended {
            close,
            error: Some(error),
        }
    }
}

/// What has passed in a direction.
enum Passed<'a> {
    Bytes(&'a [u8]),
    End,
}

/// One direction.
struct Half<W, F> {
    /// Watches the leg bytes come from.
    watch: W,
    /// Ready when that was reset. Most connections never need to know.
    reader_was_reset: Option<Pin<Box<F>>>,
    /// Bytes read and not yet written, if there are any.
    held: Option<Held>,
    /// The writer holds bytes that it has not handed to the kernel.
    unflushed: bool,
    /// How far the direction has got.
    state: State,
}

/// Bytes on their way.
struct Held {
    buffer: Buffer,
    /// Where the unwritten ones begin.
    start: usize,
    /// Where they end.
    end: usize,
}

impl From<First> for Held {
    fn from(First { buffer, length }: First) -> Self {
        Self {
            buffer,
            start: 0,
            end: length,
        }
    }
}

enum State {
    /// Bytes may still come.
    Open,
    /// The reader has failed, behind the bytes that are held.
    Failed(io::Error),
    /// The reader has ended; the writer has yet to be told.
    Ending,
    /// The writer has been told.
    Ended,
}

impl<W: Fn() -> F, F: Future<Output = ()>> Half<W, F> {
    fn new(watch: W) -> Self {
        Self {
            watch,
            reader_was_reset: None,
            held: None,
            unflushed: false,
            state: State::Open,
        }
    }

    /// Goes on until it must wait; ready when the direction has ended and the writer knows.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut impl Leg,
        writer: &mut impl Leg,
        mut passed: impl FnMut(Passed<'_>),
    ) -> Poll<Result<(), Failure>> {
        loop {
            ready!(self.poll_write(cx, writer, &mut passed))?;
            match mem::replace(&mut self.state, State::Open) {
                State::Open => ready!(self.poll_read(cx, reader, writer))?,
                State::Failed(error) => return Poll::Ready(Err(Failure::Reader(error))),
                State::Ending => {
                    self.state = State::Ending;
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(Failure::Writer)?;
                    self.state = State::Ended;
                    passed(Passed::End);
                }
                State::Ended => {
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Hands on what was read; ready when nothing is left of it.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut impl Leg,
        passed: &mut impl FnMut(Passed<'_>),
    ) -> Poll<Result<(), Failure>> {
        while let Some(held) = &mut self.held {
            let rest = &held.buffer[held.start..held.end];
            let writer = Pin::new(&mut *writer);
            let written = match self.state {
                State::Ending => writer.poll_write_last(cx, rest),
                _ => writer.poll_write(cx, rest),
            };
            let Poll::Ready(written) = written else {
                let was_reset = &mut self.reader_was_reset;
                let was_reset = was_reset.get_or_insert_with(|| Box::pin((self.watch)()));
                ready!(was_reset.as_mut().poll(cx));
                let error = io::ErrorKind::ConnectionReset.into();
                return Poll::Ready(Err(Failure::Reader(error)));
            };
            let written = written.map_err(Failure::Writer)?;
            if written == 0 {
                return Poll::Ready(Err(Failure::Writer(io::ErrorKind::WriteZero.into())));
            }
            passed(Passed::Bytes(&rest[..written]));
            held.start += written;
            if held.start == held.end {
                self.held = None;
            }
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what has come; ready when there is something, or nothing more will be.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut impl Leg,
        writer: &mut impl Leg,
    ) -> Poll<Result<(), Failure>> {
        let mut buffer = Buffer::take();
        let mut into = ReadBuf::new(&mut buffer);
        while into.remaining() > 0 {
            let before = into.filled().len();
            match Pin::new(&mut *reader).poll_read(cx, &mut into) {
                Poll::Ready(Ok(())) if into.filled().len() > before => {}
                Poll::Ready(Ok(())) => self.state = State::Ending,
                Poll::Ready(Err(error)) => self.state = State::Failed(error),
                Poll::Pending => break,
            }
            if !matches!(self.state, State::Open) {
                break;
            }
        }
        let end = into.filled().len();
        if end > 0 {
            let start = 0;
            self.held = Some(Held { buffer, start, end });
        }
        if end > 0 || !matches!(self.state, State::Open) {
            return Poll::Ready(Ok(()));
        }
        // Nothing to add to it for now: whatever the writer holds back must leave.
        if self.unflushed {
            ready!(Pin::new(writer).poll_flush(cx)).map_err(Failure::Writer)?;
            self.unflushed = false;
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{super::buffer, *};

    impl Leg for tokio::io::DuplexStream {}
    impl Leg for Fails {}

    #[derive(Default)]
    struct Counter {
        sent: usize,
        received: usize,
        /// In the order in which they ended.
        ended: Vec<&'static str>,
    }

    impl Meter for Counter {
        fn sent(&mut self, bytes: &[u8]) {
            self.sent += bytes.len();
        }

        fn client_ended(&mut self) {
            self.ended.push("client");
        }

        fn received(&mut self, bytes: &[u8]) {
            self.received += bytes.len();
        }

        fn server_ended(&mut self) {
            self.ended.push("server");
        }
    }

    #[tokio::test]
    async fn one_direction_ends_while_the_other_goes_on() {
        let (mut client, mut client_leg) = duplex(64);
        let (mut server, mut server_leg) = duplex(64);
        let mut meter = Counter::default();
        let apps = async {
            client.write_all(b"question").await.expect("an open leg");
            client.shutdown().await.expect("an open leg");
            let mut question = String::new();
            server
                .read_to_string(&mut question)
                .await
                .expect("the end of the question");
            assert_eq!(question, "question");
            // Only now, after its own side of the client has ended, does the server speak.
            server
                .write_all(b"a longer answer")
                .await
                .expect("an open leg");
            server.shutdown().await.expect("an open leg");
            let mut answer = String::new();
            client
                .read_to_string(&mut answer)
                .await
                .expect("the end of the answer");
            assert_eq!(answer, "a longer answer");
        };
        let (ended, ()) = tokio::join!(
            copy(
                &mut client_leg,
                &mut server_leg,
                None,
                pending::<()>,
                pending::<()>,
                &mut meter
            ),
            apps
        );
        assert_eq!(ended.close, Close::Eof);
        assert_eq!((meter.sent, meter.received), (8, 15));
        assert_eq!(meter.ended, ["client", "server"]);
    }

    #[tokio::test]
    async fn a_side_that_does_not_read_stops_the_other() {
        const PIPE: usize = 1024;
        let (mut client, mut client_leg) = duplex(PIPE);
        let (_server, mut server_leg) = duplex(PIPE);
        let mut meter = Counter::default();
        let flood = async {
            let mut accepted = 0;
            let chunk = [0; PIPE];
            while let Ok(written) =
                tokio::time::timeout(std::time::Duration::from_secs(5), client.write(&chunk)).await
            {
                accepted += written.expect("an open leg");
            }
            accepted
        };
        tokio::time::pause();
        let accepted = tokio::select! {
            accepted = flood => accepted,
            _ = copy(&mut client_leg, &mut server_leg, None, pending::<()>, pending::<()>, &mut meter) => panic!("nobody has ended"),
        };
        assert!(
            accepted <= 2 * PIPE + buffer::LENGTH,
            "{accepted} bytes were taken"
        );
    }

    #[tokio::test]
    async fn the_side_that_fails_is_named() {
        let (client, mut client_leg) = duplex(64);
        let (mut server, mut server_leg) = duplex(64);
        drop(client);
        let mut meter = Counter::default();
        // The client ended properly as far as reading goes; writing to it fails.
        let apps = async {
            server.write_all(b"too late").await.expect("an open leg");
        };
        let (ended, ()) = tokio::join!(
            copy(
                &mut client_leg,
                &mut server_leg,
                None,
                pending::<()>,
                pending::<()>,
                &mut meter
            ),
            apps
        );
        assert_eq!(ended.close, Close::ClientReset);
        assert!(ended.error.is_some());
    }

    /// A leg that says something and fails at once, as a socket may whose peer has reset it.
    struct Fails(Option<&'static [u8]>);

    impl AsyncRead for Fails {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let bytes = self.0.take().ok_or(io::ErrorKind::ConnectionReset)?;
            buf.put_slice(bytes);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Fails {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_came_before_a_failure_is_delivered() {
        let (mut server, mut server_leg) = duplex(64);
        let mut meter = Counter::default();
        let ended = copy(
            &mut Fails(Some(b"last words")),
            &mut server_leg,
            None,
            pending::<()>,
            pending::<()>,
            &mut meter,
        )
        .await;
        assert_eq!(ended.close, Close::ClientReset);
        assert_eq!(meter.sent, 10);
        let mut heard = [0; 10];
        server.read_exact(&mut heard).await.expect("the last words");
        assert_eq!(&heard, b"last words");
    }

    #[tokio::test]
    async fn a_reset_is_passed_on_to_a_side_that_does_not_read() {
        let (mut client, mut client_leg) = duplex(64);
        let (_server, mut server_leg) = duplex(64);
        let mut meter = Counter::default();
        let reset = tokio::sync::Notify::new();
        let flood = vec![0; 2 * buffer::LENGTH];
        let app = async {
            // More than the server's leg and the buffer hold: the direction is stuck for good.
            let flooding = client.write_all(&flood);
            assert!(
                tokio::time::timeout(std::time::Duration::from_secs(5), flooding)
                    .await
                    .is_err()
            );
            reset.notify_one();
        };
        tokio::time::pause();
        let carried = copy(
            &mut client_leg,
            &mut server_leg,
            None,
            || reset.notified(),
            pending::<()>,
            &mut meter,
        );
        let (ended, ()) = tokio::join!(carried, app);
        assert_eq!(ended.close, Close::ClientReset);
    }
}
