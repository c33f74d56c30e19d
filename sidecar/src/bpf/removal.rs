//! Removing what is pinned, from whatever state it is in.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Error,
    pins::{self, Pins},
    sys::Link,
};

/// The links that are removed first: the net, so that it catches nothing that the others no longer
/// know, then the `connect` hooks.
///
/// A connection that is redirected when nothing steers it any more could reach an app of the pod
/// that listens on the same port by chance.
const FIRST: [&str; 3] = ["sc_egress", "sc_connect4", "sc_connect6"];

/// What became of a removal.
#[derive(Debug, Default)]
pub struct Removal {
    /// The pods of which something was pinned, by directory.
    pub pods: Vec<PathBuf>,
    /// What could not be removed, each with its reason. All the rest is gone.
    pub failures: Vec<Error>,
}

/// Removes everything of ours from this BPF file system, thereby detaching it.
///
/// It needs no more than to unlink files: not that the programs are of this version, nor that the
/// cgroup or the namespace they were attached to still exists.
pub fn remove_all(bpffs: &Path) -> Result<Removal, Error> {
    let pins = Pins::all(bpffs)?;
    let pods = pins.iter().map(|pod| pod.directory().to_owned()).collect();
    // Not under the hands of whoever starts or stops. What cannot be locked is removed all the same.
    let _locks: Vec<_> = pins.iter().map(Pins::lock).collect();
    let root = pins::root(bpffs);
    let mut removal = if exists(&root) {
        remove(&[root])
    } else {
        Removal::default()
    };
    removal.pods = pods;
    Ok(removal)
}

/// Removes what is pinned for pods whose cgroup has gone. The kernel has detached it, and nobody else comes to remove it: the maps
/// would take memory until the machine restarts.
pub fn remove_gone(bpffs: &Path) -> Result<Removal, Error> {
    let mut gone = Pins::all(bpffs)?;
    gone.retain(Pins::is_of_the_gone);
    let _locks: Vec<_> = gone.iter().map(Pins::lock).collect();
    // A pod that is made anew may have got there first.
    gone.retain(Pins::is_of_the_gone);
    let pods: Vec<_> = gone.iter().map(|pod| pod.directory().to_owned()).collect();
    Ok(Removal {
        failures: remove(&pods).failures,
        pods,
    })
}

/// Removes these trees as far as possible, the `connect` hooks in them first.
pub(super) fn remove(trees: &[PathBuf]) -> Removal {
    let mut removal = Removal::default();
    for tree in trees {
        removal.remove_first(tree);
    }
    for tree in trees {
        removal.remove_tree(tree);
    }
    removal
}

/// The links of a pod, opened while that takes no privilege that is given up.
pub(super) struct Detachable(Vec<Link>);

impl Detachable {
    /// Opens what is pinned for the pod, in the order in which it is to be detached.
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        let mut paths = pins.links()?;
        paths.sort_by_key(|path| rank(path));
        let open = |path: PathBuf| {
            Link::open(&path).map_err(|source| Error::BpfFs {
                action: "open",
                path,
                source,
            })
        };
        let links = paths.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self(links))
    }

    /// Detaches all of them now. Unlinked alone, each would be detached later.
    pub(super) fn detach(self) {
        for link in self.0 {
            // If its cgroup or namespace has gone, there is nothing to detach.
            let _ = link.detach();
        }
    }
}

/// When a link has to go: what is first goes in the order of [`FIRST`], all the rest after it.
fn rank(link: &Path) -> usize {
    let first = FIRST.iter().position(|name| link.ends_with(name));
    first.unwrap_or(FIRST.len())
}

impl Removal {
    /// The first failure, if there was one.
    pub(super) fn into_result(self) -> Result<(), Error> {
        self.failures.into_iter().next().map_or(Ok(()), Err)
    }

    /// Removes the links that have to go first, at whatever depth the layout has them.
    fn remove_first(&mut self, directory: &Path) {
        for link in FIRST.map(|name| directory.join(name)) {
            if exists(&link) {
                self.note(&link, remove_file(&link));
            }
        }
        for child in pins::children(directory).unwrap_or_default() {
            if is_directory(&child) {
                self.remove_first(&child);
            }
        }
    }

    fn remove_tree(&mut self, path: &Path) {
        if !is_directory(path) {
            self.note(path, remove_file(path));
            return;
        }
        match pins::children(path) {
            Ok(children) => children.iter().for_each(|child| self.remove_tree(child)),
            Err(error) => return self.failures.push(error),
        }
        self.note(path, fs::remove_dir(path));
    }

