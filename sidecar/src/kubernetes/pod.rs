use std::{collections::BTreeMap, fmt, net::IpAddr};

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
