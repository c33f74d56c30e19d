use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::tree::Tree;

/// Tells when pods may have come to the cgroup tree or gone from it. It is a help to be fast: what it
/// misses is seen at the next look.
pub(super) struct TreeWatch {
    watcher: Option<RecommendedWatcher>,
    sign: Arc<Notify>,
    watched: BTreeSet<PathBuf>,
    root: PathBuf,
}

impl TreeWatch {
    pub(super) fn new(root: &Path) -> Self {
        let sign = Arc::new(Notify::new());
        let told = Arc::clone(&sign);
        let tell = move |event: notify::Result<Event>| {
            if is_sign(&event) {
                told.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(tell)
            .inspect_err(|error| {
                tracing::warn!("cannot watch {} for pods: {error}; they are looked for every few seconds instead", root.display());
            })
            .ok();
        Self {
            watcher,
            sign,
            watched: BTreeSet::new(),
            root: root.to_owned(),
        }
    }

    /// Watches the directories in which pods come and go.
    pub(super) fn follow(&mut self, tree: &Tree) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let mut wanted = tree.shared.clone();
        // There the first of them come.
        wanted.insert(self.root.clone());
        for gone in self.watched.difference(&wanted) {
            // It goes with its directory.
            let _ = watcher.unwatch(gone);
        }
        self.watched.retain(|path| wanted.contains(path));
        for new in wanted {
            if !self.watched.contains(&new)
                && watcher.watch(&new, RecursiveMode::NonRecursive).is_ok()
            {
                self.watched.insert(new);
            }
        }
    }

    /// Waits for a sign. Cancelling it loses none.
    pub(super) async fn changed(&self) {
        self.sign.notified().await;
    }
}

/// May it be that something has come or gone? Whoever looks opens directories, and that is told of as well: we
/// would look for ever because we have looked.
fn is_sign(event: &notify::Result<Event>) -> bool {
    event.as_ref().map_or(true, |event| !event.kind.is_access())
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use notify::{
        EventKind,
        event::{AccessKind, AccessMode, CreateKind, RemoveKind},
    };
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn what_comes_and_goes_is_a_sign_and_what_is_looked_at_is_none() {
        let of = |kind| is_sign(&Ok(Event::new(kind)));
        assert!(of(EventKind::Create(CreateKind::Folder)));
        assert!(of(EventKind::Remove(RemoveKind::Folder)));
        assert!(!of(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        // Nobody knows what was missed.
        assert!(is_sign(&Err(notify::Error::generic("overflow"))));
    }

    #[tokio::test]
    async fn a_pod_that_comes_gives_a_sign_also_where_the_first_pods_have_come_later() {
        const DEADLINE: Duration = Duration::from_secs(30);
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut watch = TreeWatch::new(root.path());
        let read = || Tree::read(root.path()).expect("it is there");
        watch.follow(&read());
        let kubepods = root.path().join("kubepods");
        fs::create_dir(&kubepods).expect("a writable directory");
        timeout(DEADLINE, watch.changed())
            .await
            .expect("the first directory comes");
        watch.follow(&read());
        let pod = kubepods.join("pod0f7a6b1c-3d5e-4a8b-9c2d-1e4f5a6b7c8d");
        fs::create_dir(pod).expect("a writable directory");
        timeout(DEADLINE, watch.changed())
            .await
            .expect("a pod comes");
    }
}
