use std::{io, os::fd::BorrowedFd};

use super::{ClientAddr, OrigDst};

/// What the proxy needs of the kernel side: facts about single sockets.
pub trait Kernel: Send + Sync + 'static {
    /// A dial to the app was refused: if nobody listens there any more, stop steering to it.
    fn app_refused(&self, destination: OrigDst);

    /// The number by which the kernel side tells what TCP measures on this socket.
    fn cookie(&self, socket: BorrowedFd<'_>) -> io::Result<u64>;

    /// Marks a socket, before it connects, as the proxy's dial to the app on behalf of `client`,
    /// whom the app will see as its peer.
    fn mark_to_app(&self, socket: BorrowedFd<'_>, client: ClientAddr) -> io::Result<()>;

    /// Marks a socket, before it connects, as the proxy's dial to the network. It is not
    /// redirected, and its SYN carries the mesh option.
    fn mark_upstream(&self, socket: BorrowedFd<'_>) -> io::Result<()>;

    /// Where the app wanted to connect to; `None` for a connection that was not steered here.
    fn original_destination(&self, accepted: BorrowedFd<'_>) -> io::Result<Option<OrigDst>>;

    /// Have both sides shown the mesh option in the handshake of this connection?
    fn peer_is_meshed(&self, socket: BorrowedFd<'_>) -> io::Result<bool>;
}
