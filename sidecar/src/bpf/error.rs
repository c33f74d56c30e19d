use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aya::maps::MapError;
use thiserror::Error as ThisError;

use super::beside::Neighbour;

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
    /// bpf(2) refuses to open a pin to a process without privileges.
    #[error(
        "the kernel lets nobody without CAP_BPF use {}: without privileges a sidecar needs kernel 5.19 or newer, before that sysctl kernel.unprivileged_bpf_disabled=0, or CAP_BPF and CAP_NET_ADMIN", .0.display()
    )]
    BpfRefused(PathBuf),
    /// What is pinned stays locked.
    #[error(
        "another sidecar is starting or stopping for the pod whose programs are pinned at {}; try again", .0.display()
    )]
    Busy(PathBuf),
    /// A socket of our own could not be told from others.
    #[error("cannot read the cookie of the proxy's listener: {0}")]
    Cookie(#[source] io::Error),
    /// What the kernel side knows of a socket could not be read.
    #[error("cannot read from the kernel what it knows of a socket: {0}")]
    Facts(#[source] io::Error),
    /// What is pinned lacks a program, and attaching it takes privileges.
    #[error(
        "program {program} is not attached by what is pinned at {}; run `sidecar init` again, which completes it", directory.display()
    )]
    HalfPinned {
        /// The program.
        program: &'static str,
        /// What is pinned.
        directory: PathBuf,
    },
    /// A pin could not be given to whoever is to serve the pod.
    #[error(
        "cannot hand {} to {access}: {source}; give `sidecar init` CAP_CHOWN, or run it as that user with CAP_BPF and CAP_NET_ADMIN, or name by --gid a group that it is in itself", path.display()
    )]
    HandOver {
        /// The pin, or a directory on the way to it.
        path: PathBuf,
        /// Who was to have it.
        access: super::Access,
        /// What the kernel said.
        source: io::Error,
    },
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
    /// The kernel counts maps against a limit that is too low.
    #[error(
        "before Linux 5.11 maps and programs count against the limit of locked memory, {limit} bytes here, which is too little; raise it (LimitMEMLOCK=infinity in a systemd unit, `ulimit -l unlimited` in a shell), or give CAP_SYS_RESOURCE"
    )]
    LockedMemory {
        /// The hard limit (`RLIMIT_MEMLOCK`).
        limit: u64,
    },
    /// A map could not be read or written.
    #[error("cannot use map {map}: {source}")]
    Map {
        /// The map.
        map: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// The daemon was built without its kernel side.
    #[error("this binary was built without its kernel side; build it with `cargo xtask build`")]
    NoObject,
    /// A pinned map belongs to somebody else.
    #[error(
        "user {uid} may not open {}; hand the maps over with `sidecar init --uid {uid}`, or run as the user they were handed to", path.display()
    )]
    NotHandedOver {
        /// The pin.
        path: PathBuf,
        /// Who we are.
        uid: u32,
    },
    /// What is pinned belongs to somebody else, and we are not above that.
    #[error(
        "user {uid} may not open {}, which belongs to user {owner}; give CAP_DAC_OVERRIDE, or run as user {owner}", path.display()
    )]
    NotOurs {
        /// The pin, or the lock.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// The proxy's listeners take a port each, of the kernel's choice.
    #[error(
        "no local port is free for the proxy's listeners on {0}; widen net.ipv4.ip_local_port_range, of which they take two and each connection one"
    )]
    NoPort(IpAddr),
    /// There is nothing to serve by, and no privilege to make it.
    #[error(
        "nothing is pinned at {}, and attaching programs takes CAP_BPF and CAP_NET_ADMIN; run `sidecar init` first, or give these capabilities", .0.display()
    )]
    NothingPinned(PathBuf),
    /// What is pinned was made by another version.
    #[error(
        "what is pinned at {} has layout {found}, and this version uses layout {}; run `sidecar init` of this version, which replaces it", directory.display(), sidecar_common::ABI
    )]
    OtherLayout {
        /// What is pinned.
        directory: PathBuf,
        /// Its version.
        found: u32,
    },
    /// What is pinned steers the connections of another network namespace.
    #[error(
        "what is pinned at {} steers the connections of another network namespace than ours; run `sidecar init` in this one", .0.display()
    )]
    OtherNetns(PathBuf),
    /// The daemon's own sockets are not followed.
    #[error(
        "this process is outside the pod's cgroup, and the kernel side follows sockets of that cgroup only; start it in a cgroup below, such as PATH/sidecar"
    )]
    OutsideCgroup,
    /// The verifier refused a program, and might take it from somebody else.
    #[error(
        "the kernel refuses program {program} to whoever lacks CAP_PERFMON, as verifiers of older kernels do; give that, too"
    )]
    Perfmon {
        /// The program.
        program: &'static str,
    },
    /// Something could not be pinned.
    #[error("cannot pin {}: {source}; check that the BPF file system is writable", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: aya::pin::PinError,
    },
    /// What is pinned has never been given to anybody to serve by.
    #[error(
        "the `sidecar init` that pinned {} has not come to its end; run it again, which completes it", .0.display()
    )]
    Unfinished(PathBuf),
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
    /// A program of somebody else's leaves no room for ours.
    #[error(
        "cannot attach program {program}: {obstacle} lets nothing else be attached there; have it attached by a link, or with BPF_F_ALLOW_MULTI"
    )]
    NoRoom {
        /// Ours.
        program: &'static str,
        /// The other one.
        obstacle: Neighbour,
    },
    /// Another sidecar has captured what is ours to capture, or some of it.
    #[error(
        "another sidecar, whose pins are not where ours would be, has attached {0}; stop that one first, or name the cgroup and the BPF file system that it was given"
    )]
    OtherSidecar(Neighbour),
    /// The program of a pinned link could not be replaced.
    #[error(
        "cannot replace program {program} where it is attached: {source}; remove what is pinned with `sidecar cleanup` and start again"
    )]
    Replace {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel would not list the sockets that listen.
    #[error("cannot list the sockets that listen in the pod: {0}")]
    SockDiag(#[source] io::Error),
}

impl Error {
    /// Is it that the pin of a map does not exist?
    pub(super) fn is_not_found(&self) -> bool {
        let Self::Map { source, .. } = self else {
            return false;
        };
        let source = match source {
            MapError::SyscallError(error) => &error.io_error,
            MapError::IoError(error) => error,
            _ => return false,
        };
        source.kind() == io::ErrorKind::NotFound
    }

    /// Why something could not be done with a pin, or the lock: whose it is, where that is why.
    pub(super) fn bpffs(action: &'static str, path: &Path, source: io::Error) -> Self {
        let uid = nix::unistd::geteuid().as_raw();
        let owner = fs::metadata(path).map(|metadata| metadata.uid());
        match (source.kind(), owner) {
            (io::ErrorKind::PermissionDenied, Ok(owner)) if owner != uid => Self::NotOurs {
                path: path.to_owned(),
                owner,
                uid,
            },
            _ => Self::BpfFs {
                action,
                path: path.to_owned(),
                source,
            },
        }
    }

    /// Is it that somebody else listens on the address?
    pub fn is_address_in_use(&self) -> bool {
        matches!(self, Self::Listener { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }
}
