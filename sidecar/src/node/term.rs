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
                if !is_held(&root, number)? {
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

    /// Does an agent run that has begun later? An error where that cannot be told.
    pub(super) fn has_successor(&self) -> io::Result<bool> {
        let numbers = match numbers(&self.root) {
            // Removed by whoever wanted none of it to be left.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            numbers => numbers?,
        };
        for number in numbers {
            if number > self.number && is_held(&self.root, number)? {
                return Ok(true);
            }
        }
        Ok(false)
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

fn is_held(root: &Path, number: u64) -> io::Result<bool> {
    let other = match File::open(root.join(number.to_string())) {
        // It has just ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match other.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
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

    fn has_successor(term: &Term) -> bool {
        term.has_successor().expect("readable")
    }

    #[test]
    fn the_one_that_began_last_has_no_successor() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let begin = || Term::begin(bpffs.path()).expect("a writable directory");
        let first = begin();
        assert!(!has_successor(&first));
        let second = begin();
        assert!(has_successor(&first) && !has_successor(&second));
        drop(second);
        assert!(!has_successor(&first));
        drop(first);
        assert_eq!(fs::read_dir(bpffs.path()).expect("readable").count(), 0);
    }

    #[test]
    fn what_a_dead_agent_left_is_no_successor_and_goes() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let term = Term::begin(bpffs.path()).expect("a writable directory");
        let dead = bpffs.path().join(ROOT).join("7");
        fs::create_dir(&dead).expect("a writable directory");
        assert!(!has_successor(&term));
        let next = Term::begin(bpffs.path()).expect("a writable directory");
        assert!(!dead.exists() && has_successor(&term));
        drop(next);
    }

    #[test]
    fn a_successor_that_cannot_be_looked_for_is_an_error_and_one_that_has_gone_is_none() {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        let term = Term::begin(bpffs.path()).expect("a writable directory");
        let root = bpffs.path().join(ROOT);
        let later = root.join("7");
        // Longer than any chain of links may be.
        std::os::unix::fs::symlink(&later, &later).expect("a writable directory");
        assert!(term.has_successor().is_err());
        fs::remove_dir_all(&root).expect("a writable directory");
        assert!(!has_successor(&term));
        fs::write(&root, "").expect("a writable directory");
        assert!(term.has_successor().is_err());
    }
}
