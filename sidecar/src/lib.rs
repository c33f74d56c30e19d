//! The sidecar daemon.

pub mod config;
pub mod policy;
