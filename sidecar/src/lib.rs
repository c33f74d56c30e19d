//! A transparent, eBPF-assisted networking sidecar: mutual TLS and telemetry without iptables.
//!
//! Data flows one way through the rooms: [`bpf`] steers a pod's connections into the [`proxy`],
//! which speaks [`tls`] to other sidecars and reports to [`telemetry`], where [`observe`] reads what
//! the bytes say.

pub mod admin;
#[cfg(feature = "benchmarks")]
pub mod benchmarks;
mod bound;
pub mod bpf;
pub mod capture;
pub mod changes;
pub mod cli;
pub mod codes;
pub mod config;
pub mod daemon;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod identity;
pub mod inject;
pub mod kubernetes;
pub mod logging;
pub mod naming;
pub mod node;
pub mod observe;
pub mod pod;
pub mod policy;
pub mod proxy;
pub mod reload;
pub mod report;
pub mod sandbox;
pub mod telemetry;
pub mod tls;
pub mod webhook;
