//! Notices that files have changed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::AccessKind};
use tokio::{
    sync::Notify,
    time::{Interval, MissedTickBehavior, interval_at, sleep},
};

/// How often files are looked at although nobody has told of a change: network file systems tell
/// of none, and a limit on inotify instances may have left us without.
const POLL: Duration = Duration::from_secs(10);

/// How long to wait after a first sign, so that files that change together are read once.
const SETTLE: Duration = Duration::from_millis(100);

/// Tells when files *may* have changed; whoever asks reads them again and compares.
///
/// Directories are watched, not files: what replaces a file by renaming, as every careful writer
/// and Kubernetes' `..data` link do, is a change of its directory.
pub struct Changes {
    /// Keeps the watch; `None` where inotify is not to be had, and polling must do.
    _watcher: Option<RecommendedWatcher>,
    /// Keeps the watch that others use, too.
    _tree: Option<Arc<Tree>>,
    /// Wakes us.
    sign: Arc<Notify>,
    /// Wakes us although there was no sign.
    poll: Interval,
    /// There was a sign, and the files have yet to settle.
    settling: bool,
}

impl Changes {
    /// Begins to watch; what changes from now on is told. Call it before the files are first read.
    pub fn of<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Self {
        let sign = Arc::new(Notify::new());
        let directories = directories(files);
        let watcher = watch(&directories, Arc::clone(&sign))
            .inspect_err(|error| {
                tracing::warn!(
                    "cannot watch {directories:?} for changes: {error}; they are read every {POLL:?} instead"
                );
            })
            .ok();
        Self {
            _watcher: watcher,
            _tree: None,
            sign,
            poll: poll(),
            settling: false,
        }
    }

    /// Waits until one of the files may have changed. Cancelling it loses no change.
    pub async fn next(&mut self) {
        if !self.settling {
            tokio::select! {
                () = self.sign.notified() => self.settling = true,
                _ = self.poll.tick() => return,
            }
        }
        sleep(SETTLE).await;
        self.settling = false;
    }
}

fn poll() -> Interval {
    let mut poll = interval_at(tokio::time::Instant::now() + POLL, POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    poll
}

/// A directory and all below it, for many who each have files there: they share one inotify
/// instance, of which a user has few.
#[derive(Debug)]
pub struct Tree {
    /// Keeps the watch; `None` where inotify is not to be had, and polling must do.
    _watcher: Option<RecommendedWatcher>,
    waiting: Arc<Mutex<Vec<Waiting>>>,
}

/// Somebody who wants to know of changes of a directory.
#[derive(Debug)]
struct Waiting {
    directories: BTreeSet<PathBuf>,
    sign: Weak<Notify>,
}

impl Tree {
    /// Begins to watch a directory, which may have nothing in it yet.
    pub fn new(directory: &Path) -> Self {
        let waiting = Arc::new(Mutex::new(Vec::new()));
        let watcher = watch_tree(directory, Arc::clone(&waiting))
            .inspect_err(|error| {
                tracing::warn!(
                    "cannot watch {} for changes: {error}; what is in it is read every {POLL:?} instead",
                    directory.display()
                );
            })
            .ok();
        Self {
            _watcher: watcher,
            waiting,
        }
    }

    /// Tells of changes of these files from now on, which may not be there yet, nor their
    /// directories.
    pub fn changes_of<P: AsRef<Path>>(
        self: &Arc<Self>,
        files: impl IntoIterator<Item = P>,
    ) -> Changes {
        let sign = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|waiting| waiting.sign.strong_count() > 0);
        waiting.push(Waiting {
            directories: directories(files),
            sign: Arc::downgrade(&sign),
        });
        Changes {
            _watcher: None,
            _tree: Some(Arc::clone(self)),
            sign,
            poll: poll(),
            settling: false,
        }
    }
}

impl Waiting {
    /// Whether a change of `path` may be one of the files: it is below their directory, or the
    /// directory has come with one above it.
    fn wants(&self, path: &Path) -> bool {
        let mut directories = self.directories.iter();
        directories.any(|directory| path.starts_with(directory) || directory.starts_with(path))
    }
}

