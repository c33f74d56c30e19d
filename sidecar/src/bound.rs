//! TCP sockets of ours that are bound to an address which somebody has chosen.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Handshakes that may wait for `accept()`; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A socket that does not listen yet.
#[derive(Debug)]
pub(crate) struct Bound(Socket);

impl Bound {
    /// Binds a socket to the address, prepared before anybody sees it.
    ///
    /// `[::]` is every address there is: those of IPv4 alone on a kernel that was built or started
    /// without IPv6.
    pub(crate) fn new(
        address: SocketAddr,
        prepare: impl Fn(&Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        match (bind(address, &prepare), without_ipv6(address)) {
            (Err(error), Some(address)) if is_family_unknown(&error) => bind(address, &prepare),
            (bound, _) => bound,
        }
        .map(Self)
    }

    /// Begins to listen, without blocking whoever accepts.
    pub(crate) fn listen(self) -> io::Result<TcpListener> {
        self.0.listen(BACKLOG)?;
        self.0.set_nonblocking(true)?;
        Ok(self.0.into())
    }
}

/// Listens on the address, as [`Bound::new`] understands it.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    Bound::new(address, |_| Ok(()))?.listen()
}

fn bind(address: SocketAddr, prepare: impl Fn(&Socket) -> io::Result<()>) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    prepare(&socket)?;
    socket.set_reuse_address(true)?;
    if domain == Domain::IPV6 {
        // Whatever `net.ipv6.bindv6only` says: `::` means every address.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// All of IPv4's addresses for all addresses.
fn without_ipv6(address: SocketAddr) -> Option<SocketAddr> {
    let all = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    all.then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
}

fn is_family_unknown(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpStream, thread};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn all_addresses_are_those_of_both_families() {
        let listener = listen(address("[::]:0")).expect("there is a free port");
        let port = listener.local_addr().expect("it is bound").port();
        for loopback in ["127.0.0.1", "::1"] {
            let loopback: IpAddr = loopback.parse().expect("an address");
            TcpStream::connect((loopback, port)).expect("it listens there, too");
        }
    }

    #[test]
    fn all_addresses_are_those_of_ipv4_where_there_is_no_other() {
        let bound = thread::spawn(|| {
            sidecar_tests::no_ipv6::forget_it().expect("whoever is root may");
            (listen(address("[::]:0")), listen(address("[::1]:0")))
        });
        let (all, one) = bound.join().expect("no panic");
        let all = all.and_then(|listener| listener.local_addr());
        assert_eq!(
            all.expect("IPv4 is there").ip(),
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        );
        // Who names an address means that one.
        assert!(is_family_unknown(&one.expect_err("there is no IPv6")));
    }
}
