use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::super::{WorkloadName, pod::service_account, wire};
use crate::naming::{Known, ServiceAccount};

/// `NAMESPACE/NAME`, which tells apart objects of one kind.
pub(super) type Key = Arc<str>;

/// What names need of a pod.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct PodEntry {
    pub key: Key,
    pub uid: Box<str>,
    /// In a notation that sorts by time.
    pub created: Box<str>,
    pub ended: bool,
    pub known: Arc<Known>,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Where it is to be found on addresses of its node.
    pub host_ports: Vec<(IpAddr, u16)>,
}

/// What names need of a service.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct ServiceEntry {
    pub key: Key,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub has_selector: bool,
    pub places: Vec<ServicePlace>,
}

/// Where a service is to be found, and which of its ports that is.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct ServicePlace {
    pub ip: IpAddr,
    pub port: u16,
    pub port_name: Arc<str>,
}

/// What names need of an endpoint slice.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct SliceEntry {
    pub key: Key,
    pub service: Key,
    /// The ports of the service that it is about.
    pub port_names: Vec<Box<str>>,
    /// The pods by key and UID.
    pub pods: Vec<(Key, Box<str>)>,
    /// Is there something behind it that is no pod?
    pub has_others: bool,
}

impl PodEntry {
    pub fn of(pod: wire::Pod) -> Self {
        let wire::Pod {
            metadata,
            spec,
            status,
        } = pod;
        let known = Known {
            namespace: metadata.namespace.as_str().into(),
            workload: WorkloadName::of(&metadata).to_string().into(),
            service: Arc::default(),
            service_accounts: BTreeSet::from([service_account(&metadata, &spec)]),
        };
        let ports = || {
            let containers = spec.init_containers.iter().chain(&spec.containers);
            let ports = containers.flat_map(|container| &container.ports);
            ports.filter(|port| wire::is_tcp(&port.protocol))
        };
        let hosts = if status.host_addresses().is_empty() && spec.host_network {
            status.addresses()
        } else {
            status.host_addresses()
        };
        // On the network of the node, a port that a pod declares is one of the node's.
        let host_ports = ports().filter_map(|port| {
            let number = if spec.host_network {
                port.container_port
            } else {
                port.host_port
            };
            (number != 0).then_some((port, number))
        });
        let host_ports = host_ports.flat_map(|(port, number)| {
            let only = port.host_ip.parse::<IpAddr>().ok();
            let only = only.filter(|ip| !ip.is_unspecified());
            let at = only.map_or_else(|| hosts.clone(), |ip| vec![ip]);
            at.into_iter().map(move |ip| (ip.to_canonical(), number))
        });
        Self {
            key: key(&metadata.namespace, &metadata.name),
            created: metadata.creation_timestamp.into(),
            ended: status.has_ended(),
            known: Arc::new(known),
            addresses: if spec.host_network {
                Vec::new()
            } else {
                status
                    .addresses()
                    .iter()
                    .map(IpAddr::to_canonical)
                    .collect()
            },
            host_ports: host_ports.collect(),
            uid: metadata.uid.into(),
        }
    }
}

impl ServiceEntry {
    pub fn of(service: wire::Service) -> Self {
        let wire::Service {
            metadata,
            spec,
            status,
        } = service;
        // In the cluster, the address of a load balancer leads straight to the pods, unless it is
        // asked to lead to the load balancer.
        let balanced = status.load_balancer.ingress.iter();
        let balanced = balanced
            .filter(|ingress| ingress.ip_mode != "Proxy")
            .map(|ingress| &ingress.ip);
        let one = Some(&spec.cluster_ip).filter(|_| spec.cluster_ips.is_empty());
        let all = spec.cluster_ips.iter().chain(one).chain(&spec.external_ips);
        let addresses: BTreeSet<IpAddr> = all
            .chain(balanced)
            // `None`, for one without, is no address.
            .filter_map(|ip| ip.parse::<IpAddr>().ok())
            .map(|ip| ip.to_canonical())
            .collect();
        let ports = spec.ports.iter();
        let ports = ports.filter(|port| wire::is_tcp(&port.protocol));
        let places = ports.flat_map(|port| {
            let port_name: Arc<str> = port.name.as_str().into();
            addresses.iter().map(move |ip| ServicePlace {
                ip: *ip,
                port: port.port,
                port_name: Arc::clone(&port_name),
            })
        });
        Self {
            key: key(&metadata.namespace, &metadata.name),
            has_selector: !spec.selector.is_empty(),
            places: places.collect(),
            namespace: metadata.namespace.into(),
            name: metadata.name.into(),
        }
    }
}

impl SliceEntry {
    pub fn of(slice: wire::EndpointSlice) -> Self {
        /// Tells whose slice it is.
        const SERVICE: &str = "kubernetes.io/service-name";
        let metadata = slice.metadata;
        let service = metadata.labels.get(SERVICE).map_or("", String::as_str);
        let mut pods = Vec::new();
        let mut has_others = false;
        for endpoint in slice.endpoints {
            let Some(target) = endpoint.target_ref.filter(|target| target.kind == "Pod") else {
                has_others = true;
                continue;
            };
            let namespace = match &*target.namespace {
                "" => &metadata.namespace,
                namespace => namespace,
            };
            pods.push((key(namespace, &target.name), target.uid.into()));
        }
        let ports = slice.ports.into_iter();
        let ports = ports.filter(|port| wire::is_tcp(&port.protocol));
        Self {
            key: key(&metadata.namespace, &metadata.name),
            service: key(&metadata.namespace, service),
            port_names: ports.map(|port| port.name.into()).collect(),
            pods,
            has_others,
        }
    }
}

fn key(namespace: &str, name: &str) -> Key {
    format!("{namespace}/{name}").into()
}

/// Who has to answer where all of these may: nobody can tell as soon as nobody can tell of one.
pub(super) fn any_of<'a>(
    all: impl IntoIterator<Item = &'a BTreeSet<ServiceAccount>>,
) -> BTreeSet<ServiceAccount> {
    let mut accounts = BTreeSet::new();
    for one in all {
        if one.is_empty() {
            return BTreeSet::new();
        }
        accounts.extend(one.iter().cloned());
    }
    accounts
}
