//! The sidecar daemon.
