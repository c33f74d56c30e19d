//! Kubernetes, as far as we know it. The only module that names `kube` and its objects.

pub mod annotations;
mod client;
mod failure;
mod follow;
mod health;
mod names;
mod pod;
mod pods;
pub mod preflight;
#[cfg(test)]
mod recorded;
#[cfg(test)]
pub(crate) mod testing;
mod wire;

pub use self::{
    client::{Client, ConnectError},
    health::{Health, Of},
    names::names,
    pod::{PodFacts, PodUid, WorkloadName},
    pods::{KnownPods, pods},
};

/// The label by which a pod asks to be captured by the agent of its node, or to be given a sidecar
/// of its own, by its value ([`Enrolment`]).
pub const LABEL: &str = "sidecar.mesh/inject";

/// How a pod is captured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Enrolment {
    /// By the agent of its node: `sidecar.mesh/inject: node`.
    Node,
    /// By a sidecar of its own: `sidecar.mesh/inject: enabled`.
    Sidecar,
    /// Not at all: any other value, or no such label.
    None,
}

impl Enrolment {
    /// What the value of the label says.
    pub fn of(value: Option<&str>) -> Self {
        match value {
            Some("node") => Self::Node,
            Some("enabled") => Self::Sidecar,
            _ => Self::None,
        }
    }
}
