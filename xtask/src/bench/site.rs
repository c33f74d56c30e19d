//! Where a load runs: a pair of pods, of which each has a core of its own.

use std::{fs, time::Duration};

use anyhow::{Context as _, bail};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use sidecar_tests::{Pod, Pods, Process, cgroup::Container};

use crate::nginx;

/// What the sites have: no sidecar, one that steers nothing, one that does all it can, and one that
/// does not look at what it carries.
pub const NAMES: [&str; 4] = ["direct", "off", "mutual TLS", "unobserved"];

/// The sidecars' flags at each site.
const FLAGS: [Option<&[&str]>; NAMES.len()] = [
    None,
    Some(&["--workers", "1", "--inbound", "off", "--outbound", "off"]),
    Some(&["--workers", "1"]),
    Some(&["--workers", "1", "--observe", "off"]),
];

/// Two pods and the servers that loads are sent to.
pub struct Site {
    /// The core of the client's pod.
    core: usize,
    /// nginx and iperf3. Dropped before the pods they run in.
    _servers: [Process; 2],
    pods: Pods,
}

impl Site {
    /// One site for each of [`NAMES`].
    pub fn all() -> anyhow::Result<Vec<Self>> {
        let cores = two_cores()?;
        Ok(FLAGS.iter().map(|flags| Self::new(cores, *flags)).collect())
    }

    fn new([client, server]: [usize; 2], flags: Option<&[&str]>) -> Self {
        let mut pods = Pods::plain();
        for pod in [&pods.client, &pods.server] {
            // Else a new connection per request runs out of ports to leave behind.
            let namespace = pod.sandbox().namespace();
            namespace.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
            namespace.sysctl("net/ipv4/tcp_tw_reuse", "1");
        }
        if let Some(flags) = flags {
            let dev_ca = pods.dev_ca();
            on_core(client, || pods.client.mesh(&dev_ca, flags));
            on_core(server, || pods.server.mesh(&dev_ca, flags));
            pods.client.wait_until_ready();
            pods.server.wait_until_ready();
        }
        let iperf3 = || {
            pods.server
                .program("/usr/bin/iperf3")
                .arg("--server")
                .listen(5201)
        };
        Self {
            core: client,
            _servers: on_core(server, || [nginx::start(&pods.server), iperf3()]),
            pods,
        }
    }

    /// Where the servers run.
    pub fn server(&self) -> &Pod {
        &self.pods.server
    }

    /// Does `work` in the client's pod; returns the processor time that both sidecars took for it,
    /// too.
    pub fn meter<T>(&self, work: impl FnOnce(&Pod) -> T) -> (T, Duration) {
        let before = self.processor_time();
        let result = on_core(self.core, || work(&self.pods.client));
        (result, self.processor_time().saturating_sub(before))
    }

    fn processor_time(&self) -> Duration {
        [&self.pods.client, &self.pods.server]
            .map(|pod| {
                let cgroup = pod.sandbox().cgroup().path();
                let path = cgroup.join(Container::Sidecar.name()).join("cpu.stat");
                let statistics = fs::read_to_string(path).expect("every cgroup has this file");
                let microseconds = statistics
                    .lines()
                    .find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
                Duration::from_micros(microseconds.expect("the kernel counts it for every cgroup"))
            })
            .into_iter()
            .sum()
    }
}

/// The first two cores this process may use.
fn two_cores() -> anyhow::Result<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::this()).context("cannot tell which cores may be used")?;
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true));
    match (cores.next(), cores.next()) {
        (Some(client), Some(server)) => Ok([client, server]),
        _ => bail!("the benchmark needs two cores, one for clients and one for servers"),
    }
}

/// Does `work` on one core. Programs that it starts stay there.
fn on_core<T>(core: usize, work: impl FnOnce() -> T) -> T {
    let this_thread = Pid::from_raw(0);
    let everywhere = sched_getaffinity(this_thread).expect("a thread may ask about itself");
    let mut here = CpuSet::new();
    here.set(core).expect("it is one of the allowed cores");
    sched_setaffinity(this_thread, &here).expect("it is one of the allowed cores");
    let result = work();
    sched_setaffinity(this_thread, &everywhere).expect("these were allowed before");
    result
}
