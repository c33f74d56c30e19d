//! Connections that have been used once, and say nothing any more.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::bail;
use sidecar_tests::{Pod, Process};

/// Opens connections until there are as many as are asked for, or no more can be had; says how many, and
/// holds them.
const SCRIPT: &str = include_str!("idle.py");

/// How long opening them may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Open connections, as long as this lives.
pub struct Idle(Process);

impl Idle {
    /// Opens so many from `pod` to a server of HTTP/1, on each of which one request is answered.
    pub fn open(pod: &Pod, server: SocketAddr, count: u32) -> anyhow::Result<Self> {
        let arguments = [
            server.ip().to_string(),
            server.port().to_string(),
            count.to_string(),
        ];
        let program = pod.program("/usr/bin/python3").args(["-c", SCRIPT]);
        let mut process = program.args(arguments).start();
        let started = Instant::now();
        loop {
            let said = process.stdout();
            if let Some(opened) = said.strip_suffix('\n') {
                if opened == count.to_string() {
                    return Ok(Self(process));
                }
                bail!("only {opened} of {count} connections could be opened");
            }
            if started.elapsed() > PATIENCE || process.status().is_some() {
                bail!("{count} connections could not be opened in {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // Those who serve them have nothing to do with it any more when the next load begins.
        self.0.signal(nix::sys::signal::Signal::SIGKILL);
    }
}
