//! A program of somebody else's in the kernel, on a hook that the sidecar uses too.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::{Output, Pod, Process, wait};

/// A program that stays attached until it is told to go, or is dropped.
///
/// It is the app's in that the process that holds it runs in the pod; what it is attached to is
/// another matter.
#[derive(Debug)]
pub struct Foreign {
    /// The script.
    process: Process,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By a link, which leaves room for others.
    Link,
    /// Without a link, and leaves room for others.
    Multi,
    /// Without a link; what is attached below takes its place.
    Override,
    /// Without a link; nothing else may be attached here or below.
    Exclusive,
}

/// How often a program that follows sockets was called, and for what.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Counts {
    /// Sockets that were accepted.
    pub accepted: u64,
    /// Segments into which it has written an option of its own.
    pub written: u64,
    /// Sockets that closed and still had the callbacks it asked for.
    pub kept: u64,
}

impl Foreign {
    /// Replaces the address of a service by that of a server in `connect()`, as Cilium and Calico do.
    #[track_caller]
    pub fn translate(
        pod: &Pod,
        how: How,
        cgroup: &Path,
        service: SocketAddr,
        server: SocketAddr,
    ) -> Self {
        let words = [
            "translate".to_owned(),
            service.ip().to_string(),
            service.port().to_string(),
            server.ip().to_string(),
            server.port().to_string(),
        ];
        Self::start(pod, how, cgroup, &words)
    }

    /// Has connections to `port` of the pod come to a listener of its own, which answers `steered`; if it insists, also
    /// those for which somebody else has chosen a listener before.
    #[track_caller]
    pub fn steer(pod: &Pod, port: u16, insists: bool) -> Self {
        let insists = if insists { "replace" } else { "keep" };
        let namespace = pod.sandbox().namespace().path();
        Self::start(
            pod,
            How::Link,
            &namespace,
            &["steer", &port.to_string(), insists],
        )
    }

    /// Follows the sockets of a cgroup, as the script's words say.
    #[track_caller]
    pub fn follow(pod: &Pod, cgroup: &Path, words: &[&str]) -> Self {
        Self::start(pod, How::Link, cgroup, &[&["follow"], words].concat())
    }

    #[track_caller]
    fn start(pod: &Pod, how: How, place: &Path, words: &[impl AsRef<OsStr>]) -> Self {
        let how = format!("{how:?}").to_lowercase();
        let script = pod.script("beside.py").arg(how).arg(place).args(words);
        let mut process = script.start();
        process.wait_for_stderr("attached");
        Self { process }
    }

    /// Whom the listener of [`Self::steer`] has heard, by what `accept()` told it.
    pub fn clients(&self) -> Vec<SocketAddr> {
        let stdout = self.process.stdout();
        let clients = stdout.lines().map(str::parse);
        clients.map(|client| client.expect("an address")).collect()
    }

    /// Detaches it.
    #[track_caller]
    pub fn detach(self) -> Output {
        self.process.signal(Signal::SIGTERM);
        self.process.wait().success()
    }

    /// What has been counted by what follows sockets.
    #[track_caller]
    pub fn counts(&self) -> Counts {
        let before = self.process.stdout().len();
        self.process.signal(Signal::SIGUSR1);
        let line = wait::until_some("the counts are told", || {
            let stdout = self.process.stdout();
            stdout
                .ends_with('\n')
                .then(|| stdout[before..].to_owned())
                .filter(|line| !line.is_empty())
        });
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

/// The cgroup right above that of a pod: one of several pods', where the kubelet names them.
pub fn above(pod: &Pod) -> PathBuf {
    let cgroup = pod.sandbox().cgroup().path();
    let above = cgroup.parent().expect("it is below the root");
    above.to_owned()
}
