//! The pod as the kernel knows it: a cgroup and a network namespace.

mod addresses;
mod bpffs;
mod capabilities;
mod cgroup;
mod cgroup_mounts;
mod command;
mod descriptors;
pub mod kubelet;
mod memory;
mod netns;
mod own_cgroup;

pub use self::{
    addresses::{own_addresses, source_towards},
    bpffs::{BpfFsError, ensure_bpffs},
    capabilities::{has_perfmon, missing_capabilities},
    cgroup::{Cgroup, CgroupError, cgroup2_mount},
    command::command_in,
    descriptors::raise_descriptor_limit,
    kubelet::PodName,
    memory::return_large_blocks,
    netns::{NetnsError, enter_netns, enter_open_netns, netns_number},
    own_cgroup::own_cgroup,
};
