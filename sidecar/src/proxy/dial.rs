use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use sidecar_common::{BLOCK4_MASK, DIAL4_BASE};
use tokio::{net::TcpSocket, time::timeout};

use super::{ClientAddr, Kernel, OrigDst, tcp::Tcp};

/// Dials the network for the app.
pub(super) async fn upstream<K: Kernel>(
    kernel: &K,
    destination: OrigDst,
    limit: Duration,
) -> io::Result<Tcp> {
    let upstream = dial(destination.0, limit, |socket| {
        kernel.mark_upstream(socket.as_fd())
    })
    .await?;
    upstream.ask_whether_alive();
    Ok(upstream)
}

/// What came of a dial, in words.
pub(super) fn explanation(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => format!(
            "{error}: either no local port is left towards it, of net.ipv4.ip_local_port_range, or there is no address to reach it from"
        ),
        _ => error.to_string(),
    }
}

/// Dials the app for a client, from a loopback address.
///
/// The destination is what the client asked for, so an app that is bound to one address only stays
/// as reachable as it was.
pub(super) async fn app<K: Kernel>(
    kernel: &K,
    destination: OrigDst,
    client: ClientAddr,
    limit: Duration,
) -> io::Result<Tcp> {
    dial(destination.0, limit, |socket| {
        kernel.mark_to_app(socket.as_fd(), client)?;
        bind_to_loopback(socket, destination)
    })
    .await
}

async fn dial(
    destination: SocketAddr,
    limit: Duration,
    prepare: impl FnOnce(&TcpSocket) -> io::Result<()>,
) -> io::Result<Tcp> {
    let socket = match destination {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_nodelay(true)?;
    prepare(&socket)?;
    timeout(limit, socket.connect(destination))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map(Tcp::new)
}

/// Binds to a loopback address, by which the app's host cannot be mistaken for the network.
///
/// IPv4 addresses are taken in turn from 127.64.0.0/10, so that ephemeral ports do not run out
/// before the app does; `IP_BIND_ADDRESS_NO_PORT` leaves the port to `connect()`, which needs it
/// to be unique for the destination only.
fn bind_to_loopback(socket: &TcpSocket, destination: OrigDst) -> io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let source: IpAddr = match destination.0 {
        SocketAddr::V4(_) => {
            let next = NEXT.fetch_add(1, Ordering::Relaxed) & !BLOCK4_MASK;
            Ipv4Addr::from_bits(DIAL4_BASE | next).into()
        }
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    setsockopt(socket, IpBindAddressNoPort, &true)?;
    socket.bind(SocketAddr::new(source, 0))
}
