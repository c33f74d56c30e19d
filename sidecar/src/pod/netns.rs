use std::{
    fs::File,
    io,
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
        .and_then(|file| setns(file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from))
        .map_err(|source| NetnsError {
            path: path.to_owned(),
            source,
        })
}
