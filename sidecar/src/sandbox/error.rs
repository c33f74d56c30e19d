use std::io;

use landlock::RulesetError;
use thiserror::Error;

/// Why the proxy cannot be confined. It does not serve then.
#[derive(Debug, Error)]
pub enum Error {
    /// A capability set cannot be emptied.
    #[error("cannot give up capabilities: {0}; look for a security module that forbids capset()")]
    Capabilities(caps::errors::CapsError),
    /// Landlock is there and does not take our rules.
    #[error("cannot restrict access to files by Landlock: {0}; this is a bug, please report it")]
    Landlock(#[from] RulesetError),
    /// The process can gain privileges by executing files.
    #[error("cannot give up new privileges: {0}; look for a policy that forbids prctl()")]
    NoNewPrivileges(nix::Error),
    /// Others may read the memory of the process.
    #[error("cannot keep the memory to this process: {0}; look for a policy that forbids prctl()")]
    NotDumpable(nix::Error),
    /// Threads that run already would not be confined.
    #[error("cannot confine the proxy: {0} threads run already; this is a bug, please report it")]
    OtherThreads(usize),
    /// The kernel does not take the filter of system calls.
    #[error(
        "cannot filter system calls: {0}; use a kernel built with CONFIG_SECCOMP_FILTER, \
         on x86-64, AArch64 or RISC-V"
    )]
    SystemCalls(String),
    /// The threads of this process cannot be listed.
    #[error("cannot list the threads of this process: {0}; mount /proc")]
    Threads(io::Error),
}

impl From<caps::errors::CapsError> for Error {
    fn from(error: caps::errors::CapsError) -> Self {
        Self::Capabilities(error)
    }
}

impl From<seccompiler::Error> for Error {
    fn from(error: seccompiler::Error) -> Self {
        Self::SystemCalls(error.to_string())
    }
}

impl From<seccompiler::BackendError> for Error {
    fn from(error: seccompiler::BackendError) -> Self {
        Self::SystemCalls(error.to_string())
    }
}
