use std::{
    collections::HashSet,
    fmt, fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use thiserror::Error;

/// Why a cgroup cannot be used.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// No cgroup v2 file system is mounted.
    #[error(
        "no cgroup v2 file system is mounted; mount one with `mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified`"
    )]
    NoMount,
    /// The directory is not a cgroup v2.
    #[error("{} is not a cgroup v2 directory; name one below {}", path.display(), mount.display())]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
        /// Where cgroup v2 is mounted.
        mount: PathBuf,
    },
    /// The directory cannot be opened.
    #[error("cannot open cgroup {}: {source}; check the path given with --cgroup", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A cgroup for a command cannot be made.
    #[error("cannot create cgroup {}: {source}; it takes root, and write access to the cgroup tree", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The root cgroup would capture the whole machine.
    #[error("{} is the root cgroup: it would capture every process of the machine; name the pod's cgroup with --cgroup", .0.display())]
    Root(PathBuf),
}

/// A cgroup v2: the kernel side sees the sockets of the processes in it and below.
#[derive(Debug)]
pub struct Cgroup {
    /// The open directory, which programs are attached to.
    directory: fs::File,
    /// The inode number, which the kernel uses as the cgroup's id.
    id: u64,
    /// Where it is, for messages and to walk the tree.
    path: PathBuf,
}

impl Cgroup {
    /// Opens a cgroup; the root is refused.
    pub fn open(path: &Path) -> Result<Self, CgroupError> {
        let mount = cgroup2_mount()?;
        let cgroup = Self::open_any(path).map_err(|source| CgroupError::Open {
            path: path.to_owned(),
            source,
        })?;
        if fstatfs(&cgroup.directory).map(|stat| stat.filesystem_type()) != Ok(CGROUP2_SUPER_MAGIC)
        {
            return Err(CgroupError::NotCgroup2 {
                path: path.to_owned(),
                mount,
            });
        }
        // Only the root has no `cgroup.type` (Documentation/admin-guide/cgroup-v2.rst).
        if !path.join("cgroup.type").exists() {
            return Err(CgroupError::Root(path.to_owned()));
        }
        Ok(cgroup)
    }

    /// Opens the pod's cgroup: the one that is named, else that of this process.
    pub fn open_or_own(named: Option<&Path>) -> Result<Self, CgroupError> {
        match named {
            Some(path) => Self::open(path),
            None => Self::open(&own_cgroup()?),
        }
    }

    /// Opens the cgroup this process is in, which may be the root.
    pub fn of_this_process() -> Result<Self, CgroupError> {
        let path = own_cgroup()?;
        Self::open_any(&path).map_err(|source| CgroupError::Open { path, source })
    }

    fn open_any(path: &Path) -> io::Result<Self> {
        let directory = fs::File::open(path)?;
        let id = directory.metadata()?.ino();
        Ok(Self {
            directory,
            id,
            path: path.to_owned(),
        })
    }

    /// Makes a cgroup of a name that is not taken, below `parent`.
    pub fn create(parent: &Path, name: &str) -> Result<Self, CgroupError> {
        let path = parent.join(name);
        fs::create_dir(&path).map_err(|source| CgroupError::Create {
            path: path.clone(),
            source,
        })?;
        Self::open(&path)
    }

    /// Moves this process, all of its threads, into the cgroup.
    pub fn join(&self) -> io::Result<()> {
        fs::write(self.procs(), "0")
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the cgroup, which must hold no process any more.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir(&self.path)
    }

    /// The id by which the kernel knows it.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The file to which a process writes `0` to join.
    pub fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Another handle on the same cgroup.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            directory: self.directory.try_clone()?,
            id: self.id,
            path: self.path.clone(),
        })
    }

    /// The ids of this cgroup and of all below it.
    pub fn subtree_ids(&self) -> io::Result<HashSet<u64>> {
        let mut ids = HashSet::from([self.id]);
        let mut pending = vec![self.path.clone()];
        while let Some(directory) = pending.pop() {
            // A container may end while we walk: its directory is then gone.
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    ids.extend(entry.metadata().map(|metadata| metadata.ino()));
                    pending.push(entry.path());
                }
            }
        }
        Ok(ids)
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroup {}", self.path.display())
    }
}

/// Where cgroup v2 is mounted: `/sys/fs/cgroup` on most machines, elsewhere in hybrid layouts.
pub fn cgroup2_mount() -> Result<PathBuf, CgroupError> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|_| CgroupError::NoMount)?;
    parse_cgroup2_mount(&mounts).ok_or(CgroupError::NoMount)
}

/// The cgroup this process is in.
pub fn own_cgroup() -> Result<PathBuf, CgroupError> {
    let mount = cgroup2_mount()?;
    let cgroups = fs::read_to_string("/proc/self/cgroup").map_err(|_| CgroupError::NoMount)?;
    let own = parse_own_cgroup(&cgroups).ok_or(CgroupError::NoMount)?;
    Ok(mount.join(own))
}

fn parse_cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| path.into())
    })
}

/// The path relative to the mount: version 2 is the hierarchy without number and controllers.
fn parse_own_cgroup(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_in_both_layouts() {
        let pure = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(parse_cgroup2_mount(pure), Some("/sys/fs/cgroup".into()));
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            parse_cgroup2_mount(hybrid),
            Some("/sys/fs/cgroup/unified".into())
        );
        assert_eq!(
            parse_cgroup2_mount("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"),
            None
        );
    }

    #[test]
    fn the_own_cgroup_is_that_of_version_2() {
        let cgroups = "12:cpu:/other\n0::/system.slice/sidecar.service\n";
        assert_eq!(
            parse_own_cgroup(cgroups),
            Some("system.slice/sidecar.service")
        );
        assert_eq!(parse_own_cgroup("12:cpu:/other\n"), None);
    }

    #[test]
    fn a_directory_elsewhere_is_refused() {
        let elsewhere = tempfile::tempdir().expect("a temporary directory");
        let error = Cgroup::open(elsewhere.path()).expect_err("not a cgroup");
        assert!(
            matches!(error, CgroupError::NotCgroup2 { .. } | CgroupError::NoMount),
            "{error}"
        );
    }
}
