//! Links and maps pinned on the BPF file system.
//!
//! A pinned link stays attached when the daemon dies: the pod then fails closed instead of
//! falling back to plaintext. Layout: `<bpffs>/sidecar/<cgroup id>/<generation>/{links,maps}/NAME`.
//! Each daemon has a generation of its own, named by its process id, so it can attach beside what
//! a dead one left and only then remove that: there is no moment without hooks.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
};

use aya::{maps::Map, programs::links::FdLink};

use super::Error;
use crate::pod::Cgroup;

/// Directory on the BPF file system under which everything of ours is pinned.
const ROOT: &str = "sidecar";

/// Where the links and maps of one daemon are pinned.
#[derive(Debug)]
pub struct Pins {
    /// `<bpffs>/sidecar/<cgroup id>`, shared by all generations of one pod.
    pod: PathBuf,
    /// The directory of this daemon inside it.
    generation: PathBuf,
}

impl Pins {
    /// Makes the directories for a pod; `bpffs` must be a mounted BPF file system.
    pub fn create(bpffs: &Path, cgroup: &Cgroup) -> Result<Self, Error> {
        let pod = bpffs.join(ROOT).join(cgroup.id().to_string());
        let generation = free_generation(&pod, process::id());
        for directory in [links(&generation), maps(&generation)] {
            fs::create_dir_all(&directory).map_err(|source| Error::BpfFs {
                action: "create",
                path: directory,
                source,
            })?;
        }
        Ok(Self { pod, generation })
    }

    /// The directory of this daemon.
    pub(super) fn directory(&self) -> &Path {
        &self.generation
    }

    /// Pins a map.
    pub(super) fn pin_map(&self, name: &str, map: &Map) -> Result<(), Error> {
        let path = maps(&self.generation).join(name);
        map.pin(&path).map_err(|source| Error::Pin { path, source })
    }

    /// Pins a link, which thereby outlives this process.
    pub(super) fn pin_link(&self, name: &str, link: FdLink) -> Result<(), Error> {
        let path = links(&self.generation).join(name);
        // The file holds the link now; the descriptor is not needed.
        link.pin(&path)
            .map(drop)
            .map_err(|source| Error::Pin { path, source })
    }

    /// Removes what earlier daemons of this pod pinned, thereby detaching it.
    pub(super) fn remove_older(&self) -> Result<(), Error> {
        for generation in children(&self.pod)? {
            if generation != self.generation {
                remove_tree(&generation)?;
            }
        }
        Ok(())
    }

    /// Removes what this daemon pinned, thereby detaching it.
    pub(super) fn remove(&self) -> Result<(), Error> {
        remove_tree(&self.generation)?;
        remove_if_empty(&self.pod);
        if let Some(root) = self.pod.parent() {
            remove_if_empty(root);
        }
        Ok(())
    }
}

impl Drop for Pins {
    /// Nothing stays attached of a start that failed half-way, or of a daemon that panics.
    fn drop(&mut self) {
        if self.generation.exists()
            && let Err(error) = self.remove()
        {
            tracing::error!("{error}");
        }
    }
}

/// A directory for a daemon's generation that does not exist yet.
///
/// In a container the process id is often the same after every start.
fn free_generation(pod: &Path, pid: u32) -> PathBuf {
    (1..=u32::MAX)
        .map(|attempt| match attempt {
            1 => pod.join(pid.to_string()),
            // No dots: the BPF file system refuses them.
            _ => pod.join(format!("{pid}-{attempt}")),
        })
        .find(|path| !path.exists())
        .expect("a daemon is not started four billion times in vain")
}

/// What one daemon pinned for one pod.
#[derive(Debug)]
pub struct Generation {
    /// Id of the pod's cgroup.
    pub cgroup: u64,
    /// Process id of the daemon.
    pub pid: u32,
    /// The directory.
    pub path: PathBuf,
}

impl Generation {
    /// The pinned links.
    pub fn links(&self) -> Result<Vec<PathBuf>, Error> {
        children(&links(&self.path))
    }

