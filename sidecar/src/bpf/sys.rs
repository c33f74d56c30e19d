#![expect(
    unsafe_code,
    reason = "aya neither replaces the program of a pinned link, nor detaches it, nor tells what it or anything else is attached to, and makes no map that is described nowhere"
)]

//! The commands of bpf(2) for which aya has no interface.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// A link that is attached for as long as it is pinned.
pub(super) struct Link(OwnedFd);

/// What a link is attached to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// A cgroup, by its id.
    Cgroup(u64),
    /// A network namespace, by its inode.
    Netns(u64),
    /// Nothing any more: the cgroup or the namespace has gone.
    Gone,
    /// Something that links of ours are never attached to.
    Other,
}

impl Link {
    /// Opens a pinned link.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut attributes = ObjectGet {
            pathname: path.as_ptr() as u64,
            bpf_fd: 0,
            file_flags: 0,
        };
        let fd = bpf(OBJ_GET, &mut attributes)?;
        // SAFETY: the kernel has just opened the descriptor for us, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// What it is attached to.
    pub(super) fn target(&self) -> io::Result<Target> {
        /// `BPF_LINK_TYPE_CGROUP`.
        const CGROUP: u32 = 3;
        /// `BPF_LINK_TYPE_NETNS`.
        const NETNS: u32 = 5;
        let info: LinkInfo = info(self.0.as_fd())?;
        // The first member of the union: 64 bits for a cgroup, 32 for a namespace.
        let (low, whole) = (info.target & u64::from(u32::MAX), info.target);
        Ok(match info.kind {
            CGROUP if whole == 0 => Target::Gone,
            CGROUP => Target::Cgroup(whole),
            NETNS if low == 0 => Target::Gone,
            NETNS => Target::Netns(low),
            _ => Target::Other,
        })
    }

    /// The id of its program.
    pub(super) fn program(&self) -> io::Result<u32> {
        let info: LinkInfo = info(self.0.as_fd())?;
        Ok(info.prog_id)
    }

    /// Has it run another program from now on, with no moment in between without one
    /// (`BPF_LINK_UPDATE`, Linux 5.7 for cgroups and 5.8 for network namespaces).
    pub(super) fn replace(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attributes = LinkUpdate {
            link_fd: self.0.as_raw_fd(),
            new_prog_fd: program.as_fd().as_raw_fd(),
            flags: 0,
            old_prog_fd: 0,
        };
        bpf(LINK_UPDATE, &mut attributes).map(drop)
    }

    /// Detaches it now (`BPF_LINK_DETACH`, Linux 5.9). Its last reference does so later, at a time
    /// of the kernel's choice.
    pub(super) fn detach(&self) -> io::Result<()> {
        let mut attributes = LinkDetach {
            link_fd: self.0.as_raw_fd(),
        };
        bpf(LINK_DETACH, &mut attributes).map(drop)
    }
}

/// Programs on one hook of a cgroup or a network namespace.
pub(super) struct Attached {
    /// Their ids.
    pub(super) programs: Vec<u32>,
    /// How they were attached, the same for all: 0, [`ALLOW_OVERRIDE`], or with room for others. It
    /// means nothing if there are none.
    pub(super) flags: u32,
}

/// `BPF_F_ALLOW_OVERRIDE`: what is attached below takes its place.
pub(super) const ALLOW_OVERRIDE: u32 = 1;

/// The programs that are attached to a cgroup itself, or to a network namespace. It takes `CAP_NET_ADMIN`.
pub(super) fn attached(target: BorrowedFd<'_>, attach_type: u32) -> io::Result<Attached> {
    /// More than the kernel lets be attached to one hook (`BPF_CGROUP_MAX_PROGS`, `MAX_PROGS`).
    const MOST: usize = 64;
    let mut programs = vec![0_u32; MOST];
    let mut attributes = Attachments {
        target_fd: target.as_raw_fd(),
        attach_type,
        prog_ids: programs.as_mut_ptr() as u64,
        prog_cnt: 64,
        ..Attachments::default()
    };
    bpf(PROG_QUERY, &mut attributes)?;
    programs.truncate(attributes.prog_cnt as usize);
    Ok(Attached {
        programs,
        flags: attributes.attach_flags,
    })
}

