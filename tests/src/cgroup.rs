//! A cgroup that lives as long as its guard.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::wait;

/// A pod's cgroup, with a child for each of its containers.
#[derive(Debug)]
pub struct Cgroup {
    /// What was made at the root of the cgroup v2 tree: the pod's directory, or one above it.
    top: PathBuf,
    /// The pod's directory in the cgroup v2 tree.
    path: PathBuf,
}

/// Who names the cgroup of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Nobody but the tests.
    Own,
    /// The kubelet, with its driver `cgroupfs`.
    Cgroupfs,
    /// The kubelet, with its driver `systemd`.
    Systemd,
}

impl Naming {
    /// The path of a pod's cgroup, below what holds all pods of a run.
    fn path(self, uid: &str) -> PathBuf {
        let path = match self {
            Self::Own => String::new(),
            Self::Cgroupfs => format!("kubepods/burstable/pod{uid}"),
            Self::Systemd => format!(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
                uid.replace('-', "_")
            ),
        };
        path.into()
    }
}

/// Which of a pod's child cgroups a process belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// The workload.
    App,
    /// The sidecar.
    Sidecar,
}

impl Container {
    /// The name of the child cgroup.
    pub fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Sidecar => "sidecar",
        }
    }
}

impl Cgroup {
    /// Makes a cgroup and its children, alone at the root of the v2 tree or as the kubelet would, for a pod with this uid.
    pub fn new(name: &str, naming: Naming, uid: &str) -> Self {
        let top = root().join(name);
        let path = naming.path(uid);
        Self::made({ top.components() }.chain(path.components()).collect(), top)
    }

    /// Makes a cgroup and its children at this place of the v2 tree.
    pub fn at(path: PathBuf) -> Self {
        Self::made(path.clone(), path)
    }

    fn made(path: PathBuf, top: PathBuf) -> Self {
        let cgroup = Self { top, path };
        for container in [Container::App, Container::Sidecar] {
            fs::create_dir_all(cgroup.path.join(container.name())).expect("making a cgroup");
        }
        cgroup
    }

    /// The pod's directory in the cgroup v2 tree.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that moves whoever writes `0` to it into `container`.
    pub fn entrance(&self, container: Container) -> File {
        let path = self.path.join(container.name()).join("cgroup.procs");
        OpenOptions::new()
            .write(true)
            .open(path)
            .expect("opening cgroup.procs")
    }

    /// The processes in `container`.
    pub fn processes(&self, container: Container) -> Vec<u32> {
        let path = self.path.join(container.name()).join("cgroup.procs");
        let content = fs::read_to_string(path).expect("reading cgroup.procs");
        content
            .lines()
            .map(|pid| pid.parse().expect("cgroup.procs holds pids"))
            .collect()
    }

    /// The cgroups directly below `container`'s.
    pub fn below(&self, container: Container) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path.join(container.name())).expect("listing a cgroup");
        let paths = entries.map(|entry| entry.expect("listing a cgroup").path());
        paths.filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.top);
    }
}

/// Where cgroup v2 is mounted, which a hybrid hierarchy does below the usual place.
pub fn root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("reading /proc/self/mounts");
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .map(|fields| PathBuf::from(fields[1]))
        .expect("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

/// Kills everything in a cgroup, waits until it is gone and removes the tree.
pub(crate) fn remove(path: &Path) {
    let removed = wait::within(wait::DEADLINE, || {
        // Repeated, since a process may have been forking while its cgroup was killed.
        kill(path).ok()?;
        beside(path)
            .iter()
            .try_for_each(|path| remove_tree(path))
            .ok()?;
        remove_tree(path).ok()
    });
    if removed.is_none() {
        eprintln!(
            "{} could not be removed: its processes do not die",
            path.display()
        );
    }
}

/// Kills everything in a cgroup and those below it, as runtimes do with a container.
///
/// # Errors
///
/// If it is no cgroup, or has gone.
pub fn kill(path: &Path) -> io::Result<()> {
    let file = path.join("cgroup.kill");
    if file.exists() {
        return fs::write(file, "1");
    }
    // Linux before 5.14 has no such file, and nobody there forks as fast as we kill.
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            kill(&entry.path())?;
        }
    }
    let processes = fs::read_to_string(path.join("cgroup.procs"))?;
    for pid in processes.lines().filter_map(|line| line.parse().ok()) {
        // It may have ended by itself.
        let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    Ok(())
}

/// The cgroups of the same name in hierarchies of version 1, where a container runtime makes them and
/// leaves them.
fn beside(path: &Path) -> Vec<PathBuf> {
    let Ok(name) = path.strip_prefix(root()) else {
        return Vec::new();
    };
    let mounts = fs::read_to_string("/proc/self/mounts").expect("reading /proc/self/mounts");
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup").then(|| Path::new(path).join(name))
    });
    mounts.filter(|path| path.exists()).collect()
}

/// Removes a cgroup and those below it, the lowest first: their files vanish with them.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
