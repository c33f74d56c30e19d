//! New connections without end, and streams that stay.

use std::{collections::BTreeMap, time::Duration};

use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::{Pod, Process};

/// The load: a client in one pod, a server in another; killed when dropped.
#[derive(Debug)]
pub struct Load {
    client: Process,
    _server: Process,
}

/// What the load has seen, by phase.
#[derive(Debug, Deserialize)]
pub struct Seen {
    /// Connections that have gone well.
    pub done: Vec<u64>,
    /// Those that have not, by why.
    pub failed: Vec<BTreeMap<String, usize>>,
    /// Streams that were cut, by why.
    pub broken: BTreeMap<String, usize>,
    /// What the streams have got back.
    pub lines: u64,
}

impl Load {
    /// The port of the server.
    pub const PORT: u16 = 8080;

    /// Begins: `workers` connections at a time, over and over, and `streams` that stay.
    #[track_caller]
    pub fn start(client: &Pod, server: &Pod, workers: usize, streams: usize) -> Self {
        // The ends of connections that are over must not run out.
        for pod in [client, server] {
            let namespace = pod.sandbox().namespace();
            namespace.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
        }
        let address = server.v4().to_string();
        let server = Self::server(server);
        let numbers = [workers, streams, usize::from(Self::PORT)].map(|number| number.to_string());
        let client = client.script("churn.py").arg("load").args(numbers);
        let mut client = client.arg(address).start();
        client.wait_for_stdout("open");
        Self {
            client,
            _server: server,
        }
    }

    /// The server alone. It sends lines back: one, if that begins with `once`.
    #[track_caller]
    pub fn server(pod: &Pod) -> Process {
        let port = Self::PORT.to_string();
        let server = pod.script("churn.py").args(["server", &port]);
        server.listen(Self::PORT)
    }

    /// Waits until so many connections of a phase have gone well.
    #[track_caller]
    pub fn wait_for(&mut self, phase: usize, done: usize) {
        self.client
            .wait_for_stdout(&format!("\"phase\": {phase}, \"done\": {done}}}"));
    }

    /// Connections that begin from here on belong to the next phase.
    pub fn next_phase(&self) {
        self.client.signal(Signal::SIGUSR1);
    }

    /// Ends it, and tells what it has seen.
    #[track_caller]
    pub fn finish(self) -> Seen {
        self.client.signal(Signal::SIGTERM);
        let output = self.client.wait_within(Duration::from_mins(1)).success();
        let last = output.stdout.lines().last().expect("a report");
        let seen: Seen =
            serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"));
        assert!(seen.done.iter().all(|done| *done > 0), "{seen:?}");
        seen
    }
}