    fn note(&mut self, path: &Path, result: io::Result<()>) {
        let source = match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => error,
            _ => return,
        };
        // Said already of what is in it.
        if source.kind() == io::ErrorKind::DirectoryNotEmpty && !self.failures.is_empty() {
            return;
        }
        self.failures.push(Error::BpfFs {
            action: "remove",
            path: path.to_owned(),
            source,
        });
    }
}

/// Removes a file; of a pinned link, when it has been detached.
fn remove_file(path: &Path) -> io::Result<()> {
    // bpf(2) would follow it, to what is not ours to detach.
    let is_symlink = fs::symlink_metadata(path)?.is_symlink();
    if !is_symlink {
        // Whatever else it is, or if its cgroup or namespace has gone, there is nothing to detach.
        let _ = Link::open(path).and_then(|link| link.detach());
    }
    fs::remove_file(path)
}

/// Symbolic links are not followed: what they lead to is nobody's business here.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn every_layout_is_removed_and_named() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        // Of this version, of earlier ones, half-finished, and none of ours.
        for directory in [
            "7/links",
            "7/maps",
            "8/102/links",
            "8/102-2/maps",
            "9",
            "x/y/z/links",
        ] {
            fs::create_dir_all(bpffs.path().join("sidecar").join(directory))
                .expect("a writable directory");
        }
        for file in ["7/links/sc_connect4", "8/102/links/sc_connect6", "x/file"] {
            fs::write(bpffs.path().join("sidecar").join(file), "").expect("a writable directory");
        }
        let removal = remove_all(bpffs.path()).expect("readable");
        assert!(removal.failures.is_empty(), "{:?}", removal.failures);
        let names: Vec<_> = removal
            .pods
            .iter()
            .filter_map(|pod| pod.file_name()?.to_str())
            .collect();
        assert_eq!(names, ["7", "8", "9", "x"]);
        assert!(!bpffs.path().join("sidecar").exists());
        assert!(
            remove_all(bpffs.path())
                .expect("nothing to read")
                .pods
                .is_empty()
        );
    }

    #[test]
    fn the_net_is_detached_before_the_connect_hooks_and_these_before_the_rest() {
        // As a directory is listed.
        let mut links = [
            "sc_connect4",
            "sc_connect6",
            "sc_egress",
            "sc_peername4",
            "sc_sk_lookup",
        ]
        .map(|name| Path::new("/sys/fs/bpf/sidecar/7/links").join(name));
        links.sort_by_key(|link| rank(link));
        let names = links.map(|link| link.file_name().map(ToOwned::to_owned));
        let names: Vec<_> = names.iter().flatten().collect();
        assert_eq!(
            names,
            [
                "sc_egress",
                "sc_connect4",
                "sc_connect6",
                "sc_peername4",
                "sc_sk_lookup"
            ]
        );
    }

    #[test]
    fn nothing_is_removed_under_the_hands_of_whoever_holds_the_lock() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let lock = bpffs.path().join("sidecar/7/lock");
        fs::create_dir_all(&lock).expect("a writable directory");
        let held = fs::File::open(&lock).expect("made");
        held.lock().expect("nobody else holds it");
        thread::scope(|scope| {
            let removal = scope.spawn(|| remove_all(bpffs.path()));
            let started = Instant::now();
            while started.elapsed() < Duration::from_millis(100) {
                assert!(lock.exists());
            }
            held.unlock().expect("it is ours");
            let removal = removal.join().expect("no panic").expect("readable");
            assert!(removal.failures.is_empty(), "{:?}", removal.failures);
        });
        assert!(!bpffs.path().join("sidecar").exists());
    }

    #[test]
    fn what_a_symbolic_link_leads_to_stays() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let elsewhere = tempfile::tempdir().expect("a temporary directory");
        fs::write(elsewhere.path().join("file"), "").expect("a writable directory");
        fs::create_dir(bpffs.path().join("sidecar")).expect("a writable directory");
        std::os::unix::fs::symlink(elsewhere.path(), bpffs.path().join("sidecar/7"))
            .expect("a writable directory");
        remove_all(bpffs.path()).expect("readable");
        assert!(!bpffs.path().join("sidecar").exists());
        assert!(elsewhere.path().join("file").exists());
    }
}
