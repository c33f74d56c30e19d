//! A recording of what a pod sends and receives.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use memchr::memmem;
use nix::sys::signal::Signal;

use crate::{Network, Process, Program, Wire, wait};

/// A running `tcpdump` on a pod's port of the bridge.
#[derive(Debug)]
pub struct Capture {
    /// The capturing process.
    tcpdump: Process,
    /// Where the pod is plugged in.
    network: Arc<Network>,
    /// The pod's address.
    pod: Ipv4Addr,
    /// What `tcpdump` writes.
    file: PathBuf,
    /// Tells this capture from others in this network.
    number: u32,
}

impl Capture {
    /// As many bytes as a packet can have.
    pub(crate) const WHOLE: u32 = 262_144;

    /// Headers, and enough of the payload to tell what protocol it is.
    pub(crate) const START: u32 = 256;

    /// Records packets from now on, up to `length` bytes of each.
    pub(crate) fn start(network: Arc<Network>, port: &str, pod: Ipv4Addr, length: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = network
            .sandbox()
            .directory()
            .join(format!("{number}-{port}.pcap"));
        let mut tcpdump = Program::new(network.sandbox(), "/usr/bin/tcpdump")
            .args([
                "-i",
                port,
                "-n",
                "-s",
                &length.to_string(),
                "-B",
                "65536",
                "-Z",
                "root",
            ])
            .args(["--immediate-mode", "-U", "-w"])
            .arg(&file)
            .start();
        tcpdump.wait_for_stderr("listening on");
        Self {
            tcpdump,
            network,
            pod,
            file,
            number,
        }
    }

    /// Stops recording and reads the recording.
    ///
    /// Everything that had crossed the wire is in it: a datagram sent last is waited for.
    ///
    /// # Panics
    ///
    /// When packets were lost, since their absence would prove nothing.
    #[track_caller]
    pub fn finish(self) -> Wire {
        let end = format!("end of capture {}", self.number);
        self.network.sandbox().namespace().enter(|| {
            let socket = UdpSocket::bind((Network::V4, 0)).expect("binding to the bridge");
            socket
                .send_to(end.as_bytes(), (self.pod, DISCARD))
                .expect("sending the last datagram");
        });
        let recorded = || fs::read(&self.file).expect("reading the recording");
        wait::until("the last packet is recorded", || {
            memmem::find(&recorded(), end.as_bytes()).is_some()
        });
        self.tcpdump.signal(Signal::SIGINT);
        let summary = self.tcpdump.wait().success().stderr;
        assert!(
            summary.contains("\n0 packets dropped by kernel"),
            "packets were lost: {summary}"
        );
        Wire::parse(&fs::read(&self.file).expect("reading the recording"))
    }
}

/// The port of the discard service (RFC 863), which nothing listens on.
const DISCARD: u16 = 9;
