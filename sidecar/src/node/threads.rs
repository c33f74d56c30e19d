//! Cgroups for single threads: a socket belongs to the cgroup of the thread that makes it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use anyhow::Context;

use super::tree;
use crate::pod::Cgroup;

/// What the names of ours begin with, followed by the number of the process.
const PREFIX: &str = "sidecar-lane-";

/// A threaded cgroup below that of this process. Removed when dropped.
pub(super) struct ThreadCgroup {
    cgroup: Cgroup,
}

impl ThreadCgroup {
    /// Makes one below `parent`, which this process is in; `number` is given to no other.
    pub(super) fn new(parent: &Path, number: u64) -> anyhow::Result<Self> {
        let name = format!("{PREFIX}{}-{number}", process::id());
        let cgroup = Self {
            cgroup: Cgroup::create(parent, &name)?,
        };
        // Documentation/admin-guide/cgroup-v2.rst, "Threads".
        fs::write(cgroup.path().join("cgroup.type"), "threaded").with_context(|| {
            format!(
                "cannot have threads in {}; run the agent in a cgroup without children of its own",
                cgroup.path().display()
            )
        })?;
        Ok(cgroup)
    }

    /// For programs to be attached to.
    pub(super) const fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    fn path(&self) -> &Path {
        self.cgroup.path()
    }
}

impl Drop for ThreadCgroup {
    /// Its thread has been joined, and still leaves for a moment.
    fn drop(&mut self) {
        const ATTEMPTS: u32 = 200;
        const PAUSE: Duration = Duration::from_millis(5);
        for _ in 0..ATTEMPTS {
            match self.cgroup.remove() {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::sleep(PAUSE),
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!("cannot remove {}: {error}", self.cgroup);
                    return;
                }
            }
        }
        tracing::warn!("cannot remove {}: a thread is still in it", self.cgroup);
    }
}

/// Removes what agents that were killed have left below `parent`.
pub(super) fn sweep(parent: &Path) {
    for left in tree::children(parent).unwrap_or_default() {
        if is_left(&left)
            && let Err(error) = fs::remove_dir(&left)
        {
            tracing::warn!("cannot remove {}: {error}", left.display());
        }
    }
}

fn is_left(cgroup: &Path) -> bool {
    let maker = cgroup
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.split('-').next());
    maker.is_some_and(|pid| !PathBuf::from("/proc").join(pid).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_agent_made_is_left() {
        let alive = format!("/x/{PREFIX}{}-1", process::id());
        assert!(!is_left(Path::new(&alive)));
        assert!(is_left(Path::new("/x/sidecar-lane-4294967295-1")));
        assert!(!is_left(Path::new("/x/app")));
    }
}
