//! Where links and maps are pinned on the BPF file system.
//!
//! Layout: `<bpffs>/sidecar/<pod>/{links,maps}/NAME`, one state for each pod, which whoever
//! serves it hands on to the next. The pod is named by its uid, as the name of its cgroup has it, so that a container can be
//! given the directory of its own pod alone; what is no pod of Kubernetes' or Podman's, by the id of its cgroup. A pinned link stays attached when the daemon dies: the pod then
//! fails closed instead of falling back to plaintext.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{
        self,
        ErrorKind::{AlreadyExists, NotFound, WouldBlock},
    },
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use sidecar_common::ABI;

use super::{
    Error, ownership,
    programs::SOCK_OPS,
    removal,
    sys::{Link, Target},
};
use crate::pod::{Cgroup, PodName};

/// Directory on the BPF file system under which everything of ours is pinned.
const ROOT: &str = "sidecar";
/// Directory of the pinned links.
const LINKS: &str = "links";
/// Directory of the pinned maps.
const MAPS: &str = "maps";
/// Directory that stays empty. Whoever changes what is pinned holds a lock on it.
const LOCK: &str = "lock";
/// Directory that stays empty. Whoever reads what the kernel side tells of sockets holds a lock on it.
const READER: &str = "reader";

/// How long the lock is waited for: far above what a take-over takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// May be entered by everybody and listed by its owner alone.
const ENTER: u32 = 0o711;

/// Where the links and maps of one pod are pinned.
#[derive(Clone, Debug)]
pub struct Pins {
    /// `<bpffs>/sidecar/<pod>`, or all of a mount that shows no more than that.
    pod: PathBuf,
}

impl Pins {
    /// Those of a pod, whether or not anything is pinned; `bpffs` must be a BPF file system.
    pub fn of(bpffs: &Path, cgroup: &Cgroup) -> Self {
        let id = cgroup.id().to_string();
        Self::named(bpffs, cgroup.pod().map_or(&id, PodName::id))
    }

    fn named(bpffs: &Path, pod: &str) -> Self {
        let alone = Self { pod: bpffs.into() };
        if alone.map(ownership::LAYOUT).exists() {
            return alone;
        }
        Self {
            pod: bpffs.join(ROOT).join(pod),
        }
    }

    /// Everything of ours that is pinned on this BPF file system.
    pub fn all(bpffs: &Path) -> Result<Vec<Self>, Error> {
        let pods = children(&bpffs.join(ROOT))?;
        Ok(pods.into_iter().map(|pod| Self { pod }).collect())
    }

    /// The directory that holds everything of this pod.
    pub fn directory(&self) -> &Path {
        &self.pod
    }

    /// Id of the pod's cgroup, as it is named or as what is pinned is attached to it; 0 if neither tells.
    pub fn cgroup(&self) -> u64 {
        let named = self.name().parse().ok();
        named.unwrap_or_else(|| match self.target() {
            Some(Target::Cgroup(id)) => id,
            _ => 0,
        })
    }

    /// Uid or id of the pod, or id of the cgroup.
    pub fn name(&self) -> &str {
        let name = self.pod.file_name().and_then(|name| name.to_str());
        name.unwrap_or_default()
    }

    /// Has the cgroup gone to which it was attached?
    pub(super) fn is_of_the_gone(&self) -> bool {
        self.target() == Some(Target::Gone)
    }

    /// What follows the pod's sockets, and is attached first.
    fn target(&self) -> Option<Target> {
        let link = Link::open(&self.link(SOCK_OPS)).ok()?;
        link.target().ok()
    }

    /// Does a sidecar serve the pod? Whoever does has its turn to read what the kernel side tells, whatever namespaces it is in;
    /// `None` if we may not know.
    pub fn are_served(&self) -> Option<bool> {
        let turn = File::open(self.reader_directory()).ok()?;
        match turn.try_lock_shared() {
            Ok(()) => Some(false),
            Err(TryLockError::WouldBlock) => Some(true),
            Err(TryLockError::Error(_)) => None,
        }
    }

    /// The pinned links.
    pub fn links(&self) -> Result<Vec<PathBuf>, Error> {
        children(&self.pod.join(LINKS))
    }

