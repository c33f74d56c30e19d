//! The place programs run in: a namespace, a cgroup and a directory under one name.

use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Once,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    mount::{MntFlags, umount2},
    unistd::Uid,
};

use crate::{
    cgroup::{self, Cgroup, Naming},
    namespace::{self, Namespace},
};

/// What every name starts with, followed by the pid of the run that made it.
const PREFIX: &str = "sc-";

/// A network namespace, a cgroup and a scratch directory that live and die together.
#[derive(Debug)]
pub struct Sandbox {
    /// Shared by the first namespace, cgroup and directory.
    name: String,
    /// By which an API server would know the pod.
    uid: String,
    /// First to go: nothing may run any more when the rest is taken away.
    cgroup: Cgroup,
    /// Goes after the processes in it.
    namespace: Arc<Namespace>,
    /// Goes last: processes wrote to it until they died.
    directory: Directory,
}

impl Sandbox {
    /// Makes a sandbox whose name is unique on this machine and ends in `role`.
    ///
    /// # Panics
    ///
    /// Without root, which namespaces and cgroups need.
    pub fn new(role: &str) -> Self {
        Self::named_by(Naming::Own, role)
    }

    /// The same, with a cgroup that somebody else would have named.
    pub fn named_by(naming: Naming, role: &str) -> Self {
        Self::make(role, |name, uid| Cgroup::new(name, naming, uid))
    }

    /// Makes one whose cgroup is where `place` says for its name.
    pub fn in_cgroup(role: &str, place: impl FnOnce(&str) -> PathBuf) -> Self {
        Self::make(role, |name, _| Cgroup::at(place(name)))
    }

    fn make(role: &str, cgroup: impl FnOnce(&str, &str) -> Cgroup) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        assert!(
            Uid::effective().is_root(),
            "the end-to-end tests make network namespaces and cgroups: run them as root, with \
             `sudo -E env PATH=$PATH cargo xtask test`"
        );
        SWEEP.call_once(sweep);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}-{role}", process::id());
        let uid = format!("{:08x}-0000-4000-8000-{count:012x}", process::id());
        Self {
            cgroup: cgroup(&name, &uid),
            uid,
            namespace: Arc::new(Namespace::new(&name)),
            directory: Directory::new(&name),
            name,
        }
    }

    /// The name that the first namespace, cgroup and directory share.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The uid of the pod, which no other has. Its cgroup is named by it where the kubelet would have named that.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The cgroup every program in the sandbox is in.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The network namespace.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Has programs run in another network namespace from now on, with nothing in it.
    pub(crate) fn renew_namespace(&mut self) {
        // The name of the old one is taken until that has gone.
        let name = format!("{}+", self.namespace.name());
        self.namespace = Arc::new(Namespace::new(&name));
    }

    /// A directory for configuration and data, readable by every user, gone with the sandbox.
    pub fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// Writes a file into [`Self::directory`] and returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory().join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

/// A directory that is removed with its guard, with whatever is mounted in it.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).expect("making a scratch directory");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("opening it to read");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove_directory(&self.0);
    }
}

/// Removes what runs that were killed have left: whatever carries the pid of a dead process.
fn sweep() {
    leftovers(&cgroup::root()).for_each(|name| cgroup::remove(&cgroup::root().join(name)));
    leftovers(Path::new(namespace::DIRECTORY)).for_each(|name| namespace::remove(&name));
    leftovers(&env::temp_dir()).for_each(|name| remove_directory(&env::temp_dir().join(name)));
}

/// The names in `directory` that a dead run gave.
fn leftovers(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| {
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    })
}

/// Unmounts what is mounted directly below `path` and removes the directory.
fn remove_directory(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        // Fails for all that is not a mount point, which is nearly everything.
        let _ = umount2(&entry.path(), MntFlags::MNT_DETACH);
    }
    if let Err(error) = fs::remove_dir_all(path) {
        eprintln!("removing {}: {error}", path.display());
    }
}
