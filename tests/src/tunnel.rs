//! A network of pods that spans nodes: the frames of one travel in packets of the other.

use std::{net::Ipv4Addr, sync::Arc};

use crate::{Capture, Network, Pod, namespace};

/// How frames are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
}

/// Two bridges, each that of a node, joined by a tunnel through the network of the nodes.
#[derive(Debug)]
pub struct Tunnel {
    /// The bridges.
    pub nodes: [Arc<Network>; 2],
}

impl Tunnel {
    /// What the network of the nodes carries.
    pub const UNDERLAY_MTU: u32 = 1500;
    /// What that leaves for the pods' packets.
    pub const MTU: u32 = 1450;

    /// The device by which a node is joined to the other.
    const UNDERLAY: &str = "underlay";
    /// The nodes' addresses.
    const ADDRESSES: [Ipv4Addr; 2] = [
        Ipv4Addr::new(198, 19, 255, 1),
        Ipv4Addr::new(198, 19, 255, 2),
    ];

    /// Joins two nodes without pods.
    #[track_caller]
    pub fn new(encapsulation: Encapsulation) -> Self {
        let nodes = [(); 2].map(|()| Arc::new(Network::new()));
        let [one, other] = [&nodes[0], &nodes[1]].map(|node| node.sandbox().name());
        let underlay = Self::UNDERLAY;
        namespace::ip(
            &[],
            &format!(
                "link add {underlay} netns {one} mtu {mtu} type veth \
                 peer name {underlay} netns {other} mtu {mtu}\n",
                mtu = Self::UNDERLAY_MTU
            ),
        );
        let device = match encapsulation {
            Encapsulation::Vxlan => format!("vxlan dstport 4789 dev {underlay}"),
            Encapsulation::Geneve => "geneve".to_owned(),
        };
        for (node, [own, remote]) in nodes.iter().zip([[0, 1], [1, 0]]) {
            let [own, remote] = [own, remote].map(|index: usize| Self::ADDRESSES[index]);
            node.sandbox().namespace().ip(&format!(
                "addr add {own}/24 dev {underlay}\n\
                 link set {underlay} up\n\
                 link add tunnel type {device} id 1 remote {remote}\n\
                 link set tunnel addrgenmode none\n\
                 link set tunnel mtu {} master bridge\n\
                 link set tunnel up\n",
                Self::MTU
            ));
        }
        Self { nodes }
    }

    /// Tells the pod how much fits into the tunnel, as what joins pods to such networks does.
    pub fn fit(pod: &Pod) {
        let namespace = pod.sandbox().namespace();
        namespace.ip(&format!("link set eth0 mtu {}", Self::MTU));
    }

    /// Starts to record what passes between the nodes, on the first one; `beyond` is a pod of the
    /// other.
    pub fn capture(&self, beyond: &Pod) -> Capture {
        let node = Arc::clone(&self.nodes[0]);
        Capture::start(node, Self::UNDERLAY, beyond.v4(), Capture::WHOLE)
    }
}
