use std::{collections::BTreeMap, fmt, net::IpAddr};

use super::wire::{self, Container, IntOrName};
use crate::naming::ServiceAccount;

/// What tells one pod from all others, also from one of the same name that comes later.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PodUid(pub String);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a pod belongs to, as users know it: `deployment/web`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkloadName {
    /// In lower case: `deployment`, `statefulset`, `daemonset`, `job`, `cronjob`, `pod`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// What the API says of a pod, as far as we use it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodFacts {
    /// Also in the name of its cgroup.
    pub uid: PodUid,
    /// Its name.
    pub name: String,
    /// Whose workloads it is one of; also tells the namespace.
    pub service_account: ServiceAccount,
    /// What it belongs to; itself if nobody owns it.
    pub workload: WorkloadName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Does it share the node's network namespace?
    pub host_network: bool,
    /// Does it stand for one that the kubelet has from a file? The API cannot do anything to it, and knows
    /// another uid than its cgroup is named by.
    pub is_mirror: bool,
    /// Has it ended for good, whether it succeeded or failed?
    pub ended: bool,
    /// The time it has to end, from when it is told, in seconds; the API's default is 30.
    pub grace_seconds: u64,
    /// Its addresses, once it has any.
    pub addresses: Vec<IpAddr>,
    /// The ports on which the kubelet asks whether it lives: of HTTP, TCP and gRPC probes, and of
    /// life-cycle hooks; names of ports are resolved.
    pub probe_ports: Vec<u16>,
}

impl PodFacts {
    /// The namespace of the pod.
    pub fn namespace(&self) -> &str {
        &self.service_account.namespace
    }
}

impl fmt::Display for PodFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}/{}", self.namespace(), self.name)
    }
}

/// The annotation that makes a pod the mirror of a static one (pkg/kubelet/types of Kubernetes).
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The time that pods have to end, in seconds, unless they say otherwise.
const GRACE_SECONDS: u64 = 30;

impl From<wire::Pod> for PodFacts {
    fn from(pod: wire::Pod) -> Self {
        let wire::Pod {
            metadata,
            spec,
            status,
        } = pod;
        let containers: Vec<_> = spec
            .init_containers
            .iter()
            .chain(&spec.containers)
            .collect();
        let mut probe_ports: Vec<_> = containers.iter().flat_map(|c| probed(c)).collect();
        probe_ports.sort_unstable();
        probe_ports.dedup();
        let grace_seconds = metadata
            .deletion_grace_period_seconds
            .or(spec.termination_grace_period_seconds)
            .unwrap_or(GRACE_SECONDS);
        Self {
            workload: WorkloadName::of(&metadata),
            service_account: service_account(&metadata, &spec),
            uid: PodUid(metadata.uid),
            name: metadata.name,
            is_mirror: metadata.annotations.contains_key(MIRROR),
            labels: metadata.labels,
            annotations: metadata.annotations,
            host_network: spec.host_network,
            ended: status.has_ended(),
            grace_seconds,
            addresses: status.addresses(),
            probe_ports,
        }
    }
}

/// The service account of a pod; without a name it is the namespace's own.
pub(super) fn service_account(metadata: &wire::Metadata, spec: &wire::PodSpec) -> ServiceAccount {
    let name = match &*spec.service_account_name {
        "" => "default",
        name => name,
    };
    ServiceAccount {
        namespace: metadata.namespace.clone(),
        name: name.to_owned(),
    }
}

/// The ports that the kubelet connects to. Names it looks up among the ports of the same container.
fn probed(container: &Container) -> impl Iterator<Item = u16> {
    let hooks = [
        &container.lifecycle.post_start,
        &container.lifecycle.pre_stop,
    ];
    let probes = [
        &container.liveness_probe,
        &container.readiness_probe,
        &container.startup_probe,
    ];
    let all = probes.into_iter().chain(hooks);
    let ports = all.flat_map(|probe| [&probe.grpc, &probe.http_get, &probe.tcp_socket]);
    ports.flatten().filter_map(|asked| match &asked.port {
        // Somebody else is asked.
        _ if !asked.host.is_empty() => None,
        IntOrName::Int(port) => Some(*port),
        IntOrName::Name(name) => {
            let named = container.ports.iter().find(|port| port.name == *name);
            named.map(|port| port.container_port)
        }
    })
}

impl WorkloadName {
    /// What a pod belongs to: who controls it, or who controls that.
    ///
    /// Who controls that is told by names alone: a `Deployment` names its `ReplicaSet`s after itself
    /// and the hash that their pods are labelled with, a `CronJob` its `Job`s after itself and the
    /// minute. A `Job` that somebody has named like that himself is taken for a `CronJob`'s.
    pub(super) fn of(pod: &wire::Metadata) -> Self {
        let owner = pod.owner_references.iter().find(|owner| owner.controller);
        // The kubelet's own pods are controlled by the node, which is nobody's workload.
        let Some(owner) = owner.filter(|owner| owner.kind != "Node") else {
            return Self::new("pod", &pod.name);
        };
        match &*owner.kind {
            "ReplicaSet" => {
                let hash = pod.labels.get("pod-template-hash");
                let deployment = hash.and_then(|hash| {
                    let stem = owner.name.strip_suffix(hash.as_str())?;
                    stem.strip_suffix('-')
                });
                match deployment {
                    Some(name) => Self::new("deployment", name),
                    None => Self::new("replicaset", &owner.name),
                }
            }
            "Job" => match owner.name.rsplit_once('-') {
                Some((name, minute))
                    if (8..=10).contains(&minute.len())
                        && minute.bytes().all(|byte| byte.is_ascii_digit()) =>
                {
                    Self::new("cronjob", name)
                }
                _ => Self::new("job", &owner.name),
            },
            kind => Self::new(&kind.to_lowercase(), &owner.name),
        }
    }

    fn new(kind: &str, name: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
