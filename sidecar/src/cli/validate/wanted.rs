use std::net::IpAddr;

use anyhow::ensure;

use crate::policy::{Mode, Policy};

/// What should go through the sidecar, as its settings have it.
pub(super) struct Wanted<'a> {
    policy: &'a Policy,
    uid: u32,
}

/// Which directions should be steered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Directions {
    pub(super) outbound: bool,
    pub(super) inbound: bool,
}

impl Directions {
    pub(super) const NEITHER: Self = Self {
        outbound: false,
        inbound: false,
    };
}

impl<'a> Wanted<'a> {
    /// What `policy` wants of connections that this user makes.
    pub(super) const fn new(policy: &'a Policy, uid: u32) -> Self {
        Self { policy, uid }
    }

    /// Refuses what could never be proven.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.policy.exclusions.uids.contains(&self.uid),
            "exclude-uids leaves connections of user {0} alone, so those of `sidecar validate` prove nothing; run it as another user than {0}",
            self.uid
        );
        Ok(())
    }

    /// Of a connection from the pod to itself at this address and port.
    pub(super) fn at(&self, address: IpAddr, port: u16) -> Directions {
        let Policy {
            inbound,
            outbound,
            exclusions,
            ..
        } = self.policy;
        let is_excluded = exclusions.outbound_ports.contains(&port)
            || exclusions
                .outbound_cidrs
                .iter()
                .any(|net| net.contains(&address));
        Directions {
            outbound: !is_excluded && outbound.mode(port, address) != Mode::Off,
            inbound: !exclusions.inbound_ports.contains(&port)
                && inbound.mode(port, address) != Mode::Off,
        }
    }
}
