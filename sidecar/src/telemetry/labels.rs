//! What the cluster calls the two ends of a connection.

use std::sync::Arc;

use crate::naming::Known;

/// Which pod connections are of, in labels of metrics and keys of the access log. What is empty is
/// not known, and not shown.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodLabels {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The node that it is on.
    pub node: Arc<str>,
    /// Its name.
    pub pod: Arc<str>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// What it belongs to, such as `deployment/web`.
    pub workload: Arc<str>,
}

impl PodLabels {
    /// Those that are known, in the order of their names.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        known([
            ("namespace", &*self.namespace),
            (Self::NODE, &self.node),
            ("pod", &self.pod),
            ("service_account", &self.service_account),
            ("workload", &self.workload),
        ])
    }

    /// Those of what is counted for the process as a whole, whichever pods it serves.
    pub(super) fn of_process(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.pairs().filter(|(name, _)| *name == Self::NODE)
    }

    const NODE: &str = "node";
}

/// What the cluster calls the other end, by its address. What is empty is not known, and not shown.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct PeerNames {
    namespace: Arc<str>,
    service: Arc<str>,
    workload: Arc<str>,
}

impl PeerNames {
    /// Those that are known, in the order of their names.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        known([
            ("peer_namespace", &*self.namespace),
            ("peer_service", &self.service),
            ("peer_workload", &self.workload),
        ])
    }
}

impl From<&Known> for PeerNames {
    fn from(known: &Known) -> Self {
        Self {
            namespace: Arc::clone(&known.namespace),
            service: Arc::clone(&known.service),
            workload: Arc::clone(&known.workload),
        }
    }
}

fn known<'a, const N: usize>(
    pairs: [(&'static str, &'a str); N],
) -> impl Iterator<Item = (&'static str, &'a str)> {
    pairs.into_iter().filter(|(_, value)| !value.is_empty())
}
