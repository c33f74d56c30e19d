//! Where a load runs: a pair of pods, of which each has a core of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use sidecar_tests::{Pod, Pods, Process};

use super::{credentials::Authority, peer::Peer, processes};
use crate::nginx;

/// The sidecars' flags at their own sites, the client's and the server's, if it has one: they steer
/// nothing; one carries what it may not encrypt; both do all they can; they do not look at what they carry.
const SIDECARS: [(&str, Flags, Option<Flags>); 4] = [
    ("off", &OFF, Some(&OFF)),
    ("one hop, plaintext", &ONE_WORKER, None),
    (OURS, &ONE_WORKER, Some(&ONE_WORKER)),
    ("unobserved", &UNOBSERVED, Some(&UNOBSERVED)),
];
type Flags = &'static [&'static str];
const OFF: [&str; 6] = ["--workers", "1", "--inbound", "off", "--outbound", "off"];
const UNOBSERVED: [&str; 4] = ["--workers", "1", "--observe", "off"];

/// Each side has a core, and a worker for it.
pub const ONE_WORKER: [&str; 2] = ["--workers", "1"];

/// The site without anything between client and server.
pub const DIRECT: &str = "direct";

/// The site that peers are compared with.
pub const OURS: &str = "mutual TLS";

/// What the sites without peers are called.
pub fn names() -> impl Iterator<Item = &'static str> {
    [DIRECT].into_iter().chain(SIDECARS.map(|(name, ..)| name))
}

/// Where iperf3 listens.
const IPERF3_PORT: u16 = 5201;

/// Where a peer takes plaintext in the client's pod, and mutual TLS in the server's, for each of
/// [`Targets::servers`].
const PEER_PORTS: [[u16; 2]; 3] = [[18080, 28080], [18081, 28081], [15201, 25201]];

/// Two pods and the servers that loads are sent to.
pub struct Site {
    /// What the report calls it.
    pub name: String,
    /// Where loads are sent.
    pub targets: Targets,
    /// How many proxies there are in each pod: peers have one for each target.
    pub proxies: u32,
    /// The core of the client's pod.
    core: usize,
    /// nginx and iperf3, and a peer. Dropped before the pods they run in.
    processes: Vec<Process>,
    pods: Pods,
}

/// Where each kind of load is sent.
#[derive(Clone, Copy)]
pub struct Targets {
    /// HTTP/1.
    pub http: SocketAddr,
    /// HTTP/2 without TLS.
    pub http2: SocketAddr,
    /// iperf3's server.
    pub iperf3: SocketAddr,
}

impl Targets {
    /// The servers themselves.
    fn servers(pod: &Pod) -> Self {
        Self {
            http: nginx::address(pod),
            http2: nginx::http2_address(pod),
            iperf3: (pod.v4(), IPERF3_PORT).into(),
        }
    }
}

impl Site {
    /// One site without and those with sidecars, and then one for each peer.
    pub fn all(peers: &[Peer]) -> anyhow::Result<Vec<Self>> {
        let cores = two_cores()?;
        let mut sites = vec![Self::new(cores, DIRECT)];
        for (name, client, server) in SIDECARS {
            sites.push(Self::meshed(cores, name, client, server));
        }
        for peer in peers {
            let mut site = Self::new(cores, &peer.adapter.name);
            site.join(cores, peer)
                .with_context(|| format!("with {}", site.name))?;
            sites.push(site);
        }
        Ok(sites)
    }

    /// One whose client has a sidecar with these flags, and whose server has one if there are flags for it.
    pub fn meshed(
        [client, server]: [usize; 2],
        name: &str,
        of_client: &[&str],
        of_server: Option<&[&str]>,
    ) -> Self {
        let mut site = Self::new([client, server], name);
        let pods = &mut site.pods;
        let dev_ca = pods.dev_ca();
        on_core(client, || pods.client.mesh(&dev_ca, of_client));
        if let Some(flags) = of_server {
            on_core(server, || pods.server.mesh(&dev_ca, flags));
            pods.server.wait_until_ready();
        }
        pods.client.wait_until_ready();
        site
    }

    fn new([client, server]: [usize; 2], name: &str) -> Self {
        let pods = Pods::plain();
        for pod in [&pods.client, &pods.server] {
            // Else a new connection per request runs out of ports to leave behind.
            let namespace = pod.sandbox().namespace();
            namespace.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
            namespace.sysctl("net/ipv4/tcp_tw_reuse", "1");
            // A connection never takes a port that something is still to listen on.
            let reserved = PEER_PORTS.map(|ports| ports.map(|port| port.to_string()).join(","));
            namespace.sysctl("net/ipv4/ip_local_reserved_ports", &reserved.join(","));
        }
        let iperf3 = || {
            pods.server
                .program("/usr/bin/iperf3")
                .arg("--server")
                .listen(IPERF3_PORT)
        };
        Self {
            name: name.to_owned(),
            targets: Targets::servers(&pods.server),
            proxies: 1,
            core: client,
            processes: on_core(server, || vec![nginx::start(&pods.server), iperf3()]),
            pods,
        }
    }

    /// Puts a peer into both pods, and sends loads to the client's.
    fn join(&mut self, [client, server]: [usize; 2], peer: &Peer) -> anyhow::Result<()> {
        let authority = Authority::new()?;
        let pods = &self.pods;
        let files = [
            authority.issue(&pods.client)?,
            authority.issue(&pods.server)?,
        ];
        let Targets {
            http,
            http2,
            iperf3,
        } = &mut self.targets;
        for (target, [plaintext, tls]) in [http, http2, iperf3].into_iter().zip(PEER_PORTS) {
            let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let tls = SocketAddr::from((pods.server.v4(), tls));
            let addresses = [tls, loopback(target.port())];
            self.processes.push(on_core(server, || {
                peer.server(&pods.server, &files[1], addresses)
            })?);
            let addresses = [loopback(plaintext), tls];
            self.processes.push(on_core(client, || {
                peer.client(&pods.client, &files[0], addresses)
            })?);
            *target = loopback(plaintext);
        }
        self.proxies = u32::try_from(PEER_PORTS.len()).expect("a few");
        Ok(())
    }

    /// Does `work` in the client's pod; returns what both sidecars, or the peer on both sides, took for it,
    /// too, as processor time.
    pub fn meter<T>(&self, work: impl FnOnce(&Pod) -> T) -> (T, Duration) {
        let before = processes::processor_time(self.pods());
        let result = self.work(work);
        let after = processes::processor_time(self.pods());
        (result, after.saturating_sub(before))
    }

    /// Does `work` in the client's pod, on its core.
    pub fn work<T>(&self, work: impl FnOnce(&Pod) -> T) -> T {
        on_core(self.core, || work(&self.pods.client))
    }

    /// Whether anything is between client and server.
    pub fn has_proxies(&self) -> bool {
        self.name != DIRECT
    }

    /// The client's pod and the server's.
    pub fn pods(&self) -> [&Pod; 2] {
        [&self.pods.client, &self.pods.server]
    }
}

/// The first two cores this process may use.
pub fn two_cores() -> anyhow::Result<[usize; 2]> {
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
