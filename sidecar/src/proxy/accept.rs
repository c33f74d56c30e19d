use std::{fs::File, io, net::SocketAddr, time::Duration};

use tokio::net::{TcpListener, TcpStream};

use super::{
    ClientAddr,
    addr::canonical,
    close::{Close, is_descriptor_limit},
    tcp::Tcp,
};
use crate::{policy::Direction, telemetry::Telemetry};

/// How long to wait after an error that the next `accept()` would meet too.
const BACK_OFF: Duration = Duration::from_millis(20);

/// Accepts connections of a listener that was [prepared](super::tcp::prepare_listener), also when no file
/// descriptor is left.
pub(super) struct Acceptor {
    /// Where connections come from.
    listener: TcpListener,
    /// Which way they run, for the metrics.
    direction: Direction,
    /// A descriptor to give up when there is no other, so that a connection can be taken and
    /// refused instead of hanging in the queue. `None` while it could not be had back: the
    /// next descriptor after a connection's own is kept for that.
    spare: Option<File>,
}

/// A connection, just accepted.
pub(super) struct Accepted {
    /// The connection.
    pub(super) stream: Tcp,
    /// Where it comes from.
    pub(super) client: ClientAddr,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, direction: Direction) -> Self {
        Self {
            listener,
            direction,
            spare: spare(),
        }
    }

    /// The next connection. Cancelling it loses none.
    pub(super) async fn accept(&mut self, telemetry: &Telemetry) -> Accepted {
        loop {
            match self.listener.accept().await {
                Ok((stream, client)) => {
                    if self.spare.is_none() {
                        self.spare = spare();
                    }
                    return Accepted::new(stream, client);
                }
                Err(error) if is_descriptor_limit(&error) => {
                    if self.refuse_one() {
                        telemetry.not_accepted(self.direction, Close::FdLimit);
                        tracing::error!(
                            direction = %self.direction,
                            reason = %Close::FdLimit,
                            "refused a connection because no file descriptor is left ({error}); raise the limit of open files, two for each connection"
                        );
                    }
                    tokio::time::sleep(BACK_OFF).await;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(direction = %self.direction, "cannot accept connections: {error}");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// The connections that wait in the queue. Whoever comes later is refused.
    pub(super) fn waiting(self) -> impl Iterator<Item = Accepted> {
        /// Far above what waits in any queue, so that those who come meanwhile do not keep it open.
        const MOST: usize = 4096;
        // Not by the runtime's leave, which knows only of what it was told of.
        let listener = self.listener.into_std().ok();
        let next = move || {
            let (stream, client) = loop {
                match listener.as_ref()?.accept() {
                    Err(error) if is_of_one_connection(&error) => {}
                    accepted => break accepted.ok()?,
                }
            };
            stream.set_nonblocking(true).ok()?;
            Some(Accepted::new(TcpStream::from_std(stream).ok()?, client))
        };
        std::iter::from_fn(next).take(MOST)
    }

    /// Takes one connection with the spare descriptor and resets it, if there are both.
    fn refuse_one(&mut self) -> bool {
        self.spare = None;
        let taken = now_or_never(self.listener.accept());
        let refused = match taken {
            Some(Ok((stream, _))) => {
                drop(Tcp::accepted(stream));
                true
            }
            _ => false,
        };
        self.spare = spare();
        refused
    }
}

impl Accepted {
    fn new(stream: TcpStream, client: SocketAddr) -> Self {
        Self {
            stream: Tcp::accepted(stream),
            client: ClientAddr(canonical(client)),
        }
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// The client is gone already; the listener is fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Polls a future once.
pub(super) fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_spare_descriptor_that_was_lost_is_had_back_with_the_next_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut acceptor = Acceptor::new(listener, Direction::Inbound);
        acceptor.spare = None;
        let _client = TcpStream::connect(address).await.expect("it listens");

        let telemetry = Telemetry::new(crate::telemetry::Options::default()).expect("unique names");

        acceptor.accept(&telemetry).await;

        assert!(acceptor.spare.is_some());
    }
}
