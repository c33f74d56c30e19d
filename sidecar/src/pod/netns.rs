#![expect(unsafe_code, reason = "no crate offers SO_NETNS_COOKIE")]

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns};
use thiserror::Error;

/// Why a network namespace cannot be entered.
#[derive(Debug, Error)]
#[error("cannot enter network namespace {}: {source}; it takes CAP_SYS_ADMIN and a path such as /run/netns/NAME or /proc/PID/ns/net", path.display())]
pub struct NetnsError {
    path: PathBuf,
    source: io::Error,
}

/// Moves the calling thread into a network namespace.
///
/// Call it before any other thread exists: threads inherit the namespace, and sockets belong to
/// that of the thread that made them.
pub fn enter_netns(path: &Path) -> Result<(), NetnsError> {
    File::open(path)
        .and_then(|file| enter_open_netns(&file))
        .map_err(|source| NetnsError {
            path: path.to_owned(),
            source,
        })
}

/// Moves the calling thread into a network namespace that is open, whoever is in it by now. It
/// takes `CAP_SYS_ADMIN`.
pub fn enter_open_netns(file: &File) -> io::Result<()> {
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

/// A number that no other network namespace of this boot has, for that of the calling thread; 0 if
/// the kernel does not tell (`SO_NETNS_COOKIE`, Linux 5.14).
pub fn netns_cookie() -> u64 {
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else {
        return 0;
    };
    let mut cookie = 0_u64;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an integer takes eight bytes"
    )]
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers are to live integers, and the length is that of the one to be filled.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            std::ptr::from_mut(&mut length),
        )
    };
    if result == 0 { cookie } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_one_cookie() {
        assert_eq!(netns_cookie(), netns_cookie());
    }
}
