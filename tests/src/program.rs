//! A real program about to run in a pod.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns},
    unistd::{User, setgroups, setresgid, setresuid},
};

use seccompiler::{BpfProgram, apply_filter};
use serde::de::DeserializeOwned;

use crate::{
    Sandbox,
    cgroup::Container,
    no_ipv6,
    process::{Output, Process},
    wait,
};

/// Builds up a command line, like [`Command`], that runs inside a sandbox.
///
/// The program joins its cgroup and network namespace before it is executed, so that the first
/// socket it makes already belongs to the pod.
#[derive(Debug)]
#[must_use = "a program does nothing until it is started"]
pub struct Program<'a> {
    /// Where it runs.
    sandbox: &'a Sandbox,
    /// Which child of the sandbox's cgroup it joins.
    container: Container,
    /// Whether it enters the sandbox's network namespace.
    enters: bool,
    /// Whom it runs as, if not root.
    user: Option<User>,
    /// What the kernel keeps from it.
    filter: Option<BpfProgram>,
    /// What it reads.
    stdin: Option<PathBuf>,
    /// How long [`Self::run`] waits for it.
    deadline: Duration,
    /// The command line so far.
    command: Command,
}

impl<'a> Program<'a> {
    /// A program found by path or in `PATH`, run as the sandbox's app.
    pub fn new(sandbox: &'a Sandbox, program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.current_dir(sandbox.directory());
        Self {
            sandbox,
            container: Container::App,
            enters: true,
            user: None,
            filter: None,
            stdin: None,
            deadline: wait::DEADLINE,
            command,
        }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Has the program read `input`; without, it reads nothing.
    pub fn stdin(mut self, input: impl AsRef<[u8]>) -> Self {
        let path = scratch(self.sandbox, &self.command, "stdin");
        let mut file = File::create(&path).expect("making the file for standard input");
        file.write_all(input.as_ref())
            .expect("writing standard input");
        self.stdin = Some(path);
        self
    }

    /// Has the program read a file.
    pub fn stdin_from(mut self, path: impl Into<PathBuf>) -> Self {
        self.stdin = Some(path.into());
        self
    }

    /// Runs the program as another user than root.
    #[track_caller]
    pub fn user(mut self, name: &str) -> Self {
        let user = User::from_name(name).expect("reading the user database");
        self.user = Some(user.unwrap_or_else(|| panic!("there is no user {name}")));
        self
    }

    /// Runs the program in another child of the cgroup than the app's.
    pub fn container(mut self, container: Container) -> Self {
        self.container = container;
        self
    }

    /// Leaves the program in the machine's own network namespace.
    pub fn outside(mut self) -> Self {
        self.enters = false;
        self
    }

    /// Has [`Self::run`] wait longer, or shorter, than [`wait::DEADLINE`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs the program as on a kernel that has no IPv6.
    pub fn without_ipv6(mut self) -> Self {
        self.filter = Some(no_ipv6::filter());
        self
    }

    /// Starts the program and lets it run.
    #[track_caller]
    pub fn start(mut self) -> Process {
        let stdout = scratch(self.sandbox, &self.command, "stdout");
        let stderr = scratch(self.sandbox, &self.command, "stderr");
        let stdin = self
            .stdin
            .take()
            .map(|path| File::open(path).expect("opening standard input"));
        self.command
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(File::create(&stdout).expect("making the file for standard output"))
            .stderr(File::create(&stderr).expect("making the file for standard error"));
        let entrance = Entrance {
            cgroup: self.sandbox.cgroup().entrance(self.container),
            namespace: self.enters.then(|| {
                let file = self.sandbox.namespace().file().as_fd();
                file.try_clone_to_owned()
                    .expect("duplicating the namespace's descriptor")
            }),
            user: self.user,
            filter: self.filter,
        };
        enter_before_exec(&mut self.command, entrance);
        let what = format!("{:?} in {}", self.command, self.sandbox.name());
        let child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("starting {what}: {error}"));
        Process::new(child, what, stdout, stderr)
    }

    /// Starts a server and waits until it listens on `port`.
    #[track_caller]
    pub fn listen(self, port: u16) -> Process {
        let mut process = self.start();
        process.wait_for_listener(port);
        process
    }

    /// Runs the program to its end.
    ///
    /// # Panics
    ///
    /// When it takes longer than the deadline.
    #[track_caller]
    pub fn run(self) -> Output {
        let deadline = self.deadline;
        self.start().wait_within(deadline)
    }

    /// Runs the program to its end and returns what it wrote to standard output.
    ///
    /// # Panics
    ///
    /// When it fails, or takes longer than the deadline.
    #[track_caller]
    pub fn succeed(self) -> String {
        self.run().success().stdout
    }

    /// Runs a script to its end and parses the line of JSON that it printed.
    ///
    /// # Panics
    ///
    /// When it fails, takes longer than the deadline, or prints anything else.
    #[track_caller]
    pub fn facts<T: DeserializeOwned>(self) -> T {
        let line = self.succeed();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

/// What a new process steps through before it becomes the program.
struct Entrance {
    /// The `cgroup.procs` to write to.
    cgroup: File,
    /// The network namespace to enter, unless it stays outside.
    namespace: Option<OwnedFd>,
    /// The user to become.
    user: Option<User>,
    /// What the kernel is to keep from it.
    filter: Option<BpfProgram>,
}

impl Entrance {
    /// Moves the calling process inside. The order matters: a user other than root may do none of
    /// it.
    fn step_in(&self) -> io::Result<()> {
        (&self.cgroup).write_all(b"0")?;
        if let Some(namespace) = &self.namespace {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
        }
        if let Some(User { uid, gid, .. }) = self.user {
            setgroups(&[])?;
            setresgid(gid, gid, gid)?;
            setresuid(uid, uid, uid)?;
        }
        if let Some(filter) = &self.filter {
            apply_filter(filter).map_err(|_| io::Error::last_os_error())?;
        }
        Ok(())
    }
}

/// Has the process that `command` starts step in before it executes the program.
#[expect(
    unsafe_code,
    reason = "a cgroup is joined between fork and exec, which `pre_exec` is for"
)]
fn enter_before_exec(command: &mut Command, entrance: Entrance) {
    // SAFETY: `step_in` only makes system calls on descriptors that are already open: it neither
    // allocates nor locks, which the child of a threaded process must not do.
    unsafe {
        command.pre_exec(move || entrance.step_in());
    }
}

/// A file in the sandbox's directory that no other program uses.
fn scratch(sandbox: &Sandbox, command: &Command, kind: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    sandbox
        .directory()
        .join(format!("{count}-{}.{kind}", program.to_string_lossy()))
}
