//! What joins pods: a bridge in a namespace of its own, with no way out.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::{Pod, Process, Program, Sandbox, namespace, pod};

/// A bridge that pods plug into.
///
/// It stands in for everything between two nodes: captures are taken here, where no pod can
/// tamper with them, and a test that needs a middlebox puts its rules here.
#[derive(Debug)]
pub struct Network {
    /// The bridge's namespace, and where captures run.
    sandbox: Sandbox,
}

impl Network {
    /// The bridge's own address, for what reaches a pod from outside.
    pub const V4: Ipv4Addr = address_v4(254);

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
        Self { sandbox }
    }

    /// The bridge's namespace, and where captures run.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Gives `pod` the device `eth0` with the addresses of `number`. The bridge's end is named
    /// `port`.
    pub(crate) fn plug(&self, pod: &Sandbox, port: &str, number: u8) {
        let (bridge, name) = (self.sandbox.name(), pod.namespace().name());
        let veth =
            format!("link add {port} netns {bridge} type veth peer name eth0 netns {name}\n");
        namespace::ip(&[], &veth);
        self.sandbox.namespace().ip(&format!(
            "link set {port} addrgenmode none\n\
             link set {port} master bridge\n\
             link set {port} up\n",
        ));
        pod.namespace().ip(&format!(
            "link set eth0 address {}\n\
             addr add {}/24 dev eth0\n\
             addr add {}/64 dev eth0 nodad\n\
             link set eth0 up\n",
            hardware_address(number),
            address_v4(number),
            address_v6(number),
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
        for pod in pods {
            let ports = self.sandbox.namespace();
            ports.ip(&format!("link set {} nomaster", pod.role()));
        }
        let wire = pod::python(&self.sandbox).arg(pod::scripts().join("long_wire.py"));
        let wire = wire.args(pods.map(Pod::role));
        let mut wire = wire
            .args([delay.as_millis().to_string(), lost.to_string()])
            .start();
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
