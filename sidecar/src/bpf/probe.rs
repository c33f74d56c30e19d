//! What can be said of the kernel side without attaching it: is it here, and would the kernel take it
//! from us?

use std::{fmt, fs, io};

use aya::{
    programs::{ProgramError, ProgramType},
    sys::is_program_supported,
};

pub use super::programs::try_to_load;
use super::{Error, object::object};

/// A kind of program that the kernel side consists of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Looks at each packet that leaves a cgroup's sockets.
    CgroupSkb,
    /// Runs in `connect()`, `getpeername()` and `getsockname()` of a cgroup's processes.
    CgroupSockAddr,
    /// Chooses the socket for a new connection.
    SkLookup,
    /// Follows the life of a cgroup's TCP sockets.
    SockOps,
}

impl fmt::Display for Kind {
    /// The kernel's name, as `bpftool feature` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupSkb => "cgroup_skb",
            Self::CgroupSockAddr => "cgroup_sock_addr",
            Self::SkLookup => "sk_lookup",
            Self::SockOps => "sock_ops",
        })
    }
}

/// A release of the kernel: major and minor number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Release(pub u32, pub u32);

impl Release {
    /// The first that lets a process without capabilities use maps it was handed (commit
    /// `bpf: refine kernel.unprivileged_bpf_disabled behaviour`).
    pub const UNPRIVILEGED: Self = Self(5, 19);

    /// The release of the running kernel, if it tells one.
    pub fn of_this_kernel() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
    }

    /// Reads a release as `uname -r` prints it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

/// Fails if this binary was built without its kernel side.
pub fn is_embedded() -> Result<(), Error> {
    object().map(drop)
}

/// Loads a program of this kind that does nothing, and unloads it; `false` if the kernel does not
/// know the kind. The error is the kernel's, `EPERM` where a capability is missing.
pub fn is_supported(kind: Kind) -> io::Result<bool> {
    let kind = match kind {
        Kind::CgroupSkb => ProgramType::CgroupSkb,
        Kind::CgroupSockAddr => ProgramType::CgroupSockAddr,
        Kind::SkLookup => ProgramType::SkLookup,
        Kind::SockOps => ProgramType::SockOps,
    };
    is_program_supported(kind).map_err(|error| match error {
        ProgramError::SyscallError(error) => error.io_error,
        other => io::Error::other(other),
    })
}
