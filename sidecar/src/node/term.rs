//! Agents of one node know of each other by directories on the BPF file system, each locked by its
//! agent for as long as that runs.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Beside what is pinned for pods.
const ROOT: &str = "sidecar-agents";

/// The time of an agent, until it is dropped. The one that began last is to have the pods.
#[derive(Debug)]
pub(super) struct Term {
    root: PathBuf,
    number: u64,
    /// Locked; a process that dies gives it up.
    lock: File,
}

impl Term {
    /// Begins after all others, and clears away what dead agents have left.
    pub(super) fn begin(bpffs: &Path) -> io::Result<Self> {
        let root = bpffs.join(ROOT);
        loop {
            fs::create_dir_all(&root)?;
            let mut last = 0;
            for number in numbers(&root)? {
                last = last.max(number);
                if !is_held(&root, number) {
                    let _ = fs::remove_dir(root.join(number.to_string()));
                }
            }
            let number = last + 1;
            let own = root.join(number.to_string());
            match fs::create_dir(&own) {
                // Another agent begins as well, or has removed the root.
                Err(error) if is_passing(&error) => continue,
                made => made?,
            }
            let lock = match File::open(&own) {
                Err(error) if is_passing(&error) => continue,
                file => file?,
            };
            // Before it was locked, another may have taken it for a dead one's.
            if lock.try_lock().is_ok() && own.exists() {
                return Ok(Self { root, number, lock });
            }
        }
    }

    /// Does an agent run that has begun later?
    pub(super) fn has_successor(&self) -> bool {
        let numbers = numbers(&self.root).unwrap_or_default();
        let mut later = numbers.into_iter().filter(|number| *number > self.number);
        later.any(|number| is_held(&self.root, number))
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.root.join(self.number.to_string()));
        let _ = self.lock.unlock();
        // It stays while there is another.
        let _ = fs::remove_dir(&self.root);
    }
}

fn numbers(root: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    Ok(numbers)
}

fn is_held(root: &Path, number: u64) -> bool {
    File::open(root.join(number.to_string()))
        .is_ok_and(|other| matches!(other.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_began_last_has_no_successor() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let begin = || Term::begin(bpffs.path()).expect("a writable directory");
        let first = begin();
        assert!(!first.has_successor());
        let second = begin();
        assert!(first.has_successor() && !second.has_successor());
        drop(second);
        assert!(!first.has_successor());
        drop(first);
        assert_eq!(fs::read_dir(bpffs.path()).expect("readable").count(), 0);
    }

    #[test]
    fn what_a_dead_agent_left_is_no_successor_and_goes() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let term = Term::begin(bpffs.path()).expect("a writable directory");
        let dead = bpffs.path().join(ROOT).join("7");
        fs::create_dir(&dead).expect("a writable directory");
        assert!(!term.has_successor());
        let next = Term::begin(bpffs.path()).expect("a writable directory");
        assert!(!dead.exists() && term.has_successor());
        drop(next);
    }
}
