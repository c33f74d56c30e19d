//! A running program, and what became of it.

use std::{
    fmt::{self, Display},
    fs,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    time::Duration,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::wait;

/// A program that runs in a sandbox; killed when dropped.
#[derive(Debug)]
pub struct Process {
    /// The process itself.
    child: Child,
    /// The command line and where it runs, for messages.
    what: String,
    /// Where its standard output goes.
    stdout: PathBuf,
    /// Where its standard error goes.
    stderr: PathBuf,
}

impl Process {
    /// Wraps a child whose output goes to the two files.
    pub(crate) fn new(child: Child, what: String, stdout: PathBuf, stderr: PathBuf) -> Self {
        Self {
            child,
            what,
            stdout,
            stderr,
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).expect("a pid fits an i32");
        signal::kill(Pid::from_raw(pid), signal)
            .unwrap_or_else(|error| panic!("sending {signal} to {}: {error}", self.what));
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waiting for a child")
    }

    /// Waits until the process is the one that listens on `port`, without connecting to it.
    #[track_caller]
    pub fn wait_for_listener(&mut self, port: u16) {
        let tables = ["tcp", "tcp6"].map(|table| format!("/proc/{}/net/{table}", self.id()));
        self.wait_until(&format!("listening on port {port}"), |_| {
            tables
                .iter()
                .any(|table| listens(&read(Path::new(table)), port))
        });
    }

    /// Waits until standard output holds `text`.
    #[track_caller]
    pub fn wait_for_stdout(&mut self, text: &str) {
        self.wait_until(&format!("printing {text:?}"), |process| {
            process.stdout().contains(text)
        });
    }

    /// Waits until standard error holds `text`.
    #[track_caller]
    pub fn wait_for_stderr(&mut self, text: &str) {
        self.wait_until(&format!("printing {text:?}"), |process| {
            process.stderr().contains(text)
        });
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    ///
    /// When the process ends first, or [`wait::DEADLINE`] passes.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let held = wait::within(wait::DEADLINE, || {
            if condition(self) {
                return Some(true);
            }
            // The last look comes after the end: what it printed while ending counts.
            self.status().map(|_| condition(self))
        });
        if held == Some(true) {
            return;
        }
        let end = self
            .status()
            .map_or("still runs".to_owned(), |status| status.to_string());
        let (out, err) = (self.stdout(), self.stderr());
        panic!(
            "{}: not seen {what}; it: {end}\nstdout: {out}\nstderr: {err}",
            self.what
        );
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub fn wait(self) -> Output {
        self.wait_within(wait::DEADLINE)
    }

    /// Waits for the end of the process, at most for `deadline`.
    #[track_caller]
    pub fn wait_within(mut self, deadline: Duration) -> Output {
        let status = wait::within(deadline, || self.status());
        let Some(status) = status else {
            let (out, err) = (self.stdout(), self.stderr());
            let deadline = deadline.as_secs();
            panic!(
                "{} still runs after {deadline} s\nstdout: {out}\nstderr: {err}",
                self.what
            );
        };
        Output {
            what: self.what.clone(),
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only for a process that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of a program.
#[derive(Debug)]
pub struct Output {
    /// The command line and where it ran, for messages.
    what: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Output {
    /// The same output, of a program that has succeeded.
    ///
    /// # Panics
    ///
    /// When it has not.
    #[must_use]
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "this should have succeeded: {self}");
        self
    }

    /// The same output, of a program that ended with this exit code.
    ///
    /// # Panics
    ///
    /// When it ended otherwise.
    #[must_use]
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(code),
            "another exit code was expected: {self}"
        );
        self
    }

    /// Checks that a `sidecar` command has failed with one sentence that names all of `named`.
    #[track_caller]
    pub fn assert_one_sentence(&self, named: &[&str]) {
        /// Of the parser of the command line, which adds a tip and the usage.
        const USAGE: i32 = 2;
        let code = self.status.code().expect("an exit code");
        assert_ne!(code, 0, "this should have failed: {self}");
        assert!(
            code == USAGE || self.stderr.lines().count() == 1,
            "no one sentence: {self}"
        );
        assert!(!self.stderr.contains("panicked"), "{self}");
        for name in named {
            assert!(self.stderr.contains(name), "{name:?} is not named: {self}");
        }
    }
}

impl Display for Output {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            status,
            stdout,
            stderr,
        } = self;
        write!(out, "{what}: {status}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

/// Whether a table of `/proc/net/tcp` holds a listener on `port`.
fn listens(table: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|fields| {
            fields.get(1).is_some_and(|local| local.ends_with(&port))
                && fields.get(3) == Some(&LISTEN)
        })
}

/// The text of a file that another process writes.
fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_and_a_connection_is_not() {
        let table = "  sl  local_address rem_address   st\n\
                     0: 00000000:1F90 00000000:0000 0A\n\
                     1: 00000000:1F91 0100007F:9C40 01\n";
        assert!(listens(table, 0x1f90));
        assert!(!listens(table, 0x1f91));
        assert!(!listens(table, 0x9c40));
    }
}
