//! What we read of the API's objects. Everything else in them is passed over as it comes in.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Deserializer};

use super::follow::Object;

/// A `null` is as good as nothing: Go writes it for empty lists.
pub(super) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident {
        $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)?
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub(super) struct $name {
            $($(#[$field_meta])* #[serde(deserialize_with = "nullable")] pub $field: $type,)*
        }
    )*};
}

objects! {
    Metadata {
        annotations: BTreeMap<String, String>,
        creation_timestamp: String,
        deletion_grace_period_seconds: Option<u64>,
        labels: BTreeMap<String, String>,
        name: String,
        namespace: String,
        owner_references: Vec<Owner>,
        resource_version: String,
        uid: String,
    }

    Owner {
        controller: bool,
        kind: String,
        name: String,
    }

    Pod {
        metadata: Metadata,
        spec: PodSpec,
        status: PodStatus,
    }

    PodSpec {
        containers: Vec<Container>,
        host_network: bool,
        init_containers: Vec<Container>,
        service_account_name: String,
        termination_grace_period_seconds: Option<u64>,
    }

    PodStatus {
        #[serde(rename = "hostIP")]
        host_ip: String,
        #[serde(rename = "hostIPs")]
        host_ips: Vec<PodIp>,
        phase: String,
        #[serde(rename = "podIP")]
        pod_ip: String,
        #[serde(rename = "podIPs")]
        pod_ips: Vec<PodIp>,
    }

    PodIp { ip: String }

    Container {
        lifecycle: Lifecycle,
        liveness_probe: Probe,
        ports: Vec<ContainerPort>,
        readiness_probe: Probe,
        startup_probe: Probe,
    }

    #[expect(clippy::struct_field_names, reason = "the API has named it so")]
    ContainerPort {
        container_port: u16,
        #[serde(rename = "hostIP")]
        host_ip: String,
        host_port: u16,
        name: String,
        protocol: String,
    }

    Lifecycle {
        post_start: Probe,
        pre_stop: Probe,
    }

    /// A probe, or the action of a life-cycle hook.
    Probe {
        grpc: Option<ProbePort>,
        http_get: Option<ProbePort>,
        tcp_socket: Option<ProbePort>,
    }

    ProbePort {
        host: String,
        port: IntOrName,
    }

    Service {
        metadata: Metadata,
        spec: ServiceSpec,
        status: ServiceStatus,
    }

    ServiceSpec {
        #[serde(rename = "clusterIP")]
        cluster_ip: String,
        #[serde(rename = "clusterIPs")]
        cluster_ips: Vec<String>,
        #[serde(rename = "externalIPs")]
        external_ips: Vec<String>,
        ports: Vec<ServicePort>,
        selector: BTreeMap<String, String>,
    }

    ServicePort {
        name: String,
        port: u16,
        protocol: String,
    }

    ServiceStatus { load_balancer: LoadBalancer }

    LoadBalancer { ingress: Vec<Ingress> }

    Ingress {
        ip: String,
        ip_mode: String,
    }

    EndpointSlice {
        metadata: Metadata,
        endpoints: Vec<Endpoint>,
        ports: Vec<EndpointPort>,
    }

    Endpoint { target_ref: Option<TargetRef> }

    TargetRef {
        kind: String,
        name: String,
        namespace: String,
        uid: String,
    }

    EndpointPort {
        name: String,
        protocol: String,
    }
}

/// A port by its number or its name.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum IntOrName {
    Int(u16),
    Name(String),
}

impl Default for IntOrName {
    fn default() -> Self {
        Self::Name(String::new())
    }
}

impl Object for Pod {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Object for Service {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Object for EndpointSlice {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl PodStatus {
    pub fn has_ended(&self) -> bool {
        ["Succeeded", "Failed"].contains(&self.phase.as_str())
    }

    pub fn addresses(&self) -> Vec<IpAddr> {
        addresses(&self.pod_ip, &self.pod_ips)
    }

    pub fn host_addresses(&self) -> Vec<IpAddr> {
        addresses(&self.host_ip, &self.host_ips)
    }
}

/// `one` is the first of `all`, where a server knows only of one.
fn addresses(one: &str, all: &[PodIp]) -> Vec<IpAddr> {
    let all: Vec<_> = all.iter().filter_map(|ip| ip.ip.parse().ok()).collect();
    if all.is_empty() {
        return one.parse().into_iter().collect();
    }
    all
}

/// Is it TCP, which is what nothing means?
pub(super) fn is_tcp(protocol: &str) -> bool {
    ["", "TCP"].contains(&protocol)
}