    /// The pinned maps.
    pub fn maps(&self) -> Result<Vec<PathBuf>, Error> {
        children(&self.pod.join(MAPS))
    }

    /// Is a state of this version pinned, whose maps we may open?
    pub fn may_be_used(&self) -> bool {
        ownership::layout(self).is_ok_and(|layout| layout == ABI)
    }

    /// What other versions have pinned, or a start that failed has left: all that is in none of
    /// our own directories.
    pub fn older(&self) -> Result<Vec<PathBuf>, Error> {
        let mut older = children(&self.pod)?;
        older.retain(|path| !self.own().contains(path));
        Ok(older)
    }

    /// Where a link is pinned, named by its program.
    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.pod.join(LINKS).join(program)
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.pod.join(MAPS).join(name)
    }

    /// The directories of ours that a user has to enter who is to use the maps.
    pub(super) fn path_to_maps(&self) -> Vec<PathBuf> {
        let root = self.pod.parent().map(Path::to_owned);
        root.into_iter()
            .chain([self.pod.clone(), self.pod.join(MAPS)])
            .collect()
    }

    /// The directory that stands for the lock.
    pub(super) fn lock_directory(&self) -> PathBuf {
        self.pod.join(LOCK)
    }

    /// The directory that stands for the right to read the ring buffer.
    pub(super) fn reader_directory(&self) -> PathBuf {
        self.pod.join(READER)
    }

    /// Makes what is missing of the directories, and waits until nobody else changes what is in
    /// them.
    pub(super) fn create(&self) -> Result<Lock, Error> {
        let prepare = || {
            for directory in self.own() {
                let mut builder = DirBuilder::new();
                builder.recursive(true).mode(ENTER).create(&directory)?;
            }
            // The mask of this process has no say in it.
            self.path_to_maps().iter().try_for_each(|path| open(path))
        };
        // Whoever held the lock removes what we have just made or found.
        let passing = [WouldBlock, NotFound, AlreadyExists];
        self.locked(PATIENCE, &passing, || {
            prepare()?;
            let lock = self.try_lock()?;
            // Some of what was found may have gone before the lock that was made is the lock.
            prepare()?;
            Ok(lock)
        })
    }

    /// Waits until nobody else changes what is pinned; an error if nothing is.
    pub(super) fn lock(&self) -> Result<Lock, Error> {
        self.locked(PATIENCE, &[WouldBlock], || self.try_lock())
    }

    /// Puts links and maps out of the way, still attached, to be removed when others are; tells
    /// where.
    pub(super) fn set_aside(&self) -> Result<PathBuf, Error> {
        let move_aside = || {
            let aside = (1..=u32::MAX)
                .map(|number| self.pod.join(format!("older-{number}")))
                .find(|path| !path.exists())
                .expect("a directory has not endlessly many children");
            fs::create_dir(&aside)?;
            for name in [LINKS, MAPS] {
                fs::rename(self.pod.join(name), aside.join(name))?;
                DirBuilder::new().mode(ENTER).create(self.pod.join(name))?;
                // Whatever the umask says.
                open(&self.pod.join(name))?;
            }
            io::Result::Ok(aside)
        };
        move_aside().map_err(|source| Error::BpfFs {
            action: "set aside what is in",
            path: self.pod.clone(),
            source,
        })
    }

    /// Puts back what was set aside, in the place of what is there now.
    pub(super) fn put_back(&self, aside: &Path) -> Result<(), Error> {
        let trees = [LINKS, MAPS].map(|name| self.pod.join(name));
        removal::remove(&trees).into_result()?;
        let move_back = || {
            for name in [LINKS, MAPS] {
                fs::rename(aside.join(name), self.pod.join(name))?;
            }
            fs::remove_dir(aside)
        };
        move_back().map_err(|source| Error::BpfFs {
            action: "put back what is in",
            path: aside.to_owned(),
            source,
        })
    }

    /// Removes what [`older`](Self::older) lists, thereby detaching it.
    pub(super) fn remove_older(&self) -> Result<(), Error> {
        removal::remove(&self.older()?).into_result()
    }

    /// Removes links and maps, thereby detaching them.
    pub(super) fn remove(&self) -> Result<(), Error> {
        let removed = removal::remove(&self.own()).into_result();
        // What is shared goes with whoever leaves last.
        let _ = fs::remove_dir(&self.pod);
        let _ = self.pod.parent().map(fs::remove_dir);
        removed
    }

    /// The directories of this version.
    fn own(&self) -> [PathBuf; 4] {
        [LINKS, MAPS, LOCK, READER].map(|name| self.pod.join(name))
    }

    /// The way to the lock, for whoever may not open it any more when it is wanted.
    pub(super) fn turn(&self) -> Result<Turn, Error> {
        let path = self.lock_directory();
        match File::open(&path) {
            Ok(directory) => Ok(Turn { directory, path }),
            Err(source) => Err(Error::bpffs("open", &path, source)),
        }
    }

    fn try_lock(&self) -> io::Result<Lock> {
        let path = self.lock_directory();
        let directory = File::open(&path)?;
        directory.try_lock()?;
        // Whoever held it may have removed it meanwhile; then there is a new one to lock.
        let same = fs::metadata(&path)?.ino() == directory.metadata()?.ino();
        if same {
            Ok(Lock(directory))
        } else {
            Err(WouldBlock.into())
        }
    }

    fn locked(
        &self,
        patience: Duration,
        passing: &[io::ErrorKind],
        attempt: impl Fn() -> io::Result<Lock>,
    ) -> Result<Lock, Error> {
        const PAUSE: Duration = Duration::from_millis(10);
        let started = Instant::now();
        loop {
            let source = match attempt() {
                Ok(lock) => return Ok(lock),
                Err(error) => error,
            };
            match source.kind() {
                kind if passing.contains(&kind) && started.elapsed() < patience => {
                    thread::sleep(PAUSE);
                }
                WouldBlock => return Err(Error::Busy(self.pod.clone())),
                NotFound => return Err(Error::NothingPinned(self.pod.clone())),
                _ => {
                    let path = self.lock_directory();
                    return Err(Error::bpffs("prepare and lock", &path, source));
                }
            }
        }
    }
}

