//! The sidecar daemon.

pub mod policy;
