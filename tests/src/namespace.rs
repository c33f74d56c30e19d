//! A network namespace that lives as long as its guard.

use std::{
    fs::{self, File},
    io::Write as _,
    panic,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

/// Where `ip netns` and the sidecar's `--netns` look for namespaces by name.
pub const DIRECTORY: &str = "/run/netns";

/// A network namespace, bind-mounted under [`DIRECTORY`] so that `ip -n NAME` finds it.
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
        fs::create_dir_all(DIRECTORY).expect("making /run/netns");
        let path = Path::new(DIRECTORY).join(name);
        let file = File::create_new(&path).expect("making the namespace's mount point");
        drop(file);
        // A thread of its own: unsharing moves the caller, and only the caller.
        thread::scope(|scope| {
            let unshared = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("making a network namespace");
                let own = Path::new("/proc/thread-self/ns/net");
                mount(
                    Some(own),
                    &path,
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                )
                .expect("mounting the network namespace");
            });
            unshared
                .join()
                .unwrap_or_else(|cause| panic::resume_unwind(cause));
        });
        let file = File::open(&path).expect("opening the namespace");
        let namespace = Self {
            name: name.to_owned(),
            file,
        };
        namespace.ip("link set lo up");
        namespace
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
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.path());
    }
}

/// Removes a namespace by its mount point; it dies with its last process.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = umount2(path, MntFlags::MNT_DETACH) {
        eprintln!("unmounting {}: {error}", path.display());
    }
    if let Err(error) = fs::remove_file(path) {
        eprintln!("removing {}: {error}", path.display());
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
