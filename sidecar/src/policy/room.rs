use sidecar_common::policy::room;
use thiserror::Error;

use super::Policy;

/// A policy whose tables the kernel side has no room for.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{settings} {come} to {asked} entries, and there is room for {room}: {remedy}", come = if settings.contains(' ') { "come" } else { "comes" })]
pub struct NoRoom {
    /// What the entries come from.
    settings: &'static str,
    asked: usize,
    room: usize,
    remedy: &'static str,
}

impl Policy {
    /// Refuses a policy that does not fit into the kernel side's tables, so that no part of it is
    /// ever in force.
    pub fn fits(&self) -> Result<(), NoRoom> {
        const LARGER: &str = "name larger networks instead";
        const FEWER: &str = "name fewer";
        let exclusions = &self.exclusions;
        let modes = [&self.inbound, &self.outbound].map(|modes| modes.entries().count());
        for (settings, asked, room, remedy) in [
            (
                "exclude-outbound-cidrs",
                exclusions.outbound_cidrs.len(),
                room::NETWORKS,
                LARGER,
            ),
            (
                "exclude-inbound-ports and exclude-outbound-ports",
                exclusions.inbound_ports.len() + exclusions.outbound_ports.len(),
                room::PORTS,
                FEWER,
            ),
            ("exclude-uids", exclusions.uids.len(), room::USERS, FEWER),
            (
                "overrides and expect",
                modes.iter().sum(),
                room::NETWORKS,
                LARGER,
            ),
            (
                "probe-ports, each with all probe-sources,",
                self.probes.pairs().count(),
                room::NETWORKS,
                LARGER,
            ),
        ] {
            if asked > room {
                return Err(NoRoom {
                    settings,
                    asked,
                    room,
                    remedy,
                });
            }
        }
        Ok(())
    }
}
