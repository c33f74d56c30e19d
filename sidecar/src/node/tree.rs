//! Where pods are in the cgroup tree of the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::{
    kubernetes::PodUid,
    pod::{
        self, CgroupError,
        kubelet::{self, PodName},
    },
};

/// Where the host's tree is expected in a container.
const HOST: &str = "/run/sidecar/cgroup";

/// How deep pods are looked for. A kubelet in a container in a pod is at ten.
const DEPTH: usize = 12;

/// The pods in a cgroup tree.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Tree {
    /// The cgroup of each.
    pub(super) pods: BTreeMap<PodUid, PathBuf>,
    /// The directories in which pods come and go.
    pub(super) shared: BTreeSet<PathBuf>,
}

impl Tree {
    /// Looks at all of the tree. What cannot be looked at is an error: a pod that is not seen would be
    /// taken for one that has gone.
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        fs::metadata(root)?;
        let mut tree = Self::default();
        tree.walk(root, DEPTH)?;
        Ok(tree)
    }

    fn walk(&mut self, directory: &Path, depth: usize) -> io::Result<()> {
        if kubelet::is_shared(directory) {
            self.shared.insert(directory.to_owned());
        }
        let children = match children(directory) {
            // A cgroup may go while we look.
            Err(error) if is_gone(&error) => return Ok(()),
            children => children?,
        };
        for child in children {
            match PodName::of(&child) {
                Some(PodName::Kubernetes(uid)) => {
                    self.pods.insert(PodUid(uid), child);
                }
                None if depth > 0 => self.walk(&child, depth - 1)?,
                // Of Podman's no API tells.
                Some(PodName::Podman(_)) | None => {}
            }
        }
        Ok(())
    }
}

/// The cgroups directly below one.
pub(super) fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// Was a cgroup removed, before it was opened or after?
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// The root of the host's cgroup v2 tree: where it is put in a container, or where it is mounted.
pub fn root() -> Result<PathBuf, CgroupError> {
    let host = Path::new(HOST);
    // On machines with both versions, the second is below the first.
    let in_container = [host.to_owned(), host.join("unified")];
    match in_container.into_iter().find(|path| is_cgroup2(path)) {
        Some(root) => Ok(root),
        None => pod::cgroup2_mount(),
    }
}

fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f7a6b1c-3d5e-4a8b-9c2d-1e4f5a6b7c8d";

    fn tree(directories: &[&str]) -> Tree {
        let root = tempfile::tempdir().expect("a temporary directory");
        for directory in directories {
            fs::create_dir_all(root.path().join(directory)).expect("a writable directory");
        }
        let mut tree = Tree::read(root.path()).expect("it is there");
        let relative = |path: &Path| {
            let path = path.strip_prefix(root.path()).expect("below");
            path.to_owned()
        };
        tree.shared = tree.shared.iter().map(|path| relative(path)).collect();
        for path in tree.pods.values_mut() {
            *path = relative(path);
        }
        tree
    }

    #[test]
    fn pods_of_either_driver_are_found_and_what_is_in_them_is_not() {
        let slice = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod11111111_3d5e_4a8b_9c2d_1e4f5a6b7c8d.slice";
        let found = tree(&[
            &format!(
                "kubepods/besteffort/pod{UID}/container/kubepods/pod99999999-3d5e-4a8b-9c2d-1e4f5a6b7c8d"
            ),
            &format!("{slice}/cri-containerd-1.scope"),
            "system.slice/sshd.service",
        ]);
        let pods: Vec<_> = found
            .pods
            .iter()
            .map(|(uid, path)| (uid.0.as_str(), path.as_path()))
            .collect();
        let own = format!("kubepods/besteffort/pod{UID}");
        assert_eq!(
            pods,
            [
                (UID, Path::new(&own)),
                ("11111111-3d5e-4a8b-9c2d-1e4f5a6b7c8d", Path::new(slice))
            ]
        );
        assert!(found.shared.contains(Path::new("kubepods/besteffort")));
    }

    #[test]
    fn a_tree_that_cannot_be_read_is_no_empty_tree() {
        assert!(Tree::read(Path::new("/nowhere")).is_err());
        // It is there, and cannot be listed.
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        assert!(Tree::read(file.path()).is_err());
    }
}
