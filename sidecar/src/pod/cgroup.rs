use std::{
    collections::HashSet,
    fmt, fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs, statfs};
use thiserror::Error;

use super::{
    cgroup_mounts::CgroupMount,
    kubelet::{self, PodName},
    own_cgroup::{self, Found, own_cgroup},
};

/// Why a cgroup cannot be used.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// No cgroup v2 file system is mounted.
    #[error(
        "no cgroup v2 file system is mounted; mount one with `mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified`, or into a container the host's /sys/fs/cgroup, read-only, at /run/sidecar/cgroup"
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
    /// The tree above a container's cgroup is not mounted in it.
    #[error(
        "this container sees its own cgroup alone, and not that of its pod; mount the host's /sys/fs/cgroup into it, read-only, at /run/sidecar/cgroup, or name the cgroup with --cgroup"
    )]
    Hidden,
    /// This process is in none of the cgroups that are mounted.
    #[error(
        "process {pid} is in no cgroup below {}; mount the whole of the host's /sys/fs/cgroup at /run/sidecar/cgroup, or name the pod's cgroup with --cgroup",
        list(searched)
    )]
    NotInTree {
        /// The own id of this process.
        pid: u32,
        /// Where cgroup v2 is mounted.
        searched: Vec<PathBuf>,
    },
    /// A cgroup above pods would capture all of them.
    #[error("{} holds more than one pod: they would all be captured; name the cgroup of one with --cgroup", .0.display())]
    Shared(PathBuf),
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
    /// The pod it holds, by its name.
    pod: Option<PodName>,
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
        if !is_child(path) {
            return Err(CgroupError::Root(path.to_owned()));
        }
        if is_above_pods(path) {
            return Err(CgroupError::Shared(path.to_owned()));
        }
        Ok(cgroup)
    }

    /// Opens the cgroup that is named, else that of the pod that this process is in, else its own.
    pub fn open_or_find(named: Option<&Path>) -> Result<Self, CgroupError> {
        if let Some(path) = named {
            return Self::open(path);
        }
        let Found { path, pod } = own_cgroup::find()?;
        let cgroup = Self::open(&path)?;
        if let Some(pod) = pod {
            tracing::info!("{cgroup} is that of {pod}, in which we are");
        } else {
            tracing::info!("{cgroup} is our own: we are in that of no pod");
        }
        Ok(cgroup)
    }

    /// Opens the cgroup this process is in, which may be the root.
    pub fn of_this_process() -> Result<Self, CgroupError> {
        let path = own_cgroup()?;
        Self::open_any(&path).map_err(|source| CgroupError::Open { path, source })
    }

    fn open_any(path: &Path) -> io::Result<Self> {
        let directory = fs::File::open(path)?;
        let id = directory.metadata()?.ino();
        // Whatever it was called by.
        let pod = PodName::of(&fs::canonicalize(path)?);
        Ok(Self {
            directory,
            id,
            path: path.to_owned(),
            pod,
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

    /// The pod it holds, if its name says that it is a pod's.
    pub const fn pod(&self) -> Option<&PodName> {
        self.pod.as_ref()
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
            pod: self.pod.clone(),
        })
    }

    /// The ids of this cgroup and of all below it.
    pub fn subtree_ids(&self) -> io::Result<HashSet<u64>> {
        let below = self.below().into_iter();
        let ids = below.filter_map(|path| Some(fs::metadata(path).ok()?.ino()));
        Ok(ids.chain([self.id]).collect())
    }

    /// The cgroups below this one, each before those above it.
    pub fn below(&self) -> Vec<PathBuf> {
        let mut below = Vec::new();
        let mut pending = vec![self.path.clone()];
        while let Some(directory) = pending.pop() {
            // A container may end while we walk: its directory is then gone.
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    below.push(entry.path());
                    pending.push(entry.path());
                }
            }
        }
        below.reverse();
        below
    }

    /// The cgroups above this one as far as they are mounted, each before those above it.
    pub fn above(&self) -> io::Result<Vec<PathBuf>> {
        let path = fs::canonicalize(&self.path)?;
        let above = path.ancestors().skip(1);
        Ok(above
            .take_while(|path| {
                statfs(*path).is_ok_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC)
            })
            .map(Path::to_owned)
            .collect())
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
    let first = CgroupMount::all().into_iter().next();
    first.map(|mount| mount.at).ok_or(CgroupError::NoMount)
}

/// Is it not the root? Only that has no `cgroup.type` (Documentation/admin-guide/cgroup-v2.rst).
pub(super) fn is_child(cgroup: &Path) -> bool {
    cgroup.join("cgroup.type").exists()
}

/// Does it hold pods, and is not one itself?
fn is_above_pods(cgroup: &Path) -> bool {
    // Whatever it was called by.
    let Ok(path) = fs::canonicalize(cgroup) else {
        return false;
    };
    PodName::around(&path).is_none() && (kubelet::is_shared(&path) || holds_pods(&path))
}

fn holds_pods(cgroup: &Path) -> bool {
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .any(|path| PodName::of(&path).is_some() || holds_pods(&path))
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_above_pods_is_told_from_that_of_one() {
        let tree = tempfile::tempdir().expect("a temporary directory");
        let pod = tree.path().join("node/kubelet/kubepods/besteffort/pod1f");
        fs::create_dir_all(pod.join("container")).expect("a writable directory");
        fs::create_dir_all(tree.path().join("kubepods.slice")).expect("a writable directory");
        fs::create_dir_all(tree.path().join("app")).expect("a writable directory");
        for own in [
            pod.as_path(),
            &pod.join("container"),
            &tree.path().join("app"),
        ] {
            assert!(!is_above_pods(own), "{}", own.display());
        }
        for above in pod.ancestors().skip(1).take(4) {
            assert!(is_above_pods(above), "{}", above.display());
        }
        assert!(is_above_pods(&tree.path().join("kubepods.slice")));
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
