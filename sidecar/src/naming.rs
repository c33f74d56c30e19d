//! Who is behind an address, as somebody tells us who knows the cluster.
//!
//! Nobody needs to: without, the directory is empty, and a peer is whoever its certificate says.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

use spiffe::{SpiffeId, TrustDomain};

/// A Kubernetes service account, for which workloads have identities of the form
/// `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceAccount {
    /// The namespace that it is in.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl ServiceAccount {
    /// The identity of its workloads in a trust domain; `None` if a name cannot stand in one.
    pub fn identity(&self, trust_domain: &TrustDomain) -> Option<SpiffeId> {
        let segments = ["ns", &self.namespace, "sa", &self.name];
        SpiffeId::from_segments(trust_domain.clone(), &segments).ok()
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What is known of whoever answers at an address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Known {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The workload, as `deployment/web`; empty for a service whose workloads are several.
    pub workload: Arc<str>,
    /// The service, if the address is one's; empty for the address of a pod.
    pub service: Arc<str>,
    /// Those that may answer. Empty where nobody can tell: such as a service without selector.
    pub service_accounts: BTreeSet<ServiceAccount>,
}

impl Known {
    /// The identities of which one has to answer, if our trust domain has them. Empty where nobody
    /// can tell.
    pub fn identities(&self, trust_domain: &TrustDomain) -> BTreeSet<SpiffeId> {
        self.service_accounts
            .iter()
            .filter_map(|account| account.identity(trust_domain))
            .collect()
    }
}

/// Who is behind which address. Cheap to clone; all clones are the same directory.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    known: Arc<RwLock<HashMap<Place, Arc<Known>>>>,
}

/// An address, and the port if it is another thing on each.
type Place = (IpAddr, Option<u16>);

impl Directory {
    /// Who answers at an address, if anybody has told.
    pub fn of(&self, address: SocketAddr) -> Option<Arc<Known>> {
        let ip = address.ip().to_canonical();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&(ip, Some(address.port())))
            .or_else(|| known.get(&(ip, None)))
            .cloned()
    }

    /// Tells who answers at an address, on one port or on all others; `None`: nobody knows any
    /// more.
    pub fn tell(&self, ip: IpAddr, port: Option<u16>, known: Option<Arc<Known>>) {
        let key = (ip.to_canonical(), port);
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(known) => all.insert(key, known),
            None => all.remove(&key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(workload: &str) -> Arc<Known> {
        Arc::new(Known {
            workload: workload.into(),
            ..Known::default()
        })
    }

    #[test]
    fn what_is_told_of_a_port_comes_before_what_is_told_of_the_address() {
        let directory = Directory::default();
        let ip: IpAddr = "198.18.0.1".parse().expect("an address");
        directory.tell(ip, None, Some(known("pod")));
        directory.tell(ip, Some(80), Some(known("service")));
        let at = |port| {
            directory
                .of((ip, port).into())
                .map(|k| k.workload.to_string())
        };
        assert_eq!(at(80).as_deref(), Some("service"));
        assert_eq!(at(81).as_deref(), Some("pod"));
        directory.tell(ip, None, None);
        assert_eq!(at(81), None);
    }

    #[test]
    fn a_mapped_address_is_the_same_address() {
        let directory = Directory::default();
        let ip = "198.18.0.1".parse().expect("an address");
        directory.tell(ip, None, Some(known("pod")));
        let mapped = "[::ffff:198.18.0.1]:80".parse().expect("an address");
        assert!(directory.of(mapped).is_some());
    }

    #[test]
    fn a_service_account_names_an_identity() {
        let account = ServiceAccount {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        };
        let domain = TrustDomain::new("cluster.local").expect("a trust domain");
        assert_eq!(
            account
                .identity(&domain)
                .map(|id| id.to_string())
                .as_deref(),
            Some("spiffe://cluster.local/ns/shop/sa/web")
        );
    }
}
