//! What one pod may have otherwise than the rest of its node.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    config::Settings,
    kubernetes::annotations::{self, AnnotationError},
};

/// The settings that a pod may have for itself. All others are the node's: whoever may make a pod must
/// not choose what the agent opens or says for others.
const OF_PODS: [&str; 23] = [
    "access-log-events",
    "access-log-sampling",
    "connect-timeout",
    "drain-timeout",
    "exclude-inbound-ports",
    "exclude-outbound-cidrs",
    "exclude-outbound-ports",
    "exclude-uids",
    "forget-peers-after",
    "handshake-timeout",
    "identity-timeout",
    "inbound",
    "inbound-failure",
    "max-handshakes",
    "max-peers",
    "naming",
    "observe",
    "opaque-ports",
    "outbound",
    "outbound-failure",
    "overrides",
    "probe-ports",
    "probe-sources",
];

/// Annotations that are no settings, and of no concern to the agent.
const OTHERS: [&str; 0] = [];

/// Annotations that a pod cannot have.
#[derive(Debug, Error)]
pub(super) enum Error {
    /// One of them is no setting, or has no such value.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// One is a setting of the node.
    #[error(
        "annotation {prefix}{key} is a setting of the node's agent, which a pod cannot have for itself; remove it, or set it for the agent",
        prefix = annotations::PREFIX
    )]
    OfTheNode {
        /// Its key.
        key: String,
    },
}

/// The settings of a pod with these annotations, under an agent with `agent`'s.
pub(super) fn of_pod(
    annotations: &BTreeMap<String, String>,
    agent: &Settings,
) -> Result<Settings, Error> {
    let own = annotations::settings(annotations, &OTHERS)?;
    let said = own.differing(&Settings::default());
    if let Some(of_the_node) = said.iter().find(|key| !OF_PODS.contains(&key.as_str())) {
        return Err(Error::OfTheNode {
            key: of_the_node.clone(),
        });
    }
    Ok(own.or(agent.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Mode;

    fn of(annotation: (&str, &str)) -> Result<Settings, Error> {
        let (key, value) = annotation;
        let annotations = BTreeMap::from([(format!("sidecar.mesh/{key}"), value.to_owned())]);
        let agent = Settings {
            inbound: Some(Mode::Permissive),
            outbound: Some(Mode::Strict),
            ..Settings::default()
        };
        of_pod(&annotations, &agent)
    }

    #[test]
    fn a_pod_has_its_own_settings_over_the_agents() {
        let settings = of(("inbound", "strict")).expect("a setting of pods");
        assert_eq!(settings.inbound, Some(Mode::Strict));
        assert_eq!(settings.outbound, Some(Mode::Strict));
    }

    #[test]
    fn what_is_the_nodes_is_refused_by_name() {
        for (key, value) in [
            ("cgroup", "/sys/fs/cgroup"),
            ("netns", "/proc/1/ns/net"),
            ("bpffs", "/tmp"),
            ("admin", "0.0.0.0:80"),
            ("log", "trace"),
            ("access-log-file", "/etc/passwd"),
            ("certificate", "/etc/shadow"),
            ("key", "/etc/shadow"),
            ("identity", "spiffe://sidecar.local/ns/default/sa/other"),
            ("dev-ca", "/tmp"),
            ("workload-api", "unix:/tmp/socket"),
            ("traces", "http://192.0.2.1:4317"),
            ("workers", "64"),
        ] {
            let error = of((key, value)).expect_err(key).to_string();
            assert!(
                error.contains(&format!("sidecar.mesh/{key} is a setting of the node")),
                "{error}"
            );
        }
    }

    #[test]
    fn every_setting_of_pods_is_one() {
        let all = Settings::default();
        // A value that no setting has tells that the key is known.
        for key in OF_PODS {
            let annotations = BTreeMap::from([(format!("sidecar.mesh/{key}"), "\u{0}".to_owned())]);
            let refused = of_pod(&annotations, &all)
                .expect_err("no value")
                .to_string();
            assert!(
                !refused.contains("there is no such setting"),
                "{key}: {refused}"
            );
        }
    }
}
