//! What joins pods: a bridge or a router in a namespace of its own, with no way out.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::{Pod, Process, Program, Sandbox, namespace, pod};

/// A bridge or a router that pods plug into.
///
/// It stands in for everything between two nodes: captures are taken here, where no pod can
/// tamper with them, and a test that needs a middlebox puts its rules here.
#[derive(Debug)]
pub struct Network {
    /// Where the pods' ports are, and captures run.
    sandbox: Sandbox,
    /// Whether packets are routed from port to port, or frames bridged.
    routes: bool,
}

impl Network {
    /// The network's own address, for what reaches a pod from outside. A router is reached by it.
    pub const V4: Ipv4Addr = address_v4(254);
    /// The same for IPv6, which a bridge has none of.
    pub const V6: Ipv6Addr = address_v6(254);

    /// Makes a bridge that nothing is plugged into.
    pub fn new() -> Self {
        let sandbox = Sandbox::new("network");
        sandbox.namespace().ip(&format!(
            "link add bridge type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set bridge addrgenmode none\n\
             addr add {}/24 dev bridge\n\
             link set bridge up\n",
            Self::V4
        ));
        Self {
            sandbox,
            routes: false,
        }
    }

    /// Makes a router that nothing is plugged into. To each of its pods, every other is a hop away.
    pub fn routed() -> Self {
        let sandbox = Sandbox::new("network");
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            sandbox.namespace().sysctl(key, "1");
        }
        Self {
            sandbox,
            routes: true,
        }
    }

    /// Where the pods' ports are, and captures run.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Gives `pod` the device `eth0` with the addresses of `number`. The network's end is named
    /// `port`.
    pub(crate) fn plug(&self, pod: &Sandbox, port: &str, number: u8) {
        let (bridge, name) = (self.sandbox.name(), pod.namespace().name());
        let veth =
            format!("link add {port} netns {bridge} type veth peer name eth0 netns {name}\n");
        namespace::ip(&[], &veth);
        let hardware = hardware_address(number);
        let ports = self.sandbox.namespace();
        ports.ip(&format!("link set {port} addrgenmode none"));
        pod.namespace()
            .ip(&format!("link set eth0 address {hardware}"));
        let (v4, v6) = (address_v4(number), address_v6(number));
        if self.routes {
            self.route_to(pod, port, v4, v6);
        } else {
            ports.ip(&format!(
                "link set {port} master bridge\nlink set {port} up\n"
            ));
            pod.namespace().ip(&format!(
                "addr add {v4}/24 dev eth0\n\
                 addr add {v6}/64 dev eth0 nodad\n\
                 link set eth0 up\n",
            ));
        }
    }

    /// Joins a pod as networks do in which each pod has a subnet of its own, and nothing else in it.
    fn route_to(&self, pod: &Sandbox, port: &str, v4: Ipv4Addr, v6: Ipv6Addr) {
        let (router4, router6) = (Self::V4, Self::V6);
        // A router asks for its neighbours by a link-local address, or not at all.
        self.sandbox.namespace().ip(&format!(
            "addr add {router4}/32 dev {port}\n\
             addr add {router6}/128 dev {port} nodad\n\
             addr add fe80::fe/64 dev {port} nodad\n\
             link set {port} up\n\
             route add {v4} dev {port}\n\
             route add {v6} dev {port}\n",
        ));
        pod.namespace().ip(&format!(
            "addr add {v4}/32 dev eth0\n\
             addr add {v6}/128 dev eth0 nodad\n\
             link set eth0 up\n\
             route add {router4} dev eth0\n\
             route add {router6} dev eth0\n\
             route add default via {router4}\n\
             route add default via {router6}\n",
        ));
    }

    /// Takes the device away that [`Self::plug`] has made.
    pub(crate) fn unplug(&self, port: &str) {
        self.sandbox.namespace().ip(&format!("link del {port}\n"));
    }

    /// Joins two pods by a long wire instead of the bridge: what one sends comes to the other after
    /// `delay`, and of frames that carry much, one in `lost` does not; none is lost if that is 0.
    ///
    /// It lasts as long as the process.
    #[track_caller]
    pub fn lengthen(&self, pods: [&Pod; 2], delay: Duration, lost: u32) -> Process {
        self.join_by_wire(pods, delay, &[lost])
    }

    /// Joins two pods by a wire of a millisecond on which, of all packets, one in `lost` is lost and one in
    /// `late` is overtaken by those behind it. A packet is what a network card would send.
    ///
    /// It lasts as long as the process.
    #[track_caller]
    pub fn unsettle(&self, pods: [&Pod; 2], lost: u32, late: u32) -> Process {
        for pod in pods {
            let namespace = pod.sandbox().namespace();
            namespace.ip("link set eth0 gso_max_segs 1");
        }
        self.join_by_wire(pods, Duration::from_millis(1), &[lost, late])
    }

    #[track_caller]
    fn join_by_wire(&self, pods: [&Pod; 2], delay: Duration, one_in: &[u32]) -> Process {
        for pod in pods {
            let ports = self.sandbox.namespace();
            ports.ip(&format!("link set {} nomaster", pod.role()));
        }
        let wire = pod::python(&self.sandbox).arg(pod::scripts().join("long_wire.py"));
        let wire = wire.args(pods.map(Pod::role));
        let wire = wire.arg(delay.as_millis().to_string());
        let mut wire = wire.args(one_in.iter().map(u32::to_string)).start();
        wire.wait_for_stdout("ready");
        wire
    }

    /// Puts nftables rules where the pods' traffic passes, as a middlebox would.
    pub fn nft(&self, rules: &str) {
        Program::new(&self.sandbox, "/usr/sbin/nft")
            .args(["-f", "-"])
            .stdin(rules)
            .succeed();
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// The Ethernet address of the pod with this number: a locally administered one.
pub(crate) fn hardware_address(number: u8) -> String {
    format!("02:5c:a1:00:00:{number:02x}")
}

/// The IPv4 address of the pod with this number, in `198.18.0.0/24` (RFC 2544: for test networks).
pub(crate) const fn address_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, number)
}

/// The IPv6 address of the pod with this number, in `fd00:5ca::/64` (RFC 4193: private).
pub(crate) const fn address_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x5ca, 0, 0, 0, 0, 0, number as u16)
}