/// The right to change what is pinned for a pod, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would do; a copy of the descriptor may be about to be executed elsewhere.
        let _ = self.0.unlock();
    }
}

/// The right to change what is pinned for a pod, taken and given back again and again. A process that
/// dies gives it up.
#[derive(Debug)]
pub struct Turn {
    directory: File,
    path: PathBuf,
}

impl Turn {
    /// Takes it; `false` while somebody else has it, such as a sidecar that is taking the pod over.
    pub fn try_take(&self) -> Result<bool, Error> {
        match self.directory.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(source)) => Err(Error::bpffs("lock", &self.path, source)),
        }
    }

    /// Gives it back.
    pub fn give_back(&self) {
        // It fails only on what is no file.
        let _ = self.directory.unlock();
    }
}

/// Where everything of ours is on a BPF file system.
pub(super) fn root(bpffs: &Path) -> PathBuf {
    bpffs.join(ROOT)
}

/// Lets everybody enter a directory, though not list it.
pub(super) fn open(directory: &Path) -> io::Result<()> {
    let mode = fs::metadata(directory)?.mode();
    if mode & ENTER & 0o111 == ENTER & 0o111 {
        return Ok(());
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(mode | ENTER & 0o111))
}

/// The children of a directory, none if it does not exist.
pub(super) fn children(directory: &Path) -> Result<Vec<PathBuf>, Error> {
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
        Err(error) if error.kind() == NotFound => Ok(Vec::new()),
        // A file where a directory should be has no children either.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        Err(source) => Err(Error::BpfFs {
            action: "list",
            path: directory.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod on a plain file system, which has directories as well.
    fn pod(bpffs: &tempfile::TempDir) -> Pins {
        Pins {
            pod: bpffs.path().join(ROOT).join("7"),
        }
    }

    #[test]
    fn nothing_is_pinned_where_nothing_was_pinned() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        assert!(
            Pins::all(bpffs.path())
                .expect("a readable directory")
                .is_empty()
        );
    }

    #[test]
    fn a_mount_that_shows_one_pod_is_taken_for_that() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let pod = bpffs.path().join(ROOT).join("1f");
        assert_eq!(Pins::named(bpffs.path(), "1f").directory(), pod);
        let maps = pod.join(MAPS);
        fs::create_dir_all(&maps).expect("a writable directory");
        assert_eq!(
            Pins::named(&pod, "1f").directory(),
            pod.join(ROOT).join("1f")
        );
        fs::write(maps.join(ownership::LAYOUT), "").expect("a writable directory");
        assert_eq!(Pins::named(&pod, "1f").directory(), pod);
        assert_eq!(Pins::named(bpffs.path(), "2f").name(), "2f");
    }

    #[test]
    fn a_pod_is_served_while_somebody_has_the_turn_to_read() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let pins = pod(&bpffs);
        assert_eq!(pins.are_served(), None);
        drop(pins.create().expect("a writable directory"));
        assert_eq!(pins.are_served(), Some(false));
        let turn = File::open(pins.reader_directory()).expect("made");
        turn.lock().expect("nobody else holds it");
        assert_eq!(pins.are_served(), Some(true));
        drop(turn);
        assert_eq!(pins.are_served(), Some(false));
    }

    #[test]
    fn the_directories_can_be_entered_by_whoever_is_handed_the_maps() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let pins = pod(&bpffs);
        drop(pins.create().expect("a writable directory"));
        for directory in pins.path_to_maps() {
            let mode = fs::metadata(directory).expect("made").mode();
            assert_eq!(mode & 0o777, 0o711);
        }
    }

    #[test]
    fn one_at_a_time_changes_what_is_pinned() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let pins = pod(&bpffs);
        let lock = pins.create().expect("a writable directory");
        let second = File::open(pins.lock_directory()).expect("made");
        assert!(second.try_lock().is_err());
        drop(lock);
        assert!(second.try_lock().is_ok());
    }

    #[test]
    fn a_turn_is_ours_while_nobody_changes_what_is_pinned_and_nobody_does_meanwhile() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let pins = pod(&bpffs);
        let lock = pins.create().expect("a writable directory");
        let turn = pins.turn().expect("made");
        assert!(!turn.try_take().expect("a directory"));
        drop(lock);
        assert!(turn.try_take().expect("a directory"));
        assert!(pins.try_lock().is_err());
        turn.give_back();
        assert!(pins.try_lock().is_ok());
    }

    #[test]
    fn a_lock_that_is_held_for_long_is_said_to_be_held() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let pins = pod(&bpffs);
        let _lock = pins.create().expect("a writable directory");
        let error = pins.locked(Duration::ZERO, &[WouldBlock], || pins.try_lock());
        assert!(matches!(error, Err(Error::Busy(_))), "{error:?}");
    }

    #[test]
    fn a_lock_that_is_removed_by_its_holder_fails_no_start() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let pins = pod(&bpffs);
        let come_and_go = || {
            for _ in 0..50 {
                let _lock = pins.create().expect("somebody else was removing it");
                assert!(pins.map("").is_dir() && pins.link("").is_dir());
                pins.remove().expect("it is ours alone");
            }
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(come_and_go);
            }
        });
    }

    #[test]
    fn what_is_set_aside_is_older_and_goes_alone() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let pins = pod(&bpffs);
        let _lock = pins.create().expect("a writable directory");
        fs::write(pins.map("SC_EVENTS"), "").expect("a writable directory");
        // As versions before had it.
        fs::create_dir_all(pins.pod.join("4711/links")).expect("a writable directory");
        let aside = pins.set_aside().expect("a writable directory");
        assert!(pins.maps().expect("readable").is_empty());
        pins.put_back(&aside).expect("a writable directory");
        assert_eq!(pins.maps().expect("readable"), [pins.map("SC_EVENTS")]);
        pins.set_aside().expect("a writable directory");
        assert!(pins.maps().expect("readable").is_empty());
        assert_eq!(
            pins.older().expect("readable"),
            ["4711", "older-1"].map(|name| pins.pod.join(name))
        );
        pins.remove_older().expect("removable");
        assert!(pins.older().expect("readable").is_empty());
        pins.remove().expect("removable");
        assert!(!bpffs.path().join(ROOT).exists());
    }
}
