//! The pod as the kernel knows it: a cgroup and a network namespace.

mod addresses;
mod bpffs;
mod capabilities;
mod cgroup;
mod command;
mod descriptors;
pub mod kubelet;
mod netns;
mod process;

pub use self::{
    addresses::own_addresses,
    bpffs::{BpfFsError, ensure_bpffs},
    capabilities::missing_capabilities,
    cgroup::{Cgroup, CgroupError, cgroup2_mount, own_cgroup},
    command::command_in,
    descriptors::raise_descriptor_limit,
    netns::{NetnsError, enter_netns, netns_cookie},
    process::is_running,
};
