//! What the kernel says of a connection: where its other end truly is.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
};

use nix::sys::stat::fstat;

use super::canonical;

/// The true address of a socket's peer.
///
/// Programs show apps another one, and rules of a packet filter none at all: those change packets,
/// and this is what the socket itself holds.
pub(super) fn true_peer(socket: impl AsFd, is_v4: bool) -> io::Result<Option<SocketAddr>> {
    let inode = fstat(socket)?.st_ino;
    // Those of the thread, because the process may be in another namespace.
    let path = if is_v4 {
        "/proc/thread-self/net/tcp"
    } else {
        "/proc/thread-self/net/tcp6"
    };
    Ok(peer_of(&fs::read_to_string(path)?, inode))
}

/// The `rem_address` of the line whose `inode` this is (proc(5)).
fn peer_of(table: &str, inode: u64) -> Option<SocketAddr> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let peer = fields.nth(2)?;
        (fields.nth(6)?.parse() == Ok(inode)).then(|| address(peer))?
    })
}

/// Words of 32 bits as the machine has them, in hexadecimal, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    if words.len() % 8 != 0 {
        return None;
    }
    let mut bytes = Vec::new();
    for word in words.as_bytes().chunks(8) {
        let word = u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
        _ => return None,
    };
    Some(canonical((ip, u16::from_str_radix(port, 16).ok()?).into()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_peer_of_a_socket_is_what_the_kernel_says() {
        for own in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            let listener = TcpListener::bind((own, 0)).expect("loopback");
            let there = listener.local_addr().expect("an address");
            let client = TcpStream::connect(there).expect("a listener");
            let (server, here) = listener.accept().expect("a client");
            let peer = |socket: &TcpStream| true_peer(socket, own.is_ipv4()).expect("a table");
            assert_eq!(peer(&client), Some(there));
            assert_eq!(peer(&server), Some(here));
        }
    }

    #[test]
    fn lines_that_make_no_sense_are_nobodys() {
        for line in [
            "",
            "x",
            "0: 0 00:1 01 0 0 0 0 0 7",
            "0: 0 zz:zz 01 0 0 0 0 0 7",
        ] {
            assert_eq!(peer_of(&format!("head\n{line}\n"), 7), None, "{line}");
        }
    }
}
