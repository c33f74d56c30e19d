//! The network namespace of a pod, found by its processes.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use super::tree;

/// A network namespace, held by a descriptor, and the process that is in it.
#[derive(Debug)]
pub(super) struct Namespace {
    /// For `setns`.
    pub(super) file: File,
    /// What tells it from all others while it is there.
    pub(super) inode: u64,
    /// The process that it was found by.
    process: Process,
}

/// A process, also when its number is given to another one later.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Process {
    /// When it began, in clock ticks since boot.
    began: u64,
    pid: u32,
}

impl Namespace {
    /// That of the oldest process in a cgroup and below; `None` while there is none.
    ///
    /// The oldest is what holds the namespace for the pod's containers, where the runtime has such a
    /// process, or else one of the first container. A container that makes a namespace of its own has
    /// begun later.
    pub(super) fn of(cgroup: &Path) -> io::Result<Option<Self>> {
        let mut processes = processes(cgroup);
        processes.sort_unstable();
        let mut refused = None;
        for process in processes {
            match Self::open(process, cgroup) {
                Ok(Some(namespace)) => return Ok(Some(namespace)),
                // It has ended meanwhile; another one may do.
                Ok(None) => {}
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    fn open(process: Process, cgroup: &Path) -> io::Result<Option<Self>> {
        let path = format!("/proc/{}/ns/net", process.pid);
        let file = match File::open(path) {
            Err(error) if is_gone(&error) => return Ok(None),
            file => file?,
        };
        // What was opened may be that of another process, to which the number went.
        if !process.is_in(cgroup) {
            return Ok(None);
        }
        Ok(Some(Self {
            inode: file.metadata()?.ino(),
            file,
            process,
        }))
    }

    /// Is it still that of the pod? It is told by the process it was found by, or by whichever is
    /// the oldest now; `true` while there is none.
    pub(super) fn is_of(&self, cgroup: &Path) -> io::Result<bool> {
        // A process may have gone to another one since: a runtime's first process does.
        let now = match Self::open(self.process, cgroup)? {
            Some(now) => Some(now),
            None => Self::of(cgroup)?,
        };
        Ok(now.is_none_or(|now| now.inode == self.inode))
    }
}

/// The namespaces that the agent and the first process of the machine are in, by their inodes.
pub(super) fn namespaces_of_the_host() -> io::Result<Vec<u64>> {
    let own = fs::metadata("/proc/self/ns/net")?.ino();
    // Whoever may not look at it may look at no pod either, and says so then.
    let first = fs::metadata("/proc/1/ns/net").ok();
    Ok(vec![own]
        .into_iter()
        .chain(first.map(|first| first.ino()))
        .collect())
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let began = began(&stat)?;
        Some(Self { began, pid })
    }

    /// Does it still run, in this cgroup or below?
    fn is_in(self, cgroup: &Path) -> bool {
        // Both are read after whatever was opened by its number.
        pids(cgroup).contains(&self.pid) && Self::read(self.pid) == Some(self)
    }
}

/// When a process began: the 22nd field of its `stat`. The second is its name, in which anything may stand.
fn began(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn processes(cgroup: &Path) -> Vec<Process> {
    pids(cgroup).into_iter().filter_map(Process::read).collect()
}

/// The processes in a cgroup and below, as far as they can be seen from here.
fn pids(cgroup: &Path) -> Vec<u32> {
    let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = listed
        .lines()
        .filter_map(|pid| pid.parse().ok())
        // One of a process namespace that is not below ours.
        .filter(|pid| *pid != 0)
        .collect();
    for child in tree::children(cgroup).unwrap_or_default() {
        pids.extend(self::pids(&child));
    }
    pids
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn the_oldest_process_tells_the_namespace_also_beside_a_container_with_one_of_its_own() {
        let cgroup = tempfile::tempdir().expect("a temporary directory");
        let mut child = Command::new("/usr/bin/unshare")
            .args(["--net", "sleep", "infinity"])
            .spawn()
            .expect("a program");
        let listed = format!("{}\n{}\n", child.id(), std::process::id());
        fs::write(cgroup.path().join("cgroup.procs"), listed).expect("writable");
        let own = fs::metadata("/proc/self/ns/net").expect("it runs").ino();
        let began = Instant::now();
        let theirs = || fs::metadata(format!("/proc/{}/ns/net", child.id())).expect("it runs");
        while theirs().ino() == own {
            assert!(began.elapsed() < Duration::from_secs(30), "it stays");
            std::thread::sleep(Duration::from_millis(2));
        }
        // Of two that began in the same tick the one with the lower number counts, which is this one.
        let found = Namespace::of(cgroup.path()).expect("open to us");
        child.kill().expect("it runs");
        child.wait().expect("a child");
        assert_eq!(found.expect("two run").inode, own);
    }

    #[test]
    fn a_process_that_goes_to_another_namespace_takes_its_pod_along() {
        // A cgroup is read by its files.
        let cgroup = tempfile::tempdir().expect("a temporary directory");
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read line; exec unshare --net sleep infinity"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let pid = child.id();
        fs::write(cgroup.path().join("cgroup.procs"), format!("{pid}\n")).expect("writable");
        let here = Namespace::of(cgroup.path()).expect("its namespace is open to us");
        let here = here.expect("it runs");
        assert!(here.is_of(cgroup.path()).expect("readable"));
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(b"go\n").expect("it reads");
        let began = Instant::now();
        let current = || {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .expect("it runs")
                .ino()
        };
        while current() == here.inode {
            assert!(began.elapsed() < Duration::from_secs(30), "it stays");
            std::thread::sleep(Duration::from_millis(2));
        }
        let is_of = here.is_of(cgroup.path()).expect("readable");
        child.kill().expect("it runs");
        child.wait().expect("a child");
        assert!(!is_of);
    }

    #[test]
    fn the_beginning_is_read_whatever_the_name() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(began(stat), Some(4711));
        assert_eq!(began("42 (a) S"), None);
    }

    #[test]
    fn this_process_has_begun() {
        let this = Process::read(std::process::id()).expect("it runs");
        assert_eq!(Process::read(this.pid), Some(this));
        assert_eq!(Process::read(0), None);
    }
}
