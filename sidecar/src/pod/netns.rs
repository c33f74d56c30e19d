#![expect(unsafe_code, reason = "no crate offers SO_NETNS_COOKIE")]

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, UdpSocket},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
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

/// A number that no other network namespace has, for that of the calling thread: its cookie, or where
/// the kernel does not tell that (`SO_NETNS_COOKIE`, Linux 5.14), its inode, which another one may have
/// once it is gone. 0 if neither can be had.
pub fn netns_number() -> u64 {
    cookie().or_else(inode).unwrap_or_default()
}

fn cookie() -> Option<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
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
    (result == 0).then_some(cookie)
}

fn inode() -> Option<u64> {
    let file = fs::metadata("/proc/thread-self/ns/net").ok()?;
    Some(file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_one_number() {
        assert_ne!(netns_number(), 0);
        assert_eq!(netns_number(), netns_number());
        assert_ne!(inode(), None);
        assert_eq!(inode(), inode());
    }
}
