//! A network namespace that lives as long as its guard.

use std::{
    fs::{self, File},
    io::Write as _,
    panic,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
};

use nix::sched::{CloneFlags, setns};

/// Where `ip netns` and the sidecar's `--netns` look for namespaces by name.
pub const DIRECTORY: &str = "/run/netns";

/// A network namespace with a name, as `ip netns` makes it.
#[derive(Debug)]
pub struct Namespace {
    /// The name under [`DIRECTORY`].
    name: String,
    /// Keeps the namespace reachable for `setns`, whatever happens to the mount.
    file: File,
}

impl Namespace {
    /// Makes a namespace with nothing in it but a loopback device that is up.
    pub fn new(name: &str) -> Self {
        ip(&[], &format!("netns add {name}"));
        let path = Path::new(DIRECTORY).join(name);
        let file = File::open(&path).expect("opening the namespace");
        let namespace = Self {
            name: name.to_owned(),
            file,
        };
        namespace.ip("link set lo up");
        namespace
    }

    /// The name by which `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the namespace is mounted.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// The open namespace, for `setns`.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Runs `work` on a thread inside the namespace.
    ///
    /// The thread stays in this process's cgroup: sockets it makes are not the pod's, and the
    /// pod's sidecar does not see their `connect`. To act as an app, run a program.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
                work()
            });
            inside
                .join()
                .unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
    }

    /// Runs `ip` commands in the namespace, one a line, without the leading `ip`.
    #[track_caller]
    pub fn ip(&self, commands: &str) {
        ip(&["-n", &self.name], commands);
    }

    /// Writes a sysctl of the namespace, such as `net/ipv4/ip_local_port_range`.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys").join(key);
        self.enter(|| fs::write(&path, value))
            .unwrap_or_else(|error| panic!("setting {key} to {value:?}: {error}"));
    }

    /// One of the namespace's counters in `/proc/net/netstat` and `/proc/net/snmp`, such as
    /// `TCPFastOpenPassive`; of one that several protocols have, that of the first.
    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        let pages = ["netstat", "snmp"].map(|page| {
            let path = Path::new("/proc/thread-self/net").join(page);
            self.enter(|| fs::read_to_string(&path))
                .unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
        });
        let text = pages.concat();
        // Lines come in pairs: names, then values.
        let lines: Vec<Vec<_>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let mut counters = lines
            .chunks_exact(2)
            .flat_map(|pair| pair[0].iter().zip(pair[1].iter()));
        let found = counters.find(|(found, _)| **found == name);
        let (_, value) = found.unwrap_or_else(|| panic!("there is no counter {name}"));
        value.parse().expect("counters are numbers")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes a namespace by its name; it dies with its last process.
pub(crate) fn remove(name: &str) {
    let removed = Command::new("ip").args(["netns", "delete", name]).status();
    if !removed.as_ref().is_ok_and(ExitStatus::success) {
        eprintln!("the network namespace {name} could not be removed: {removed:?}");
    }
}

/// Runs `ip OPTIONS -batch -` with `commands` as its input.
#[track_caller]
pub(crate) fn ip(options: &[&str], commands: &str) {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("running ip, of the Debian package iproute2");
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    stdin.write_all(commands.as_bytes()).expect("writing to ip");
    drop(stdin);
    let output = child.wait_with_output().expect("waiting for ip");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "ip {options:?}: {stderr}in:\n{commands}"
    );
}
