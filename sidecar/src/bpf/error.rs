use std::{io, path::PathBuf};

use thiserror::Error as ThisError;

/// Why the kernel side could not be set up or read.
#[derive(Debug, ThisError)]
pub enum Error {
    /// A program could not be attached.
    #[error(
        "cannot attach program {program} to {target}: {source}; it takes CAP_NET_ADMIN and CAP_BPF"
    )]
    Attach {
        /// The program.
        program: &'static str,
        /// What it was to be attached to.
        target: String,
        /// What the kernel said.
        source: aya::programs::ProgramError,
    },
    /// A directory or file on the BPF file system could not be made, read or removed.
    #[error("cannot {action} {}: {source}; check that it is on a BPF file system and that you are root", path.display())]
    BpfFs {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What the kernel side knows of a socket could not be read.
    #[error("cannot read from the kernel what it knows of a socket: {0}")]
    Facts(#[source] io::Error),
    /// The link of a program is of a kind that cannot be pinned.
    #[error("cannot pin program {program}: {source}; links need kernel 5.7 or newer")]
    Link {
        /// The program.
        program: &'static str,
        /// What aya said.
        source: aya::programs::links::LinkError,
    },
    /// A listener of the proxy could not be opened.
    #[error("cannot open the proxy's listener on {address}: {source}")]
    Listener {
        /// The address.
        address: std::net::SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The object with the kernel side could not be loaded.
    #[error(
        "cannot load the kernel side: {0}; it takes CAP_BPF, CAP_NET_ADMIN and kernel 5.10 or newer (`sidecar check` tells which is missing)"
    )]
    Load(#[from] aya::EbpfError),
    /// A map could not be read or written.
    #[error("cannot use map {map}: {source}")]
    Map {
        /// The map.
        map: &'static str,
        /// What the kernel said.
        source: aya::maps::MapError,
    },
    /// The daemon was built without its kernel side.
    #[error("this binary was built without its kernel side; build it with `cargo xtask build`")]
    NoObject,
    /// The daemon's own sockets are not followed.
    #[error(
        "this process is outside the pod's cgroup, and the kernel side follows sockets of that cgroup only; start it in a cgroup below, such as PATH/sidecar"
    )]
    OutsideCgroup,
    /// Something could not be pinned.
    #[error("cannot pin {}: {source}; check that the BPF file system is writable", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: aya::pin::PinError,
    },
    /// The verifier refused a program.
    #[error(
        "the kernel refuses program {program}: {source}; it takes CAP_BPF, CAP_NET_ADMIN and kernel 5.10 or newer (`sidecar check` tells which is missing)"
    )]
    Program {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        source: aya::programs::ProgramError,
    },
    /// The kernel would not list the sockets that listen.
    #[error("cannot list the sockets that listen in the pod: {0}")]
    SockDiag(#[source] io::Error),
}
