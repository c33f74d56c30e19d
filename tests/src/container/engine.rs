//! podman with a storage of its own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    mount::{MsFlags, mount},
    sys::resource::{Resource, getrlimit},
};

use crate::{Network, Output, Process, wait};

/// A container engine that shares no image, container or setting with the machine's.
#[derive(Debug)]
pub struct Engine {
    /// In memory: over a root file system that is the machine's own, nothing that is part of it can
    /// lie.
    directory: PathBuf,
    /// Takes the directory away in the end.
    _network: Arc<Network>,
    count: AtomicU32,
}

impl Engine {
    /// Makes an engine that lives as long as `network`.
    #[track_caller]
    pub fn new(network: &Arc<Network>) -> Self {
        let directory = network.sandbox().directory().join("podman");
        fs::create_dir(&directory).expect("making the engine's directory");
        let none: Option<&str> = None;
        mount(none, &directory, Some("tmpfs"), MsFlags::empty(), none).expect("mounting a tmpfs");
        fs::write(directory.join("containers.conf"), configuration()).expect("writing a setting");
        Self {
            directory,
            _network: Arc::clone(network),
            count: AtomicU32::new(0),
        }
    }

    /// Where everything of the engine is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs podman to its end.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[track_caller]
    pub fn podman<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        self.try_podman(arguments).success()
    }

    /// Runs podman to its end, whatever that is.
    #[track_caller]
    pub fn try_podman<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        self.start(arguments).wait_within(2 * wait::DEADLINE)
    }

    /// Starts podman and lets it run.
    #[track_caller]
    pub fn start<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Process {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let [stdout, stderr] =
            ["stdout", "stderr"].map(|kind| self.directory.join(format!("{count}.{kind}")));
        let output = |path| File::create(path).expect("making a file for output");
        let mut command = Command::new("podman");
        for option in ["root", "runroot", "tmpdir"] {
            command
                .arg(format!("--{option}"))
                .arg(self.directory.join(option));
        }
        command
            .arg("--storage-driver=overlay")
            .args(
                arguments
                    .into_iter()
                    .map(|argument| argument.as_ref().to_owned()),
            )
            .env("CONTAINERS_CONF", self.directory.join("containers.conf"))
            .stdin(Stdio::null())
            .stdout(output(&stdout))
            .stderr(output(&stderr));
        let what = format!("{command:?}");
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("running podman, of the Debian package: {error}"));
        Process::new(child, what, stdout, stderr)
    }
}

/// What podman cannot be told by options.
///
/// `crun` refuses cgroups of both versions side by side. The limits are those of the machine, which
/// not every root may raise; the capabilities are those that containerd gives. Locks in shared memory
/// are the machine's: of two engines that make them at once, one fails.
fn configuration() -> String {
    let limit = |resource, enough| {
        let (_, hard) = getrlimit(resource).expect("the kernel tells its limits");
        hard.min(enough)
    };
    let files = limit(Resource::RLIMIT_NOFILE, 1 << 20);
    let processes = limit(Resource::RLIMIT_NPROC, 1 << 15);
    format!(
        r#"[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "runc"
[network]
network_backend = "netavark"
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
default_capabilities = ["AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
    "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"]
default_sysctls = []
"#
    )
}
