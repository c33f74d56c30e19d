//! The pod as the kernel knows it: a cgroup and a network namespace.

mod addresses;
mod bpffs;
mod cgroup;
mod command;
mod descriptors;
mod netns;

pub use self::{
    addresses::own_addresses,
    bpffs::{BpfFsError, ensure_bpffs},
    cgroup::{Cgroup, CgroupError, cgroup2_mount, own_cgroup},
    command::command_in,
    descriptors::raise_descriptor_limit,
    netns::{NetnsError, enter_netns},
};