/// The name of a program, of which the kernel keeps 15 characters. It takes `CAP_SYS_ADMIN`.
pub(super) fn program_name(id: u32) -> io::Result<String> {
    let mut attributes = ById {
        id,
        ..ById::default()
    };
    let fd = bpf(PROG_GET_FD_BY_ID, &mut attributes)?;
    // SAFETY: the kernel has just opened the descriptor for us, and nobody else knows it.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let info: ProgramInfo = info(program.as_fd())?;
    let name = info.name.split(|byte| *byte == 0).next();
    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
}

/// Makes a map of about that many bytes, which goes at once. It takes `CAP_BPF`.
pub(super) fn create_array(bytes: u64) -> io::Result<()> {
    /// `BPF_MAP_TYPE_ARRAY`.
    const ARRAY: u32 = 2;
    const VALUE: u32 = 4096;
    let entries = bytes.div_ceil(u64::from(VALUE));
    let mut attributes = MapCreate {
        map_type: ARRAY,
        key_size: length::<u32>(),
        value_size: VALUE,
        max_entries: u32::try_from(entries).map_err(io::Error::other)?,
    };
    let fd = bpf(MAP_CREATE, &mut attributes)?;
    // SAFETY: the kernel has just opened the descriptor for us, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// What the kernel tells of a program or a link, which is to be of this kind.
fn info<T: Default>(of: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut attributes = InfoByFd {
        bpf_fd: of.as_raw_fd(),
        info_len: length::<T>(),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// `BPF_MAP_CREATE`.
const MAP_CREATE: libc::c_int = 0;
/// `BPF_OBJ_GET`.
const OBJ_GET: libc::c_int = 7;
/// `BPF_PROG_GET_FD_BY_ID`.
const PROG_GET_FD_BY_ID: libc::c_int = 13;
/// `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// `BPF_PROG_QUERY`.
const PROG_QUERY: libc::c_int = 16;
/// `BPF_LINK_UPDATE`.
const LINK_UPDATE: libc::c_int = 29;
/// `BPF_LINK_DETACH`.
const LINK_DETACH: libc::c_int = 34;

/// The attributes of `BPF_MAP_CREATE` that an array needs.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// Attributes of `BPF_OBJ_GET`.
#[repr(C)]
struct ObjectGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Attributes of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoByFd {
    bpf_fd: RawFd,
    info_len: u32,
    info: u64,
}

/// Attributes of `BPF_PROG_GET_FD_BY_ID`.
#[derive(Default)]
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Attributes of `BPF_PROG_QUERY`, all of them: the kernel also writes to the last.
#[derive(Default)]
#[repr(C)]
struct Attachments {
    target_fd: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Attributes of `BPF_LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link_fd: RawFd,
    new_prog_fd: RawFd,
    flags: u32,
    old_prog_fd: RawFd,
}

/// Attributes of `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkDetach {
    link_fd: RawFd,
}

/// The beginning of `struct bpf_link_info`.
#[derive(Default)]
#[repr(C)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    target: u64,
    attach_type: u32,
    rest: u32,
}

/// The beginning of `struct bpf_prog_info`.
#[derive(Default)]
#[repr(C)]
struct ProgramInfo {
    numbers: [u64; 8],
    name: [u8; 16],
}

/// Calls bpf(2) with the attributes of one command.
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: each command above is called with its own attributes, which live until it returns,
    // as does what they point to; the kernel takes what is missing at their end for zeros.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            length::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

/// Gives memory back to the machine that is not used any more. Loading programs takes many times what
/// remains, and the allocator would keep that for each thread that has loaded some.
pub(super) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the attributes take a few bytes"
)]
const fn length<T>() -> u32 {
    size_of::<T>() as u32
}
