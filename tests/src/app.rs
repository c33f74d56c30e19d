//! An app that does one thing on a socket and tells what it saw.

use std::net::SocketAddr;

use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::{Pod, Process, wait};

/// What the app does with a connection; `scripts/server.py` says it in code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Sends back what it reads.
    Echo,
    /// Speaks first, then echoes.
    Greet,
    /// Reads to the end, then sends count and digest.
    Digest,
    /// Speaks, closes its direction, and reads on.
    Farewell,
    /// Reads a line, then resets.
    Reset,
    /// Reads nothing before [`App::release`], then is like [`Self::Digest`].
    Stall,
    /// Waits for the client to end the connection.
    Wait,
}

/// What an app with [`Behaviour::Greet`] says first.
pub const GREETING: &str = "hello, the server speaks first";

/// What an app with [`Behaviour::Farewell`] says before it closes.
pub const FAREWELL: &str = "goodbye, the server closes first";

/// A server in a pod; killed when dropped.
#[derive(Debug)]
pub struct App {
    /// The script.
    process: Process,
}

/// A connection as the app saw it, reported when it was over.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Session {
    /// The client, by `accept` and `getpeername`.
    pub peer: SocketAddr,
    /// The app's own address, by `getsockname`.
    pub local: SocketAddr,
    /// The bytes it read.
    #[serde(default)]
    pub received: u64,
    /// Their SHA-256.
    #[serde(default)]
    pub sha256: String,
    /// `eof` or `reset` by the client, or `own`.
    pub end: String,
}

impl App {
    /// Starts an app that listens on all addresses, and waits until it does.
    #[track_caller]
    pub fn start(pod: &Pod, behaviour: Behaviour, port: u16) -> Self {
        Self::start_on(pod, behaviour, "::", port)
    }

    /// Starts an app that listens on one address.
    #[track_caller]
    pub fn start_on(pod: &Pod, behaviour: Behaviour, address: &str, port: u16) -> Self {
        Self::serve(pod, behaviour, address, &port.to_string())
    }

    /// Starts an app that listens on all addresses and several ports.
    #[track_caller]
    pub fn start_on_all(pod: &Pod, behaviour: Behaviour, ports: &[u16]) -> Self {
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        Self::serve(pod, behaviour, "::", &ports.join(","))
    }

    #[track_caller]
    fn serve(pod: &Pod, behaviour: Behaviour, address: &str, ports: &str) -> Self {
        let behaviour = format!("{behaviour:?}").to_lowercase();
        let script = pod.script("server.py");
        let mut process = script.args([&*behaviour, ports, address]).start();
        // The app itself tells: another one may listen on the same port.
        process.wait_for_stderr("listening");
        Self { process }
    }

    /// The connections that are over.
    pub fn sessions(&self) -> Vec<Session> {
        let stdout = self.process.stdout();
        let lines = stdout
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    }

    /// Waits for the end of the only connection there was.
    ///
    /// # Panics
    ///
    /// When there was more than one.
    #[track_caller]
    pub fn only_session(&self) -> Session {
        let [session] = self
            .sessions_when(1)
            .try_into()
            .expect("one session was asked for");
        session
    }

    /// Waits until `count` connections are over.
    ///
    /// # Panics
    ///
    /// When there are more.
    #[track_caller]
    pub fn sessions_when(&self, count: usize) -> Vec<Session> {
        let what = format!(
            "{count} connections are over; stderr: {}",
            self.process.stderr()
        );
        wait::until(what, || self.sessions().len() >= count);
        let sessions = self.sessions();
        assert_eq!(sessions.len(), count, "{sessions:#?}");
        sessions
    }

    /// Lets an app with [`Behaviour::Stall`] read.
    pub fn release(&self) {
        self.process.signal(Signal::SIGUSR1);
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