    /// The pinned maps.
    pub fn maps(&self) -> Result<Vec<PathBuf>, Error> {
        children(&maps(&self.path))
    }
}

/// Everything of ours that is pinned on this BPF file system.
pub fn all(bpffs: &Path) -> Result<Vec<Generation>, Error> {
    let mut generations = Vec::new();
    for pod in children(&bpffs.join(ROOT))? {
        for path in children(&pod)? {
            generations.push(Generation {
                cgroup: number(&pod),
                pid: number(&path),
                path,
            });
        }
    }
    Ok(generations)
}

/// Removes everything of ours from this BPF file system, thereby detaching it; says what it was.
pub fn remove_all(bpffs: &Path) -> Result<Vec<Generation>, Error> {
    let generations = all(bpffs)?;
    let root = bpffs.join(ROOT);
    if root.exists() {
        remove_tree(&root)?;
    }
    Ok(generations)
}

fn links(generation: &Path) -> PathBuf {
    generation.join("links")
}

fn maps(generation: &Path) -> PathBuf {
    generation.join("maps")
}

/// Directories are named by numbers; whatever else stands there is shown as 0 and removed alike.
fn number<N: std::str::FromStr + Default>(path: &Path) -> N {
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.split('-').next()?.parse().ok())
        .unwrap_or_default()
}

fn children(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = fs::read_dir(directory).and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()
    });
    match listed {
        Ok(mut paths) => {
            paths.sort();
            Ok(paths)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::BpfFs {
            action: "list",
            path: directory.to_owned(),
            source,
        }),
    }
}

/// Removes a tree: the net first, so that it catches nothing that the others no longer know, then
/// the `connect` hooks.
///
/// A connection that is redirected when nothing steers it any more could reach an app of the pod
/// that listens on the same port by chance.
fn remove_tree(path: &Path) -> Result<(), Error> {
    let remove = || {
        for generation in generations_in(path) {
            for hook in ["sc_egress", "sc_connect4", "sc_connect6"] {
                remove_file(&links(&generation).join(hook))?;
            }
        }
        fs::remove_dir_all(path)
    };
    match remove() {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::BpfFs {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The generation that `path` is, or those that are one or two levels below it.
fn generations_in(path: &Path) -> Vec<PathBuf> {
    let mut level = vec![path.to_owned()];
    for _ in 0..2 {
        if level.iter().any(|path| links(path).exists()) {
            break;
        }
        level = level
            .iter()
            .flat_map(|path| children(path).unwrap_or_default())
            .collect();
    }
    level
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The directory is shared: whoever leaves last removes it.
fn remove_if_empty(path: &Path) {
    let _ = fs::remove_dir(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_pinned_where_nothing_was_pinned() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        assert!(all(bpffs.path()).expect("a readable directory").is_empty());
        assert!(
            remove_all(bpffs.path())
                .expect("nothing to remove")
                .is_empty()
        );
    }

    #[test]
    fn a_process_id_that_comes_again_gets_another_generation() {
        let pod = tempfile::tempdir().expect("a temporary directory");
        let names: Vec<_> = (0..3)
            .map(|_| {
                let path = free_generation(pod.path(), 1);
                fs::create_dir(&path).expect("a new directory");
                assert_eq!(number::<u32>(&path), 1);
                path.file_name().expect("a name").to_owned()
            })
            .collect();
        assert_eq!(names, ["1", "1-2", "1-3"]);
    }

    #[test]
    fn all_generations_of_all_pods_are_found_and_removed() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        for generation in ["7/100/links", "7/101/maps", "8/102/links"] {
            fs::create_dir_all(bpffs.path().join(ROOT).join(generation))
                .expect("a writable directory");
        }
        let found: Vec<_> = remove_all(bpffs.path())
            .expect("a removable tree")
            .into_iter()
            .map(|generation| (generation.cgroup, generation.pid))
            .collect();
        assert_eq!(found, [(7, 100), (7, 101), (8, 102)]);
        assert!(!bpffs.path().join(ROOT).exists());
    }
}