fn watch_tree(
    directory: &Path,
    waiting: Arc<Mutex<Vec<Waiting>>>,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.as_ref().is_ok_and(is_read) {
            return;
        }
        let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for waiting in &*waiting {
            // What could not be told may have been anywhere.
            let wanted = match &event {
                Ok(event) if !event.paths.is_empty() => {
                    event.paths.iter().any(|path| waiting.wants(path))
                }
                _ => true,
            };
            if let Some(sign) = waiting.sign.upgrade().filter(|_| wanted) {
                sign.notify_one();
            }
        }
    })?;
    watcher.watch(directory, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Reading the files is no change of them.
fn is_read(event: &notify::Event) -> bool {
    matches!(
        event.kind,
        EventKind::Access(AccessKind::Open(_) | AccessKind::Read)
    )
}

/// The directories that the files are in.
fn directories<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> BTreeSet<PathBuf> {
    files
        .into_iter()
        .map(|file| match file.as_ref().parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        })
        .collect()
}

fn watch(directories: &BTreeSet<PathBuf>, sign: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if !event.as_ref().is_ok_and(is_read) {
            sign.notify_one();
        }
    })?;
    for directory in directories {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tokio::time::{Instant, timeout};

    use super::*;

    /// Sooner than the next poll: it was the watch that told.
    async fn is_told_of(changes: &mut Changes) -> bool {
        timeout(POLL / 2, changes.next()).await.is_ok()
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("svid.pem");
        fs::write(&file, "old").expect("a writable directory");
        let mut changes = Changes::of([&file]);
        let new = dir.path().join("new");
        fs::write(&new, "new").expect("a writable directory");
        fs::rename(&new, &file).expect("a writable directory");
        assert!(is_told_of(&mut changes).await);
    }

    #[tokio::test]
    async fn a_swapped_data_link_is_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for version in ["..1", "..2"] {
            fs::create_dir(dir.path().join(version)).expect("a writable directory");
            fs::write(dir.path().join(version).join("tls.crt"), version).expect("a file");
        }
        symlink("..1", dir.path().join("..data")).expect("a link");
        symlink("..data/tls.crt", dir.path().join("tls.crt")).expect("a link");
        let mut changes = Changes::of([dir.path().join("tls.crt")]);
        symlink("..2", dir.path().join("..data_tmp")).expect("a link");
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).expect("a swap");
        assert!(is_told_of(&mut changes).await);
        let read = fs::read_to_string(dir.path().join("tls.crt")).expect("a file");
        assert_eq!(read, "..2");
    }

    #[tokio::test]
    async fn a_change_is_told_though_the_wait_for_it_was_cancelled() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("svid.pem");
        fs::write(&file, "old").expect("a writable directory");
        let mut changes = Changes::of([&file]);
        // Most changes give several signs, of which one would be left. This gives one.
        fs::remove_file(&file).expect("a writable directory");
        let cancelled = timeout(SETTLE / 2, changes.next());
        assert!(cancelled.await.is_err());
        assert!(is_told_of(&mut changes).await);
    }

    #[tokio::test]
    async fn reading_the_files_is_no_change() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("svid.pem");
        fs::write(&file, "same").expect("a writable directory");
        let mut changes = Changes::of([&file]);
        fs::read(&file).expect("a file");
        assert!(timeout(SETTLE * 5, changes.next()).await.is_err());
    }

    #[tokio::test]
    async fn files_of_a_tree_are_told_of_also_when_their_directories_come_later() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let tree = Arc::new(Tree::new(dir.path()));
        let file = |name: &str| dir.path().join(name).join("tls.crt");
        let mut web = tree.changes_of([file("shop/web")]);
        let mut cart = tree.changes_of([file("shop/cart")]);
        fs::create_dir_all(dir.path().join("shop")).expect("a writable directory");
        assert!(is_told_of(&mut web).await);
        assert!(is_told_of(&mut cart).await);
        fs::create_dir(dir.path().join("shop/web")).expect("a writable directory");
        assert!(is_told_of(&mut web).await);
        fs::write(file("shop/web"), "new").expect("a file");
        assert!(is_told_of(&mut web).await);
        assert!(timeout(SETTLE * 5, cart.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watch_files_are_polled() {
        let mut changes = Changes::of(["/nonexistent/svid.pem"]);
        let started = Instant::now();
        changes.next().await;
        assert_eq!(started.elapsed(), POLL);
    }
}
