//! Where this process is in the tree of cgroups, and in which pod.
//!
//! A container sees its own cgroup as `/` and nothing above it. Where the host's tree is mounted beside that, `cgroup.procs` there
//! shows processes by the ids that the reader's pid namespace gives them, and others as 0: so the cgroup that lists our own id
//! is ours, whatever its name.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use super::{CgroupError, cgroup_mounts::CgroupMount, kubelet::PodName};

/// A cgroup to capture, and why that one.
#[derive(Debug)]
pub(super) struct Found {
    pub path: PathBuf,
    /// The pod it holds; none for the own cgroup of a process outside of any pod.
    pub pod: Option<PodName>,
}

/// The cgroup of the pod that this process is in; outside of any pod, its own.
pub(super) fn find() -> Result<Found, CgroupError> {
    let view = View::new()?;
    let told = view.told();
    if let Some(found) = told.iter().find_map(|path| of_pod(path)) {
        return Ok(found);
    }
    match (view.searched(), told.into_iter().next()) {
        (Some(path), _) => Ok(of_pod(&path).unwrap_or(Found { path, pod: None })),
        // There is a tree of others, and we are not in it.
        (None, _) if view.others().next().is_some() => Err(view.not_found()),
        (None, Some(_)) if view.is_hidden() => Err(CgroupError::Hidden),
        (None, Some(path)) => Ok(Found { path, pod: None }),
        (None, None) => Err(view.not_found()),
    }
}

/// The cgroup this process is in.
pub fn own_cgroup() -> Result<PathBuf, CgroupError> {
    let view = View::new()?;
    let told = view.told().into_iter().next();
    told.or_else(|| view.searched())
        .ok_or_else(|| view.not_found())
}

fn of_pod(path: &Path) -> Option<Found> {
    let (path, pod) = PodName::around(path)?;
    Some(Found {
        path: path.to_owned(),
        pod: Some(pod),
    })
}

/// What this process sees of the tree.
struct View {
    mounts: Vec<CgroupMount>,
    /// Its own cgroup, as its cgroup namespace names it.
    own: PathBuf,
}

impl View {
    fn new() -> Result<Self, CgroupError> {
        let mounts = CgroupMount::all();
        let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        match parse(&cgroups) {
            Some(own) if !mounts.is_empty() => Ok(Self {
                mounts,
                own: own.into(),
            }),
            _ => Err(CgroupError::NoMount),
        }
    }

    /// Where its own cgroup is, as far as names tell.
    fn told(&self) -> Vec<PathBuf> {
        let paths = self
            .mounts
            .iter()
            .filter_map(|mount| mount.path_of(&self.own));
        paths.filter(|path| path.is_dir()).collect()
    }

    /// Where its own cgroup is, in mounts in which names do not tell.
    fn searched(&self) -> Option<PathBuf> {
        let own = process::id().to_string();
        self.others().find_map(|mount| search(&mount.at, &own))
    }

    /// Mounts that show more than what the own cgroup is the top of, or something else.
    fn others(&self) -> impl Iterator<Item = &CgroupMount> {
        let others = self.mounts.iter();
        others.filter(|mount| mount.path_of(&self.own).is_none())
    }

    /// Is the own cgroup the top of all that can be seen, and yet not the top of the machine's?
    fn is_hidden(&self) -> bool {
        self.own == Path::new("/") && self.told().iter().all(|path| super::cgroup::is_child(path))
    }

    fn not_found(&self) -> CgroupError {
        let searched = self.mounts.iter().map(|mount| mount.at.clone());
        CgroupError::NotInTree {
            pid: process::id(),
            searched: searched.collect(),
        }
    }
}

/// The cgroup that lists the process, at or below this one.
fn search(cgroup: &Path, pid: &str) -> Option<PathBuf> {
    // Cgroups with threads in them and no processes of their own refuse to be read.
    let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    if listed.lines().any(|line| line == pid) {
        return Some(cgroup.to_owned());
    }
    // Others come and go while we look.
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .find_map(|entry| search(&entry.path(), pid))
}

/// The name of the own cgroup: version 2 is the hierarchy without number and controllers.
fn parse(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "kubepods/burstable/pod0f7a6b1c-3d5e-4a8b-9c2d-1e4f5a6b7c8d";

    #[test]
    fn the_own_cgroup_is_that_of_version_2() {
        let cgroups = "12:cpu:/other\n0::/system.slice/sidecar.service\n";
        assert_eq!(parse(cgroups), Some("/system.slice/sidecar.service"));
        assert_eq!(parse("12:cpu:/other\n"), None);
    }

    #[test]
    fn the_cgroup_that_lists_a_process_is_found() {
        let tree = tempfile::tempdir().expect("a temporary directory");
        for (cgroup, pids) in [
            ("", "0\n"),
            ("kubepods/pod1/b", "0\n12\n"),
            ("kubepods/pod1/c", "0\n1\n"),
            (&format!("{POD}/a"), "0\n"),
        ] {
            let cgroup = tree.path().join(cgroup);
            fs::create_dir_all(&cgroup).expect("a writable directory");
            fs::write(cgroup.join("cgroup.procs"), pids).expect("a writable directory");
        }
        let found = search(tree.path(), "1");
        assert_eq!(found, Some(tree.path().join("kubepods/pod1/c")));
        assert_eq!(search(tree.path(), "2"), None);
    }

    #[test]
    fn a_container_is_captured_with_its_whole_pod() {
        let path = Path::new("/run/sidecar/cgroup/unified").join(POD);
        let found = of_pod(&path.join("4f2a")).expect("a pod");
        assert_eq!(found.path, path);
        assert!(matches!(found.pod, Some(PodName::Kubernetes(_))));
    }
}
